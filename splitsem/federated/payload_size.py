"""PayloadSizes: how many bytes an update takes at a rate: estimated first, then corrected by what was really sent."""

from math import log, log2
from typing import NamedTuple

HEADER_BYTES = 64
"""Allowed for what does not grow with the update: the wire format's header, scales, coder tables."""


class Rate(NamedTuple):
    """How much of an update travels.

    Attributes:
        bit_width: bits of a value that travels, 1…8.
        keep_ratio: share of the values that travel, above 0; 1.0 sends all of them (no positions then).
    """

    bit_width: int
    keep_ratio: float = 1.0


def bits_per_value(rate: Rate) -> float:
    """Bits that a value takes before any entropy coding of values: ``keep · b + H(keep)``, an estimate.

    H is the binary entropy: what the positions of the kept values take at best.

    >>> bits_per_value(Rate(8)), round(bits_per_value(Rate(4, 0.1)), 3)
    (8.0, 0.869)
    """
    keep = rate.keep_ratio
    positions = -keep * log2(keep) - (1 - keep) * log2(1 - keep) if keep < 1 else 0.0
    return keep * rate.bit_width + positions


class PayloadSizes:
    """The sizes of one client's updates.

    ``estimate · correction``, where the correction of a rate is the (smoothed, in logarithms) ratio of the sizes that
    were really sent at it to their estimates; a rate never sent has that of the nearest one that was, and 1.0 while
    none was. Real payloads are mostly smaller than the estimate, since their values are entropy-coded too; what
    depends on the data is known only after it was sent.

    Args:
        smoothing: weight of the newest payload, above 0 and at most 1.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self._corrections: dict[Rate, float] = {}

    def payload_bytes(self, rate: Rate, raw_values: int) -> float:
        """Expected bytes of an update of so many values."""
        return HEADER_BYTES + self._correction(rate) * bits_per_value(rate) * raw_values / 8

    def sent(self, rate: Rate, raw_values: int, payload_bytes: int) -> None:
        """Learn from a payload that really was this long."""
        estimate = bits_per_value(rate) * raw_values / 8
        ratio = max(payload_bytes - HEADER_BYTES, 1) / estimate
        known = self._corrections.get(rate, ratio)
        self._corrections[rate] = known * (ratio / known) ** self.smoothing

    def _correction(self, rate: Rate) -> float:
        if not self._corrections:
            return 1.0
        size = log(bits_per_value(rate))
        nearest = min(self._corrections, key=lambda other: (abs(log(bits_per_value(other)) - size), other))
        return self._corrections[nearest]
