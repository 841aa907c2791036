"""What a forged payload costs whoever decodes it: time, memory and the kind of error, for every decoder here.

    python benchmarks/hostile_payloads.py [total]    # 1,000,000 forged payloads by default

Each decoder gets honest payloads that were changed at random behind right checksums (``splitsem.check.forgery``), in a
process of its own. The table says how many were refused (PayloadError) and how many gave tensors, the most CPU time of
one payload in medians of an honest one, and how far the process grew at its peak, beside the bar: four times the
expected tensors, and 16 MB. The exit code is 1 where a bar is missed or any other exception was raised.
"""

import ctypes
import functools
import random
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.measured_rows import record
from splitsem.check.forgery import changed, forge
from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.expected import Expected
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.learned.adjscc import Adjscc
from splitsem.codecs.learned.agilenn import AgileNN
from splitsem.codecs.learned.bottleneck import Bottleneck
from splitsem.codecs.learned.crbq import CrBq
from splitsem.codecs.learned.deepcod import DeepCod
from splitsem.codecs.learned.entropic_student import EntropicStudent
from splitsem.codecs.learned.semanticnn import SemanticNN
from splitsem.codecs.picture import Jpeg, Pixels, Png, Webp
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.codecs.topk import TopK
from splitsem.errors import PayloadError
from splitsem.federated.state import Layout
from splitsem.tasks.answer import AnswerCoder, ClassMap, TopClasses, Values
from splitsem_device.fields import Reader, varint

TIME_BAR, MEMORY_BAR, SLACK_BYTES = 50, 4, 16 << 20
_HONEST, _RETRIES = 15, 5
_LARGE_BYTES = 1 << 19
Forge = Callable[[bytes, Sequence[bytes], random.Random], bytes]


class Target(NamedTuple):
    """Something that decodes bytes.

    Attributes:
        payloads: honest ones of what is expected, the first of which is the measure; and others, to splice with.
        read: decodes.
        num_bytes: size of the expected tensors.
        weight: share of the payloads that this target gets.
        forge: changes a payload.
    """

    payloads: list[bytes]
    read: Callable[[bytes], object]
    num_bytes: int
    weight: int = 8
    forge: Forge = forge


class Outcome(NamedTuple):
    """What forged payloads did.

    Attributes:
        num: forged payloads that were read.
        refused: those that gave a PayloadError.
        time_ratio: the most CPU time of one payload, in medians of an honest one.
        grown_bytes: how much the process grew at its peak.
        faults: other exceptions, named.
    """

    num: int
    refused: int
    time_ratio: float
    grown_bytes: int
    faults: list[str]


class OwnCodec(Codec):
    """The codec of docs/how-to/add-a-codec.md, in short: raw values under zlib."""

    def forward(self, z: Tensors) -> Tensors:
        """See Codec."""
        return z

    def encode(self, z: Tensors) -> bytes:
        """See Codec."""
        return zlib.compress(Identity().encode(z))

    def decode(self, payload: bytes) -> Tensors:
        """See Codec."""
        try:
            raw = zlib.decompressobj().decompress(payload, self.expected.most_bytes)
        except zlib.error as exc:
            raise PayloadError(f"expected a payload of OwnCodec: {exc}") from exc
        return Identity().decode(raw)


def _sparse(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).sub(0.5).relu()


def _of_codec(codec: Codec, z: Tensors, others: Sequence[Tensors] = (), weight: int = 8) -> Target:
    payloads = [codec.payload(one) for one in (z, *others)]
    expected = Expected.like(z)
    return Target(payloads, lambda p: codec.read(p, expected), sum(t.nbytes for t in z), weight)


def _of_answers(coder: AnswerCoder, shape: tuple[int, ...]) -> Target:
    answers = [coder.encode(_sparse(1, *shape, seed=seed)) for seed in (0, 1)]
    return Target(
        answers,
        lambda a: coder.as_output(coder.decode(a)),
        _sparse(1, *shape).nbytes,
        8,
        lambda p, o, d: changed(p, o[-1], d),
    )


def _of_updates(codec: Codec) -> Target:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(64, 10))
    layout = Layout(network)
    payload = layout.encode(codec, layout.join(layout.of(network)))

    def forged(payload: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
        reader = Reader(payload)
        main = bytes(reader.take(reader.varint("size", len(payload)), "payload"))
        rest = bytes(reader.rest())
        if draw.random() < 0.7:
            main = forge(main, [main], draw)
        else:
            rest = forge(rest, [rest], draw)
        return varint(len(main)) + main + rest

    return Target([payload], lambda p: layout.decode(codec, p), layout.raw_bytes, 8, forged)


def targets() -> dict[str, Target]:
    """Everything that decodes bytes of others, by name."""
    map_, deep = _sparse(1, 8, 14, 14), _sparse(1, 2, 14, 14).half()
    several = (map_, torch.arange(12).reshape(1, 12), deep)
    other = (_sparse(1, 8, 14, 14, seed=2), torch.arange(12).reshape(1, 12), deep + 1)
    large = (_sparse(1, 32, 64, 64),)
    huge = ((_sparse(1, 64, 128, 128)),)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 9), (48, 64), mode="bilinear")
    learned = {"tensor_shape": (8, 14, 14)}
    torch.manual_seed(0)
    codecs: dict[str, Codec] = {
        "identity": Identity(),
        "fp16": HalfPrecision(),
        **{f"quant8 {e}": Quantise(8, entropy=e) for e in ("none", "zstd", "rans", "context")},
        "quant12 channel": Quantise(12, "channel"),
        "quant2": Quantise(2),
        "topk": TopK(0.1),
        "topk gaps": TopK(0.01, values="quantised"),
        "fixed": FixedLength(8),
        "fixed gray planes": FixedLength(5, mapping="gray", order="planes"),
        "own codec": OwnCodec(),
    }
    found = {name: _of_codec(codec, several, [other], 16) for name, codec in codecs.items()}
    for name in ("identity", "quant8 zstd", "quant8 rans", "quant8 context", "topk", "fixed gray planes"):
        found[f"{name}, 512 KB"] = _of_codec(codecs[name], large, [(large[0] * 0.5,)], 1)
    for name in ("identity", "fp16", "quant8 context", "topk gaps", "fixed", "fixed gray planes", "own codec"):
        found[f"{name}, 4 MB"] = _of_codec(codecs[name], huge, [(huge[0] * 0.5,)], 0)
    for name, codec in {
        "jpeg": Jpeg(),
        "png": Png(),
        "webp": Webp(),
        "webp lossless": Webp(lossless=True),
        "pixels": Pixels(),
    }.items():
        found[name] = _of_codec(codec, (picture,), [(1 - picture,)])
    for cls in (SemanticNN, DeepCod, Adjscc, Bottleneck, CrBq, EntropicStudent):
        made = cls(**learned).eval()  # type: ignore[arg-type]
        found[cls.__name__.lower()] = _of_codec(made, (map_,), [(map_ * 2,)], 4)
    found["agilenn"] = _of_codec(AgileNN(**learned, num_classes=10).eval(), (map_,), [(map_ * 2,)], 4)  # type: ignore[arg-type]
    found["answer: classes"] = _of_answers(TopClasses(10, 3), (10,))
    found["answer: class map"] = _of_answers(ClassMap((8, 64, 64)), (8, 64, 64))
    found["answer: values"] = _of_answers(Values((1, 64)), (1, 64))
    found |= {f"update: {codec.name.lower()}": _of_updates(codec) for codec in (Identity(), Quantise(4), TopK(0.1))}
    return found


def attack(target: Target, num: int, seed: int = 0) -> Outcome:
    """Read ``num`` forged payloads, and measure."""
    draw = random.Random(seed)
    honest_s = statistics.median(_seconds(target, target.payloads[0])[0] for _ in range(_HONEST))
    each = target.num_bytes >= _LARGE_BYTES  # the forger's own copies would count
    before = _reset_peak()
    refused, worst, grown, faults = 0, 0.0, 0, []
    for _ in range(num):
        forged = target.forge(target.payloads[0], target.payloads, draw)
        before = _reset_peak() if each else before
        taken_s, error = _seconds(target, forged)
        grown = max(grown, _kilobytes("VmHWM") - before) if each else grown
        if taken_s > worst:  # again, because the machine has hiccups
            taken_s = min(taken_s, *(_seconds(target, forged)[0] for _ in range(_RETRIES)))
        worst = max(worst, taken_s)
        refused += isinstance(error, PayloadError)
        if error is not None and not isinstance(error, PayloadError):
            faults.append(f"{type(error).__name__}: {error}"[:100] + f" for {forged[:80].hex()}")
    grown = grown if each else max(_kilobytes("VmHWM") - before, 0)
    return Outcome(num, refused, worst / honest_s, grown << 10, faults)


def _seconds(target: Target, payload: bytes) -> tuple[float, Exception | None]:
    error = None
    began = time.thread_time()
    try:
        target.read(payload)
    except Exception as exc:  # noqa: BLE001 (what is not a PayloadError is what this looks for)
        error = exc
    return time.thread_time() - began, error


def _reset_peak() -> int:
    """Forget the peak of this process's memory, and give what it takes now, in kilobytes."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _kilobytes("VmRSS")


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _attack_named(name: str, num: int) -> Outcome:
    return attack(targets()[name], num, seed=zlib.crc32(name.encode()))


def main() -> int:
    """Attack every decoder, print the table, and return the exit code."""
    torch.set_num_threads(1)
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    known = targets()
    shares = sum(target.weight for target in known.values())
    print(f"{'decoder':26} {'forged':>8} {'refused':>8} {'decoded':>8} {'time':>7} {'grew':>8} {'bar':>8}")
    sums, is_missed = [0, 0], False
    num_faults, slowest, grown = 0, 0.0, 0.0
    for name, target in known.items():
        num = max(-(-total * target.weight // shares), 300)
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            out = pool.submit(functools.partial(_attack_named, name, num)).result()
        bar_bytes = MEMORY_BAR * target.num_bytes + SLACK_BYTES
        is_bad = bool(out.faults) or out.time_ratio > TIME_BAR or out.grown_bytes > bar_bytes
        is_missed |= is_bad
        sums = [sums[0] + out.num, sums[1] + out.refused]
        num_faults, slowest = num_faults + len(out.faults), max(slowest, out.time_ratio)
        grown = max(grown, out.grown_bytes / bar_bytes)
        print(
            f"{name:26} {out.num:8} {out.refused:8} {out.num - out.refused - len(out.faults):8} {out.time_ratio:6.1f}× "
            f"{out.grown_bytes / 1e6:5.1f} MB {bar_bytes / 1e6:5.1f} MB {'MISSED' if is_bad else ''}",
            *out.faults[:3],
            sep="\n   ",
            flush=True,
        )
    print(f"{'all':26} {sums[0]:8} {sums[1]:8}")
    what = f"{sums[0]:,} forged payloads, {len(known)} decoders"
    record(f"{what}: exceptions but `PayloadError`", f"{num_faults}", "0", num_faults > 0)
    record(f"{what}: worst time, of an honest one's", f"{slowest:.1f} ×", f"≤ {TIME_BAR} ×", slowest > TIME_BAR)
    record(f"{what}: worst growth, of what a decoder may", f"{grown:.0%}", "≤ 100 %", grown > 1)
    return int(is_missed)


if __name__ == "__main__":
    sys.exit(main())
