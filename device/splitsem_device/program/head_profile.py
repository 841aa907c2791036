"""Times the head on this machine, and writes the table that ``hardware.edge.lut=FILE`` of splitsem reads."""

import json
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from splitsem_device.bundle import Bundle
from splitsem_device.onnx_half import OnnxHalf
from splitsem_device.program.feeds import BundleSamples
from splitsem_device.this_machine import described

LUT_SCHEMA = "splitsem.lut/1"
_NUM_WARM_UP = 3
_FEWEST = 3


def timed(half: OnnxHalf, bundle: Bundle, repeats: int, pause_s: float) -> dict[str, float]:
    """Median, 10th and 90th percentile of the seconds of one run on a sample of the bundle.

    ``pause_s`` of idleness before each run gives the time of a frame that arrives alone, not that of a hot loop.
    """
    samples = cycle(list(BundleSamples(bundle)))
    for _ in range(_NUM_WARM_UP):
        half(next(samples))
    times_s = []
    for _ in range(max(repeats, _FEWEST)):
        sample = next(samples)
        time.sleep(pause_s)
        began = time.perf_counter()
        half(sample)
        times_s.append(time.perf_counter() - began)
    p10, median, p90 = (float(v) for v in np.percentile(times_s, [10, 50, 90]))
    return {"median": median, "p10": p10, "p90": p90}


def table(bundle: Bundle, head: OnnxHalf, num_threads: int, repeats: int, pause_s: float) -> dict[str, Any]:
    """The table of this machine: the head with its encoder, and the whole network where the bundle has it."""
    import onnxruntime

    facts = bundle.facts
    points = {facts.plan.point: {"head_s": timed(head, bundle, repeats, pause_s)}}
    if facts.whole:
        whole = OnnxHalf(bundle.read(facts.whole), facts.whole, num_threads)
        points["output"] = {"head_s": timed(whole, bundle, repeats, pause_s)}
    return {
        "schema": LUT_SCHEMA,
        "unit": "s",
        "fingerprint": facts.plan.fingerprint,
        "torch": f"none, onnxruntime {onnxruntime.__version__}",
        "machine": described() | {"accelerator": "cpu", "num_threads": str(num_threads)},
        "points": points,
    }


def write(found: dict[str, Any], path: Path) -> None:
    """Write a table as JSON."""
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
