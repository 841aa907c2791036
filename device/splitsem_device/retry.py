"""How long and how often a lost link is tried again: Backoff, Fixed and NoRetry; Patience counts one effort."""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from numbers import Real
from typing import Self

Draw = Callable[[float, float], float]


@dataclass(frozen=True, kw_only=True)
class Retry(ABC):
    """When a call that failed is made again; ``retries=2`` makes up to three calls.

    Attributes:
        patience_s: seconds from the first failure on, without an answer in between, until the link is given up. Two
            minutes outlast the restart of a server or of an access point.
        retries: the most further tries after a failed first try; None: as many as ``patience_s`` allows; 0: one try.
        deadline_s: longest wait for an answer before the link counts as broken.
    """

    patience_s: float = 120.0
    retries: int | None = None
    deadline_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (isinstance(value, Real) or (name == "retries" and value is None)):
                raise ValueError(f"{name} must be a number, got {value!r}")
        if self.retries is not None and self.retries < 0:
            raise ValueError(f"retries must not be negative, got {self.retries}")
        if not (isfinite(self.patience_s) and self.patience_s >= 0):
            raise ValueError(f"patience_s must be finite and not negative, got {self.patience_s}")
        self._check_positive("deadline_s")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")

    def at_most(self, retries: int) -> Self:
        """These settings with no more than so many retries."""
        return replace(self, retries=retries if self.retries is None else min(retries, self.retries))

    def bounds(self) -> str:
        """How long the tries go on, in words."""
        most = "" if self.retries is None else f", at most {self.retries} more times"
        return f"for up to {self.patience_s:.0f} s{most}"

    @abstractmethod
    def wait_s(self, retry: int, draw: Draw = random.uniform) -> float:
        """Seconds to wait before this retry, counted from 0; ``draw`` gives a random number between two."""


@dataclass(frozen=True, kw_only=True)
class Backoff(Retry):
    """Exponential backoff with full jitter: before retry k (from 0) wait a uniform time up to ``first_s · 2^k``.

    Full jitter keeps clients that lost the same server from coming back at the same moments.

    Attributes:
        first_s: longest wait before the first retry.
        most_s: longest wait before any retry.
    """

    first_s: float = 0.1
    most_s: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("first_s", "most_s")

    def wait_s(self, retry: int, draw: Draw = random.uniform) -> float:
        """See Retry; drawn anew at each call."""
        return draw(0, min(self.most_s, self.first_s * 2.0 ** min(retry, 60)))


@dataclass(frozen=True, kw_only=True)
class Fixed(Retry):
    """The same wait before every retry.

    Attributes:
        every_s: the wait.
    """

    every_s: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("every_s")

    def wait_s(self, retry: int, draw: Draw = random.uniform) -> float:
        """See Retry."""
        return self.every_s


@dataclass(frozen=True, kw_only=True)
class NoRetry(Retry):
    """One try: the first failure is told."""

    retries: int | None = 0

    def wait_s(self, retry: int, draw: Draw = random.uniform) -> float:
        """See Retry; nothing waits."""
        return 0.0


class Patience:
    """One effort to get an answer: from its first failure on, how long to wait before each try, and when to give up.

    Args:
        retry: the settings.
        clock: seconds from any origin.
        draw: a random number between two.

    Attributes:
        num_failures: tries that failed.
    """

    def __init__(
        self,
        retry: Retry,
        clock: Callable[[], float] = time.monotonic,
        draw: Draw = random.uniform,
    ) -> None:
        self.retry, self._clock, self._draw = retry, clock, draw
        self.renew()

    def renew(self) -> None:
        """There was an answer: the next failure is the first."""
        self.num_failures = 0
        self._since_s = 0.0

    def fail(self) -> float | None:
        """Count a failure; returns the seconds to wait before the next try, None when it is time to give up."""
        now_s = self._clock()
        if not self.num_failures:
            self._since_s = now_s
        self.num_failures += 1
        left_s = self.retry.patience_s - (now_s - self._since_s)
        retries = self.retry.retries
        if left_s <= 0 or (retries is not None and self.num_failures > retries):
            return None
        return min(left_s, self.retry.wait_s(self.num_failures - 1, self._draw))
