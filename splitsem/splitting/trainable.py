"""TrainableCut: a cut whose halves can be trained apart, in train mode for steps and in eval mode for scores."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from splitsem.errors import ConfigError, SplitPointError
from splitsem.splitting.contexts import ends_gradient, operation
from splitsem.splitting.cut import Cut
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.graph import SplitGraph

_KEEPS_STATISTICS = {torch.ops.aten.batch_norm.default, torch.ops.aten.instance_norm.default}


class TrainableHalf:
    """One half of a network in both modes, over the same weights.

    A graph is captured for one mode, because batch normalisation and dropout compute differently in train and eval
    mode. So a half that is trained has two graphs, which share their tensors: a step changes the next evaluation.

    Args:
        train: computes as in train mode; updates running statistics.
        evaluate: computes as in eval mode.
        taught: which of the outputs get a gradient; None: all.
    """

    def __init__(self, train: nn.Module, evaluate: nn.Module, taught: frozenset[int] | None = None) -> None:
        self.train, self.evaluate, self.taught = train, evaluate, taught

    def parameters(self) -> list[nn.Parameter]:
        """What an optimiser changes: the weights that ask for a gradient and get one."""
        reached = {str(node.target) for node in self._reached() if node.op == "get_attr"}
        return [
            p for name, p in self.train.named_parameters(remove_duplicate=False) if p.requires_grad and name in reached
        ]

    def taught_inputs(self) -> frozenset[int]:
        """Which of the inputs the gradient comes to."""
        inputs = [node for node in _nodes(self.train) if node.op == "placeholder"]
        return frozenset(inputs.index(node) for node in self._reached() if node.op == "placeholder")

    def _reached(self) -> set[fx.Node]:
        """The nodes that a gradient of the outputs can come to; it ends where the network detaches."""
        result: Any = _nodes(self.train)[-1].args[0]
        outputs: list[fx.Node] = list(result) if isinstance(result, list | tuple) else [result]
        todo = [node for i, node in enumerate(outputs) if self.taught is None or i in self.taught]
        reached: set[fx.Node] = set()
        while todo:
            node = todo.pop()
            if node not in reached:
                reached.add(node)
                todo += [] if ends_gradient(node) else node.all_input_nodes
        return reached

    def state(self) -> dict[str, Tensor]:
        """Weights and statistics under the model's own names; the half's own tensors, not copies."""
        return {**self.evaluate.state_dict(), **self.train.state_dict()}

    @property
    def draws(self) -> bool:
        """Whether a training step draws random numbers."""
        return any(torch.Tag.nondeterministic_seeded in getattr(operation(n), "tags", ()) for n in _nodes(self.train))


class TrainableCut:
    """Head and tail of a network at one point, to be trained apart.

    Args:
        graph: the network as captured for evaluation.
        training: the same network (the same object) captured with ``training=True`` and granularity ``op``.
        point: name of the split point.

    Attributes:
        evaluation: the cut as it is scored and served.
        steps: the cut as it is trained; what crosses may differ (eval mode has no dropout mask, say).
        point: the split point of that.
        head, tail: the halves; they share the model's weights.

    Raises:
        SplitPointError: there is no such point, or the two sides cannot be trained apart there.
        ConfigError: the network takes or returns a structure; one tensor of each is what the two ends exchange.
    """

    def __init__(self, graph: CutGraph, training: SplitGraph, point: str) -> None:
        self.evaluation: Cut = graph.cut(point)
        ends = (*self.evaluation.example, graph.sample)
        if len(ends) != 2 or not all(isinstance(end, Tensor) for end in ends):
            raise ConfigError(
                "split training is for networks of one input and one output; this one takes or returns a structure of "
                "tensors: train it as a whole (workflow=train), and give the weights of that"
            )
        self.steps = cut = training.cut(point)
        self.point = cut.point
        self.tail = TrainableHalf(cut.tail, self.evaluation.tail)
        self.head = TrainableHalf(cut.head, self.evaluation.head, self.tail.taught_inputs())
        if not (cut.point.is_batched and self.evaluation.point.is_batched):
            raise SplitPointError(
                f"split point {point!r} cannot be trained: not everything that crosses has the batch in dimension 0"
            )
        of_head, of_tail = _changing(self.head), _changing(self.tail)
        if shared := of_head.keys() & of_tail.keys():
            name = min(of_head[key] for key in shared)
            raise SplitPointError(
                f"split point {point!r} cannot be trained: both sides would change {name}; take a point before its "
                "first or after its last use"
            )

    @property
    def head_learns(self) -> bool:
        """Whether the head has anything to train, so that gradients must come back."""
        return bool(self.head.parameters())


def _changing(half: TrainableHalf) -> dict[int, str]:
    """Names, by identity, of the tensors that a training step changes: parameters, statistics, counters."""
    names = {id(p): name for name, p in half.train.named_parameters()}
    parameters = {id(p): names[id(p)] for p in half.parameters()}
    buffers = dict(half.train.named_buffers())
    written: dict[int, str] = {}
    for node in _nodes(half.train):
        schema = getattr(operation(node), "_schema", None)
        if operation(node) in _KEEPS_STATISTICS or (schema is not None and schema.is_mutable):
            read = [str(n.target) for n in node.all_input_nodes if n.op == "get_attr"]
            written |= {id(buffers[name]): name for name in read if name in buffers}
    return parameters | written


def _nodes(half: nn.Module) -> list[fx.Node]:
    assert isinstance(half, fx.GraphModule)
    return list(half.graph.nodes)
