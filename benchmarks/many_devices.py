"""Sixteen edges and one server: frames a second with and without micro-batching, and how evenly edges are served.

    python benchmarks/many_devices.py

The edges are threads of this process, each with its own connection and stream, that send a prepared payload over and
over; the server is another process. Each network has a server with and a server without micro-batching. The two take
turns, so that neither has the quiet moments to itself. The server's processor time for a frame is printed too: this
time suffers less from other work on the machine, and tells whether the server was the limit (1 / time = frames/s).
"""

import multiprocessing
import resource
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
import torchvision
from torch import nn

from harness.measured_rows import record
from splitsem.codecs.tensorwise import Identity
from splitsem.models.cnn import StagedCnn
from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.labels import weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.splitting.graph import SplitGraph
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import Security
from splitsem_device.plan import Plan
from splitsem_device.retry import Backoff

NUM_DEVICES = 16
RUN_S = 4.0
TURNS = 3
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {  # builder, input, split point
    "cnn": (lambda: StagedCnn((3, 32, 32), (10,)), (3, 32, 32), "stage1"),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(weights=None), (3, 64, 64), "features.3"),
}


def network(name: str) -> tuple[nn.Module, SplitGraph]:
    """The network that both ends build for themselves."""
    torch.manual_seed(0)
    build, shape, _ = NETWORKS[name]
    model = build().eval()
    return model, SplitGraph(model, shape)


def processor_s() -> float:
    """Processor seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def serve(pipe: Connection, name: str, micro_batch: int) -> None:
    """Serve until the pipe closes; tell the server's processor time whenever asked."""
    torch.set_num_threads(1)
    model, graph = network(name)
    engine = TailEngine(graph, weights_digest(model), micro_batch=micro_batch)
    server = GrpcServer(engine, "127.0.0.1:0", Security(), Limits())
    pipe.send(server.start())
    while pipe.recv():
        pipe.send(processor_s())
    server.stop(0)


def frames_each(address: str, plan: Plan, payload: bytes) -> list[int]:
    """Number of frames answered to each edge within ``RUN_S``."""
    counts = [0] * NUM_DEVICES
    start = threading.Barrier(NUM_DEVICES)

    def device(index: int) -> None:
        tail = GrpcTail(address, 4, Backoff(), Security())
        tail.open(plan)
        start.wait()
        until = time.perf_counter() + RUN_S
        for _ in tail.stream(iter(lambda: payload if time.perf_counter() < until else None, None)):
            counts[index] += 1
        tail.close()

    threads = [threading.Thread(target=device, args=(index,)) for index in range(NUM_DEVICES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def compare(name: str) -> str:
    """One network's line: frames a second with and without micro-batching, their ratio and the worst-served edge."""
    model, graph = network(name)
    _, shape, point = NETWORKS[name]
    plan = Plan(graph.fingerprint, weights_digest(model), point, "layer", "float32", "Identity")
    with torch.inference_mode():
        payload = Identity().encode(graph.cut(point).head(torch.rand(1, *shape)))
    context = multiprocessing.get_context("spawn")
    servers = {}
    for size in (1, NUM_DEVICES):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, name, size), daemon=True)
        process.start()
        servers[size] = process, here, here.recv()
    rates: dict[int, list[float]] = {size: [] for size in servers}
    costs: dict[int, list[float]] = {size: [] for size in servers}
    worst: dict[int, list[float]] = {size: [] for size in servers}
    for _ in range(TURNS):
        for size, (_, pipe, address) in servers.items():
            pipe.send(True)
            before = pipe.recv()
            counts = frames_each(address, plan, payload)
            pipe.send(True)
            costs[size].append((pipe.recv() - before) / sum(counts))
            rates[size].append(sum(counts) / RUN_S)
            worst[size].append(min(counts) / statistics.fmean(counts))
    for process, pipe, _ in servers.values():
        pipe.send(False)
        process.join(10)
    alone, together = (statistics.median(rates[size]) for size in servers)
    cost, cost_together = (1e3 * statistics.median(costs[size]) for size in servers)
    record(
        f"micro-batching, {NUM_DEVICES} edges, {name}", f"{together / alone:.2f} ×", "≥ 1.5 ×", together < 1.5 * alone
    )
    return (
        f"{name} at {point}: {alone:.0f} frames/s one by one, {together:.0f} micro-batched: {together / alone:.2f} × "
        f"(bar 1.5); server {cost:.2f} and {cost_together:.2f} ms of processor a frame; worst-served device "
        f"{min(worst[1]):.2f} and {min(worst[NUM_DEVICES]):.2f} of the mean (bar 0.5)"
    )


def main() -> None:
    """Print a line for each network."""
    torch.set_num_threads(1)
    for name in NETWORKS:
        print(compare(name), flush=True)


if __name__ == "__main__":
    main()
