"""UnitSpec and Chain: what measurements ask of a network that is a row of units, each with ways γ to run it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import nn


class UnitSpec(Protocol):
    """One part of the row: the stem, a block, or what comes after the blocks; figures are for one sample."""

    @property
    def name(self) -> str:
        """Unique in its network."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of what goes in, without the batch."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of what comes out, without the batch: what crosses at a cut behind the unit."""

    @property
    def gammas(self) -> Sequence[int]:
        """Every γ that is offered; 0 alone for a unit without branches."""

    @property
    def flops(self) -> Mapping[int, float]:
        """γ → floating-point operations, a multiply-add counting two."""

    @property
    def bytes(self) -> Mapping[int, float]:
        """γ → bytes read and written in float32, weights included."""


class Chain(Protocol):
    """The network."""

    def facts(self) -> Sequence[UnitSpec]:
        """Its units, in the order in which they run."""

    def unit(self, index: int, gamma: int) -> nn.Module:
        """A unit as it is deployed with this γ, new and in evaluation mode."""
