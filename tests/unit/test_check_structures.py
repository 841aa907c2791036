"""Structures of tensors, and networks of two parts: their promises are told when they are broken."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from splitsem.check import check_model, check_task
from splitsem.tasks.answer import AllTensors, raw_coder
from splitsem.tasks.classification import ClassificationTask
from splitsem.tasks.task import Splits
from tests.unit.broken import Overrides, broken, lines
from tests.unit.test_check_broken import Altered, Toy


class Pairs(Toy):
    """Noise with a number beside it, and two outputs, by their names."""

    is_image = False
    input_shape = output_shape = property(lambda self: (), lambda self, _: None)  # type: ignore[assignment]

    def _load(self) -> Splits:
        return Splits(*(Altered(data, lambda x: {"image": x, "number": int(16 * x.sum())}) for data in super()._load()))

    def example(self) -> dict[str, Tensor]:
        return {"image": torch.rand(1, 1, 4, 4), "number": torch.tensor([3])}

    def trial_outputs(self, batch: int, seed: int) -> Any:
        logits, _ = ClassificationTask.trial_outputs(Toy(), batch, seed)
        return ({"logits": logits, "extra": logits[:, :1].long()},) * 2

    def loss(self, y_hat: Any, y: Tensor) -> Tensor:
        return super().loss(y_hat["logits"], y)

    def metrics(self) -> Any:
        return MetricCollection({"score": OfLogits(3)})

    def answer_coder(self) -> Any:
        return raw_coder(self.trial_outputs(1, 0)[1])


class OfLogits(MulticlassAccuracy):
    def update(self, y_hat: Any, y: Tensor) -> None:
        super().update(y_hat["logits"], y)


STRUCTURES: dict[str, tuple[Overrides, str]] = {
    "names": (
        {"example": lambda self: {"image": torch.rand(1, 1, 4, 4)}},
        "for train, got dict of ['image'], ['number'], the example has ['image']",
    ),
    "type": (
        {"example": lambda self: Pairs.example(self) | {"number": torch.tensor([3.0])}},
        "for train, got torch.int64 at ['number'], the example has torch.float32",
    ),
    "batch": (
        {"example": lambda self: Pairs.example(self) | {"number": torch.tensor([3, 4])}},
        "example is one sample, as a batch of one of input_shape: got (2,) at ['number'] for a batch of 1",
    ),
    "tensor": (
        {"example": lambda self: torch.rand(1, 1, 4, 4)},
        "the shape is empty, which is for structures: let example make one",
    ),
    "outputs": (
        {"trial_outputs": lambda self, batch, seed: (torch.rand(batch),) * 2},
        "the shape is empty, which is for structures: let trial_outputs make one",
    ),
    "answer": (
        {"answer_coder": lambda self: OneTensor(Pairs.trial_outputs(self, 1, 0)[1])},
        "as_output gives ['logits'] (4, 3) for outputs ['logits'] (4, 3), ['extra'] (4, 1)",
    ),
}


class OneTensor(AllTensors):
    def as_output(self, answer: Any) -> Any:
        return {"logits": answer["logits"]}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_task_whose_structures_differ_is_told_where(name: str) -> None:
    check_task(Pairs)
    overrides, said = STRUCTURES[name]
    told = lines(check_task, broken(Pairs, **overrides))
    assert any(said in line for line in told), told


class TwoParts(nn.Module):
    """Takes and returns tensors by name; a postprocess follows."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.postprocess = Both(), Sum()

    def forward(self, x: Tensor, number: Tensor) -> Any:
        made = self.network(x, number)
        return made if self.training else self.postprocess(made)


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.number = nn.Linear(4, 3), nn.Embedding(5, 3)

    def forward(self, x: Tensor, number: Tensor) -> dict[str, Tensor]:
        return {"x": self.layer(x), "number": self.number(number)}


class Sum(nn.Module):
    def forward(self, made: dict[str, Tensor]) -> Tensor:
        return made["x"] + made["number"]


class Centred(Sum):
    def forward(self, made: dict[str, Tensor]) -> Tensor:
        return super().forward(made) - made["x"].mean(0) + 1


class Shifted(Both):
    def forward(self, x: Tensor, number: Tensor) -> dict[str, Tensor]:
        return super().forward(x - x.mean(), number)


def with_part(part: str, other: type[nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made = TwoParts()
        setattr(made, part, other())
        return made

    return make


PARTS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "eval": (
        broken(TwoParts, forward=lambda self, x, number: self.network(x, number)["x"]),
        "in eval mode, forward is network, then postprocess: for a batch of 1, it gives another output",
    ),
    "train": (
        broken(TwoParts, forward=lambda self, x, number: self.postprocess(self.network(x, number))),
        "in train mode, forward is network alone: it gives another output",
    ),
    "network": (with_part("network", Shifted), "what network makes of a sample does not depend on its batch: alone"),
    "batch": (with_part("postprocess", Centred), "what postprocess makes of a sample does not depend on its batch"),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_model_of_two_parts_that_breaks_a_promise_is_told_which(name: str) -> None:
    example = {"x": torch.rand(1, 4), "number": torch.tensor([3])}
    assert "in train mode, forward is network alone" in check_model(TwoParts, example, (3,))
    make, said = PARTS[name]
    told = lines(check_model, make, example, (3,))
    assert any(said in line for line in told), told


def test_a_model_may_return_a_structure_where_no_shape_is_asked() -> None:
    example = (torch.rand(1, 4), torch.tensor([3]))
    assert "forward gives finite tensors, the batch in dimension 0" in check_model(Both, example)
    told = lines(check_model, broken(Both, forward=lambda self, x, number: (self.layer(x), number.sum())), example)
    assert told[0].startswith("forward gives finite tensors, the batch in dimension 0: for a batch of 1, got ()")
