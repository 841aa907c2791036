"""RateTable is a measured table of split points and codecs (times, bytes, score), and chooses a row."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite

import numpy as np

from splitsem.search.fronts import Choice, choose, fastest
from splitsem.search.objective import Objective, Stages
from splitsem.search.problem import Floats


@dataclass(frozen=True, kw_only=True)
class Rate(Stages):
    """One row: what one sample takes at a split point with a codec; see Stages for the seconds.

    Attributes:
        split_index: λ, the number of the split point.
        split_point: name of the split point.
        codec: name of the codec with its settings.
        payload_bytes: mean size on the wire, header included.
        score: on the validation split.
        margin: distance that the row's damage must keep from ε.

    Raises:
        ValueError: a number is not finite, or one but the link's delay is negative.
    """

    split_index: int
    split_point: str
    codec: str
    payload_bytes: float
    score: float
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not isinstance(value, str) and not (isfinite(value) and (value >= 0 or name == "link_delay_s")):
                raise ValueError(
                    f"{name} at {self.split_point}, {self.codec}, must be finite and not negative: {value}"
                )


@dataclass(frozen=True, eq=False)
class RateTable:
    """Rows to choose from. A choice looks at every row, so the choice is the optimum.

    Attributes:
        rates: the rows, at least one.
        objective: what is minimised.
        score_ref: A_ref, the score of the unsplit network on the same samples.
    """

    rates: Sequence[Rate]
    objective: Objective
    score_ref: float

    def __post_init__(self) -> None:
        if not self.rates:
            raise ValueError("rates must hold at least one row, got none")

    @property
    def value(self) -> Floats:
        """The objective's value of each row, ``(n,)``."""
        stages = Stages(**{field.name: self._column(field.name) for field in fields(Stages)})
        value: Floats = self.objective(stages, self._column("payload_bytes"))
        return value

    @property
    def damage(self) -> Floats:
        """``A_ref − score`` of each row, ``(n,)``."""
        return self.score_ref - self._column("score")

    def choose(self, epsilon: float) -> Choice:
        """Least slack in ``damage + margin ≤ ε + ξ``, then least value, then least damage; see ``fronts.choose``.

        The front is that of value and damage, whatever the margins.
        """
        value, damage = self.value, self.damage
        chosen = choose(value, damage + self._column("margin"), epsilon)
        return chosen._replace(front=choose(value, damage, epsilon).front)

    def fastest(self) -> int:
        """The row of least value, whatever its score."""
        return fastest(self.value, self._column("latency_s"))

    def _column(self, name: str) -> Floats:
        return np.array([getattr(rate, name) for rate in self.rates], dtype=float)
