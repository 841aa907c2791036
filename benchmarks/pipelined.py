"""Do the stages overlap? Frames a second over a rate-limited line, for three splits, each bound by another stage.

    python benchmarks/pipelined.py             # as root; about a minute and a half

Each stage is timed alone: the head and the tail (with their share of the codec) in a process that has the machine to
itself, the line by its rate without the headers of full TCP segments. Bar: frames flow at 95 % or more of
min(1 / edge_s, line capacity / payload, 1 / server_s).
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harness.ends import BRIEFLY, configured, device_says, running_server, state_of_the_machine, stop_cleanly
from harness.line import Line, NoNamespacesError, rate_limited_line
from harness.measured_rows import record

BAR, TOO_GOOD = 0.95, 1.05
NETWORK = ["task=digits", "model=torchvision", "model.name=resnet18", "model.image_size=96", "codec=quant8"]
FAST_BPS = 200e6
SPLITS = ("layer4", "layer1", "input")
"""The slowest stage is the edge at the first split, the line (by its chosen rate) at the second, then the server."""
LINK_BOUND, LINK_SHARE = "layer1", 1.5  # the split; the line's time ÷ the slower end's
BUCKET = (16_000, 1_000_000)  # bytes that the bucket holds, bytes that may wait
ROUNDS = 3
SECONDS = 5.0  # seconds of frames in each round
NUM_ALONE, NUM_WARM_UP = 25, 12


def device(address: str, overrides: list[str], names: list[str]) -> dict[str, dict[str, float]]:
    """For each split, the times of stages alone and the frames a second of all stages; medians of some rounds."""
    from hydra.utils import instantiate

    from splitsem.remote.edge_end import EdgeEnd
    from splitsem.remote.labels import weights_digest
    from splitsem.workflows import assemble
    from splitsem.workflows.serve import engine_for, remote_transport

    cfg = configured(address, overrides, has_line=True)
    network, codec = assemble.network(cfg), instantiate(cfg.codec)
    engine, remote = engine_for(cfg, network, coders=[network.task.answer_coder()]), remote_transport(cfg).edge_end()
    weights, coder = weights_digest(network.model), network.task.answer_coder()
    samples = [x for x, _ in assemble.test_batches(network.task, network.placement, 1, 100)]
    found = {}
    for point in SPLITS:
        end = EdgeEnd(network.graph.cut(point), codec, coder)
        plan = end.plan(weights, "layer", "float32")
        payload, session = end.payload(samples[0]), engine.open(plan)
        stages = partial(end.payload, samples[0]), partial(engine.answer, session, payload)
        remote.open(plan)
        line = Line(names[0], names[1], FAST_BPS)
        found[point] = together(remote, end, samples, stages, len(payload), point == LINK_BOUND, line)
    remote.close()
    return found


def together(
    remote: Any,
    end: Any,
    samples: list[Any],
    stages: tuple[Callable[[], object], Callable[[], object]],
    payload_bytes: int,
    slow: bool,
    line: Line,
) -> dict[str, float]:
    """One split: in each round, both ends' stages alone, then frames through all stages."""
    edge_s, server_s = alone(stages[0]), alone(stages[1])
    ends_s = max(statistics.median(edge_s), statistics.median(server_s))
    share = line.tcp_capacity_bps / line.rate_bps
    line = line.set_rate(8 * payload_bytes / share / (LINK_SHARE * ends_s) if slow else FAST_BPS, *BUCKET)
    link_s, rates_hz = 8 * payload_bytes / line.tcp_capacity_bps, []
    for _ in range(ROUNDS):
        num_frames = NUM_WARM_UP + max(20, round(SECONDS / max(ends_s, link_s)))

        def frames(num_frames: int = num_frames) -> Iterator[bytes]:
            for number in range(num_frames):
                yield end.payload(samples[number % len(samples)])

        arrivals = [time.perf_counter() for _ in remote.stream(frames())][NUM_WARM_UP:]
        rates_hz.append((len(arrivals) - 1) / (arrivals[-1] - arrivals[0]))
        edge_s += alone(stages[0])
        server_s += alone(stages[1])
    return {
        "rate_bps": line.rate_bps,
        "payload_bytes": payload_bytes,
        "edge_s": statistics.median(edge_s),
        "link_s": link_s,
        "server_s": statistics.median(server_s),
        "throughput_hz": statistics.median(rates_hz),
    }


def alone(stage: Callable[[], object]) -> list[float]:
    """Seconds of each of some runs of ``stage``."""
    times_s = []
    for _ in range(NUM_ALONE):
        began = time.perf_counter()
        stage()
        times_s.append(time.perf_counter() - began)
    return times_s[5:]


def run() -> dict[str, dict[str, float]]:
    """The results at each split."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        rate_limited_line("splitsem-pipelined", FAST_BPS, *BUCKET) as line,
    ):
        overrides = [*NETWORK, *BRIEFLY, f"cache_dir={scratch}/cache"]
        with running_server(Path(scratch, "server"), overrides, line) as address:
            names = [line.device, line.server]
            return device_says(__file__, {"address": address, "overrides": overrides, "names": names}, line)


def main() -> None:
    """Print a row for each split."""
    print(state_of_the_machine())
    try:
        results = run()
    except NoNamespacesError as exc:
        print(f"No rate-limited line: {exc}")
        return
    print(f"\n{state_of_the_machine()}")
    print(f"{'split':10}{'line':>12}{'bytes':>8}{'edge':>9}{'line':>9}{'server':>9} ms{'bound':>9}{'measured':>10} /s")
    bounds = set()
    for point, found in results.items():
        stages = {name: found[f"{name}_s"] for name in ("edge", "link", "server")}
        slowest = max(stages, key=stages.__getitem__)
        bounds.add(slowest)
        reached = found["throughput_hz"] * stages[slowest]
        verdict = (
            "MISSED" if reached < BAR else "PASS" if reached < TOO_GOOD else "UNSURE, slower alone: a busy machine"
        )
        times = "".join(f"{1e3 * value:9.2f}" for value in stages.values())
        print(
            f"{point:10}{found['rate_bps'] / 1e6:5.1f} Mbit/s{found['payload_bytes']:8}{times}   "
            f"{1 / stages[slowest]:9.1f}{found['throughput_hz']:10.1f}     "
            f"{reached:6.1%} of the {slowest}'s bound: {verdict} (bar: ≥ {BAR:.0%})"
        )
        what = f"pipelined throughput, of the bound of the {slowest}, at {point}"
        doubt = "" if reached < TOO_GOOD else " (unsure: slower alone)"
        record(what, f"{reached:.1%}{doubt}", f"≥ {BAR:.0%}", reached < BAR)
    if len(bounds) < len(SPLITS):
        print(f"MISSED: only {', '.join(sorted(bounds))} were ever the slowest stage; choose other rates")


if __name__ == "__main__":
    stop_cleanly()
    if len(sys.argv) > 1:
        print(json.dumps(device(**json.loads(sys.argv[1]))))
    else:
        main()
