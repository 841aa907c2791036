"""Does the simulation say what a real line shows? Six (cut, codec) pairs of two networks, over a line of namespaces.

    python benchmarks/simulated_real.py                # as root; about a quarter of an hour on a quiet machine
    python benchmarks/simulated_real.py unet 20        # one network, one rate in Mbit/s

The line has a token bucket each way; behind it, a relay that does not block adds 10 ms each way
(harness/delaying_relay.py). Each end has a processor core of its own. For each pair, the edge runs ``workflow=offload``
(measured) and ``workflow=split`` with both machines measured here and the link as ``workflow=measure_link`` found it
(simulated). Bars: latency and throughput simulated within 10 % of what is measured (medians of
frames; of several rounds, with ``ROUNDS``, the least disturbed figures of both); the pair that the simulation
names fastest, in each sense, is within 5 % of the best measured one.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from harness.ends import ROOT, composed, configured, device_says, running_server, state_of_the_machine, stop_cleanly
from harness.line import SERVER_ADDRESS, Line, rate_limited_line
from harness.measured_rows import keep_table

BAR, WINNER_BAR = 0.10, 0.05
RATES_MBIT, DELAY_S = (5, 20, 100), 0.010
BURST_BYTES, QUEUE_BYTES = 3_000, 500_000
RELAY_PORT = 50100
EDGE_CORE, SERVER_CORE = 0, 1
PAIRS = {
    "unet": [
        ("input", "webp"),
        ("input", "quant8"),
        ("enc1.0", "quant4"),
        ("enc2.0", "quant8"),
        ("bottleneck", "quant8"),
        ("dec2.narrow", "quant4"),
    ],
    "mobilenet": [
        ("input", "webp"),
        ("input", "quant8"),
        ("features.1", "quant4"),
        ("features.3", "quant8"),
        ("features.8", "quant8"),
        ("avgpool", "quant8"),
    ],
}
STAGES = ("head_s", "encode_s", "edge_s", "link_busy_s", "server_s", "latency_s", "throughput_hz")
ROUNDS = 1
UNTRAINED = ["device=cpu", "device.num_threads=1", "trainer.max_epochs=0", "tracking=none"]
QUICKLY = ["workflow.num_samples=60"]
OFFLOAD = ["workflow.num_timed=60", "workflow.num_paced=200", "workflow.num_probes=20"]


def networks(scratch: Path) -> dict[str, list[str]]:
    """The settings of each network; random weights cost what trained ones cost."""
    pictures(scratch / "pictures")
    mobilenet = ["model=torchvision", "model.name=mobilenet_v3_small", "model.image_size=null"]
    folder = ["task=imagefolder", f"task.root={scratch}/pictures", "task.image_size=224"]
    common = [*UNTRAINED, f"cache_dir={scratch}/cache"]
    return {"unet": ["task=disaster", *common], "mobilenet": [*folder, *mobilenet, *common]}


def pictures(root: Path) -> None:
    """A folder of smooth random pictures in two classes, 60 of them for testing."""
    from PIL import Image

    noise = np.random.default_rng(0)
    for split, num in {"train": 4, "val": 4, "test": 30}.items():
        for name in ("one", "two"):
            (root / split / name).mkdir(parents=True)
            for number in range(num):
                coarse = Image.fromarray(noise.integers(0, 255, (16, 16, 3), dtype=np.uint8))
                coarse.resize((256, 256), Image.Resampling.BICUBIC).save(root / split / name / f"{number}.png")


@contextmanager
def relay(line: Line, target: str) -> Iterator[str]:
    """The delaying relay on the server's side of the line; gives its address."""
    address = f"{SERVER_ADDRESS}:{RELAY_PORT}"
    script = str(ROOT / "benchmarks" / "harness" / "delaying_relay.py")
    command = [sys.executable, script, address, target, str(DELAY_S)]
    with line.start(line.server, command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield address
        finally:
            process.terminate()


def device(address: str, overrides: list[str], pairs: list[tuple[str, str]], num_rounds: int) -> list[dict[str, Any]]:
    """Measured and simulated metrics of each pair, one after the other in this process."""
    from splitsem.links.recorded import write_link_metrics
    from splitsem.remote.link_probe import ProbeSettings
    from splitsem.workflows import measure_link
    from splitsem.workflows.serve import remote_transport

    folder = Path(tempfile.mkdtemp())
    cfg = configured(address, overrides, has_line=True)
    link = measure_link.measure(remote_transport(cfg), "grpc", ProbeSettings())
    write_link_metrics(link, folder / "link.json")
    recorded = ["workflow=split", "transport=recorded", f"transport.path={folder}/link.json", "hardware=local"]
    rounds = []
    for _ in range(num_rounds):
        rounds.append([one_pair(address, overrides, point, codec, recorded) for point, codec in pairs])
    return [least_disturbed(rows) | asdict(link) for rows in zip(*rounds, strict=True)]


def one_pair(address: str, overrides: list[str], point: str, codec: str, recorded: list[str]) -> dict[str, Any]:
    """One round of one pair: measured, then simulated."""
    from splitsem.workflows import offload, split

    pair, folder = [*overrides, *QUICKLY, f"split.point={point}", f"codec={codec}"], Path(tempfile.mkdtemp())
    real = offload.run(configured(address, [*pair, *OFFLOAD], has_line=True), folder).metrics
    simulated = split.run(composed([*recorded, *pair]), folder).metrics
    row = {"point": point, "codec": codec, "payload_bytes": simulated["payload_bytes"]}
    row |= {name: simulated[name] for name in STAGES}
    row |= {f"predicted_{name}": real[name] for name in STAGES}
    return row | {name: value for name, value in real.items() if name.startswith(("measured_", "paced_"))}


def least_disturbed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The least times and the highest rates of a pair's rounds: other programs only ever slow a round down."""
    best = {name: max if name.endswith("_hz") else min for name, value in rows[0].items() if isinstance(value, float)}
    return rows[0] | {name: choose(row[name] for row in rows) for name, choose in best.items()}


def show(title: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Print a row for each pair and the winners; returns the errors by name."""
    print(f"\n{title}; link.json: {1e-6 * rows[0]['up_bps']:.2f} Mbit/s up, round trip {1e3 * rows[0]['rtt_s']:.1f} ms")
    heads = ("edge ms", "server ms", "latency ms", "samples/s")
    print(f"{'cut, codec':22}{'bytes':>8}" + "".join(f"{head:>17}" for head in heads) + "    errors")
    errors: dict[str, list[float]] = {"latency_s": [], "throughput_hz": []}
    for row in rows:
        for name, so_far in errors.items():
            so_far.append(row[name] / row[f"measured_{name}"] - 1)
        cells = "".join(
            f"{1e3 * row[n]:8.2f} |{1e3 * row[f'measured_{n}']:7.2f}" for n in ("edge_s", "server_s", "latency_s")
        )
        cells += f"{row['throughput_hz']:8.1f} |{row['measured_throughput_hz']:7.1f}"
        signed = " ".join(f"{so_far[-1]:+7.1%}" for so_far in errors.values())
        print(f"{row['point'] + ', ' + row['codec']:22}{row['payload_bytes']:8.0f}{cells}  {signed}", flush=True)
    result = {name: statistics.median(map(abs, values)) for name, values in errors.items()}
    result |= {f"worst_{name}": max(map(abs, values)) for name, values in errors.items()}
    for name, best, sign in (("latency_s", min, 1), ("throughput_hz", max, -1)):
        winner = best(rows, key=lambda row: row[name])
        truth = best(row[f"measured_{name}"] for row in rows)
        loss = sign * (winner[f"measured_{name}"] / truth - 1)
        result[f"winner_{name}"] = loss
        print(f"best {name}, simulated: {winner['point']}, {winner['codec']}; measured {loss:.1%} behind the best")
    return result


def details(title: str, rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows as the page has them: simulated, then measured."""
    return [
        {
            "network, Mbit/s": title.removesuffix(" Mbit/s"),
            "cut, codec": f"`{row['point']}`, `{row['codec']}`",
            "bytes": f"{row['payload_bytes']:,.0f}",
            "latency ms": f"{1e3 * row['latency_s']:.2f} \\| {1e3 * row['measured_latency_s']:.2f}",
            "its error": f"{100 * (row['latency_s'] / row['measured_latency_s'] - 1):+.1f} %",
            "samples/s": f"{row['throughput_hz']:.1f} \\| {row['measured_throughput_hz']:.1f}",
            "their error": f"{100 * (row['throughput_hz'] / row['measured_throughput_hz'] - 1):+.1f} %",
        }
        for row in rows
    ]


def summed_up(title: str, row: dict[str, float]) -> dict[str, str]:
    """A line of the page: medians of the errors, and how far the simulated winners are behind; bold misses its bar."""

    def told(name: str, bar: float) -> str:
        return f"**{100 * row[name]:.1f}**" if row[name] > bar else f"{100 * row[name]:z.1f}"

    behind = ", ".join(told(f"winner_{name}", WINNER_BAR) for name in ("latency_s", "throughput_hz"))
    return {
        "network, Mbit/s": f"{title.removesuffix(' Mbit/s')} (load {os.getloadavg()[0]:.1f})",
        "latency: median, worst error": f"{told('latency_s', BAR)}, {100 * row['worst_latency_s']:.1f} %",
        "throughput: median, worst error": f"{told('throughput_hz', BAR)}, {100 * row['worst_throughput_hz']:.1f} %",
        "measured of the simulated winner, behind the best: latency, throughput": f"{behind} %",
    }


def main(chosen: list[str], rates_mbit: list[int]) -> None:
    """Print all pairs, then the bars."""
    print(state_of_the_machine())
    results: dict[str, dict[str, float]] = {}
    every, summary = list[dict[str, str]](), list[dict[str, str]]()
    with tempfile.TemporaryDirectory() as text:
        scratch = Path(text)
        settings = networks(scratch)
        for rate_mbit in rates_mbit:
            for name in chosen:
                folder = scratch / f"{name}{rate_mbit}"
                with (
                    rate_limited_line("splitsem-sim", rate_mbit * 1e6, BURST_BYTES, QUEUE_BYTES, both=True) as line,
                    running_server(folder, settings[name], line, SERVER_CORE) as server,
                    relay(line, server) as address,
                ):
                    arguments = {"address": address, "overrides": settings[name], "pairs": PAIRS[name]} | {
                        "num_rounds": ROUNDS
                    }
                    rows = device_says(__file__, arguments, line, EDGE_CORE)
                title = f"{name}, {rate_mbit} Mbit/s"
                results[title] = show(f"{title}, simulated | measured, {state_of_the_machine()}", rows)
                every += details(title, rows)
                summary.append(summed_up(title, results[title]))
    print(
        f"\n{'network, line':22}{'latency: median, worst':>26}{'throughput: median, worst':>28}{'winners behind':>20}"
    )
    for title, row in results.items():
        errors = [f"{row[n]:.1%}, {row[f'worst_{n}']:.1%}" for n in ("latency_s", "throughput_hz")]
        behind = f"{row['winner_latency_s']:.1%}, {row['winner_throughput_hz']:.1%}"
        is_met = max(row[n] for n in ("latency_s", "throughput_hz")) <= BAR
        wins = max(row[f"winner_{n}"] for n in ("latency_s", "throughput_hz")) <= WINNER_BAR
        verdict = ", ".join("PASS" if ok else "MISSED" for ok in (is_met, wins))
        print(f"{title:22}{errors[0]:>26}{errors[1]:>28}{behind:>20}  {verdict}")
    keep_table("simulated", every)
    keep_table("simulated_summary", summary)


if __name__ == "__main__":
    stop_cleanly()
    if sys.argv[1:] and sys.argv[1].startswith("{"):
        print(json.dumps(device(**json.loads(sys.argv[1]))))
    else:
        asked = [int(word) for word in sys.argv[1:] if word.isdigit()]
        main([word for word in sys.argv[1:] if word in PAIRS] or list(PAIRS), asked or list(RATES_MBIT))
