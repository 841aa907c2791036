"""The coders as a small board uses them: times beside zstd's, level 3; time and memory of a process that only codes.

    python benchmarks/device_coders.py                        # needs neither torch nor weights
    python benchmarks/device_coders.py --other CHECKOUT/device splitsem_device.entropy    # beside another commit's

Symbols of smooth maps with many zeros, in shapes that networks for small boards are cut at. One thread; times are the
least of interleaved rounds. What ``--other`` names must make the same bytes.
"""

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import zstandard

DEVICE = Path(__file__).parents[1] / "device"
sys.path.insert(0, str(DEVICE))
CASES = (
    *(((1, 40, 28, 28), 8), ((1, 960, 7, 7), 4), ((1, 64, 56, 56), 8), ((1, 64, 56, 56), 2)),
    ((1, 10), 8),
)
ROUNDS = 30
FIRST_USE = """
import resource, sys, time
began = time.perf_counter()
import numpy as np
numpy_s = time.perf_counter() - began
sys.path.insert(0, sys.argv[1])
from importlib import import_module
entropy = import_module(sys.argv[2])
imported_s = time.perf_counter() - began
symbols = np.random.default_rng(0).poisson(1, 40000).astype(np.uint8)
for num in (9000, 40000):  # either coder
    body = entropy.encode(symbols[:num], (num,), 4, 0, "context")
    entropy.decode(memoryview(body), (num,), 4, 0)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
coded_s = time.perf_counter() - began
print(f"numpy {numpy_s:.2f} s, coders {imported_s:.2f} s, until both have coded {coded_s:.2f} s, peak {peak:.0f} MB")
"""


def feature(shape: tuple[int, ...], bit_width: int) -> np.ndarray:
    """Symbols of a smooth map with many zeros, channels of different activity; of a vector: half of it zeros."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    if len(shape) == 4:
        for _ in range(2):
            x = (x + np.roll(x, 1, -1) + np.roll(x, 1, -2) + np.roll(x, (1, 1), (-1, -2))) / 2
        x = x * rng.uniform(0.3, 1.5, (shape[1], 1, 1)) - 0.4
    x = np.maximum(x, 0)
    return np.rint(x / x.max() * ((1 << bit_width) - 1)).astype(np.uint8).reshape(-1)


def decoded(entropy: ModuleType, shape: tuple[int, ...], bit_width: int, body: bytes) -> object:
    """The symbols of a body."""
    return entropy.decode(memoryview(body), shape, bit_width, 0)


def compare(entropies: dict[str, ModuleType], shape: tuple[int, ...], bit_width: int) -> None:
    """Print a line for each coder."""
    symbols = feature(shape, bit_width)
    coders: dict[str, tuple[Callable[[], bytes], Callable[[bytes], Any]]] = {
        "zstd-3": (lambda: zstandard.compress(symbols.tobytes(), 3), zstandard.decompress)
    }
    for label, entropy in entropies.items():
        for stage in ("rans", "context"):
            coders[f"{stage}{label}"] = (
                partial(entropy.encode, symbols, shape, bit_width, 0, stage),
                partial(decoded, entropy, shape, bit_width),
            )
    bodies = {name: encode() for name, (encode, _) in coders.items()}
    for stage in ("rans", "context"):
        assert len({bodies[f"{stage}{label}"] for label in entropies}) == 1, f"{stage}: other bytes"
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in coders}
    for _ in range(ROUNDS if symbols.size > 1000 else 20 * ROUNDS):
        for name, (encode, decode) in coders.items():
            start = time.perf_counter()
            encode()
            middle = time.perf_counter()
            decode(bodies[name])
            spent[name].append((middle - start, time.perf_counter() - middle))
    least = {name: [min(times[k] for times in rounds) for k in (0, 1)] for name, rounds in spent.items()}
    print(f"\n{'×'.join(map(str, shape))}, {bit_width} bit: {symbols.size:,} symbols")
    for name, (encode_s, decode_s) in least.items():
        ratios = [one / base for one, base in zip(least[name], least["zstd-3"], strict=True)]
        print(
            f"  {name:16} {len(bodies[name]):>7,} B   encode {1e6 * encode_s:7.0f} µs   decode {1e6 * decode_s:7.0f} µs"
            f"   of zstd's: {len(bodies[name]) / len(bodies['zstd-3']):.2f} B {ratios[0]:5.2f} {ratios[1]:5.2f}"
        )


def first_use(label: str, folder: Path | str, module: str) -> None:
    """Print what a fresh process takes until it has coded once, twice over: what was kept on disk helps the second."""
    for run in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-c", FIRST_USE, folder, module], capture_output=True, text=True, check=True
        )
        print(f"{run} process{label}: {done.stdout.strip()}")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", nargs=2, metavar=("FOLDER", "MODULE"), help="where to import another one from")
    other = parser.parse_args().other
    first_use("", DEVICE, "splitsem_device.entropy")
    entropies = {"": importlib.import_module("splitsem_device.entropy")}
    if other is not None:
        first_use(", other", *other)
        sys.path.insert(0, other[0])
        entropies[", other"] = importlib.import_module(other[1])
    for shape, bit_width in CASES:
        compare(entropies, shape, bit_width)


if __name__ == "__main__":
    main()
