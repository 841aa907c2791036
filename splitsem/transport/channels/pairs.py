"""Wrong bits of axes that carry two, drawn directly: four axes to a byte, as Modulation maps them.

The noise of an axis, in units of its deviation, is beyond −s, −3s or −5s or above s, s being the inner level. Seen from
an inner level, these are a wrong sign, and with it or without it a wrong second bit; from an outer level likewise.
"""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from splitsem.transport.channels.bernoulli import uniform32
from splitsem.transport.channels.channel import Octets

_CHUNK_BYTES = 1 << 16  # the fastest of 2^12 … 2^16: what stays in a processor's cache, and few calls
_TOP = np.uint32(2**32 - 1)
Flags = NDArray[np.bool_]
Number = TypeVar("Number", np.uint32, np.float32)


def errors_of_tails(octets: Octets, tails: NDArray[np.float64], run: int, rng: np.random.Generator) -> Octets:
    """Which decided bits are wrong, from the probabilities of each block: fast where blocks are long.

    Args:
        octets: what is sent.
        tails: of ``Modulation.tails``, ``(3, blocks)``.
        run: axes of a block.
        rng: draws 32 bits for each axis.
    """
    wrong = np.zeros_like(octets)
    for k, sent, out, (first, third, fifth) in _planes(octets, wrong, (tails * 2.0**32).astype(np.uint32), run):
        draw = uniform32(len(sent), rng)
        _mark(out, k, sent, draw < first, draw < third, draw < fifth, draw > _TOP - first)
    return wrong


def errors_of_noise(octets: Octets, levels: NDArray[np.float32], run: int, rng: np.random.Generator) -> Octets:
    """Which decided bits are wrong, from noise: where there are about as many blocks as axes.

    Args:
        octets: what is sent.
        levels: s of each block, ``(blocks,)``.
        run: axes of a block.
        rng: draws the noise of each axis.
    """
    wrong = np.zeros_like(octets)
    for k, sent, out, (level,) in _planes(octets, wrong, levels[None], run):
        noise = rng.standard_normal(len(sent), np.float32)
        _mark(out, k, sent, noise < -level, noise < -3 * level, noise < -5 * level, noise > level)
    return wrong


def _planes(
    octets: Octets, wrong: Octets, of_blocks: NDArray[Number], run: int
) -> Iterator[tuple[int, Octets, Octets, NDArray[Number]]]:
    """Pieces that fit a cache, and in each the k-th axes of its bytes, k = 0…3.

    Yields:
        k, the bytes, their errors so far, and the columns of ``of_blocks`` ``(rows, blocks)`` that belong to the axes.
    """
    of_axes = of_blocks[:, :1]  # one block: the same for all axes
    for start in range(0, len(octets), _CHUNK_BYTES):
        sent, out = octets[start : start + _CHUNK_BYTES], wrong[start : start + _CHUNK_BYTES]
        for k in range(4):
            if of_blocks.shape[1] > 1 and 4 % run == 0:
                of_axes = of_blocks[:, (4 * start + k) // run :: 4 // run][:, : len(sent)]
            elif of_blocks.shape[1] > 1 and run % 4:  # blocks end within a byte
                of_axes = of_blocks.take((4 * np.arange(start, start + len(sent)) + k) // run, 1)
            elif of_blocks.shape[1] > 1 and k == 0:
                begin, skip = divmod(start, run // 4)
                end = (start + len(sent) - 1) // (run // 4) + 1
                of_axes = np.repeat(of_blocks[:, begin:end], run // 4, 1)[:, skip : skip + len(sent)]
            yield k, sent, out, of_axes


def _mark(wrong: Octets, k: int, sent: Octets, first: Flags, third: Flags, fifth: Flags, above: Flags) -> None:
    """Add the errors of the k-th axes of some bytes."""
    is_outer = (sent >> (6 - 2 * k) & 1).view(np.bool_)
    sign = third | (first & ~is_outer)
    outer = np.where(is_outer, first ^ fifth, third | above)
    wrong |= sign.view(np.uint8) << (7 - 2 * k)
    wrong |= outer.view(np.uint8) << (6 - 2 * k)
