"""Checks a bundle on this machine: its files, the coders' bytes, and what the head makes of the samples here."""

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem_device.bundle import FACTS, Bundle
from splitsem_device.errors import ConfigError
from splitsem_device.onnx_half import OnnxHalf
from splitsem_device.program.feeds import BundleSamples

_SCALE_ERROR = 1e-4  # relative: sums in another order move a range's scale in its last bits


class Finding(NamedTuple):
    """One line of a check.

    Attributes:
        line: what was found.
        is_good: whether it is as it must be.
        is_exact: whether it is the same to the last bit.
    """

    line: str
    is_good: bool
    is_exact: bool = True


def findings(bundle: Bundle, heads: list[str], num_threads: int = 1) -> Iterator[Finding]:
    """One after the other: every file, the coders, and each head.

    A head's integers may differ by one: kernels of another processor or version add up in another order, and a value
    between two levels then goes to the other one. The coders have no such freedom: their bytes are the same everywhere.
    """
    facts = bundle.facts
    broken = []
    for name in facts.files:
        try:
            bundle.read(name)
        except ConfigError as exc:
            broken.append(name)
            yield Finding(str(exc), is_good=False)
    if broken:
        yield Finding(f"{len(broken)} of {len(facts.files)} files bad: {', '.join(broken)}", is_good=False)
        return
    total = sum(file.num_bytes for file in facts.files.values())
    yield Finding(f"{FACTS} and all {len(facts.files)} files ({total:,} bytes)", is_good=True)
    for name in heads:
        bundle.head(name)
        yield from _head_findings(bundle, name, num_threads)


def _head_findings(bundle: Bundle, name: str, num_threads: int) -> Iterator[Finding]:
    facts, samples = bundle.facts, bundle.facts.samples
    packing = facts.framing
    expected = bundle.pieces(samples.payloads[name], samples.payload_bytes[name])
    kept = np.load(io.BytesIO(bundle.read(samples.outputs[name])), allow_pickle=False)
    per_sample = [[kept[out][k] for out in packing.outputs] for k in range(len(expected))]
    num = len(expected)
    same = sum(packing.payload(*outputs) == payload for outputs, payload in zip(per_sample, expected, strict=True))
    yield Finding(f"coders, {name}: {same} of {num} payloads identical, of the outputs that came along", same == num)
    try:
        head = OnnxHalf(bundle.head(name), facts.heads[name], num_threads, facts.versions.get("onnxruntime", ""))
    except ConfigError as exc:
        yield Finding(str(exc), is_good=False)
        return
    made = [head(sample) for sample in BundleSamples(bundle)]
    payloads = [packing.payload(*outputs) for outputs in made]
    same = sum(map(bytes.__eq__, payloads, expected))
    line = f"head, {name}: {same} of {num} payloads identical to those of the machine that made the bundle"
    if same < num:
        differ, values, furthest, scale = _distance(made, per_sample)
        share = (
            f"{differ:,} of {values:,} integers differ, by at most {furthest:g}; the rest by {scale:.1e} of its size"
        )
        is_near = furthest <= 1 and scale <= _SCALE_ERROR
        yield Finding(f"{line}; {share}{': within one step' * is_near}", is_near, is_exact=False)
    else:
        yield Finding(line, is_good=True)
    if "torch" in samples.payloads:
        torch = bundle.pieces(samples.payloads["torch"], samples.payload_bytes["torch"])
        same = sum(map(bytes.__eq__, payloads, torch))
        line = f"head, {name}: for information, {same} of {num} payloads are torch's to the last bit; torch rounds in"
        yield Finding(f"{line} other places, so none need be, and --exact does not compare with torch", is_good=True)


Outputs = list[NDArray[Any]]


def _distance(made: list[Outputs], expected: list[Outputs]) -> tuple[int, int, float, float]:
    """Integers that differ, integers, their furthest distance, and the largest relative distance of the others."""
    differ = values = 0
    furthest = relative = 0.0
    for ours, theirs in zip(made, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            b = b.reshape(a.shape)
            if a.dtype.kind in "biu":
                away = np.abs(a.astype(np.int64) - b.astype(np.int64))
                differ, values = differ + int((away > 0).sum()), values + a.size
                furthest = max(furthest, float(away.max(initial=0)))
            else:
                size = max(float(np.abs(b).max(initial=0)), 1e-30)
                relative = max(relative, float(np.abs(a - b).max(initial=0)) / size)
    return differ, values, furthest, relative
