"""Calls of a server's function over loopback, side by side in one run, and the memory of a server without torch.

    python benchmarks/function_calls.py

Three ways to bring an array to a server process and back, one call after the other:

* bare: a unary gRPC call that echoes bytes — the floor;
* splitsem: ``remote.compute`` of a function of numpy arrays that returns what it is given;
* message: unary calls of a protobuf message with raw bytes and a shape, which is what tensor libraries over gRPC do.

The order changes with every round; a ratio is the median of the rounds' ratios, with its 95 % interval by bootstrap.
The memory is the resident set of the process that serves the function, before its first call and at the end.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import grpc
import numpy as np

import splitsem
from harness.measured_rows import record
from splitsem_device.grpc import tail_pb2

SIZES = (4 << 10, 256 << 10, 1_600_000, 12_800_000)
ROUNDS, REPEATS = 30, 10
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
BAR, BARRED_BYTES, BAR_MB = 1.5, 256 << 10, 100
BARS = f"bar: splitsem / bare ≤ {BAR} at 256 KB, and splitsem ≤ message"


def resident_mb() -> float:
    """This process's resident memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def serve_function(pipe: Connection) -> None:
    """Serve a function without torch; tell the address and, when asked, the memory."""
    with splitsem.serve(lambda z: z, tensors="numpy") as server:
        pipe.send((server.address, resident_mb()))
        pipe.recv()
        pipe.send((resident_mb(), "torch" in sys.modules))


def serve_rest(pipe: Connection) -> None:
    """Serve the two yardsticks."""

    def message(request: tail_pb2.Frame, _: grpc.ServicerContext) -> tail_pb2.Reply:
        array = np.frombuffer(request.payload, np.float32).copy()
        return tail_pb2.Reply(request_id=request.request_id, payload=array.tobytes())

    server = grpc.server(ThreadPoolExecutor(4), options=[*UNLIMITED, ("grpc.so_reuseport", 0)])
    handlers = {
        "Bare": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
        "Message": grpc.unary_unary_rpc_method_handler(
            message, tail_pb2.Frame.FromString, tail_pb2.Reply.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    pipe.send(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    pipe.recv()
    server.stop(0)


def seconds(call: Callable[[], object]) -> float:
    """Of one call, the mean of some."""
    began = time.perf_counter()
    for _ in range(REPEATS):
        call()
    return (time.perf_counter() - began) / REPEATS


def ratio(upper: list[float], lower: list[float]) -> tuple[float, str]:
    """The median ratio of the rounds, and in words with its interval."""
    ratios = np.array(upper) / np.array(lower)
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return float(np.median(ratios)), f"{np.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Print a line for each size."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for target in (serve_function, serve_rest):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=target, args=(theirs,)))
        processes[-1].start()
        pipes.append(ours)
    (address, idle_mb), yardsticks = pipes[0].recv(), pipes[1].recv()
    channel = grpc.insecure_channel(yardsticks, UNLIMITED)
    bare = channel.unary_unary("/bench/Bare")
    message = channel.unary_unary("/bench/Message", tail_pb2.Frame.SerializeToString, tail_pb2.Reply.FromString)
    print(BARS)
    print(f"{'bytes':>10} {'bare ms':>8} {'splitsem / bare':>22} {'splitsem / message':>22}")
    with splitsem.connect(address) as remote:
        for size in SIZES:
            array = np.random.default_rng(0).random(size // 4, np.float32)
            raw = array.tobytes()

            def by_message(array: np.ndarray = array) -> np.ndarray:
                reply = message(tail_pb2.Frame(payload=array.tobytes(), request_id=1))
                return np.frombuffer(reply.payload, np.float32).copy()

            ways: dict[str, Callable[[], object]] = {
                "bare": lambda raw=raw: bare(raw),  # type: ignore[misc]
                "splitsem": lambda array=array: remote.compute(array),  # type: ignore[misc]
                "message": by_message,
            }
            times: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(ROUNDS + 1):
                names = list(ways)
                for name in names[turn % 3 :] + names[: turn % 3]:
                    times[name].append(seconds(ways[name]))
            times = {name: found[1:] for name, found in times.items()}  # the first round warms up
            median_ms = 1000 * statistics.median(times["bare"])
            of_bare, of_message = (ratio(times["splitsem"], times[way]) for way in ("bare", "message"))
            print(f"{size:>10} {median_ms:8.3f} {of_bare[1]:>22} {of_message[1]:>22}")
            words = f"a function called with {f'{size >> 10} KB' if size < 1e6 else f'{size / 1e6:.1f} MB'}"
            if size == BARRED_BYTES:
                record(f"{words}, against bare gRPC", f"{of_bare[1]} ×", f"≤ {BAR} ×", of_bare[0] > BAR)
            record(f"{words}, against a message of protobuf", f"{of_message[1]} ×", "≤ 1 ×", of_message[0] > 1)
    for pipe in pipes:
        pipe.send(None)
    end_mb, has_torch = pipes[0].recv()
    print(
        f"function server: {idle_mb:.0f} MB idle, {end_mb:.0f} MB at the end; torch imported: {has_torch}; "
        f"bar {BAR_MB} MB"
    )
    is_missed = end_mb > BAR_MB or has_torch
    what, figure = "a function's server without torch: memory idle, at the end", f"{idle_mb:.0f}, {end_mb:.0f} MB"
    record(what, figure, f"≤ {BAR_MB} MB", is_missed)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
