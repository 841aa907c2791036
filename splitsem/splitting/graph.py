"""SplitGraph: any model as a graph of operations that can be cut in two."""

import hashlib
import logging
from collections.abc import Collection
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import fx, nn

from splitsem.errors import SplitPointError
from splitsem.files import read_or_make
from splitsem.network import HasPostprocess, without_wrappers
from splitsem.splitting.anywhere import Part, needs_of, reordered
from splitsem.splitting.captured import Traced, traced
from splitsem.splitting.contexts import context_of
from splitsem.splitting.cut import Cut, Followed, InTuple, Spread, build_head, build_segment, build_tail
from splitsem.splitting.cut_graph import CutGraph, Granularity, hook_bytes
from splitsem.splitting.example import Example, home_of
from splitsem.splitting.flow import Flow, Proven
from splitsem.splitting.layout import Layout
from splitsem.splitting.point import (
    Candidate,
    HasUnits,
    SplitPoint,
    TensorSpec,
    is_heavy,
    layer_cuts,
    modules_ending,
    node_names,
    unit_cuts,
)

if TYPE_CHECKING:
    from splitsem.splitting.postprocess import Postprocess


log = logging.getLogger(__name__)


class SplitGraph(CutGraph):
    """The split points of a model, and its head and tail at each of them.

    The model is put in eval mode and stays there, and is otherwise left as it was; move it to its placement first. Its
    weights are shared with every head and tail, never copied: training a head or a tail trains the model. A model with
    ``nn.MultiheadAttention`` switches torch's fused attention path off for the process (``torch.backends.mha``), so
    that the whole model and its halves stay equal bit for bit.

    Args:
        model: takes and returns any structures of tensors. Of DataParallel and torch.compile, the model inside is cut;
            of a ``network.HasPostprocess``, its ``network``: the postprocess runs where the network ends.
        example: inputs by position: tensors with the batch in dimension 0, and structures of them; or one tuple of
            sizes, which stands for one floating-point tensor of this shape, without the batch; or one ``Example``, for
            inputs that are called ``granularity``, ``training`` or ``keep``.
        granularity: ``"layer"`` offers a point for each layer (``point.layer_cuts``), or for each unit where the model
            names its units (``unit_names``); ``"op"`` offers a point after every operation.
        training: whether the halves compute as in train mode (see ``trainable``); the model itself stays in eval mode.
        keep: a file that holds the captured graph of this very model for later processes, which then neither export nor
            compare it; made where there is none. None: nothing is kept.
        named: inputs by name.

    Attributes: see ``CutGraph``.

    Raises:
        ConfigError: the model cannot run on the example, cannot be captured, or its graph does not compute what the
            model does, bit for bit: both run on a few batches made from the example.
    """

    def __init__(
        self,
        model: nn.Module,
        /,
        *example: Any,
        granularity: Granularity = "layer",
        training: bool = False,
        keep: Path | None = None,
        **named: Any,
    ) -> None:
        if granularity not in get_args(Granularity):
            raise ValueError(f"granularity must be 'layer' or 'op', got {_in_words(granularity)}")
        if not isinstance(training, bool):
            raise ValueError(f"training must be True or False, got {_in_words(training)}")
        model = without_wrappers(model)
        given = example[0] if len(example) == 1 and isinstance(example[0], Example) else Example(example, named)
        inputs = Example.of(model, given.args, {**given.named, **named})
        postprocess = model.postprocess if isinstance(model, HasPostprocess) and not training else None
        network = model.network if isinstance(model, HasPostprocess) else model
        model.eval()
        self.model, self.granularity = model, granularity
        if any(isinstance(module, nn.MultiheadAttention) for module in network.modules()):
            # its fused kernel runs only in the whole model and without gradients, and rounds differently from the graph
            torch.backends.mha.set_fastpath_enabled(False)
        flow, one, self._strides_of_one = _proven(network, inputs, training, keep)
        captured = flow.captured
        if not captured.is_batch_free:
            count = "one sample" if inputs.batch == 1 else f"{inputs.batch} samples"
            log.warning("%s: its cuts take %s at a time, since %s", type(network).__name__, count, captured.why_fixed)
        self._example = one.in_order(captured.takes)
        self.is_batch_free, self.device = captured.is_batch_free, home_of(network)[0]
        self._postprocess = None if postprocess is None else _counted(postprocess, captured.sample)
        self.sample = captured.sample if self._postprocess is None else self._postprocess.sample
        self._arrange(flow, granularity, network.unit_names if isinstance(network, HasUnits) else None)

    def cut(self, point: SplitPoint | str | int) -> Cut:
        """The model's head and tail at a point. Each call builds new halves; the weights stay shared."""
        chosen = self.point(point.name if isinstance(point, SplitPoint) else point)
        k, postprocess = self._cuts[chosen.index].k, None if self._postprocess is None else self._postprocess.module
        facts = self._example, self.fingerprint, self.device, self.model, self.granularity
        if k == len(self._flow.data):  # behind the postprocess
            assert postprocess is not None
            whole = Followed(
                Followed(build_head(self._flow, k - 1), Spread(build_tail(self._flow, k - 1))), postprocess
            )
            return Cut(chosen, Followed(whole, InTuple()), nn.Identity(), None, *facts)
        layouts = tuple(Layout.of(node, self._strides_of_one) for node in self._flow.live[k])
        return Cut(chosen, build_head(self._flow, k), build_tail(self._flow, k), postprocess, *facts, layouts)

    def between(self, start: SplitPoint | str | int, end: SplitPoint | str | int) -> nn.Module:
        """See CutGraph; the weights stay shared."""
        first, last = (self._cuts[point.index].k for point in self.in_order(start, end))
        if last < len(self._flow.data):
            return build_segment(self._flow, first, last)
        return InTuple() if first == last else Followed(self.cut(start).tail, InTuple())  # behind the postprocess

    @property
    def example(self) -> tuple[Any, ...]:
        """Inputs for one sample (or for the fixed batch), in the order of ``network``'s arguments."""
        return self._example

    def network(self) -> fx.GraphModule:
        """All that is captured, as one network that returns what would cross behind it."""
        return build_head(self._flow, len(self._flow.data) - 1)

    def parts(self) -> tuple[Part, ...]:
        """All operations as a partial order, for cuts that are no point of this order; see ``cut_anywhere``.

        A postprocess, which is not captured, is the last part and reads all results.
        """
        flow, end = self._flow, self._postprocess
        results = [node for node in flow.results if isinstance(node, fx.Node)]
        places = frozenset(flow.at[node] for node in results if node in flow.at)
        needs, held = needs_of(flow), [*flow.weight_bytes()[1]]
        parts = []
        for k, node in enumerate(flow.data):
            why = flow.uncodable(node)
            readers = frozenset(flow.at[user] for user in node.users if user in flow.at)
            is_result = k in places and end is None
            if k in places and end is not None:
                readers |= {len(flow.data)}
            costs = flow.ops[flow.op_ends[k - 1] if k else 0 : flow.op_ends[k]]
            sent = 0 if why else self._raw_bytes(node)
            own = held[k - 1] - held[k] if k > flow.first else 0
            parts.append(Part(self._names[k], needs[k], costs, sent, readers, bool(why), is_result, own))
        if end is not None:
            parts.append(Part("output", places, (end.cost,), end.raw_bytes, frozenset(), False, True, end.weight_bytes))
        return tuple(parts)

    def cut_anywhere(self, head: Collection[str]) -> Cut:
        """Head and tail where the head is these operations (of ``parts``), whether they are first in the order or not.

        The cut's point is named ``head of n operations``; several tensors may cross. Both ends of a real link take
        points of the graph's own order only.

        Raises:
            SplitPointError: an operation is not known or needs another one that is not in the head, or what crosses
                there cannot be sent.
        """
        unknown = [name for name in head if name not in self._names]
        if unknown:
            raise SplitPointError(f"the network has no operation {unknown[0]!r}; SplitGraph.operations lists all")
        places = {k for k, name in enumerate(self._names) if name in head} | set(range(self._flow.first + 1))
        flow, copies = reordered(self._flow, places)
        k, other = len(places) - 1, copy(self)
        if flow.refused[k]:
            raise SplitPointError(f"this head cannot be cut off: {flow.refused[k]}")
        other._strides_of_one = {
            copies[node]: strides for node, strides in self._strides_of_one.items() if node in copies
        }
        other._arrange(flow, "op", None)
        at = next(index for index, cut in enumerate(other._cuts) if cut.k == k)
        cut = other.cut(at)
        return replace(cut, point=replace(cut.point, name=f"head of {len(places) - flow.first - 1} operations"))

    def tail_with_layers(self, point: SplitPoint | str | int) -> nn.Module:
        """The network's tail at a point, returning ``(output, *layers)``.

        The layers are what crosses at each later point with one floating-point tensor.
        """
        chosen = self.point(point.name if isinstance(point, SplitPoint) else point)
        later = [cut.k for cut in self._cuts[chosen.index + 1 :] if cut.k < len(self._flow.data) - 1]
        single = [self._flow.live[k][0] for k in later if len(self._flow.live[k]) == 1]
        layers = [node for node in single if traced(node).dtype.is_floating_point]
        return build_tail(self._flow, self._cuts[chosen.index].k, layers)

    def _arrange(self, flow: Flow, granularity: Granularity, units: tuple[str, ...] | None) -> None:
        """Set what depends on the order of computation."""
        self._flow, end = flow, self._postprocess
        self._names = node_names(flow.data)
        self._names[flow.first] = "input"
        if end is None:
            self._names[-1] = "output"
        self.operations = tuple(self._names[flow.first + 1 :])
        self.refused = {name: why for name, why in zip(self._names, flow.refused, strict=True) if why}
        self.fingerprint = _fingerprint(flow, None if end is None else end.module)
        self._cuts = self._chosen(granularity, units)
        self.points = self._points()

    def _chosen(self, granularity: Granularity, units: tuple[str, ...] | None) -> list[Candidate]:
        flow = self._flow
        ending = modules_ending(flow.data)
        flops = [0.0, *accumulate(op.flops for op in flow.ops)]
        candidates = [
            Candidate(
                k=k,
                raw_bytes=sum(self._raw_bytes(made) for made in flow.live[k]),
                head_flops=flops[flow.op_ends[k]],
                is_batched=all(map(_is_batched, flow.live[k])),
                ends_module=bool(ending[k]),
            )
            for k in range(flow.first, len(flow.data))
            if flow.refused[k] is None
        ]
        if granularity == "layer" and units is not None:
            candidates = unit_cuts(self._names[flow.first :], candidates, units)
        elif granularity == "layer":
            candidates = layer_cuts(list(map(is_heavy, flow.data)), candidates, flops[-1])
        end = self._postprocess
        if end is not None:
            candidates.append(Candidate(len(flow.data), end.raw_bytes, flops[-1] + end.cost.flops, True, True))
        return candidates

    def _points(self) -> tuple[SplitPoint, ...]:
        flow, end = self._flow, self._postprocess
        head_bytes, tail_bytes = flow.weight_bytes()
        ops, op_ends, names = flow.ops, list(flow.op_ends), list(self._names)
        if end is not None:
            ops = (*ops, end.cost)
            op_ends.append(len(ops))
            names.append("output")
            tail_bytes = [*(held + end.weight_bytes for held in tail_bytes), 0]
            head_bytes = [*head_bytes, head_bytes[-1] + end.weight_bytes]
        return tuple(
            SplitPoint(
                name=names[cut.k],
                index=index,
                tensors=self._crossing(cut.k),
                raw_bytes=cut.raw_bytes,
                hook_bytes=hook_bytes,
                head_ops=ops[: op_ends[cut.k]],
                tail_ops=ops[op_ends[cut.k] :],
                head_param_bytes=head_bytes[cut.k],
                tail_param_bytes=tail_bytes[cut.k],
                is_bottleneck=cut.raw_bytes < self._cuts[0].raw_bytes,
                is_batched=cut.is_batched,
            )
            for index, (cut, hook_bytes) in enumerate(zip(self._cuts, self._hook_bytes(), strict=True))
        )

    def _crossing(self, k: int) -> tuple[TensorSpec, ...]:
        if k == len(self._flow.data) and self._postprocess is not None:
            return (self._postprocess.tensor,)
        return tuple(map(self._spec, self._flow.live[k]))

    def _hook_bytes(self) -> list[int]:
        """What a splitter by hooks sends, see ``hook_bytes``; it has no hook behind a postprocess."""
        live = [self._flow.live[cut.k] if cut.k < len(self._flow.data) else () for cut in self._cuts]
        given = {node for nodes in live for node in nodes if node.op == "placeholder"}
        return hook_bytes([cut.raw_bytes for cut in self._cuts], live, given, self._raw_bytes)

    def _spec(self, node: fx.Node) -> TensorSpec:
        value: Traced = traced(node)
        return TensorSpec(value.shape or (), value.dtype)

    def _raw_bytes(self, node: fx.Node) -> int:
        spec = self._spec(node)
        return prod(spec.shape) * (4 if spec.dtype.is_floating_point else spec.dtype.itemsize)


def _counted(postprocess: nn.Module, sample: Any) -> "Postprocess":
    from splitsem.splitting.postprocess import Postprocess  # whose counter most networks do not need

    return Postprocess(postprocess, sample)


def _proven(network: nn.Module, inputs: Example, training: bool, keep: Path | None) -> Proven:
    def captured() -> Proven:
        from splitsem.splitting.faithful import faithful_flow  # torch.export takes seconds to import

        return faithful_flow(network, inputs, training)

    if keep is None or training:
        return captured()
    from splitsem.splitting import kept_graph

    read = partial(kept_graph.read, model=network, example=inputs)
    write = partial(kept_graph.write, model=network)
    return read_or_make([keep], read, captured, lambda made, path: write(made, path=path))[0]


def _in_words(setting: object) -> str:
    """A wrong setting, which may be meant as an input."""
    if isinstance(setting, str | int | float | None):
        return repr(setting)
    return f"a {type(setting).__name__}; an input of this name goes into SplitGraph(model, Example(args, named))"


def _is_batched(node: fx.Node) -> bool:
    sizes = traced(node).sizes
    return bool(sizes) and sizes[0].line == (1, 0)


def _fingerprint(flow: Flow, postprocess: nn.Module | None) -> str:
    """SHA-256 over operations, their arguments and the weights' names, shapes and types; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    number = {node: f"%{i}" for i, node in enumerate(flow.module.graph.nodes)}
    for node in flow.module.graph.nodes:
        args = fx.map_arg(node.args, lambda n: number[n])
        kwargs = fx.map_arg({k: v for k, v in node.kwargs.items() if k != "device"}, lambda n: number[n])
        value = traced(node)
        shape = (value.shape, value.dtype) if isinstance(value, Traced) else ""
        target = node.target if node.op != "placeholder" else ""
        under = context_of(node).autocast or ""
        digest.update(f"{node.op} {target} {args} {kwargs} {shape}{under}\n".encode())
    if flow.captured.returns is not None:
        digest.update(f"returns {flow.captured.returns}\n".encode())
    if postprocess is not None:
        weights = sorted((name, tuple(w.shape), str(w.dtype)) for name, w in postprocess.state_dict().items())
        digest.update(f"postprocess {type(postprocess).__qualname__} {weights}\n".encode())
    return digest.hexdigest()[:16]
