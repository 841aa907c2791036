"""Each promise of a task, link, machine or model is told when it is broken."""

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from splitsem.check import check_codec, check_link, check_machine, check_model, check_task
from splitsem.cost.machines import Machine, Roofline
from splitsem.links.link import LinkReport
from splitsem.links.simulated import SimulatedLink
from splitsem.splitting.half import Half
from splitsem.tasks.classification import ClassificationTask, ImageTensors
from splitsem.tasks.task import Splits
from tests.unit.broken import Overrides, broken, lines

COUNTER = itertools.count()


class Toy(ClassificationTask):
    """Noise in three classes."""

    def __init__(self) -> None:
        super().__init__(("a", "b", "c"), (1, 4, 4))

    def _load(self) -> Splits:
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (30, 1, 4, 4), generator=draw, dtype=torch.uint8)
        labels = torch.arange(30) % 3
        return Splits(
            *(ImageTensors(images[part], labels[part]) for part in (slice(0, 14), slice(14, 22), slice(22, 30)))
        )


class Altered(torch.utils.data.Dataset):
    def __init__(self, data: Any, alter: Callable[[Tensor], Tensor]) -> None:
        self.data, self.alter = data, alter

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.data[index]
        return self.alter(x), y


class Ragged(Altered):
    """Every y has a shape of its own."""

    def __init__(self, data: Any) -> None:
        super().__init__(data, lambda x: x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return super().__getitem__(index)[0], torch.zeros(index + 1)


def altered(alter: Callable[[Tensor], Tensor]) -> Overrides:
    return {"_load": lambda self: Splits(*(Altered(data, alter) for data in Toy._load(self)))}


def leaking(self: Toy) -> Splits:
    train, val, _ = Toy._load(self)
    return Splits(train, val, train)


def unseeded(self: Toy) -> Splits:
    train, val, test = Toy._load(self)
    noise = int.from_bytes(os.urandom(4))
    return Splits(Altered(train, lambda x: x * 0 + noise / 2**32), val, test)


def one_more(self: Toy) -> Splits:
    return Splits(*(ImageTensors(data.images, data.labels + 1) for data in Toy._load(self)))


SHARED = MetricCollection({"score": MulticlassAccuracy(3)})
SHARED_METRIC = MulticlassAccuracy(3, average="micro")
TASKS: dict[str, tuple[Overrides, str]] = {
    "shapes": (
        {"output_shape": property(lambda self: [3], lambda self, _: None)},
        "shapes are tuples of whole numbers, each at least 1: for output_shape, got [3]",
    ),
    "bytes": (
        {"input_bytes": property(lambda self: 0, lambda self, _: None)},
        "input_bytes is a whole number above 0: got 0",
    ),
    "tuple": (
        {"_load": lambda self: tuple(Toy._load(self))},
        "splits gives three data sets that are not empty: got tuple, not Splits",
    ),
    "empty": (
        {
            "_load": lambda self: Toy._load(self)._replace(
                val=ImageTensors(torch.zeros(0, 1, 4, 4).byte(), torch.zeros(0))
            )
        },
        "val is empty",
    ),
    "dtype": (
        altered(lambda x: x.double()),
        "x is finite, and of the shapes and types of example: for train, got torch.float64, the example has",
    ),
    "x shape": (altered(lambda x: x[0]), "for train, got (4, 4), the example has (1, 4, 4)"),
    "nan": (altered(lambda x: x / 0), "for train, got NaN or infinity"),
    "unseeded": (
        {"_load": unseeded},
        "a second equal task has the same samples: for train, 14 samples differ: seed what is drawn",
    ),
    "random": (
        altered(lambda x: x * int.from_bytes(os.urandom(4)) / 2**32),
        "a sample is the same when it is read again: for train",
    ),
    "leak": ({"_load": leaking}, "no sample is in two of the data sets: for train and test, 14 samples of 14"),
    "image": (
        altered(lambda x: x * 255),
        "an image has 1 or 3 channels, height and width, and values from 0 to 1: in train",
    ),
    "batch": (
        {"_load": lambda self: Splits(*(Ragged(data) for data in Toy._load(self)))},
        "a DataLoader makes batches of the samples: for train, raised RuntimeError",
    ),
    "labels": (
        {"_load": one_more},
        "labels are indices of class_names: for train, labels must be whole numbers from 0 to 2, one for each class",
    ),
    "loss": (
        {"loss": lambda self, y_hat, y: y_hat.sum(1)},
        "loss is a finite scalar with gradients: for train, got torch.Size([4])",
    ),
    "no gradient": ({"loss": lambda self, y_hat, y: y_hat.detach().sum()}, "it has no gradient"),
    "no score": (
        {"metrics": lambda self: MetricCollection({"accuracy": MulticlassAccuracy(3)})},
        "there is no score, but accuracy",
    ),
    "score": (
        {"metrics": lambda self: MetricCollection({"score": Percent(3)})},
        "metrics give a score from 0 to 1: for train, got",
    ),
    "shared": (
        {"metrics": lambda self: SHARED},
        "metrics are fresh each time: for train, metrics returned the same object twice",
    ),
    "metric of a member": (
        {"metrics": lambda self: Holder()},
        "metrics are fresh each time: for train, after an earlier use the score is",
    ),
}


class Percent(MulticlassAccuracy):
    def compute(self) -> Tensor:
        return 50 + super().compute()


class Holder:
    """A new object around the same metric."""

    def __init__(self) -> None:
        self.inside = SHARED_METRIC

    def update(self, y_hat: Tensor, y: Tensor) -> None:
        self.inside.update(y_hat, y)

    def compute(self) -> dict[str, Tensor]:
        return {"score": self.inside.compute()}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_that_breaks_a_promise_is_told_which(name: str) -> None:
    check_task(Toy)
    overrides, said = TASKS[name]
    told = lines(check_task, broken(Toy, **overrides))
    assert any(said in line for line in told), told


def link(**overrides: Any) -> Callable[[], SimulatedLink]:
    return lambda: broken(SimulatedLink, **overrides)(1e6, 0.01, 1e-7)


def report(**changes: Any) -> Overrides:
    return {"send": lambda self, payload, protected_bytes=None: replace(SimulatedLink.send(self, payload), **changes)}


def drawn(self: SimulatedLink, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
    return replace(SimulatedLink.send(self, payload), link_busy_s=1 + len(payload) + next(COUNTER) / 1e9)


LINKS: dict[str, tuple[Overrides, str]] = {
    "kind": (
        {"send": lambda self, payload, protected_bytes=None: payload},
        "send returns a LinkReport with bytes, or None",
    ),
    "payload": (
        report(payload=[1]),
        "send returns a LinkReport with bytes, or None for a lost payload: for a payload of 0 bytes",
    ),
    "costs": (
        report(link_busy_s=-1.0),
        "its seconds and joules are finite and not negative: for a payload of 0 bytes, link_busy_s is -1.0",
    ),
    "energy": (report(energy_j=float("nan")), "energy_j is nan"),
    "errors": (
        report(bit_errors=2),
        "bit_errors counts the wrong bits of what arrived: for a payload of 0 bytes, 0 are wrong",
    ),
    "wire": (report(wire_bytes=0), "wire_bytes is at least what arrived: for a payload of 1 bytes, got 0 for 1 bytes"),
    "order": (
        {
            "send": lambda self, payload, protected_bytes=None: LinkReport(
                payload, 1 / (1 + len(payload)), 0.0, 0.0, wire_bytes=len(payload)
            )
        },
        "more bytes never take less time: 1 bytes take 0.5 s, 0 bytes 1 s",
    ),
    "protected": (
        {"send": lambda self, payload: SimulatedLink.send(self, payload)},
        "protected_bytes may be any part of a payload",
    ),
    "draw": (
        {"send": drawn},
        "an equal link reports the same of the same payloads: they differ in a payload of 0 bytes",
    ),
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_breaks_a_promise_is_told_which(name: str) -> None:
    overrides, said = LINKS[name]
    told = lines(check_link, link(**overrides))
    assert len(told) == 1, told
    assert said in told[0]


def flops(half: Half) -> float:
    return sum(op.flops for op in half.ops)


MACHINES: dict[str, tuple[Overrides, str]] = {
    "coding": (
        {"coding_factor": lambda self: 0.0},
        "coding_factor is finite and above 0: got 0.0",
    ),
    "power": (
        {"idle_w": property(lambda self: 9.0, lambda self, _: None)},
        "active_w ≥ idle_w ≥ 0, both finite: got active_w=2.0 and idle_w=9.0",
    ),
    "timing": (
        {"timing": property(lambda self: "guess", lambda self, _: None)},
        "timing is one of roofline, lut, measured, predicted: got 'guess'",
    ),
    "empty": (
        {"time_s": lambda self, half: 1 + flops(half)},
        "time_s is 0 where nothing is computed: for the head at input, got 1",
    ),
    "negative": ({"time_s": lambda self, half: -flops(half)}, "time_s is finite and not negative: for"),
    "order": (
        {"time_s": lambda self, half: 1 / flops(half) if half.ops else 0.0},
        "a half with more operations never takes less time: for",
    ),
    "drawn": (
        {"time_s": lambda self, half: flops(half) + next(COUNTER) / 1e9 if half.ops else 0.0},
        "the same half takes the same time: for",
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_that_breaks_a_promise_is_told_which(name: str) -> None:
    overrides, said = MACHINES[name]
    made: Machine = broken(Roofline, **overrides)(1e9, 1e9, active_w=2.0, idle_w=1.0, coding_bytes_per_s=1e7)
    told = lines(check_machine, made)
    assert len(told) == 1, told
    assert said in told[0]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.hidden = [torch.rand(3)]
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def branching(self: Net, x: Tensor) -> Tensor:
    return self.layer(x) if x.sum() > 0 else self.layer(x) * 2


def counting(self: Net, x: Tensor) -> Tensor:
    self.calls += 1
    return self.layer(x) + self.calls


MODELS: dict[str, tuple[Overrides, str]] = {
    "shape": (
        {"forward": lambda self, x: self.layer(x)[:, :2]},
        "forward gives a finite tensor (batch, *output_shape): for a batch of 1, got (1, 2)",
    ),
    "tuple": (
        {"forward": lambda self, x: (self.layer(x), x)},
        "forward takes the input and returns one tensor: raised ConfigError",
    ),
    "nan": ({"forward": lambda self, x: self.layer(x) / 0}, "got NaN or infinity"),
    "input": (
        {"forward": lambda self, x: self.layer(x.mul_(2))},
        "forward leaves its input as it is: for a batch of 1, it is changed",
    ),
    "drawn": (
        {"forward": lambda self, x: self.layer(x) + torch.rand(3)},
        "the same input gives the same output in eval mode: for",
    ),
    "batch": (
        {"forward": lambda self, x: self.layer(x) - self.layer(x).mean(0) + 1},
        "a sample's output does not depend on its batch: alone",
    ),
    "state": (
        {"forward": lambda self, x: self.layer(x) + self.hidden[0]},
        "state_dict holds all that determines the output: a second model",
    ),
    "graph": ({"forward": branching}, "it can be captured as a graph of operations, and cut: raised ConfigError"),
    "counting": ({"forward": counting}, "the same input gives the same output in eval mode"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_breaks_a_promise_is_told_which(name: str) -> None:
    check_model(Net, (4,), (3,))
    overrides, said = MODELS[name]
    told = lines(check_model, broken(Net, **overrides), (4,), (3,))
    assert any(said in line for line in told), told


def test_what_is_of_another_class_is_told_at_once() -> None:
    assert lines(check_codec, dict) == ["the constructor makes a Codec: got dict"]
    assert lines(check_link, lambda: 3) == ["the constructor makes a Link: got int"]
