"""Calibration: how the sum of a chain's isolated units compares with the chain run in one go."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, prod

from splitsem.cost.measure import Timing


@dataclass(frozen=True)
class ChainTime:
    """One deployed network, timed end to end.

    Attributes:
        gammas: γ of each unit.
        time: the whole network in one go, one sample.
        sum_s: the sum of its units' isolated times.
    """

    gammas: tuple[int, ...]
    time: Timing
    sum_s: float

    def __post_init__(self) -> None:
        if not (isfinite(self.sum_s) and self.sum_s > 0 and self.time.median_s > 0):
            raise ValueError(f"both times must be positive and finite, got {self.time.median_s} and {self.sum_s}")

    @property
    def ratio(self) -> float:
        """End to end ÷ sum of the units."""
        return self.time.median_s / self.sum_s


@dataclass(frozen=True)
class Calibration:
    """What several deployed networks say about a table of isolated units.

    Attributes:
        chains: the networks, at least one.
    """

    chains: Sequence[ChainTime]

    def __post_init__(self) -> None:
        if not self.chains:
            raise ValueError("chains must hold at least one network, got none")

    @property
    def factor(self) -> float:
        """Geometric mean of end to end ÷ sum: what isolated times are multiplied by."""
        return prod(chain.ratio for chain in self.chains) ** (1 / len(self.chains))

    @property
    def worst_error(self) -> float:
        """Largest relative error that is left after the factor, over these networks."""
        return max(abs(self.factor / chain.ratio - 1) for chain in self.chains)
