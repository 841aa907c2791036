"""A run that adapts over a real line whose rate steps by thirty: switches, and what became of each frame. Needs root.

    python benchmarks/adaptive_line.py                          # about two minutes; at least a hundred switches
    python benchmarks/adaptive_line.py --seconds 20 --figure run.png

Server and edge are processes in network namespaces, joined by a line with a token bucket, whose rate a third process
changes each second or so, and a relay that delays each way (harness/delaying_relay.py). workflow=serve answers; the
edge is what workflow=offload controller=adaptive runs. Since both are one machine, the edge works at a tenth of its
speed: it waits nine times what it computed. Each result is compared with that of its setting, computed here.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra import initialize_config_dir

from harness.ends import BRIEFLY, ROOT, configured, device_says, running_server, state_of_the_machine, stop_cleanly
from harness.line import SERVER_ADDRESS, Line, environment, rate_limited_line
from harness.measured_rows import record
from splitsem.cost.setting_table import SettingTable
from splitsem.pipeline import in_memory
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.switching import SwitchingLine
from splitsem.search.adaptive.controller import Adaptive
from splitsem.workflows import assemble, offload_adaptive, setting_tables
from splitsem.workflows.serve import answer_coders, engine_for, remote_transport

RATES_BPS = (8e6, 0.25e6)
DELAY_S = 0.005
SLOWNESS = 10
LEAST_SWITCHES = 100
NETWORK = ["task=disaster", *BRIEFLY, "split.granularity=layer"]


class SlowEnd(EdgeEnd):
    """An edge that is slower than this machine."""

    def payload(self, x: Any) -> bytes:
        """See EdgeEnd."""
        began = time.perf_counter()
        made = super().payload(x)
        time.sleep((SLOWNESS - 1) * (time.perf_counter() - began))
        return made


def slowly(run: Any, x: Any) -> Any:
    """What ``run`` makes of ``x``, as slowly as the edge's heads."""
    began = time.perf_counter()
    with torch.inference_mode():
        made = run(x)
    time.sleep((SLOWNESS - 1) * (time.perf_counter() - began))
    return made


def edge(address: str, cache: str, seconds: float, frames_csv: str) -> dict[str, Any]:
    """The edge's process: frames for so long; what became of them."""
    cfg = configured(address, [*NETWORK, f"cache_dir={cache}", "controller=adaptive", "workflow.num_samples=16"], True)
    network = assemble.network(cfg)
    coder = assemble.answering(cfg, network.task, network.graph).coder
    engine = engine_for(cfg, network, coders=answer_coders(cfg, network.task))
    transport = offload_adaptive.check(cfg, remote_transport(cfg))
    remote = transport.edge_end()
    remote.open(offload_adaptive.any_plan(network, engine))
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):  # where codecs' options are looked up
        table, offers = setting_tables.measured(cfg, network, coder, engine, remote)
    remote.close()
    columns = SLOWNESS * table.edge_s, table.payload_bytes, table.server_s, table.answer_bytes, table.score
    table = SettingTable(table.names, *columns)
    slow = [o and o._replace(end=SlowEnd(o.end.cut, o.end.codec, o.end.coder)) for o in offers]
    controller = Adaptive(table)
    line = SwitchingLine(transport.edge_end, slow, partial(slowly, network.run), engine, controller)
    samples = [x for x, _ in assemble.test_batches(network.task, network.placement, 1, 16)]
    line.connect()
    print("running", flush=True)
    end_s = time.monotonic() + seconds

    num_taken = 0

    def until_the_end() -> Iterator[Any]:
        nonlocal num_taken
        while time.monotonic() < end_s:
            for x in samples:
                num_taken += 1
                yield x

    rows: list[Any] = []
    results = list(offload_adaptive.kept(line.frames(until_the_end()), controller, rows))
    frames = pd.DataFrame(rows)
    frames["taken_s"] -= frames["taken_s"].iloc[0]
    frames.to_csv(frames_csv, index=False)
    places = {name: place for place, name in enumerate(table.names)}
    num_wrong, expected = 0, {}
    for number, (name, result) in enumerate(zip(frames["setting"], results, strict=True)):
        key = number % len(samples), places[name]
        if key not in expected:
            offer, x = offers[places[name]], samples[key[0]]
            with torch.inference_mode():
                output = network.run(x) if offer is None else in_memory(offer.end.cut, offer.end.codec, x)
                expected[key] = output if offer is None else coder.as_output(coder.decode(coder.encode(output)))
        num_wrong += not torch.equal(expected[key], result)
    return {
        "frames": len(frames),
        "lost or repeated": abs(num_taken - len(results)),
        "out of order": int((frames["taken_s"].diff() < 0).sum()),
        "wrong for their setting": num_wrong,
        "switches": int((frames["setting"] != frames["setting"].shift()).sum()) - 1,
        "settings used": int(frames["setting"].nunique()),
        "mean_ms": 1e3 * float(frames["latency_s"].mean()),
        "p95_ms": 1e3 * float(frames["latency_s"].quantile(0.95)),
        "probes": line.num_probes,
        **{name: value for name, value in vars(line.counters).items() if value},
    }


@contextmanager
def delayed(line: Line, address: str) -> Iterator[str]:
    """A relay on the server's side; gives the address to connect to."""
    there = f"{SERVER_ADDRESS}:50090"
    command = [sys.executable, str(ROOT / "benchmarks/harness/delaying_relay.py"), there, address, str(DELAY_S)]
    relay = line.start(line.server, command, stdout=subprocess.PIPE, env=environment())
    try:
        assert relay.stdout is not None
        relay.stdout.readline()
        yield there
    finally:
        relay.kill()
        relay.wait()


def change(line: Line, is_over: threading.Event, every_s: float) -> None:
    """Step the rate up and down until it is over."""
    draw, number = random.Random(0), 0
    while not is_over.wait(draw.uniform(0.6, 1.4) * every_s):
        number += 1
        line.set_rate(RATES_BPS[number % 2], burst_bytes=2_000)


def main() -> None:
    """Both ends, the line and what it does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between steps of the rate")
    parser.add_argument("--figure", help="a PNG file of the run")
    args = parser.parse_args()
    stop_cleanly()
    print(state_of_the_machine())
    with tempfile.TemporaryDirectory() as made, rate_limited_line("adaptive", RATES_BPS[0]) as line:
        folder, frames_csv = Path(made), f"{made}/frames.csv"
        cache = f"{made}/cache"
        with (
            running_server(folder / "server", [*NETWORK, f"cache_dir={cache}"], line) as address,
            delayed(line, address) as target,
        ):
            is_over = threading.Event()
            changing = threading.Thread(target=change, args=(line, is_over, args.every))
            changing.start()
            try:
                found = device_says(__file__, {"edge": [target, cache, args.seconds, frames_csv]}, line)
            finally:
                is_over.set()
                changing.join()
        print("\n".join(f"{name:24}{value:.1f}" if isinstance(value, float) else f"{name:24}{value}"
                        for name, value in found.items()))  # fmt: skip
        what = "frames of a run that adapts on a real line"
        switches = f"{found['switches']} in {found['frames']:,}"
        record(f"{what}: switches", switches, f"≥ {LEAST_SWITCHES}", found["switches"] < LEAST_SWITCHES)
        num_wrong = found["lost or repeated"] + found["wrong for their setting"] + found["out of order"]
        record(f"{what}: lost, repeated, out of order or of another setting", f"{num_wrong}", "0", num_wrong > 0)
        if args.figure:
            from splitsem.report.adaptive_figures import adaptation

            adaptation(pd.read_csv(frames_csv), "a line whose rate steps by thirty").savefig(args.figure)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(edge(*json.loads(sys.argv[1])["edge"])))
    else:
        main()
