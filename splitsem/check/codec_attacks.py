"""Attacks on what a codec reads: damaged, forged and larger payloads, damaged bytes without a checksum, and bombs."""

import random
import statistics
import time
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from splitsem.check.bombs import bombs
from splitsem.check.forgery import bodies, forge
from splitsem.check.promises import UnkeptError, expect
from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.expected import Expected
from splitsem.errors import ConfigError, PayloadError

_NUM_CUTS, _NUM_FLIPS, _NUM_FORGED = 32, 200, 100
_MOST_TIMES_S, _SLACK_S, _MOST_TIMES_BYTES, _SLACK_BYTES = 50, 0.002, 4, 16 << 20
_LARGE = ((1, 6 << 20), (1, 16, 640, 640), (1, 3, 1448, 1448))  # shapes, each of 24 MB or more


class Trial(NamedTuple):
    """One set of crossing tensors that the codec takes: the tensors and their payload."""

    z: Tensors
    payload: bytes

    def tensors(self) -> Tensors:
        """Copies of the tensors, which the codec may spoil."""
        return clones(self.z)


class Damage(NamedTuple):
    """A payload, and the same one damaged or forged."""

    trial: Trial
    damaged: bytes


class Cost(NamedTuple):
    """What reading a payload takes: CPU seconds, and bytes at the peak; with the error that it ended in, if any."""

    seconds: float
    peak_bytes: int
    error: Exception | None


def in_words(z: Sequence[Tensor]) -> str:
    """Dtypes and shapes in words: ``float32 1×8 and int64 3``."""
    return " and ".join(f"{str(t.dtype)[6:]} {'×'.join(map(str, t.shape)) or 'scalar'}" for t in z) or "no tensor"


def clones(z: Tensors) -> Tensors:
    """Copies of the tensors."""
    return tuple(t.clone() for t in z)


def damages(trials: list[Trial], *, bare: bool = False) -> dict[str, Damage]:
    """Damaged payloads of the shortest and the longest trial, by what was done to them.

    Args:
        trials: with honest payloads.
        bare: whether it is the bytes of ``encode`` that are damaged, without the envelope and its checksum.
    """
    draw = random.Random(0)
    found: dict[str, Damage] = {}
    for trial in _ends(trials):
        whole = bodies(trial.payload)[0][0] if bare else trial.payload
        for what, damaged in _damaged(whole, draw).items():
            if damaged != whole:
                found[f"{in_words(trial.z)} with {what} in place of {len(whole)} bytes"] = Damage(trial, damaged)
    return found


def _ends(trials: Iterable[Trial]) -> list[Trial]:
    """The shortest and the longest one."""
    ordered = sorted(trials, key=lambda trial: len(trial.payload))
    return ordered[:1] + ordered[1:][-1:]


def _damaged(payload: bytes, draw: random.Random) -> dict[str, bytes]:
    size = len(payload)
    made = {"no bytes": b"", "random bytes": draw.randbytes(size), "a byte too many": payload + b"\0"}
    made["bytes too many"] = payload + draw.randbytes(9)
    for end in sorted({size * i // _NUM_CUTS for i in range(_NUM_CUTS)}):
        made[f"its first {end} bytes"] = payload[:end]
    for _ in range(_NUM_FLIPS // 2 if size else 0):
        at, bits = draw.randrange(size), 1 << draw.randrange(8) if draw.random() < 0.5 else draw.randrange(1, 256)
        made[f"bits {bits:#04x} of byte {at} flipped"] = _flipped(payload, at, bits)
    return made


def _flipped(payload: bytes, at: int, bits: int) -> bytes:
    return payload[:at] + bytes((payload[at] ^ bits,)) + payload[at + 1 :]


def refuses(codec: Codec, case: Damage) -> None:
    """A codec that bears bit errors may return tensors of the right shapes instead."""
    trial, damaged = case
    bears = codec.is_framed and codec.protected_bytes(trial.payload) < len(trial.payload)
    try:
        z_hat = codec.read(damaged)
    except PayloadError:
        return
    if not bears:
        raise UnkeptError(f"read returned {in_words(z_hat)}")
    expect(in_words(z_hat) == in_words(trial.z), f"read returned {in_words(z_hat)}, not {in_words(trial.z)}")


def refuses_itself(codec: Codec, case: Damage) -> None:
    """What reaches ``decode`` where the checksum was forged; it may give tensors, since not all damage shows."""
    try:
        with codec.expecting(Expected.like(case.trial.z)):
            z_hat = codec.decode(case.damaged)
    except PayloadError:
        return
    is_read = isinstance(z_hat, tuple | list) and all(isinstance(t, Tensor) for t in z_hat)
    expect(is_read, f"decode returned {type(z_hat).__name__}, not tensors")


def reads_all(codec: Codec, case: Damage) -> None:
    """A damaged payload beside a whole one."""
    trial, damaged = case
    first, second = codec.decode_all([damaged, trial.payload], [None, None])
    expect(second is not None and in_words(second) == in_words(trial.z), "the whole payload gave no such tensors")
    expect(first is None or codec.protected_bytes(trial.payload) < len(trial.payload), "the damaged one gave tensors")


def forged(trials: Mapping[str, Trial]) -> dict[str, Damage]:
    """Payloads of the shortest and the longest trial, forged."""
    draw = random.Random(0)
    others = [trial.payload for trial in sorted(trials.values(), key=lambda trial: len(trial.payload))]
    return {
        f"{in_words(trial.z)} with forgery {k} of {len(trial.payload)} bytes": Damage(
            trial, forge(trial.payload, others, draw)
        )
        for trial in _ends(trials.values())
        for k in range(_NUM_FORGED)
    }


def exploding(trials: Mapping[str, Trial]) -> dict[str, Damage]:
    """Bombs in place of the payloads of the shortest and the longest trial."""
    return {
        f"{in_words(trial.z)} with {what}": Damage(trial, payload)
        for trial in _ends(trials.values())
        for what, payload in bombs(trial.payload).items()
    }


def larger(codec: Codec, trials: Mapping[str, Trial]) -> dict[str, Damage]:
    """The payload of a large constant tensor where the shortest trial is expected; a learned codec has one shape."""
    for shape in () if codec.is_learned or not trials else _LARGE:
        try:
            payload = codec.payload((torch.zeros(shape),))
        except (ValueError, ConfigError):
            continue
        trial = min(trials.values(), key=lambda trial: len(trial.payload))
        return {f"float32 {'×'.join(map(str, shape))} in {len(payload)} bytes": Damage(trial, payload)}
    return {}


def is_bounded(codec: Codec, case: Damage) -> None:
    """What a forged payload costs, compared with an honest one."""
    trial, payload = case
    honest_s = statistics.median(_cost(codec, trial, trial.payload).seconds for _ in range(3))
    most_s = _MOST_TIMES_S * honest_s + _SLACK_S
    most_bytes = _MOST_TIMES_BYTES * sum(t.nbytes for t in trial.z) + _SLACK_BYTES
    costs = [_cost(codec, trial, payload)]
    while costs[-1].seconds > most_s and len(costs) < 5:  # the machine may have hiccups
        costs.append(_cost(codec, trial, payload))
    _, peak_bytes, error = costs[-1]
    if error is not None and not isinstance(error, PayloadError):
        raise error
    expect(peak_bytes <= most_bytes, f"it took {peak_bytes >> 20} MB, allowed are {most_bytes >> 20}")
    seconds = min(cost.seconds for cost in costs)
    expect(seconds <= most_s, f"it took {seconds * 1e3:.3g} ms, an honest one {honest_s * 1e3:.3g}")


def _cost(codec: Codec, trial: Trial, payload: bytes) -> Cost:
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    error, before = None, tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    began = time.thread_time()
    try:
        codec.read(payload, Expected.like(trial.z))
    except Exception as exc:  # noqa: BLE001 (a plug-in may raise anything; it becomes a line of the report)
        error = exc
    cost = Cost(time.thread_time() - began, tracemalloc.get_traced_memory()[1] - before, error)
    if not was_tracing:
        tracemalloc.stop()
    return cost
