"""Channel: the interface to whatever damages bits."""

from abc import ABC, abstractmethod
from math import isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Octets = NDArray[np.uint8]
Bits = NDArray[np.uint8]
Llrs = NDArray[np.float32]


class Hard(NamedTuple):
    """Bits as the receiver decided them, eight to a byte.

    Attributes:
        octets: ``(bytes,)``, most significant bit first.
        snr_db: Eb/N0 that the receiver saw, dB; of the BPSK with this bit error rate where the channel has no noise;
            None where no such figure makes sense.
    """

    octets: Octets
    snr_db: float | None


class Soft(NamedTuple):
    """What the receiver knows of each bit.

    Attributes:
        llrs: ``(bits,)`` log-likelihood ratios ln P(0)/P(1): above zero means 0, zero means erased.
        snr_db: as in ``Hard``.
    """

    llrs: Llrs
    snr_db: float | None


class Channel(ABC):
    """Carries bits, damages some. Stateless: all randomness comes from the generator, each call stands for itself."""

    @abstractmethod
    def hard(self, octets: Octets, rng: np.random.Generator) -> Hard:
        """Carry packed bits and decide each (an erased bit arrives as 0). Fast: for bits without error correction."""

    @abstractmethod
    def soft(self, bits: Bits, rng: np.random.Generator) -> Soft:
        """Carry bits, each 0 or 1, ``(bits,)``, and say how sure the receiver is of each: for error correction."""

    @property
    @abstractmethod
    def ber_theory(self) -> float | None:
        """Bit error rate of ``hard`` in closed form, averaged over states and fading; None where there is none."""


def check_probability(name: str, value: float, most: float = 1.0) -> float:
    """Return a value in 0…``most``, else raise ValueError."""
    if not (isfinite(value) and 0 <= value <= most):
        raise ValueError(f"{name} must be 0…{most:g}, got {value}")
    return value


def hard_decisions(llrs: Llrs) -> Bits:
    """The likelier value of each bit."""
    return (llrs < 0).astype(np.uint8)


def certain(bits: Bits, ber: float) -> Llrs:
    """LLRs of decided bits that are wrong with probability ``ber``; at 0 as sure as one wrong in 10^12."""
    odds = np.log1p(-max(ber, 1e-12)) - np.log(max(ber, 1e-12))
    return np.where(bits == 0, odds, -odds).astype(np.float32)
