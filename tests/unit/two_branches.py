"""A network that is no chain: each of two branches first shrinks what it gets, then works hard on the little left."""

import torch
from torch import Tensor, nn


class TwoBranches(nn.Module):
    """The best head has both beginnings, which no place in one order of computation cuts off."""

    def __init__(self, width: int = 1500) -> None:
        super().__init__()
        self.small_a, self.small_b = nn.AvgPool2d(4), nn.MaxPool2d(4)
        self.hard_a, self.hard_b = _hard(width), _hard(width)

    def forward(self, x: Tensor) -> Tensor:
        """Sum of both."""
        a = self.hard_a(self.small_a(x).flatten(1))
        b = self.hard_b(self.small_b(x).flatten(1))
        return torch.add(a, b)


def _hard(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
