"""Flow: what is alive after each node of a graph, which weights each side needs, and where no cut is possible."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from splitsem.splitting.captured import Affine, Captured, Size, Traced, op_name, storage_roots, traced, written
from splitsem.splitting.contexts import attribute
from splitsem.splitting.example import Example
from splitsem.splitting.half import OpCost
from splitsem.splitting.layout import Strides

CROSSING = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32,
                      torch.int64, torch.uint8, torch.bool})  # fmt: skip
"""The types of tensors that codecs take."""


class Flow:
    """The order of computation of a captured graph, seen as a chain of possible cuts.

    Nodes are of two kinds. *Data* nodes depend on the values of the input: cut ``k`` lies after ``data[k]`` and what is
    alive there must cross. *Free* nodes are weights, shape integers and whatever is computed from these alone: they
    never cross, each side makes those it uses for itself (the batch size is read off a crossing tensor).

    Args:
        captured: a model; see ``capture``.
        training: whether it was captured in train mode, for halves that learn as the model does.

    Attributes:
        inputs: what the head takes, tensors or not, in order.
        data: the data nodes in order; the first ones are the input's tensors.
        first: the cut after the last of the input's tensors.
        live: for each cut, the nodes whose values cross, in the order in which they are made.
        refused: for each cut, why it cannot be offered; None where it can.
        results: the leaves of the model's output: nodes, or what is no tensor.
        ops: the cost of every operation that computes anything, in order.
        op_ends: for each cut, how many of ``ops`` belong to the head.
    """

    def __init__(self, captured: Captured, training: bool = False) -> None:
        self.captured, self.module, self.training = captured, captured.module, training
        nodes = list(self.module.graph.nodes)
        self._roots = storage_roots(self.module.graph)
        writes = [(node, self._roots[target]) for node in nodes for target in written(node)]
        self.inputs = [node for node in nodes if node.op == "placeholder"]
        tensors = [node for node in self.inputs if isinstance(traced(node), Traced)]
        self.results: tuple[Any, ...] = self.module.graph.output_node().args[0]  # type: ignore[assignment]

        self.free = self._free_nodes(nodes, {root for _, root in writes})
        made = [n for n in nodes if n.op == "call_function" and n not in self.free]
        self.data, self.first = [*tensors, *made], len(tensors) - 1
        self.at = {node: k for k, node in enumerate(self.data)}
        self._writes = [(self.at[node], root) for node, root in writes]
        self._spans = self._free_spans(nodes)
        self.live = self._live_sets()
        self._needs_batch_until = max(
            (last for node, (_, last) in self._spans.items() if (self.line_of(node) or (0, 0))[0]), default=-1
        )
        self.refused = [self._refusal(k) for k in range(len(self.data))]
        self.ops, self.op_ends = self._costs()

    @property
    def flaw(self) -> str:
        """Why the network cannot be split at all; empty where it can."""
        if not any(result in self.at for result in self.results if isinstance(result, fx.Node)):
            return "its output does not depend on its input"
        ends = (self.first, "at its input"), (len(self.data) - 1, "at its output")
        return next((f"{end}, {self.refused[k]}" for k, end in ends if self.refused[k]), "")

    def _free_nodes(self, nodes: list[fx.Node], written_roots: set[fx.Node]) -> set[fx.Node]:
        free: set[fx.Node] = set()
        for node in nodes:
            if node.op == "get_attr":
                free.add(node)
            elif node.op == "call_function":
                known = all(n in free for n in node.all_input_nodes)
                if isinstance(traced(node), Size):
                    known = known or self.line_of(node) is not None
                elif not _repeatable(node) or written(node) or self._roots[node] in written_roots:
                    known = False
                if known:
                    free.add(node)
        return free

    def _free_spans(self, nodes: list[fx.Node]) -> dict[fx.Node, tuple[int, int]]:
        """For each free node the first and last data node that needs it, directly or through other free nodes."""
        spans: dict[fx.Node, tuple[int, int]] = {}
        for node in reversed(nodes):
            if node not in self.free:
                continue
            uses = [(self.at[u], self.at[u]) for u in node.users if u in self.at]
            uses += [(len(self.data),) * 2] if node in self.results else []
            # a size that is an affine function of the batch is made from the batch, not from its arguments
            uses += [spans[u] for u in node.users if u in spans and self.line_of(u) is None]
            if uses:
                spans[node] = min(first for first, _ in uses), max(last for _, last in uses)
        return spans

    def line_of(self, node: fx.Node) -> Affine | None:
        """``(a, b)`` of a size that is made from the batch size alone, as ``a·batch + b``; None of any other node."""
        value = traced(node)
        return value.line if isinstance(value, Size) else None

    def is_weight(self, node: fx.Node) -> bool:
        """Whether the node is a parameter, or a tensor that is computed from weights alone."""
        if node.op == "get_attr":
            return isinstance(attribute(self.module, str(node.target)), nn.Parameter)
        return node in self.free and isinstance(traced(node), Traced)

    def _live_sets(self) -> list[tuple[fx.Node, ...]]:
        """One pass: a value is alive from where it is made to its last use."""
        end, results = len(self.data), {node for node in self.results if isinstance(node, fx.Node)}
        dying: list[list[fx.Node]] = [[] for _ in range(end + 1)]
        alive: dict[fx.Node, None] = {}
        live = []
        for k, node in enumerate(self.data):
            last = max((self.at[user] for user in node.users if user in self.at), default=k)
            if node in results:
                last = end
            if last > k:
                alive[node] = None
                dying[last].append(node)
            for dead in dying[k]:
                del alive[dead]
            live.append(tuple(alive))
        return live

    def _refusal(self, k: int) -> str | None:
        for node in self.live[k]:
            if why := self.uncodable(node):
                return why
        if k < self._needs_batch_until and self.batch_source(self.live[k]) is None:
            return "the tail needs the batch size and no crossing tensor tells it"
        roots = [self._roots[node] for node in self.live[k]]
        if any(at > k and roots.count(root) > 1 for at, root in self._writes):
            return "tensors that share memory cross and one is written to afterwards"
        return None

    def batch_source(self, nodes: Sequence[fx.Node]) -> tuple[fx.Node, int, int, int] | None:
        """One of these tensors, its dimension, and (a, b): that dimension is ``a·batch + b``; None: none tells it."""
        for node in nodes:
            value = traced(node)
            for dim, size in enumerate(value.sizes if isinstance(value, Traced) else ()):
                if size.line is not None and size.line[0] > 0:
                    return node, dim, *size.line
        return None

    def written_after(self, node: fx.Node, k: int, end: int) -> bool:
        """Whether what follows cut ``k``, up to ``data[end]``, writes into the memory of ``node``."""
        return any(k < at <= end and root is self._roots[node] for at, root in self._writes)

    def written_places(self) -> list[list[int]]:
        """For each memory that is written to, the places in ``data`` that make, write or read it, in order."""
        found = []
        for root in dict.fromkeys(root for _, root in self._writes):
            sharing = [node for node in self.data if self._roots[node] is root]
            readers = {user for node in sharing for user in node.users if user in self.at}
            found.append(sorted({self.at[node] for node in (*sharing, *readers)}))
        return found

    def uncodable(self, node: fx.Node) -> str | None:
        """Why no codec takes what this node makes; None where one does."""
        value = traced(node)
        if isinstance(value, list):
            return "a tuple crosses"
        if not isinstance(value, Traced):
            return "a number that depends on the data crosses"
        if (shape := value.shape) is None:
            return "a tensor whose size depends on the data crosses"
        if value.dtype not in CROSSING or value.layout is not torch.strided:
            kind = value.dtype if value.dtype not in CROSSING else value.layout
            return f"a tensor of {kind} crosses, which no codec takes; make it real numbers, integers or bool"
        return f"an empty tensor of {shape} crosses, which no codec takes" if 0 in shape else None

    def _costs(self) -> tuple[tuple[OpCost, ...], list[int]]:
        """All costs in order; a free node counts where it is needed first."""
        made_for: dict[int, list[fx.Node]] = {}
        for node in reversed(self._spans):
            made_for.setdefault(self._spans[node][0], []).append(node)
        ops: list[OpCost] = []
        ends = []
        for k, node in enumerate(self.data):
            todo = [n for n in (*made_for.get(k, ()), node) if n.op == "call_function"]
            ops += [cost for cost in (n.meta["cost"] for n in todo) if cost.flops or cost.bytes]
            ends.append(len(ops))
        return tuple(ops), ends

    def weight_bytes(self) -> tuple[list[int], list[int]]:
        """For each cut, the bytes of the weights that only the head needs, and of those that only the tail needs."""
        spans: dict[int, tuple[int, int]] = {}
        sizes: dict[int, int] = {}
        for node, (first, last) in self._spans.items():
            weight = attribute(self.module, str(node.target)) if node.op == "get_attr" else None
            if isinstance(weight, Tensor):
                before = spans.get(id(weight), (first, last))
                spans[id(weight)] = min(first, before[0]), max(last, before[1])
                sizes[id(weight)] = weight.numel() * weight.element_size()
        head, tail = [0] * (len(self.data) + 1), [0] * (len(self.data) + 1)
        for key, (first, last) in spans.items():
            head[last] += sizes[key]
            tail[first] += sizes[key]
        return list(accumulate(head))[:-1], list(accumulate(reversed(tail)))[::-1][1:]


class Proven(NamedTuple):
    """The graph of a model that was compared with the model.

    Attributes:
        flow: the graph.
        one: inputs for one sample, or for the fixed batch.
        strides: shape and strides of each tensor that the graph makes of these.
    """

    flow: Flow
    one: Example
    strides: Mapping[fx.Node, Strides]


def _repeatable(node: fx.Node) -> bool:
    """Whether making the value twice gives the same value."""
    return torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()) and op_name(node) != "empty"
