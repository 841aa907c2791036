"""faithful: a captured graph is compared with the network itself, on real batches and bit for bit.

torch.export sees one batch size and one mode. It drops its guards on the batch size, and what a network asks of torch
(``is_grad_enabled``, ``is_compiling``) it answers for the trace alone.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from splitsem.errors import ConfigError
from splitsem.network import reason
from splitsem.splitting.capture import capture
from splitsem.splitting.example import Example, home_of
from splitsem.splitting.flow import Flow, Proven
from splitsem.splitting.layout import Strides, Trial
from splitsem.splitting.nested import contexts_as_marks
from splitsem.splitting.untouched import untouched
from splitsem.trees import by_path, mapped

log = logging.getLogger(__name__)

_SEED = 20_477  # of all runs; none that a network would set itself
_MOST_FLOPS = 50e9  # of a batch that is only compared
_MOST_FLOPS_WITH_GRADIENTS = 1e9
_ROUNDING = 1e-4  # relative to the largest value: what sums in any order may differ by

Difference = tuple[str, float]  # in words, and relative to the largest value


def faithful_flow(model: nn.Module, example: Example, training: bool = False) -> Proven:
    """The graph of a model that computes what the model does; its batch size is fixed where it must be.

    In train mode nothing is compared: a step draws random numbers and changes statistics.

    Raises:
        ConfigError: the model cannot be captured, no graph of it computes what it does, or it cannot be cut at an end.
    """
    why_fixed = ""
    while True:
        flow = Flow(capture(model, example, training, why_fixed), training)
        is_free = flow.captured.is_batch_free
        trials = _Trials(model, flow, example, example.with_batch(1) if is_free else example)
        flaw = flow.flaw
        why = "" if flaw or training else trials.difference()
        if flaw or (why and not is_free):
            raise ConfigError(f"{type(model).__name__} cannot be split: {flaw or why + _remedy(flow)}")
        if not why:
            break
        why_fixed = f"a graph for any batch size is not exact: {why}"
    return Proven(flow, trials.one, trials.strides)


class _Trials:
    """Runs of a network in eval mode and of its graph on the same inputs.

    Args:
        model: the network.
        flow: its graph.
        example: its inputs.
        one: the same for one sample, or for the fixed batch.

    Attributes:
        strides: of what the graph made of ``one``; empty before.
    """

    def __init__(self, model: nn.Module, flow: Flow, example: Example, one: Example) -> None:
        self._model, self._flow, self._example, self.one = model, flow, example, one
        self._device = home_of(model)[0]
        self.strides: Mapping[fx.Node, Strides] = {}

    def difference(self) -> str:
        """What the graph gives another output for than the network does, and by how much; empty where it is exact.

        Raises:
            ConfigError: the network does not agree with itself.
        """
        flops = sum(op.flops for op in self._flow.ops)
        why = self._compared(self.one, grad=False, may_fail=self.one.batch < self._example.batch)
        if not why and flops * self.one.batch <= _MOST_FLOPS_WITH_GRADIENTS:
            why = self._compared(self.one, grad=True, may_fail=True)
        for batch in self._flow.captured.to_try if self._flow.captured.is_batch_free else ():
            if not why and batch * flops <= _MOST_FLOPS:
                why = self._compared(self._example.varied(batch), grad=False)
        return why

    def _compared(self, inputs: Example, grad: bool, may_fail: bool = False) -> str:
        trial, flaw, y, z = Trial(self._flow.module), "", None, None
        case = f"for {_count(inputs.batch)}{' with gradients' if grad else ''}"
        try:
            y = self._runs(self._network, inputs, grad)[0]
        except Exception as exc:  # noqa: BLE001 (a model may raise anything)
            flaw = f"{case} it raises {reason(exc)}"
        try:
            z = self._runs(lambda own: self._graph(trial, own), inputs, grad)[0]
        except Exception as exc:  # noqa: BLE001 (an operation may raise anything)
            flaw = flaw or f"{case} its graph raises {reason(exc)}, and the network does not"
            may_fail = may_fail and y is None
        if inputs is self.one and not grad:
            self.strides = trial.found
        if flaw:
            return "" if may_fail else flaw
        found = _difference(y, z)
        if found is None:
            return ""
        own = _difference(*self._runs(self._network, inputs, grad, times=2))
        if own is not None and max(own[1], found[1]) <= _ROUNDING:
            log.warning(
                "%s: its halves are not exact, and neither is the network: %s in two runs of it %s",
                type(self._model).__name__, own[0], case,
            )  # fmt: skip
            return ""
        if own is not None:
            raise ConfigError(
                f"{type(self._model).__name__} cannot be split: {own[0]} in two runs of it on the same input in eval "
                "mode; it draws random numbers that torch.manual_seed does not reach, or keeps something between calls"
            )
        return f"{case} {found[0]} between the network and its graph"

    def _network(self, inputs: Example) -> Any:
        return self._model(*inputs.args, **inputs.named)

    def _graph(self, trial: Trial, inputs: Example) -> Any:
        """What the graph returns, in the network's structure."""
        captured = self._flow.captured
        made = trial.run(*pytree.tree_leaves(inputs.in_order(captured.takes)))
        return made[0] if captured.returns is None else pytree.tree_unflatten(list(made), captured.returns)

    def _runs(self, network: Callable[[Example], Any], inputs: Example, grad: bool, times: int = 1) -> list[Any]:
        """The outputs of several runs from the same seed; each gets its own tensors, which it may write to."""
        outputs = []
        with untouched(self._model), _conditions(self._device, grad):
            for _ in range(times):
                _seed(self._device)
                outputs.append(mapped(Tensor.detach, network(inputs.copied())))
        return outputs


@contextmanager
def _conditions(device: torch.device, grad: bool) -> Iterator[None]:
    """Eager, quiet, and without a trace in torch's generators."""
    with (
        torch.set_grad_enabled(grad),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.compiler.set_stance("force_eager"),
        contexts_as_marks(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # which the user's own calls tell
        yield


def _seed(device: torch.device) -> None:
    """Seed what a run may draw from; ``torch.manual_seed`` would also seed devices that are not put back."""
    torch.random.default_generator.manual_seed(_SEED)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(_SEED)


def _difference(y: Any, z: Any) -> Difference | None:
    """Where two outputs differ, and by how much."""
    ours, theirs = by_path(y), by_path(z)
    if ours.keys() != theirs.keys():
        return f"the output has other parts ({', '.join(ours)} and {', '.join(theirs)})", inf
    for path, tensor in ours.items():
        what, other = f"output {path}" if path else "the output", theirs[path]
        if (tensor.shape, tensor.dtype) != (other.shape, other.dtype):
            return f"{what} is once {_kind(tensor)} and once {_kind(other)},", inf
        is_same = (tensor == other) | ((tensor != tensor) & (other != other))  # NaN is NaN
        if not is_same.all():
            gap = (tensor.double() - other.double()).abs().nan_to_num(nan=inf)[~is_same].max().item()
            largest = tensor.double().abs().nan_to_num(nan=0.0, posinf=0.0).max().item()
            return (
                f"{what} differs by up to {gap:.3g} (its values go up to {largest:.3g})",
                gap / largest if largest else inf,
            )
    return None


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _count(batch: int) -> str:
    return "one sample" if batch == 1 else f"{batch} samples"


def _remedy(flow: Flow) -> str:
    """What a network may do that no graph can."""
    if any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in flow.data):
        return "; it draws random numbers: it must draw them from torch's own generator, and not set its seed"
    return (
        "; what it computes must not depend on whether it is traced or compiled or gradients are on, on what a trace "
        "raises, or on what torch.export does not see"
    )
