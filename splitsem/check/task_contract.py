"""check_task: what every task promises, tried on its samples, its loss and its metrics."""

import copy
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from splitsem import trees
from splitsem.check.promises import Promises, expect
from splitsem.tasks.classification import ClassificationTask
from splitsem.tasks.task import Splits, Task

_NUM_SAMPLES, _NUM_SMALL_SAMPLES = 200, 2000  # of each data set that are compared
_SMALL = 4096  # values of a sample that is cheap to read
_BATCH = 4


def check_task(task: Task | Callable[[], Task]) -> tuple[str, ...]:
    """Try every promise of a task; it loads its data, twice.

    Args:
        task: a task, or what makes one, e.g. its class.

    Returns:
        The promises, each a sentence, all of them kept.

    Raises:
        ContractError: a line for each promise that is broken.
    """
    promises = Promises("a task")
    made, fresh = promises.twins(task, Task, lambda one: False)
    shapes = {name: (name, made) for name in ("input_shape", "output_shape")}
    has_shapes = (
        len(promises.hold("shapes are tuples of whole numbers, each at least 1", _shape, shapes)) == 2
        and promises.hold_once("example is one sample, as a batch of one of input_shape", partial(_one, made))
        and promises.hold_once("trial_outputs are of output_shape, as many as are asked", partial(_trial, made))
    )
    promises.hold_once("input_bytes is a whole number above 0", partial(_input_bytes, made))
    if (
        not promises.hold_once("splits gives three data sets that are not empty", partial(_three, made))
        or not has_shapes
    ):
        return promises.finish()
    if made.is_agreement:
        promises.hold_once("label_by takes a network whose results are the targets", partial(_label, (made, fresh)))
    splits = {name: getattr(made.splits(), name) for name in Splits._fields}
    good = promises.hold("x is finite, and of the shapes and types of example", partial(_samples_fit, made), splits)
    if good.keys() == splits.keys():
        if isinstance(made, ClassificationTask) and not made.is_agreement:
            promises.hold("labels are indices of class_names", partial(_labels, made), splits)
        promises.hold(
            "a second equal task has the same samples", partial(_is_repeated, made, fresh), {n: n for n in splits}
        )
        promises.hold("a sample is the same when it is read again", partial(_is_read_again, made), splits)
        pairs = {f"{a} and {b}": (a, b) for a, b in (("train", "val"), ("train", "test"), ("val", "test"))}
        promises.hold("no sample is in two of the data sets", partial(_are_disjoint, made), pairs)
        promises.hold_once(
            "an image has 1 or 3 channels, height and width, and values from 0 to 1", partial(_is_image, made)
        )
        batched = promises.hold("a DataLoader makes batches of the samples", partial(_is_batched, made), splits)
        promises.hold("loss is a finite scalar with gradients", partial(_loss, made), batched)
        scored = promises.hold("metrics give a score from 0 to 1", partial(_scores, made), batched)
        promises.hold("metrics are fresh each time", partial(_is_fresh, made), scored)
        if type(made).answer_coder is not Task.answer_coder:  # without one, all of the output travels: answer=raw
            promises.hold("what is read of the answers scores as the outputs do", partial(_answers, made), scored)
    return promises.finish()


def _shape(case: tuple[str, Task]) -> None:
    name, task = case
    shape = getattr(task, name)
    is_shape = isinstance(shape, tuple) and all(isinstance(size, int) and size >= 1 for size in shape)
    expect(is_shape, f"got {shape!r}")


def _one(task: Task) -> None:
    _has_shape(task.example(), 1, task.input_shape, "example")


def _trial(task: Task) -> None:
    for batch in (1, _BATCH):
        _has_shape(_outputs(task, batch, seed=0), batch, task.output_shape, "trial_outputs")


def _has_shape(made: Any, batch: int, shape: tuple[int, ...], method: str) -> None:
    found = _kinds(made, batch)
    is_tensor = list(found) == [""]
    expect(shape or not is_tensor, f"the shape is empty, which is for structures: let {method} make one")
    if shape:
        of = f"{tuple(made.shape)}" if is_tensor else f"{type(made).__name__} of {', '.join(found) or 'no tensor'}"
        expect(is_tensor and tuple(made.shape) == (batch, *shape), f"got {of}, not {(batch, *shape)}")


def _kinds(tree: Any, batch: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape without the batch, and type, of each tensor by its path. Raises UnkeptError for another batch."""
    found = trees.by_path(tree)
    for path, tensor in found.items():
        expect(tensor.dim() and len(tensor) == batch, f"got {tuple(tensor.shape)}{_at(path)} for a batch of {batch}")
    return {path: (tuple(tensor.shape[1:]), tensor.dtype) for path, tensor in found.items()}


def _at(path: str) -> str:
    return f" at {path}" if path else ""


def _input_bytes(task: Task) -> None:
    expect(isinstance(task.input_bytes, int) and task.input_bytes > 0, f"got {task.input_bytes!r}")


def _three(task: Task) -> None:
    splits = task.splits()
    expect(isinstance(splits, Splits), f"got {type(splits).__name__}, not Splits")
    data: Any
    for name, data in zip(Splits._fields, splits, strict=True):
        expect(isinstance(data, Dataset), f"{name} is a {type(data).__name__}, not a Dataset")
        expect(len(data) > 0, f"{name} is empty")


def _label(tasks: Sequence[Task]) -> None:
    for task in tasks:
        task.label_by(partial(_found, task))


def _found(task: Task, x: Any) -> Tensor:
    return _outputs(task, trees.num_samples(x), seed=0)


def _samples_fit(task: Task, data: Dataset) -> None:
    kinds = _kinds(task.example(), 1)
    for x, _ in _read(task, data):
        found = trees.by_path(default_collate([x]))
        paths = [", ".join(those) or "no tensor" for those in (found, kinds)]
        expect(found.keys() == kinds.keys(), f"got {type(x).__name__} of {paths[0]}, the example has {paths[1]}")
        for path, tensor in found.items():
            shape, dtype = kinds[path]
            expect(tensor.dtype is dtype, f"got {tensor.dtype}{_at(path)}, the example has {dtype}")
            got = tuple(tensor.shape[1:])
            expect(got == shape, f"got {got}{_at(path)}, the example has {shape}")
            expect(tensor.isfinite().all(), f"got NaN or infinity{_at(path)}")


def _read(task: Task, data: Any, most: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Up to so many samples, spread evenly; those of small inputs are cheap and many."""
    is_small = sum(tensor.numel() for tensor in trees.leaves(task.example())) <= _SMALL
    most = most or (_NUM_SMALL_SAMPLES if is_small else _NUM_SAMPLES)
    num = min(most, len(data))
    with _seeded():
        for i in range(num):
            yield data[i * len(data) // num]


@contextmanager
def _seeded() -> Iterator[None]:
    """The same random numbers each time inside, for augmentation; outside all is as it was."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _digests(task: Task, data: Dataset, most: int | None = None) -> list[bytes]:
    return [_digest(sample) for sample in _read(task, data, most)]


def _digest(sample: Sequence[Any]) -> bytes:
    digest = hashlib.sha256()
    for path, tensor in trees.by_path(default_collate([tuple(sample)])).items():
        digest.update(f"{path}{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.digest()


def _labels(task: ClassificationTask, data: Dataset) -> None:
    error = task.label_error(torch.cat([torch.as_tensor(y).flatten() for _, y in _read(task, data)]))
    expect(error is None, str(error))


def _is_repeated(task: Task, fresh: Task, name: str) -> None:
    data, again = (getattr(one.splits(), name) for one in (task, fresh))
    expect(len(data) == len(again), f"it has {len(data)} samples, then {len(again)}")
    num_other = sum(map(bytes.__ne__, _digests(task, data), _digests(task, again)))
    expect(not num_other, f"{num_other} samples differ: seed what is drawn")


def _is_read_again(task: Task, data: Dataset) -> None:
    expect(
        _digests(task, data, 20) == _digests(task, data, 20), "it differs from what the same seeds of torch gave before"
    )


def _are_disjoint(task: Task, names: tuple[str, str]) -> None:
    first, second = (set(_digests(task, getattr(task.splits(), name))) for name in names)
    expect(not first & second, f"{len(first & second)} samples of {len(second)} that were compared are in both")


def _is_image(task: Task) -> None:
    if not task.is_image:
        return
    expect(
        len(task.input_shape) == 3 and task.input_shape[0] in (1, 3), f"is_image, but input_shape is {task.input_shape}"
    )
    for name, data in zip(Splits._fields, task.splits(), strict=True):
        for x, _ in _read(task, data):
            expect(x.min() >= 0 and x.max() <= 1, f"in {name}, values are from {x.min():.3g} to {x.max():.3g}")


def _batch(data: Dataset) -> tuple[Any, Any]:
    with _seeded():
        x, y = next(iter(DataLoader(data, batch_size=_BATCH)))
    return x, y


def _is_batched(task: Task, data: Any) -> None:
    x, _ = _batch(data)
    expect(_kinds(x, min(_BATCH, len(data))) == _kinds(task.example(), 1), "a batch is of other shapes than example")


def _outputs(task: Task, batch: int, seed: int) -> Any:
    return task.trial_outputs(batch, seed)[1]


def _loss(task: Task, data: Dataset) -> None:
    x, y = _batch(data)
    y_hat, _ = task.trial_outputs(trees.num_samples(x), seed=0)
    parts = [part.requires_grad_() for part in trees.leaves(y_hat) if part.is_floating_point()]
    loss = task.loss(y_hat, y)
    expect(isinstance(loss, Tensor) and loss.dim() == 0, f"got {getattr(loss, 'shape', type(loss).__name__)}")
    expect(loss.isfinite(), f"got {loss.item()}")
    expect(loss.requires_grad, "it has no gradient")
    gradients = [one for one in torch.autograd.grad(loss, parts, allow_unused=True) if one is not None]
    expect(
        gradients and all(one.isfinite().all() for one in gradients),
        "the gradient of the output is missing or not finite",
    )


def _scores(task: Task, data: Dataset) -> None:
    x, y = _batch(data)
    metrics = task.metrics()
    metrics.update(_outputs(task, trees.num_samples(x), seed=0), y)
    found = {name: float(value) for name, value in metrics.compute().items()}
    expect("score" in found, f"there is no score, but {', '.join(found) or 'nothing'}")
    expect(0 <= found["score"] <= 1, f"got {found['score']}")


def _is_fresh(task: Task, data: Dataset) -> None:
    x, y = _batch(data)
    used = task.metrics()
    unused = copy.deepcopy(used)
    used.update(_outputs(task, trees.num_samples(x), seed=0), y)
    second = task.metrics()
    expect(second is not used, "metrics returned the same object twice")
    for one in (second, unused):
        one.update(_outputs(task, trees.num_samples(x), seed=1), y)
    scores = [float(one.compute()["score"]) for one in (second, unused)]
    expect(scores[0] == scores[1], f"after an earlier use the score is {scores[0]}, without it {scores[1]}")


def _answers(task: Task, data: Dataset) -> None:
    x, y = _batch(data)
    output, coder = _outputs(task, trees.num_samples(x), seed=0), task.answer_coder()
    answers = [coder.encode(row) for row in trees.rows(output)]
    expect(all(isinstance(answer, bytes) for answer in answers), f"encode gives {type(answers[0]).__name__}, not bytes")
    read = trees.joined([coder.as_output(coder.decode(answer)) for answer in answers])
    shapes = [{path: tuple(tensor.shape) for path, tensor in trees.by_path(made).items()} for made in (read, output)]
    got, given = (", ".join(f"{path} {shape}".strip() for path, shape in each.items()) for each in shapes)
    expect(shapes[0] == shapes[1], f"as_output gives {got} for outputs {given}")
    scores = []
    for outputs in (output, read):
        metrics = task.metrics()
        metrics.update(outputs, y)
        scores.append(float(metrics.compute()["score"]))
    expect(scores[0] == scores[1], f"outputs score {scores[0]}, answers {scores[1]}")
