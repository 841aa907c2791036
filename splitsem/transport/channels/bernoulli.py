"""Random bits that are 1 with a given probability, eight to a byte: the error patterns of channels."""

import numpy as np
from numpy.typing import NDArray

from splitsem.transport.channels.channel import Octets

_RARE = 1 / 64  # below, the gaps between ones are drawn; above, the bits themselves
_SHORT_BYTES = 4096  # up to which one call that draws 32 bits for each is faster than 24 that draw one
_CHUNK_BITS = 1 << 16  # what stays in a processor's cache is several times as fast
_PRECISION = 24  # bits of p where it is not rare


def packed_bits(num_bytes: int, p: float, rng: np.random.Generator) -> Octets:
    """``(num_bytes,)``: each of the 8 · num_bytes bits is 1 with probability ``p``, independently.

    Rare ones by their geometric gaps. Otherwise p's binary digits, last one first, each fold in a random word: OR for
    a digit 1, AND for a 0, so that P(1) goes from q to (digit + q) / 2. p is thereby exact to 2^−24.
    """
    if p <= 0 or num_bytes == 0:
        return np.zeros(num_bytes, np.uint8)
    if p >= 1:
        return np.full(num_bytes, 255, np.uint8)
    if p < _RARE:
        return _by_gaps(8 * num_bytes, p, rng)
    if num_bytes <= _SHORT_BYTES:
        return packed_bits_by_run(np.array([p]), 8 * num_bytes, 8 * num_bytes, rng)
    digits = round(p * 2**_PRECISION)
    num_words = -(-num_bytes // 8)
    words = np.zeros(num_words, np.uint64)
    is_first = True
    for k in range(_PRECISION):
        if digits >> k & 1:
            random = rng.integers(0, 2**64, num_words, np.uint64)
            words = random if is_first else np.bitwise_or(words, random, out=words)
            is_first = False
        elif not is_first:
            np.bitwise_and(words, rng.integers(0, 2**64, num_words, np.uint64), out=words)
    return words.view(np.uint8)[:num_bytes]


def _by_gaps(num_bits: int, p: float, rng: np.random.Generator) -> Octets:
    mask = np.zeros(num_bits, np.uint8)
    start = -1
    while start < num_bits:
        expected = (num_bits - start) * p
        gaps = rng.geometric(p, int(expected + 4 * expected**0.5) + 4)
        positions = start + np.cumsum(np.minimum(gaps, num_bits + 1))
        mask[positions[positions < num_bits]] = 1
        start = int(positions[-1])
    return np.packbits(mask)


def packed_bits_by_run(probabilities: NDArray[np.float64], run: int, num_bits: int, rng: np.random.Generator) -> Octets:
    """Packed bits, each ``run`` of them with a probability of their own, ``(runs,)``; the last run may be cut off."""
    run = min(run, max(num_bits, 1))
    thresholds = np.minimum(probabilities * 2.0**32, 2.0**32 - 1).astype(np.uint32)
    at_once = 8 * max(1, _CHUNK_BITS // (8 * run))  # runs; a multiple of 8, so that each chunk fills its bytes
    pieces = []
    for start in range(0, len(thresholds), at_once):
        chunk = thresholds[start : start + at_once, None]
        is_one = uniform32(len(chunk) * run, rng).reshape(-1, run) < chunk
        pieces.append(np.packbits(is_one.reshape(-1)[: num_bits - start * run]))
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint8)


def uniform32(num: int, rng: np.random.Generator) -> NDArray[np.uint32]:
    """Uniform 32-bit integers, two of each 64-bit word that the generator makes: several times as fast as one each."""
    return rng.integers(0, 2**64, -(-num // 2), np.uint64).view(np.uint32)[:num]
