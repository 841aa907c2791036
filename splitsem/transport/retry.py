"""Retry: how often and how soon to try again when a link fails."""

import random
from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with full jitter: before retry k (from 0) wait a uniform time up to ``first_s · 2^k``.

    Attributes:
        retries: tries after the first one without an answer in between; 0 tries once.
        first_s: longest wait before the first retry.
        most_s: longest wait before any retry.
        deadline_s: longest wait for an answer before the link counts as broken.
    """

    retries: int = 6
    first_s: float = 0.1
    most_s: float = 5.0
    deadline_s: float = 30.0

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries must not be negative, got {self.retries}")
        for name in ("first_s", "most_s", "deadline_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")

    def wait_s(self, retry: int) -> float:
        """Seconds to wait before this retry, drawn anew at each call."""
        return random.uniform(0, min(self.most_s, self.first_s * 2.0 ** min(retry, 60)))
