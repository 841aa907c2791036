"""Sixteen devices and one server: frames a second with and without micro-batching, and how evenly they are served.

    python benchmarks/many_devices.py

The devices are threads of this process, each with a connection and a stream of its own; the server is another process.
The server's ways take turns, so that neither has the quiet moments to itself.
"""

import multiprocessing
import statistics
import threading
import time
from multiprocessing.connection import Connection

import torch

from splitsem.codecs.identity import Identity
from splitsem.models.cnn import StagedCnn
from splitsem.split.graph import SplitGraph
from splitsem.transport.engine import TailEngine
from splitsem.transport.grpc.client import GrpcTail
from splitsem.transport.grpc.limits import Limits
from splitsem.transport.grpc.security import Security
from splitsem.transport.grpc.server import GrpcServer
from splitsem.transport.plan import Plan, weights_digest
from splitsem.transport.retry import Retry

NUM_DEVICES = 16
RUN_S = 4.0
TURNS = 3
INPUT_SHAPE = (3, 32, 32)


def network() -> tuple[StagedCnn, SplitGraph]:
    """The CNN that both ends build for themselves."""
    torch.manual_seed(0)
    model = StagedCnn(INPUT_SHAPE, (10,)).eval()
    return model, SplitGraph(model, INPUT_SHAPE)


def serve(pipe: Connection, micro_batch: int) -> None:
    """One server until the pipe speaks."""
    torch.set_num_threads(1)
    model, graph = network()
    engine = TailEngine(graph, weights_digest(model), micro_batch=micro_batch)
    server = GrpcServer(engine, "127.0.0.1:0", Security(), Limits())
    pipe.send(server.start())
    pipe.recv()
    server.stop(0)


def frames_each(address: str, plan: Plan, payload: bytes) -> list[int]:
    """Frames answered to each device within ``RUN_S``."""
    counts = [0] * NUM_DEVICES
    start = threading.Barrier(NUM_DEVICES)

    def device(index: int) -> None:
        tail = GrpcTail(address, 4, Retry(), Security())
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


def main() -> None:
    """Print both ways, their ratio and the worst-served device."""
    torch.set_num_threads(1)
    model, graph = network()
    context = multiprocessing.get_context("spawn")
    servers = {}
    for micro_batch in (1, NUM_DEVICES):
        here, there = context.Pipe()
        context.Process(target=serve, args=(there, micro_batch), daemon=True).start()
        servers[micro_batch] = here, here.recv()
    for point in ("stage1", "stage2"):
        plan = Plan(graph.fingerprint, weights_digest(model), point, "layer", "float32", "Identity")
        with torch.inference_mode():
            payload = Identity().encode(graph.cut(point).head(torch.rand(1, *INPUT_SHAPE)))
        rates: dict[int, list[float]] = {size: [] for size in servers}
        worst: dict[int, list[float]] = {size: [] for size in servers}
        for _ in range(TURNS):
            for size, (_, address) in servers.items():
                counts = frames_each(address, plan, payload)
                rates[size].append(sum(counts) / RUN_S)
                worst[size].append(min(counts) / statistics.fmean(counts))
        alone, together = (statistics.median(rates[size]) for size in servers)
        least = {size: min(shares) for size, shares in worst.items()}
        print(
            f"{point}: {alone:.0f} frames/s one by one, {together:.0f} micro-batched: {together / alone:.2f} × "
            f"(bar 1.5); worst-served device {least[1]:.2f} and {least[NUM_DEVICES]:.2f} of the mean (bar 0.5)",
            flush=True,
        )
    for pipe, _ in servers.values():
        pipe.send(None)


if __name__ == "__main__":
    main()
