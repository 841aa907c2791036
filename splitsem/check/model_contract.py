"""check_model: what every model promises; it is run, cut at each of its points, and the halves are compared with it."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from splitsem.check.promises import Promises, expect
from splitsem.errors import ConfigError
from splitsem.models.capabilities import Deployable
from splitsem.network import HasPostprocess, check_input, return_one_tensor
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.example import Example
from splitsem.splitting.onnx_graph import graph_of
from splitsem.trees import arguments, call, is_same, joined, leaves, mapped, num_samples, rows

_SLACK = 1e-4
_BATCHES = (1, 3)


def check_model(
    model: nn.Module | Callable[[], nn.Module], example: Any, output_shape: Sequence[int] | None = None
) -> tuple[str, ...]:
    """Try every promise of a model.

    Args:
        model: a network, or what makes one. It is put in eval mode; a Deployable one is cut in its deployed form.
        example: shape of one sample, without the batch; or one sample as a batch of one, as ``Task.example`` gives it.
        output_shape: shape of the output for one sample; None or empty takes any, structures of tensors too.

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
        inputs = _inputs(example)
        shape = tuple(output_shape or ())
        takes = "forward takes the input and returns one tensor" if shape else "forward takes the input"
        promises.hold_once(takes, partial(_settle, (made, other), inputs, returns_one=bool(shape)))
        gives = "a finite tensor (batch, *output_shape)" if shape else "finite tensors, the batch in dimension 0"
        fit = promises.hold(f"forward gives {gives}", partial(_fits, made, shape), inputs)
        promises.hold("forward leaves its input as it is", partial(_leaves, made), fit)
        promises.hold("the same input gives the same output in eval mode", partial(_repeats, made), fit)
        if fit.keys() == inputs.keys():
            _check_parts(promises, made, inputs)
            promises.hold_once("state_dict holds all that determines the output", partial(_loads, made, other, inputs))
            _check_cuts(promises, made, inputs)
    return promises.finish()


def _inputs(example: Any) -> dict[str, Any]:
    """Batches of several samples: any floating-point values, and an example's whole numbers in turned order."""
    draw = torch.Generator().manual_seed(0)
    if isinstance(example, list | tuple) and all(isinstance(size, int) for size in example):
        example = torch.rand(1, *example, generator=draw)

    def other(tensor: Tensor, number: int) -> Tensor:
        if tensor.is_floating_point():
            return torch.rand(tensor.shape, generator=draw, dtype=tensor.dtype)
        return tensor.roll(number, -1) if tensor.dim() > 1 else tensor

    def sample(number: int) -> Any:
        return mapped(lambda tensor: other(tensor, number), example)

    return {f"a batch of {batch}": joined([sample(number) for number in range(batch)]) for batch in _BATCHES}


def _check_parts(promises: Promises, model: nn.Module, inputs: dict[str, Any]) -> None:
    """That samples do not meet; of two parts, in each of them: scores that nearly tie may change their order."""
    if not isinstance(model, HasPostprocess):
        promises.hold_once(
            "a sample's output does not depend on its batch", partial(_is_batch_free, partial(call, model), inputs)
        )
        return
    promises.hold("in eval mode, forward is network, then postprocess", partial(_is_two_parts, model), inputs)
    promises.hold_once("in train mode, forward is network alone", partial(_trains, model, inputs))
    promises.hold_once(
        "what network makes of a sample does not depend on its batch",
        partial(_is_batch_free, partial(call, model.network), inputs),
    )
    between = {"a batch of 3": call(model.network, _copied(inputs["a batch of 3"]))}
    promises.hold_once(
        "what postprocess makes of a sample does not depend on its batch",
        partial(_is_batch_free, model.postprocess, between),
    )


def _check_cuts(promises: Promises, model: nn.Module, inputs: dict[str, Any]) -> None:
    graphs: list[tuple[nn.Module, CutGraph]] = []

    def capture() -> None:
        whole = model.deployed().eval() if isinstance(model, Deployable) else model
        args, named = arguments(inputs["a batch of 1"])
        graphs.append((whole, graph_of(whole, Example(tuple(args), named))))

    if promises.hold_once("it can be captured as a graph of operations, and cut", capture):
        ((whole, graph),) = graphs
        tried = inputs if graph.is_batch_free else {"a batch of 1": inputs["a batch of 1"]}
        cases = {f"{what} at {point.name}": (point.name, x) for point in graph.points for what, x in tried.items()}
        promises.hold(
            "head and tail give the model's output, bit for bit, at every split point",
            partial(_is_exact, whole, graph),
            cases,
        )


def _copied(x: Any) -> Any:
    return mapped(torch.clone, x)


def _settle(models: Sequence[nn.Module], inputs: dict[str, Any], returns_one: bool) -> None:
    """Let the models return their main tensor alone, as a workflow does where the task takes one."""
    x = inputs["a batch of 3"]
    for model in models:
        name = type(model).__name__
        if isinstance(x, Tensor):
            check_input(model, name)
        if not returns_one or isinstance(model, HasPostprocess):
            continue
        try:
            return_one_tensor(model, name, x)
        except ConfigError:
            raise
        except Exception:  # noqa: BLE001 (a forward that fails breaks the next promise, which tells it)
            return


def _fits(model: nn.Module, output_shape: tuple[int, ...], x: Any) -> None:
    y, batch = call(model, _copied(x)), num_samples(x)
    if output_shape:
        expect(isinstance(y, Tensor), f"got {type(y).__name__}")
        expect(tuple(y.shape[1:]) == output_shape, f"got {tuple(y.shape)}, output_shape is {output_shape}")
    expect(leaves(y), f"got {type(y).__name__} without a tensor")
    for part in leaves(y):
        expect(part.dim() and len(part) == batch, f"got {tuple(part.shape)}")
        expect(part.isfinite().all(), "got NaN or infinity")


def _leaves(model: nn.Module, x: Any) -> None:
    given = _copied(x)
    call(model, given)
    expect(is_same(given, x), "it is changed: clone it before an in-place operation")


def _repeats(model: nn.Module, x: Any) -> None:
    expect(is_same(call(model, _copied(x)), call(model, _copied(x))), "two calls differ")


def _is_two_parts(model: HasPostprocess, x: Any) -> None:
    found = call(model, _copied(x))  # type: ignore[arg-type]
    expect(is_same(found, model.postprocess(call(model.network, _copied(x)))), "it gives another output")


def _trains(model: nn.Module, inputs: dict[str, Any]) -> None:
    made = []
    for part in ("", "network"):
        trial = copy.deepcopy(model).train().requires_grad_(False)
        torch.manual_seed(0)
        try:
            made.append(call(trial.get_submodule(part), _copied(inputs["a batch of 3"])))
        except ConfigError:  # it says that it cannot be trained
            return
    expect(is_same(*made), "it gives another output")


def _is_batch_free(network: Callable[[Any], Any], inputs: dict[str, Any]) -> None:
    x = inputs["a batch of 3"]
    together, alone = (leaves(network(_copied(given))) for given in (x, rows(x)[0]))
    for whole, one in zip(together, alone, strict=True):
        worst = float((whole[:1].double() - one.double()).abs().max()) if one.numel() else 0.0
        slack = _SLACK * max(1.0, float(one.abs().max())) if one.numel() else 0.0
        expect(worst <= slack, f"alone and in a batch of 3 it differs by {worst:.3g}, allowed is {slack:.3g}")


def _loads(model: nn.Module, other: nn.Module, inputs: dict[str, Any]) -> None:
    other.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()})
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    x = inputs["a batch of 3"]
    same = is_same(call(other, _copied(x)), call(model, _copied(x)))
    expect(same, "a second model that loaded it gives another output: register parameters, buffers and modules")


def _is_exact(model: nn.Module, graph: CutGraph, case: tuple[str, Any]) -> None:
    point, x = case
    cut = graph.cut(point)
    y, y_split = call(model, _copied(x)), cut.tail(*call(cut.head, _copied(x)))
    pairs = zip(leaves(y), leaves(y_split), strict=True)
    worst = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
    expect(is_same(y, y_split), f"they differ by up to {worst:.3g}")
