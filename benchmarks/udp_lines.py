"""Frames over lines that people have: gRPC over TLS against the datagram transport. Needs root, ip and /dev/net/tun.

    python benchmarks/udp_lines.py                        # six lines; about half an hour
    python benchmarks/udp_lines.py --rates 20 --losses 0.01 --sizes 65536 --ways grpc-cubic udp

A line has 20 ms of round trip (10 ms each way), a queue of 50 ms and the same loss each way (harness/lossy_line.py).
The server answers each frame with 40 bytes and computes nothing. Per line and size of payload: the time from a frame to
its answer, one frame at a time, and the bits of answered frames a second, several at a time. The ways take turns.
TCP's congestion control is set by the route: cubic is what most machines have, bbr what a user can ask for.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.ends import ROOT, device_says, state_of_the_machine
from harness.line import SERVER_ADDRESS, environment
from harness.lossy_line import Shape, lossy_line
from splitsem.codecs.tensorwise import Identity
from splitsem.remote.engine import Engine
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.grpc.transport import Grpc
from splitsem.remote.server_metrics import ServerMetrics
from splitsem.remote.transports import RemoteTransport
from splitsem.remote.udp.transport import UdpTransport
from splitsem_device.answers import RemoteTail
from splitsem_device.grpc.connection import Security
from splitsem_device.plan import Plan
from splitsem_device.retry import Backoff

SIZES = (4096, 65_536, 262_144, 1_600_000)
WINDOWS = {4096: 32, 65_536: 32, 262_144: 8, 1_600_000: 2}
WAYS = ("grpc-cubic", "grpc-bbr", "udp", "udp-paced")
PLAN = Plan("bench", "bench", "bench", "layer", "float32", "Identity")
FEWEST = 5


class Echo(Engine):
    """An engine that computes nothing."""

    def __init__(self) -> None:
        self.metrics, self.offer, self.num_answered = ServerMetrics(), PLAN, 0
        self.codec_labels, self.place = [PLAN.codec], "nowhere"

    @property
    def point_names(self) -> list[str]:
        """See Engine."""
        return [PLAN.point]

    def open(self, plan: Plan) -> str:
        """Accept any plan."""
        return plan.point

    def plan(self, session: str) -> Plan:
        """See Engine."""
        return PLAN

    def most_payload_bytes(self, session: str | None = None) -> int:
        """See Engine."""
        return 64 << 20

    def answer(self, session: str, payload: Any, queue_s: float = 0.0) -> tuple[bytes, float]:
        """Answer with 40 bytes, as a classifier's output is short."""
        return bytes(40), 0.0


BIND = f"{SERVER_ADDRESS}:0"


def transport(kind: type[RemoteTransport], security: Security, target: str = BIND, **more: Any) -> RemoteTransport:
    """Either transport with its default settings, but for ``more``."""
    return kind(target, BIND, 32, Backoff(), security, Limits(), **more)  # type: ignore[call-arg]


def serve(certs: str) -> None:
    """Run both servers until the input ends."""
    security = Security(cert=f"{certs}/server.pem", key=f"{certs}/server.key")
    servers = [transport(kind, security).server_end(Echo()) for kind in (Grpc, UdpTransport)]  # type: ignore[arg-type]
    print(json.dumps([server.start() for server in servers]), flush=True)
    sys.stdin.read()


def tail_of(way: str, task: dict[str, Any]) -> RemoteTail:
    """The edge's end of one way."""
    kind, _, how = way.partition("-")
    security = Security(ca=f"{task['certs']}/ca.pem")
    if kind == "udp":
        rate_bps = task["rate_bps"] if how else None
        return transport(UdpTransport, security, task["targets"][1], rate_bps=rate_bps).edge_end()
    route = f"route replace {SERVER_ADDRESS.rpartition('.')[0]}.0/24 dev line congctl {how}"
    subprocess.run(["ip", *route.split()], check=True)
    return transport(Grpc, security, task["targets"][0]).edge_end()


def measure(way: str, task: dict[str, Any]) -> dict[str, Any]:
    """Latency and throughput of one way for one size of payload."""
    payload = bytes(Identity().payload((torch.zeros(task["size"] // 4 - 8),)))
    tail = tail_of(way, task)
    tail.open(PLAN)

    def frames(least: int, seconds: float, most: int) -> Iterator[bytes]:
        until_s = time.monotonic() + seconds
        for number in range(most):
            if number >= least and time.monotonic() > until_s:
                break
            yield payload

    times_s, last_s = [], time.perf_counter()
    for _ in tail.stream(frames(3 + FEWEST, task["seconds"], 303), window=1):
        now_s = time.perf_counter()
        times_s.append(now_s - last_s)
        last_s = now_s
    began_s, num = time.perf_counter(), 0
    window = WINDOWS.get(task["size"], 8)
    for _ in tail.stream(frames(window, task["seconds"], 100_000), window=window):
        num += 1
    took_s = time.perf_counter() - began_s
    counters = tail.counters
    tail.close()
    median_s, p95_s = np.percentile(times_s[3:], [50, 95])
    found = {"median_s": median_s, "p95_s": p95_s, "goodput_bps": 8 * num * len(payload) / took_s}
    if way.startswith("udp"):
        all_frames = len(times_s) + num
        found |= {"lost": counters.frames_lost / all_frames, "filled": counters.frames_filled / all_frames}
    return found


def on_line(shape: Shape, sizes: list[int], ways: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Measure all ways and sizes on one line."""
    with tempfile.TemporaryDirectory() as certs, lossy_line("splitsem-lines", shape) as (line, figures):
        names = [f"CERTS={certs}", f"SERVER_NAMES=IP:{SERVER_ADDRESS}"]
        subprocess.run(["make", "certs", *names], cwd=ROOT, check=True, capture_output=True)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        server = line.start(line.server, [sys.executable, __file__, "serve", certs], env=environment(), **pipes)
        assert server.stdout is not None
        targets = json.loads(server.stdout.readline())
        task = {"certs": certs, "rate_bps": shape.rate_bps, "seconds": seconds, "targets": targets}
        began_s = time.monotonic()
        for size in sizes:
            found = device_says(__file__, task | {"size": size, "ways": ways}, line)
            for way, row in found.items():
                yield {"rate_bps": shape.rate_bps, "loss": shape.loss, "size": size, "way": way} | row
        took_s = time.monotonic() - began_s
        server.communicate("")
    print(f"relay: {figures['cpu_s'] / took_s:.0%} of a core, {figures['num_packets']:.0f} packets, "
          f"1 in 1,000 later than {1e3 * figures['late_p999_s']:.2f} ms, {figures['num_dropped']:.0f} dropped at the "
          f"queue, {figures['num_lost']:.0f} lost", flush=True)  # fmt: skip


def main() -> None:
    """Print a row for each line, size and way, and the rows of each group in one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", type=float, nargs="+", default=[20, 100], help="Mbit/s")
    parser.add_argument("--losses", type=float, nargs="+", default=[0.0, 0.01, 0.05])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement, at least five frames")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    print(state_of_the_machine())
    rows: list[dict[str, Any]] = []
    for rate in args.rates:
        for loss in args.losses:
            print(f"{rate:g} Mbit/s, loss {loss:g}\n{'bytes':>10} {'way':<19} {'median ms':>10} {'p95 ms':>9} "
                  f"{'Mbit/s':>8} {'lost':>6} {'filled':>6}", flush=True)  # fmt: skip
            for row in on_line(Shape(1e6 * rate, loss=loss), list(args.sizes), list(args.ways), args.seconds):
                rows.append(row)
                print(f"{row['size']:>10} {row['way']:<19} {1e3 * row['median_s']:>10.1f} {1e3 * row['p95_s']:>9.1f} "
                      f"{1e-6 * row['goodput_bps']:>8.1f} {row.get('lost', 0.0):>6.1%} "
                      f"{row.get('filled', 0.0):>6.1%}", flush=True)  # fmt: skip
                if args.json:
                    args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    elif sys.argv[1:] and sys.argv[1].startswith("{"):
        asked = json.loads(sys.argv[1])
        print(json.dumps({way: measure(way, asked) for way in asked["ways"]}))
    else:
        main()
