"""LinkFit: the communication model ``T = k · bytes + b``, fitted to measured transfers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np


@dataclass(frozen=True)
class LinkFit:
    """A link as a straight line.

    Attributes:
        s_per_byte: k.
        base_s: b, the time of a payload without bytes.
        residual_s: root mean square distance of the measured times from the line.
        num_transfers: how many were measured.
    """

    s_per_byte: float
    base_s: float
    residual_s: float
    num_transfers: int

    def __post_init__(self) -> None:
        for name in ("s_per_byte", "base_s", "residual_s"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if self.num_transfers < 1:
            raise ValueError(f"num_transfers must be at least 1, got {self.num_transfers}")

    def link_s(self, payload_bytes: float) -> float:
        """Seconds for a payload of this size."""
        return self.s_per_byte * payload_bytes + self.base_s


def fit_link(transfers: Sequence[tuple[float, float]]) -> LinkFit:
    """Least squares over ``(bytes, seconds)`` pairs, neither k nor b negative.

    Where a burst or a slowly opening window bends the line (the residual says so), ``transport.measured.MeasuredLink``
    describes the link better.

    >>> fit = fit_link([(0, 0.002), (1000, 0.010), (3000, 0.026)])
    >>> round(fit.s_per_byte * 1e6, 6), round(fit.base_s, 6), fit.num_transfers
    (8.0, 0.002, 3)

    Raises:
        ValueError: there are fewer than two sizes, or a size or time that cannot be.
    """
    points = np.asarray(transfers, dtype=float).reshape(-1, 2)
    if not (np.isfinite(points).all() and (points >= 0).all()):
        raise ValueError("transfers must have sizes and times that are finite and not negative")
    sizes, times_s = points.T
    if len(np.unique(sizes)) < 2:
        raise ValueError(f"transfers must have at least two sizes, got {len(np.unique(sizes))}")
    deviations = sizes - sizes.mean()
    slope = float(deviations @ times_s / (deviations @ deviations))
    base_s = float(times_s.mean() - slope * sizes.mean())
    if slope < 0:
        slope, base_s = 0.0, float(times_s.mean())
    elif base_s < 0:
        slope, base_s = float(sizes @ times_s / (sizes @ sizes)), 0.0
    residual_s = float(np.sqrt(np.mean((times_s - slope * sizes - base_s) ** 2)))
    return LinkFit(slope, base_s, residual_s, len(sizes))
