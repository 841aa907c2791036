"""check_model: what every model promises; it is run, cut at each of its points, and the halves are compared with it."""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from splitsem.check.promises import Promises, expect
from splitsem.errors import ConfigError
from splitsem.models.capabilities import Deployable
from splitsem.network import check_input, return_one_tensor
from splitsem.split.graph import SplitGraph

_SLACK = 1e-4
_BATCHES = (1, 3)


def check_model(
    model: nn.Module | Callable[[], nn.Module], input_shape: Sequence[int], output_shape: Sequence[int] | None = None
) -> tuple[str, ...]:
    """Try every promise of a model.

    Args:
        model: a network, or what makes one. It is put in eval mode; a Deployable one is cut in its deployed form.
        input_shape: shape of one sample, without the batch.
        output_shape: shape of the output for one sample; None takes any.

    Returns:
        The promises, each a sentence, all of them kept.

    Raises:
        ContractError: a line for each promise that is broken.
    """
    promises = Promises("a model")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        made, other = promises.twins(model, nn.Module, lambda one: isinstance(model, nn.Module))
        made.eval(), other.eval()
        draw = torch.Generator().manual_seed(0)
        inputs = {f"a batch of {batch}": torch.rand(batch, *input_shape, generator=draw) for batch in _BATCHES}
        shape = None if output_shape is None else tuple(output_shape)
        promises.hold_once("forward takes one tensor and returns one", partial(_settle, (made, other), inputs))
        fit = promises.hold("forward gives a finite tensor (batch, *output_shape)", partial(_fits, made, shape), inputs)
        promises.hold("forward leaves its input as it is", partial(_leaves, made), fit)
        promises.hold("the same input gives the same output in eval mode", partial(_repeats, made), fit)
        if fit.keys() == inputs.keys():
            promises.hold_once("a sample's output does not depend on its batch", partial(_is_batch_free, made, inputs))
            promises.hold_once("state_dict holds all that determines the output", partial(_loads, made, other, inputs))
            _check_cuts(promises, made, tuple(input_shape), inputs)
    return promises.finish()


def _check_cuts(promises: Promises, model: nn.Module, input_shape: tuple[int, ...], inputs: dict[str, Tensor]) -> None:
    graphs: list[tuple[nn.Module, SplitGraph]] = []

    def capture() -> None:
        whole = model.deployed().eval() if isinstance(model, Deployable) else model
        graphs.append((whole, SplitGraph(whole, input_shape)))

    if promises.hold_once("it can be captured as a graph of operations, and cut", capture):
        ((whole, graph),) = graphs
        cases = {f"{what} at {point.name}": (point.name, x) for point in graph.points for what, x in inputs.items()}
        promises.hold(
            "head and tail give the model's output, bit for bit, at every split point",
            partial(_is_exact, whole, graph),
            cases,
        )


def _settle(models: Sequence[nn.Module], inputs: dict[str, Tensor]) -> None:
    """Let the models return their main tensor alone, as a workflow does."""
    for model in models:
        name = type(model).__name__
        check_input(model, name)
        try:
            return_one_tensor(model, name, inputs["a batch of 3"])
        except ConfigError:
            raise
        except Exception:  # noqa: BLE001 (a forward that fails breaks the next promise, which tells it)
            return


def _fits(model: nn.Module, output_shape: tuple[int, ...] | None, x: Tensor) -> None:
    y = model(x.clone())
    expect(isinstance(y, Tensor), f"got {type(y).__name__}")
    expect(y.dim() > 0 and len(y) == len(x), f"got {tuple(y.shape)}")
    if output_shape is not None:
        expect(tuple(y.shape[1:]) == output_shape, f"got {tuple(y.shape)}, output_shape is {output_shape}")
    expect(y.isfinite().all(), "got NaN or infinity")


def _leaves(model: nn.Module, x: Tensor) -> None:
    given = x.clone()
    model(given)
    expect(torch.equal(given, x), "it is changed: clone it before an in-place operation")


def _repeats(model: nn.Module, x: Tensor) -> None:
    expect(torch.equal(model(x.clone()), model(x.clone())), "two calls differ")


def _is_batch_free(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    x = inputs["a batch of 3"]
    together, alone = model(x.clone())[0], model(x[:1].clone())[0]
    worst = float((together - alone).abs().max())
    slack = _SLACK * max(1.0, float(alone.abs().max()))
    expect(worst <= slack, f"alone and in a batch of 3 it differs by {worst:.3g}, allowed is {slack:.3g}")


def _loads(model: nn.Module, other: nn.Module, inputs: dict[str, Tensor]) -> None:
    other.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()})
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    x = inputs["a batch of 3"]
    same = torch.equal(other(x.clone()), model(x.clone()))
    expect(same, "a second model that loaded it gives another output: register parameters, buffers and modules")


def _is_exact(model: nn.Module, graph: SplitGraph, case: tuple[str, Tensor]) -> None:
    point, x = case
    cut = graph.cut(point)
    y, y_split = model(x.clone()), cut.tail(*cut.head(x.clone()))
    expect(torch.equal(y, y_split), f"they differ by up to {float((y - y_split).abs().max()):.3g}")
