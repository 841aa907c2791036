"""Signal-to-noise ratios and the bit error rates they give.

``ebn0_db``: energy of a channel bit over noise density. ``esn0_db``: of a symbol, ``ebn0_db + 10·log10(bits a
symbol)``. Where only ``snr_db`` is said (link reports, codecs, metrics) it is Eb/N0; for BPSK the two are the same.
"""

import math

from scipy import special

LEAST_DB, MOST_DB = -40.0, 60.0


def check_db(name: str, value: float) -> float:
    """Return a ratio in −40…60 dB, else raise ValueError."""
    if not (math.isfinite(value) and LEAST_DB <= value <= MOST_DB):
        raise ValueError(f"{name} must be {LEAST_DB:g}…{MOST_DB:g} dB, got {value}")
    return value


def from_db(value_db: float) -> float:
    """The ratio itself: ``10^(dB/10)``.

    >>> from_db(10.0)
    10.0
    """
    return float(10 ** (value_db / 10))


def to_db(ratio: float) -> float:
    """``10·log10(ratio)``."""
    return 10 * math.log10(ratio)


def bpsk_ber(snr_db: float) -> float:
    """``½·erfc(√(Eb/N0))``, the bit error rate of BPSK (and Gray-mapped QPSK) in white Gaussian noise.

    >>> round(bpsk_ber(0.0), 4)
    0.0786
    """
    return 0.5 * math.erfc(math.sqrt(from_db(snr_db)))


def bpsk_snr_db(ber: float) -> float:
    """Eb/N0 at which BPSK has this bit error rate, within −40…60 dB; the inverse of ``bpsk_ber``.

    >>> round(bpsk_snr_db(bpsk_ber(-3.0)), 6)
    -3.0
    """
    root = float(special.erfcinv(2 * ber))
    if root <= 0:
        return LEAST_DB
    return MOST_DB if math.isinf(root) else min(max(2 * to_db(root), LEAST_DB), MOST_DB)
