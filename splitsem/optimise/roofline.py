"""The roofline term of a tier: how far its units lie below the machine's knee (arXiv 2411.00838, Eq. 14)."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TierWork:
    """What the units compute and move on one machine.

    Attributes:
        flops: floating-point operations of each unit and γ, ``(U, 14)``; what is not offered is not read.
        moved_bytes: bytes read and written, **weights included**, ``(U, 14)``.
        peak_flops_per_s: the machine's measured peak.
        memory_bytes_per_s: its measured memory bandwidth.
    """

    flops: NDArray[np.float64]
    moved_bytes: NDArray[np.float64]
    peak_flops_per_s: float
    memory_bytes_per_s: float

    def __post_init__(self) -> None:
        for name in ("flops", "moved_bytes"):
            values = np.array(getattr(self, name), dtype=float)
            if values.ndim != 2 or values.shape[1] != 14:
                raise ValueError(f"{name} must have shape (units, 14), got {values.shape}")
            if np.isnan(values).any() or (values < 0).any():
                raise ValueError(f"{name} must not be negative or NaN")
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        if self.flops.shape != self.moved_bytes.shape:
            raise ValueError(f"flops has shape {self.flops.shape}, moved_bytes {self.moved_bytes.shape}")
        for name in ("peak_flops_per_s", "memory_bytes_per_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")

    @property
    def knee(self) -> float:
        """FLOP per byte above which the machine is bound by arithmetic."""
        return self.peak_flops_per_s / self.memory_bytes_per_s

    def term(self, flops: Any, moved_bytes: Any, rho: float = 0.1) -> Any:
        """``relu(knee − F/B) + ρ·(F/F_peak + B/B_peak)`` of a tier's sums F and B; 0 for a tier that moves nothing.

        The times already contain what this describes, so it is reported and weighs nothing unless asked to.

        >>> work = TierWork([[0] * 14], [[0] * 14], peak_flops_per_s=100.0, memory_bytes_per_s=10.0)
        >>> round(work.term(40.0, 10.0, rho=0.1), 6)  # knee 10, intensity 4
        6.14

        Args:
            flops: the sum F over the tier, a number or a tensor.
            moved_bytes: the sum B.
            rho: weight of the second summand.
        """
        below = self.knee - flops / (moved_bytes + 1e-9)
        busy = (moved_bytes > 0) * 1.0
        roof = flops / self.peak_flops_per_s + moved_bytes / self.memory_bytes_per_s
        return below * (below > 0) * busy + rho * roof
