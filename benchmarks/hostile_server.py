"""A hostile hour in some minutes: a server under attack, and an honest edge beside it that must not notice.

    python benchmarks/hostile_server.py 600

Quiet and hostile phases of ``PHASE_S`` take turns, so that both see the same load of the machine. The edge sends a
frame ``FRAMES_HZ`` times a second, one at a time, from a process of its own. All attacks run at once in another
process, niced, each at a bounded rate, on this machine only: attackers take processor time too, and on a small machine
an unbounded flood measures just that. Printed are lost frames, latency, the server's memory, and how often each attack
was carried out.
"""

import contextlib
import itertools
import multiprocessing
import os
import random
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import grpc
import numpy as np
import psutil
import torch

from harness.measured_rows import record
from splitsem.codecs import wire
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import SplitSemError
from splitsem.models.cnn import StagedCnn
from splitsem.remote.grpc.server import SERVICE, GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.labels import weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import Values
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import Security
from splitsem_device.grpc.frames import Frame
from splitsem_device.plan import Plan
from splitsem_device.retry import Backoff

PHASE_S, FRAMES_HZ, REST_S = 10.0, 20.0, 15.0
MAX_FACTOR, MAX_GROWN_BYTES = 3.0, 50e6
SHAPE = (3, 32, 32)


def network() -> tuple[StagedCnn, SplitGraph]:
    """The network that both ends build for themselves."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = StagedCnn(SHAPE, (10,)).eval()
    return model, SplitGraph(model, SHAPE)


def plan_of(model: StagedCnn, graph: SplitGraph) -> Plan:
    """What the edge wants."""
    return Plan(graph.fingerprint, weights_digest(model), "stage1", "layer", "float32", "Identity", Values((10,)).name)


def serve(pipe: Connection) -> None:
    """A server with default limits, until the pipe says so."""
    model, graph = network()
    server = GrpcServer(TailEngine(graph, weights_digest(model)), "127.0.0.1:0", Security(), Limits())
    pipe.send(server.start())
    pipe.recv()
    server.stop(1.0)


def honest(pipe: Connection, address: str, until_s: float) -> None:
    """An edge at default settings; tells when each frame was made and how long its answer took, and the wrong answers.

    Times are of ``time.time``, which all processes share.
    """
    model, graph = network()
    x = torch.rand(16, *SHAPE)
    with torch.inference_mode():
        payloads = [Identity().encode(graph.cut("stage1").head(sample)) for sample in x.split(1)]
        expected = [bytes(Values((10,)).encode(model(sample))) for sample in x.split(1)]
    tail = GrpcTail(address, 32, Backoff(), Security())
    tail.open(plan_of(model, graph))
    made: deque[float] = deque()

    def frames() -> Iterator[bytes]:
        next_s = time.time()
        for payload in itertools.cycle(payloads):
            next_s = max(next_s + 1 / FRAMES_HZ, time.time())
            time.sleep(max(0.0, next_s - time.time()))
            if time.time() > until_s:
                return
            made.append(time.time())
            num_made[0] += 1
            yield payload

    num_made = [0]
    pipe.send("ready")
    times = []
    for answer in tail.stream(frames(), window=1):
        began = made.popleft()
        is_right = bytes(answer.payload) == expected[answer.request_id % 16]
        times.append((began, time.time() - began, is_right))
    pipe.send((num_made[0], times, vars(tail.counters)))


@dataclass(frozen=True)
class Attack:
    """One way to attack, ``rate_hz`` times a second. Whatever it holds open is closed when the phase ends."""

    name: str
    rate_hz: float
    once: Callable[["Target"], None]


class Target:
    """The server as an attacker sees it.

    Args:
        address: ``host:port``.
        plan: agreed with the server, for attacks beyond the plan.
    """

    def __init__(self, address: str, plan: Plan) -> None:
        host, port = address.split(":")
        self.host, self.port, self.plan = host, int(port), plan
        self.source = random.Random(0)
        self.sockets: deque[socket.socket] = deque(maxlen=300)
        self.calls: deque[grpc.Call] = deque(maxlen=200)
        self.channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        opened = self.unary("Open", tail_pb2.OpenRequest(plan_json=plan.to_json()).SerializeToString())
        self.session = tail_pb2.OpenReply.FromString(opened).session

    def unary(self, method: str, message: bytes) -> bytes:
        """One request, its answer."""
        answer: bytes = self.channel.unary_unary(f"/{SERVICE}/{method}")(message, timeout=5)
        return answer

    def release(self) -> None:
        """Close what is open."""
        with contextlib.suppress(IndexError):  # the attacks' threads may still add some
            while True:
                self.calls.popleft().cancel()
        with contextlib.suppress(IndexError):
            while True:
                self.sockets.popleft().close()


def garbage(target: Target) -> None:
    """Random bytes instead of HTTP/2."""
    with socket.create_connection((target.host, target.port), timeout=1) as each:
        each.sendall(target.source.randbytes(2000))


def silent_connection(target: Target) -> None:
    """A connection that says nothing, or half of HTTP/2's first words."""
    each = socket.create_connection((target.host, target.port), timeout=1)
    each.send(b"PRI * HT" if target.source.random() < 0.5 else b"")
    target.sockets.append(each)


def half_open(target: Target) -> None:
    """A call without a message, of any method."""
    method = target.source.choice([f"/{SERVICE}/Stream", f"/{SERVICE}/Call", "/grpc.health.v1.Health/Check"])
    target.calls.append(target.channel.stream_stream(method)(iter(threading.Event().wait, None)))


def endless_parts(target: Target) -> None:
    """A frame whose parts never end."""
    part = Frame(target.session, "endless", 0, bytes(1 << 18), more=True).to_bytes()
    calls = target.channel.stream_stream(f"/{SERVICE}/Stream")(itertools.repeat(part, 1000), timeout=5)
    with contextlib.suppress(grpc.RpcError):
        list(calls)


def oversize(target: Target) -> None:
    """Four megabytes of zeros as one message."""
    target.unary("Call", Frame(target.session, "large", 0, bytes(4 << 20)).to_bytes())


def bomb(target: Target) -> None:
    """Few bytes with a valid checksum that stand for a tensor of many elements."""
    shape = (target.source.choice([1, 200, 100_000]), 16, 32, 32)
    part = wire.Part(torch.float32, shape, bytes(64))
    for name in ("Quantise", "TopK", "HalfPrecision"):
        session = target.unary("Open", _open(replace(target.plan, codec=name)))
        key = tail_pb2.OpenReply.FromString(session).session
        with contextlib.suppress(grpc.RpcError, ValueError):
            target.unary("Call", Frame(key, "bomb", 0, wire.pack(3, [part])).to_bytes())


def plan_flood(target: Target) -> None:
    """Plans that make no sense, are huge, or are all different."""
    changed = replace(
        target.plan,
        point=target.source.choice(["x" * 3_000_000, f"@probe/{target.source.randrange(1 << 20)}", "input", "output"]),
        codec=target.source.choice(["Identity", "TopK", "Quantise", "nobody's"]),
    )
    target.unary("Open", _open(changed))


def damaged(target: Target) -> None:
    """A frame of noise in a stream."""
    frame = Frame(target.session, "noise", 0, target.source.randbytes(4000)).to_bytes()
    list(target.channel.stream_stream(f"/{SERVICE}/Stream")(iter([frame]), timeout=5))


def _open(plan: Plan) -> bytes:
    return tail_pb2.OpenRequest(plan_json=plan.to_json()).SerializeToString()


ATTACKS = {
    "grpc": [
        Attack("garbage", 10, garbage),
        Attack("silent connections", 20, silent_connection),
        Attack("half-open calls", 20, half_open),
        Attack("endless parts", 1, endless_parts),
        Attack("oversize payloads", 2, oversize),
        Attack("bombs", 2, bomb),
        Attack("plans", 5, plan_flood),
        Attack("damaged frames", 10, damaged),
    ]
}
"""By transport."""


def is_hostile(now_s: float, began_s: float) -> bool:
    """Whether an attack runs at this moment."""
    return int((now_s - began_s) / PHASE_S) % 2 == 1


def attack(pipe: Connection, transport: str, address: str, began_s: float, until_s: float) -> None:
    """Carry out all attacks of a transport in the hostile phases; tells how many of each."""
    os.nice(10)
    target = Target(address, plan_of(*network()))
    done: Counter[str] = Counter()

    def repeat(kind: Attack) -> None:
        while (now_s := time.time()) < until_s:
            if is_hostile(now_s, began_s):
                with contextlib.suppress(grpc.RpcError, OSError, SplitSemError):
                    kind.once(target)
                done[kind.name] += 1
            time.sleep(max(0.0, 1 / kind.rate_hz - (time.time() - now_s)))

    pipe.send("ready")
    threads = [threading.Thread(target=repeat, args=(kind,)) for kind in ATTACKS[transport]]
    for thread in threads:
        thread.start()
    was_hostile = False
    while time.time() < until_s:
        if was_hostile and not is_hostile(time.time(), began_s):
            target.release()
        was_hostile = is_hostile(time.time(), began_s)
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    target.release()
    pipe.send((dict(done), time.process_time()))


def start(target: Callable[..., None], *arguments: object) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """A process of its own and a pipe to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, *arguments), daemon=True)
    process.start()
    return process, here


def latencies(times: list[tuple[float, float, bool]], began_s: float, hostile: bool) -> tuple[float, float, int]:
    """Median and 99th percentile in seconds, and number of frames, of the phases of one kind."""
    chosen = [took_s for made_s, took_s, _ in times if is_hostile(made_s, began_s) == hostile]
    return float(np.median(chosen)), float(np.percentile(chosen, 99)), len(chosen)


def main(num_s: float, transport: str = "grpc") -> None:
    """Attack for so many seconds and print what came of it."""
    server, server_pipe = start(serve)
    address = server_pipe.recv()
    assert server.pid is not None
    memory = psutil.Process(server.pid)
    began_s = time.time() + 30.0  # so long the other processes may take to import torch
    until_s = began_s + num_s
    _, edge_pipe = start(honest, address, until_s)
    _, attack_pipe = start(attack, transport, address, began_s, until_s)
    edge_pipe.recv()
    attack_pipe.recv()
    time.sleep(max(0.0, began_s - time.time()))
    before, worst = memory.memory_info().rss, 0
    while time.time() < until_s:
        worst = max(worst, memory.memory_info().rss)
        time.sleep(0.5)
    num_made, times, counters = edge_pipe.recv()
    done, attackers_s = attack_pipe.recv()
    time.sleep(REST_S)
    grown = memory.memory_info().rss - before
    server_s = sum(memory.cpu_times()[:2])
    server_pipe.send("stop")
    times = [each for each in times if each[0] >= began_s]
    quiet, hostile = (latencies(times, began_s, kind) for kind in (False, True))
    num_lost = num_made - counters["frames_answered"] + sum(not is_right for _, _, is_right in times)
    print(
        f"{num_s:.0f} s, {transport}, phases of {PHASE_S:.0f} s; load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    )
    print("attacks: " + ", ".join(f"{n} {name}" for name, n in sorted(done.items())))
    print(f"processor seconds: server {server_s:.0f}, attackers {attackers_s:.0f}")
    for name, (median_s, p99_s, num) in (("quiet", quiet), ("hostile", hostile)):
        print(f"{name:8} {num:6} frames, latency p50 {1e3 * median_s:7.2f} ms, p99 {1e3 * p99_s:7.2f} ms")
    factor = hostile[1] / quiet[1]
    print(
        f"frames lost or wrong {num_lost} (bar 0); reconnects {counters['reconnects']}, retries {counters['retries']}"
    )
    print(f"p99 hostile / quiet {factor:.2f} (bar {MAX_FACTOR:.0f})")
    peak, before_mb = (worst - before) / 1e6, before / 1e6
    print(f"server's RSS {before_mb:.0f} MB, at worst {peak:+.0f}, afterwards {grown / 1e6:+.0f} MB (bar 50)")
    is_met = num_lost == 0 and factor <= MAX_FACTOR and grown <= MAX_GROWN_BYTES
    what = "a server under attack"
    record(f"{what}: frames of its users lost or wrong", f"{num_lost}", "0", num_lost > 0)
    record(f"{what}: p99 of its users, against quiet", f"{factor:.2f} ×", f"≤ {MAX_FACTOR:.0f} ×", factor > MAX_FACTOR)
    most = f"≤ {MAX_GROWN_BYTES / 1e6:.0f} MB"
    record(f"{what}: growth of its memory", f"{grown / 1e6:+.0f} MB", most, grown > MAX_GROWN_BYTES)
    print("met" if is_met else "MISSED")
    sys.exit(not is_met)


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 600.0, *sys.argv[2:3])
