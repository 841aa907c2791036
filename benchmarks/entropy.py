"""Entropy coders side by side on trained features that no constant was chosen on: bytes, and times in one process.

    python -m splitsem.data get more-photographs mobilenetv2-embedder pp-ocrv4
    pip install imagecodecs                         # JPEG-LS; without it that column is empty
    python benchmarks/entropy.py                    # held-out maps; trains four networks at first, two minutes
    python benchmarks/entropy.py --maps tuning      # those that the constants were chosen on
    python benchmarks/entropy.py --other CHECKOUT/device    # beside another commit's `context`, in a process of its own

Bodies alone, without the header of some 20 bytes. JPEG-LS codes all planes as one tall picture. Means of a group are
means of each map's ratio; times are medians of interleaved rounds, one thread.
"""

import argparse
import importlib.util
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zstandard

import coder_maps
from coder_maps import Map
from harness.measured_rows import record
from splitsem_device import entropy
from splitsem_device.entropy.bits import pack_bits
from splitsem_device.entropy.maps import Layout

BITS = (8, 4, 2)
ROUNDS = 9
BINARY = {8: -9.6, 4: -24.6, 2: -32.4}
"""The binary coder's bytes of the maps up to 32,768 symbols against order 0, in percent: a bar."""
BARS_MSYM = {"7,000 to 11,000": (7_000, 11_000, 40), "100,000 or more": (100_000, 1 << 40, 120)}
"""By size of map: its bounds, and the Msym/s that encoding and decoding must reach."""
RATES_BPS = {"ethernet": 1e9, "wifi": 18.88e6, "lte": 5.64e6}
OTHER = """
import json, pickle, sys, time
from splitsem_device import entropy
with open(sys.argv[1], "rb") as file:
    maps = pickle.load(file)
print(json.dumps([len(entropy.encode(m[5], m[2], m[3], m[4], "context")) for m in maps]))
"""


def order_0_bytes(symbols: np.ndarray) -> float:
    """Empirical order-0 entropy of all symbols, in bytes."""
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / symbols.size)).sum() / 8)


def yardsticks(m: Map) -> dict[str, float]:
    """Bytes by other coders; zstd's of packed bits or of a byte a symbol, whichever is smaller."""
    plain = min((m.symbols.tobytes(), pack_bits(m.symbols, m.bit_width)), key=lambda p: len(zstandard.compress(p, 19)))
    sizes: dict[str, float] = {"zstd-19": len(zstandard.compress(plain, 19))}
    if importlib.util.find_spec("imagecodecs"):
        import imagecodecs

        planes, rows, cols = Layout.of(m.shape)
        sizes["jpeg-ls"] = len(imagecodecs.jpegls_encode(m.symbols.reshape(planes * rows, cols)))
    for stage in ("rans", "context"):
        body = entropy.encode(m.symbols, m.shape, m.bit_width, m.fill, stage)
        assert np.array_equal(entropy.decode(memoryview(body), m.shape, m.bit_width, m.fill), m.symbols)
        sizes[stage] = len(body)
    return sizes


def others_bytes(maps: list[Map], device: Path) -> list[int]:
    """Bytes of ``context`` by another checkout's coder."""
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        pickle.dump([tuple(m) for m in maps], file)
        file.flush()
        environment = {**os.environ, "PYTHONPATH": str(device)}
        command = [sys.executable, "-c", OTHER, file.name]
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def print_sizes(maps: list[Map], other: Path | None) -> None:
    """A line for each network and bit width: bytes against the order-0 bound."""
    rows = [yardsticks(m) for m in maps]
    if other is not None:
        for row, size in zip(rows, others_bytes(maps, other), strict=True):
            row["other"] = size
    names = list(rows[0])
    print(f"\nbytes against order 0 (H0), in percent\n{'':24}{'maps':>5}" + "".join(f"{name:>10}" for name in names))
    groups: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    for m, row in zip(maps, rows, strict=True):
        ratios = {name: 100 * (size / max(order_0_bytes(m.symbols), 1) - 1) for name, size in row.items()}
        for group in (m.network, "all", "all above 32,768" if m.symbols.size > 32_768 else "all up to 32,768"):
            groups[m.bit_width, group].append(ratios)
    for (bit_width, group), several in sorted(groups.items(), key=lambda item: (-item[0][0], item[0][1])):
        means = (statistics.mean(ratios[name] for ratios in several) for name in names)
        found = dict(zip(names, means, strict=True))
        print(f"{bit_width} bit {group:18}{len(several):5}" + "".join(f"{mean:+10.1f}" for mean in found.values()))
        if group.startswith("all "):
            record_size(bit_width, f"{len(several)} maps {group.removeprefix('all ')}", found)


def record_size(bit_width: int, group: str, found: dict[str, float]) -> None:
    """Keep the bytes of ``context`` beside their bar: the best other coder, or of small maps the binary one."""
    others: dict[str, float] = {name: found[name] for name in ("jpeg-ls", "zstd-19") if name in found}
    others = others if "above" in group else {"the binary coder": BINARY[bit_width]}
    bar = ", ".join(f"{name} {size:+.1f}" for name, size in others.items())
    is_missed = found["context"] > min(others.values())
    what = f"`context`, {group} symbols, {bit_width} bit: bytes against order 0"
    record(what, f"{found['context']:+.1f} %".replace("-", "−"), f"below {bar} %".replace(" -", " −"), is_missed)


def times_s(m: Map) -> dict[str, tuple[int, float, float]]:
    """Bytes and median seconds of encoding and decoding."""

    def ours(stage: str) -> tuple[Callable[[], bytes], Callable[[bytes], object]]:
        return (
            lambda: entropy.encode(m.symbols, m.shape, m.bit_width, m.fill, stage),
            lambda body: entropy.decode(memoryview(body), m.shape, m.bit_width, m.fill),
        )

    packed = pack_bits(m.symbols, m.bit_width) if 8 % m.bit_width == 0 else m.symbols.tobytes()
    coders: dict[str, tuple[Callable[[], bytes], Callable[[bytes], object]]] = {
        stage: ours(stage) for stage in ("none", "zstd", "rans", "context")
    }
    coders["zstd-1"] = (lambda: zstandard.compress(packed, 1), zstandard.decompress)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in coders}
    sizes = {}
    for _ in range(ROUNDS):  # interleaved, so that a busy machine is busy for all coders
        for name, (encode, decode) in coders.items():
            began = time.perf_counter()
            body = encode()
            middle = time.perf_counter()
            decode(body)
            spent[name].append((middle - began, time.perf_counter() - middle))
            sizes[name] = len(body)
    return {
        name: (sizes[name], *(statistics.median(times_s) for times_s in zip(*rounds, strict=True)))
        for name, rounds in spent.items()
    }


def print_times(maps: list[Map]) -> None:
    """Msym/s by size of map, and how often ``context`` and ``auto`` are slower in the whole than ``none``."""
    speeds: dict[tuple[int, str, str], list[tuple[float, float]]] = defaultdict(list)
    of_context: list[tuple[Map, tuple[float, float]]] = []
    slower: dict[tuple[str, str], list[float]] = defaultdict(list)
    for m in maps:
        found, num = times_s(m), m.symbols.size
        size = (
            "to 4,096" if num <= 4096 else "to 32,768" if num <= 32_768 else "to 99,999" if num < 100_000 else "above"
        )
        for name, (_, encode_s, decode_s) in found.items():
            speeds[m.bit_width, size, name].append((num / encode_s / 1e6, num / decode_s / 1e6))
        of_context.append((m, speeds[m.bit_width, size, "context"][-1]))
        for link, rate_bps in RATES_BPS.items():
            whole_s = {name: e + d + 8 * size / rate_bps for name, (size, e, d) in found.items()}
            pays = entropy.choice.pays(m.symbols, m.bit_width, rate_bps)
            slower[link, "context"].append(whole_s["context"] / whole_s["none"])
            slower[link, "auto"].append(whole_s["context" if pays else "none"] / whole_s["none"])
    print("\nMsym/s, encoding / decoding, medians of maps of that many symbols")
    for bit_width in sorted({m.bit_width for m in maps}, reverse=True):
        for size in ("to 4,096", "to 32,768", "to 99,999", "above"):
            cells = []
            for name in ("none", "zstd-1", "zstd", "rans", "context"):
                if found_speeds := speeds.get((bit_width, size, name)):
                    rates = (statistics.median(s[k] for s in found_speeds) for k in (0, 1))
                    cells.append(f"{name} " + "/".join(f"{rate:.0f}" for rate in rates))
            if cells:
                print(f"{bit_width} bit, {size:10} " + "   ".join(cells))
    record_speeds(of_context)
    print("\nencoding + link (rate alone) + decoding, of that of none: slower at, worst, median")
    for (link, name), ratios in sorted(slower.items()):
        late = sum(ratio > 1.03 for ratio in ratios)
        print(f"{link:10}{name:9}{late:4} of {len(ratios)}   {max(ratios):5.2f}  {statistics.median(ratios):5.2f}")
        if name == "auto":
            what = f"`auto` slower by 3 % than `none`, its time counted, {link}: maps of {len(ratios)}"
            record(what, f"{late}", "0", late > 0)


def record_speeds(found: list[tuple[Map, tuple[float, float]]]) -> None:
    """Keep the Msym/s of ``context`` beside their bar."""
    for words, (least, most, bar) in BARS_MSYM.items():
        for bit_width in BITS:
            judged = [s for m, s in found if m.bit_width == bit_width and least <= m.symbols.size <= most]
            if judged:
                encoding, decoding = (statistics.median(s[k] for s in judged) for k in (0, 1))
                what = f"`context`, maps of {words} symbols, {bit_width} bit: encoding / decoding"
                record(what, f"{encoding:.0f} / {decoding:.0f} Msym/s", f"≥ {bar}", min(encoding, decoding) < bar)


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", choices=("held_out", "tuning"), default="held_out")
    parser.add_argument("--other", type=Path, help="the folder `device` of another checkout, compiled")
    given = parser.parse_args()
    torch.set_num_threads(1)
    maps = list(getattr(coder_maps, given.maps)(BITS))
    print_sizes(maps, given.other)
    print_times(maps)


if __name__ == "__main__":
    main()
