"""Round trips over loopback, side by side in one run: what splitsem adds to bare gRPC, and saves over naive use.

    python benchmarks/round_trip.py

Four ways to bring bytes or a tensor to a server process and back, of equal size both ways, one after the other:

* bare gRPC: a bytes echo over one stream without any message format — the floor;
* splitsem frames: GrpcTail.stream to a GrpcServer whose engine returns the payload;
* splitsem tensors: frames from tensor to tensor, with the identity codec and its checksums at both ends;
* naive: the tensor in a protobuf message (raw bytes and a shape), unary, fresh buffers at every step.

The order changes with every round, so that no way has the quiet moments to itself, and a ratio is the median of the
rounds' ratios. The second line is processor time: milliseconds of both processes together for one round trip, which
other work on the machine disturbs less than the clock.
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

from harness.measured_rows import record
from splitsem.codecs.tensorwise import Identity
from splitsem.models.cnn import StagedCnn
from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.tail_engine import TailEngine
from splitsem.splitting.graph import SplitGraph
from splitsem_device.fields import Payload, Pieces
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import Security
from splitsem_device.plan import Plan
from splitsem_device.retry import Backoff

SIZES = (4 << 10, 256 << 10, 1_600_000, 12_800_000)
ROUNDS = 12
REPEATS = 5
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
LEAST, MOST = "≥", "≤"
JUDGED = {
    ("frames", "bare"): (MOST, {256 << 10: 1.3, 1_600_000: 1.3, 12_800_000: 1.3}),
    ("tensors", "bare"): (MOST, {256 << 10: 1.5, 1_600_000: 1.5, 12_800_000: 1.3}),
    ("naive", "frames"): (LEAST, {1_600_000: 2.5, 12_800_000: 2.5}),
}
"""The bars of each ratio by the clock, by size."""
BARS = "bars: frames / bare ≤ 1.3, naive / frames ≥ 2.5 from 1.6 MB on"
WAYS = ("bare", "frames", "tensors", "naive")
RATIOS = (("frames", "bare"), ("tensors", "bare"), ("naive", "frames"), ("naive", "tensors"))


class Echo(TailEngine):
    """Sends payloads back unchanged or, at the point ``output``, decoded and encoded again."""

    def answer(self, session: str, payload: Payload, queue_s: float = 0.0) -> tuple[bytes, float]:
        """See TailEngine."""
        if self.session(session).point.name == "output":
            return bytes(whole(self._identity.encode(self._identity.decode(bytes(payload))))), 0.0
        return whole(payload), 0.0  # type: ignore[return-value]


def engine() -> Echo:
    """An engine of some small network, which is never run."""
    torch.manual_seed(0)
    return Echo(SplitGraph(StagedCnn((1, 8, 8), (10,), widths=[4], inner_widths=None), (1, 8, 8)), "none")


def serve(pipe: Connection) -> None:
    """Run both servers in this process, and tell its processor time whenever asked, until told to stop."""
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
    ours = GrpcServer(engine(), "127.0.0.1:0", Security(), Limits(max_payload_bytes=64 << 20))
    pipe.send((f"127.0.0.1:{port}", ours.start()))
    while pipe.recv():
        pipe.send(time.process_time())
    ours.stop(0)
    bare.stop(0)


def bare_stream(channel: grpc.Channel, message: bytes) -> Iterator[object]:
    """One echo of ``message`` at each step."""
    turns: SimpleQueue[bytes | None] = SimpleQueue()
    replies = channel.stream_stream("/bench/Stream")(iter(turns.get, None))
    while True:
        turns.put(message)
        yield next(replies)


def whole(payload: Payload) -> bytes | memoryview:
    """The payload in one piece, as the bare echo gives it."""
    return bytes(payload) if isinstance(payload, Pieces) else payload


def frame_stream(tail: GrpcTail, make: Callable[[], bytes], keeps_pieces: bool) -> Iterator[Payload]:
    """One payload made and answered at each step."""
    turns: SimpleQueue[bytes] = SimpleQueue()
    answers = tail.stream(iter(turns.get, None), window=1)
    while True:
        turns.put(make())
        payload = next(answers).payload
        yield payload if keeps_pieces else whole(payload)


def ways(bare_at: str, ours_at: str, num_bytes: int) -> dict[str, Callable[[], object]]:
    """The four ways by name; one call of a way is one round trip of ``num_bytes`` bytes."""
    z = torch.rand(1, num_bytes // 4)
    payload, raw = Identity().encode((z,)), z.numpy().tobytes()
    channel = grpc.insecure_channel(bare_at, UNLIMITED)
    naive = channel.unary_unary("/bench/Naive", tail_pb2.Frame.SerializeToString, tail_pb2.Reply.FromString)
    tails = []
    for point in ("input", "output"):
        tail = GrpcTail(ours_at, 8, Backoff(), Security())
        tail.open(Plan(engine().offer.fingerprint, "none", point, "layer", "float32", "Identity"))
        tails.append(tail)
    bare = bare_stream(channel, raw)
    frames = frame_stream(tails[0], lambda: payload, keeps_pieces=False)
    codec = Identity()
    tensors = frame_stream(tails[1], lambda: codec.encode((z,)), keeps_pieces=True)

    def naively() -> torch.Tensor:
        reply = naive(tail_pb2.Frame(session="s", client="c", request_id=1, payload=z.clone().numpy().tobytes()))
        return torch.frombuffer(bytearray(reply.payload), dtype=torch.float32).reshape(z.shape).clone()

    return {
        "bare": lambda: next(bare),
        "frames": lambda: next(frames),
        "tensors": lambda: codec.decode(next(tensors)),  # type: ignore[arg-type]
        "naive": naively,
    }


def measure(calls: dict[str, Callable[[], object]], server: Connection) -> list[dict[str, tuple[float, float]]]:
    """For each round and way: median seconds by the clock, and mean seconds of processor time at both ends."""

    def processor_s() -> float:
        server.send(True)
        return server.recv() + time.process_time()

    def once(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    rounds = []
    for turn in range(ROUNDS + 1):
        found = {}
        for name in WAYS[turn % len(WAYS) :] + WAYS[: turn % len(WAYS)]:
            before_s = processor_s()
            clock_s = statistics.median(once(calls[name]) for _ in range(REPEATS))
            found[name] = clock_s, (processor_s() - before_s) / REPEATS
        rounds.append(found)
    return rounds[1:]  # the first round warms up


def row(rounds: list[dict[str, tuple[float, float]]], which: int) -> str:
    """Median milliseconds of each way, and the median ratios."""
    times = (1e3 * statistics.median(found[name][which] for found in rounds) for name in WAYS)
    ratios = (statistics.median(found[a][which] / found[b][which] for found in rounds) for a, b in RATIOS)
    return "".join(f"{value:9.2f}" for value in times) + "  " + "".join(f"{value:16.2f}" for value in ratios)


def record_bars(rounds: list[dict[str, tuple[float, float]]], num_bytes: int) -> None:
    """Keep the ratios that have a bar."""
    for (a, b), (way, bars) in JUDGED.items():
        if bar := bars.get(num_bytes):
            found = statistics.median(one[a][0] / one[b][0] for one in rounds)
            is_missed = found > bar if way == MOST else found < bar
            size = f"{num_bytes >> 10} KB" if num_bytes < 1_000_000 else f"{num_bytes / 1e6:.1f} MB"
            record(f"round trip of {size}: {a} / {b}", f"{found:.2f} ×", f"{way} {bar} ×", is_missed)


def main() -> None:
    """Print medians in milliseconds and their ratios, by the clock and in processor time."""
    torch.set_num_threads(1)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    bare_at, ours_at = here.recv()
    print(BARS)
    heads = "".join(f"{name:>9}" for name in WAYS) + "  " + "".join(f"{a + '/' + b:>16}" for a, b in RATIOS)
    print(f"{'bytes':>10}{'ms':>10}{heads}")
    for num_bytes in SIZES:
        rounds = measure(ways(bare_at, ours_at, num_bytes), here)
        print(f"{num_bytes:>10}{'clock':>10}{row(rounds, 0)}", flush=True)
        print(f"{'':>10}{'processor':>10}{row(rounds, 1)}", flush=True)
        record_bars(rounds, num_bytes)
    here.send(False)
    process.join(5)


if __name__ == "__main__":
    main()
