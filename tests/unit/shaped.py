"""Shaped: a task of given shapes and no data, for whoever makes a model for it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from splitsem.tasks.task import Splits, Task


class Shaped(Task):
    """Takes and returns one tensor of these shapes."""

    def __init__(self, input_shape: Sequence[int], output_shape: Sequence[int]) -> None:
        self.input_shape, self.output_shape, self.input_bytes = tuple(input_shape), tuple(output_shape), 0

    def splits(self) -> Splits:
        raise NotImplementedError

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def metrics(self) -> Any:
        raise NotImplementedError
