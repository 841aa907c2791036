"""Round trips over loopback, side by side in one run: what does splitsem add to gRPC, and what does it save?

    python benchmarks/round_trip.py

Four ways to bring bytes or a tensor to a server process and back, the same size both ways, one after the other:

* bare gRPC: a bytes echo over one stream without any message format — the floor;
* splitsem frames: GrpcTail.stream to a GrpcServer whose engine returns the payload;
* splitsem tensors: the same from tensor to tensor, with the identity codec at both ends and its checksums;
* naive: the tensor in a protobuf message (raw bytes and a shape), unary, fresh buffers at every step.

The order changes with every round, so that no way has the quiet moments to itself.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue

import grpc
import torch

from splitsem.codecs.identity import Identity
from splitsem.models.cnn import StagedCnn
from splitsem.split.graph import SplitGraph
from splitsem.transport.engine import TailEngine
from splitsem.transport.grpc import tail_pb2
from splitsem.transport.grpc.client import GrpcTail
from splitsem.transport.grpc.limits import Limits
from splitsem.transport.grpc.security import Security
from splitsem.transport.grpc.server import GrpcServer
from splitsem.transport.plan import Plan
from splitsem.transport.retry import Retry

SIZES = (4 << 10, 256 << 10, 1_600_000, 12_800_000)
ROUNDS = 8
REPEATS = 5
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
BARS = {"frames / bare ≤ 1.3": 1.3, "naive / tensors ≥ 2.5": 2.5}


class Echo(TailEngine):
    """Sends payloads back, as they are or, at the point ``output``, decoded and encoded again."""

    def answer(self, session: str, payload: bytes | memoryview, queue_s: float = 0.0) -> tuple[bytes, float]:
        """See TailEngine."""
        if self.session(session).point.name == "output":
            return self._identity.encode(self.decode(payload)), 0.0
        return payload, 0.0  # type: ignore[return-value]


def engine() -> Echo:
    """An engine of some small network; it is never run."""
    torch.manual_seed(0)
    return Echo(SplitGraph(StagedCnn((1, 8, 8), (10,), widths=[4], inner_widths=None), (1, 8, 8)), "none")


def serve(pipe: Connection) -> None:
    """Both servers, in a process of their own, until the pipe closes."""
    torch.set_num_threads(1)

    def naive(request: tail_pb2.Frame, _: grpc.ServicerContext) -> tail_pb2.Reply:
        tensor = torch.frombuffer(bytearray(request.payload), dtype=torch.float32).clone()
        return tail_pb2.Reply(request_id=request.request_id, payload=tensor.numpy().tobytes())

    bare = grpc.server(ThreadPoolExecutor(4), options=[*UNLIMITED, ("grpc.so_reuseport", 0)])
    handlers = {
        "Stream": grpc.stream_stream_rpc_method_handler(lambda messages, _: messages),
        "Naive": grpc.unary_unary_rpc_method_handler(
            naive, tail_pb2.Frame.FromString, tail_pb2.Reply.SerializeToString
        ),
    }
    bare.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    port = bare.add_insecure_port("127.0.0.1:0")
    bare.start()
    ours = GrpcServer(engine(), "127.0.0.1:0", Security(), Limits())
    pipe.send((f"127.0.0.1:{port}", ours.start()))
    pipe.recv()
    ours.stop(0)
    bare.stop(0)


def bare_stream(channel: grpc.Channel, message: bytes) -> Iterator[object]:
    """One echo of ``message`` at each step."""
    turns: SimpleQueue[bytes | None] = SimpleQueue()
    replies = channel.stream_stream("/bench/Stream")(iter(turns.get, None))
    while True:
        turns.put(message)
        yield next(replies)


def frame_stream(tail: GrpcTail, make: Callable[[], bytes]) -> Iterator[memoryview]:
    """One payload answered at each step; it is made within the step."""
    turns: SimpleQueue[bytes] = SimpleQueue()
    answers = tail.stream(iter(turns.get, None), window=1)
    while True:
        turns.put(make())
        yield next(answers).payload  # type: ignore[misc]


def ways(bare_at: str, ours_at: str, num_bytes: int) -> dict[str, Callable[[], object]]:
    """One call of each is one round trip of ``num_bytes`` bytes."""
    z = torch.rand(1, num_bytes // 4)
    payload, raw = Identity().encode((z,)), z.numpy().tobytes()
    channel = grpc.insecure_channel(bare_at, UNLIMITED)
    naive = channel.unary_unary("/bench/Naive", tail_pb2.Frame.SerializeToString, tail_pb2.Reply.FromString)
    tails = []
    for point in ("input", "output"):
        tail = GrpcTail(ours_at, 8, Retry(), Security())
        tail.open(Plan(engine().offer.fingerprint, "none", point, "layer", "float32", "Identity"))
        tails.append(tail)
    bare = bare_stream(channel, raw)
    frames = frame_stream(tails[0], lambda: payload)
    codec = Identity()
    tensors = frame_stream(tails[1], lambda: codec.encode((z,)))

    def naively() -> torch.Tensor:
        reply = naive(tail_pb2.Frame(session="s", client="c", request_id=1, payload=z.clone().numpy().tobytes()))
        return torch.frombuffer(bytearray(reply.payload), dtype=torch.float32).reshape(z.shape).clone()

    return {
        "bare": lambda: next(bare),
        "frames": lambda: next(frames),
        "tensors": lambda: codec.decode(next(tensors)),  # type: ignore[arg-type]
        "naive": naively,
    }


def measure(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each way."""
    times_s: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(ROUNDS + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for _ in range(REPEATS):
                began = time.perf_counter()
                calls[name]()
                if turn:  # the first round warms up
                    times_s[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in times_s.items()}


def main() -> None:
    """Print medians in milliseconds, their ratios and the bars."""
    torch.set_num_threads(1)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    addresses = here.recv()
    print(f"{'bytes':>10}{'bare':>9}{'frames':>9}{'tensors':>9}{'naive':>9}  ms; bars: {', '.join(BARS)}")
    for num_bytes in SIZES:
        found = measure(ways(*addresses, num_bytes))
        ratios = found["frames"] / found["bare"], found["naive"] / found["tensors"], found["naive"] / found["frames"]
        row = "".join(f"{1e3 * found[name]:9.2f}" for name in ("bare", "frames", "tensors", "naive"))
        print(
            f"{num_bytes:>10}{row}  frames/bare {ratios[0]:.2f}, naive/tensors {ratios[1]:.2f}, "
            f"naive/frames {ratios[2]:.2f}",
            flush=True,
        )
    here.send(None)
    process.join(5)


if __name__ == "__main__":
    main()
