"""A chain of three machines as processes in three network namespaces: exact, as fast as its slowest stage, resumed.

    python benchmarks/chain.py                     # about a minute
    python benchmarks/chain.py --loopback --stages 12,20,16 --frames 300 --kill 2

Camera, gateway and server each compute a part of a U-Net (random weights, identity codec on both hops) and join over
gRPC. The machine that measures has too few cores for three, so each stage is slowed to a known time: what its work left
of ``--stages`` milliseconds is slept. The bound is the mean of the slowest stage as its own process measured it, sleep
included; the pace is that of all frames but the first ten. Needs root for namespaces; without, it uses the loopback.
``--kill`` ends the server's process so many times while frames go on, and starts it again.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from harness.chain_line import ChainLine, chain_line
from harness.ends import ROOT, state_of_the_machine, stop_cleanly
from harness.line import NoNamespacesError, environment
from harness.measured_rows import record
from splitsem.codecs.tensorwise import Identity
from splitsem.models.unet import UNet
from splitsem.remote.calling import CutCoding
from splitsem.remote.forwarding_engine import ForwardingEngine
from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.labels import weights_digest
from splitsem.remote.serving import Server
from splitsem.remote.tail_engine import TailEngine
from splitsem.splitting.graph import SplitGraph
from splitsem_device.grpc.connection import Security
from splitsem_device.remotes import reach
from splitsem_device.retry import Backoff

SHAPE = (3, 64, 64)
OPEN = Security(insecure=True)  # inside of namespaces that lead nowhere else
_NUM_WARM_UP = 10


def network() -> tuple[torch.nn.Module, SplitGraph, tuple[str, str]]:
    """The network that every machine has, and the two cuts."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = UNet(SHAPE, (3, *SHAPE[1:])).eval()
    graph = SplitGraph(model, SHAPE)
    third = len(graph.points) // 3
    return model, graph, (graph.points[third].name, graph.points[2 * third].name)


class Slowly:
    """Lets a stage take at least ``stage_s``; keeps what each took."""

    def __init__(self, stage_s: float) -> None:
        self.stage_s = stage_s
        self.took_s: list[float] = []

    @property
    def mean_s(self) -> float:
        """Of all frames but the first, which bounds the pace as no median does; 0 where there was none."""
        return statistics.fmean(self.took_s[_NUM_WARM_UP:] or self.took_s or [0.0])

    def __call__(self, work: Any, *args: Any) -> Any:
        """What ``work`` makes."""
        began = time.perf_counter()
        made = work(*args)
        time.sleep(max(0.0, self.stage_s - (time.perf_counter() - began)))
        self.took_s.append(time.perf_counter() - began)
        return made


def serve(bind: str, forward: str, stage_s: float, folder: str) -> None:
    """A server's process, until SIGTERM; leaves its address and, at the end, its mean stage."""
    _, graph, _ = network()
    weights, slowly = weights_digest(graph.model), Slowly(stage_s)
    engine: TailEngine
    if forward:
        engine = ForwardingEngine(
            graph, weights, next_end=lambda: reach(forward, None, 32, OPEN), encoders={"identity": Identity()}
        )
        passed = engine._passed
        engine._passed = lambda *args: slowly(passed, *args)  # type: ignore[method-assign]
    else:
        engine = TailEngine(graph, weights)
        compute = engine.compute
        engine.compute = lambda *args: slowly(compute, *args)  # type: ignore[method-assign]
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with Server(engine, GrpcServer(engine, bind, OPEN, Limits())) as server:
        (Path(folder) / "address.txt").write_text(f"{server.address}\n")
        stopped.wait()
    (Path(folder) / "stage.txt").write_text(str(slowly.mean_s))


def camera(target: str, num_frames: int, stage_s: float) -> dict[str, Any]:
    """The camera's process: frames through the chain, compared with the unsplit network."""
    model, graph, (first, second) = network()
    cut, slowly = graph.cut(first), Slowly(stage_s)
    x = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(1)).split(1)
    coding = CutCoding(cut, Identity(), [(second, "identity")])
    tail = reach(target, Backoff(first_s=0.02, most_s=0.2), 32, OPEN)
    tail.open(coding.plan())
    notes: list[Any] = []

    def made(sample: torch.Tensor) -> bytes:
        with torch.inference_mode():
            payload, note = coding.encode(cut.head(sample))
        notes.append(note)
        return bytes(payload)

    def payloads() -> Iterator[bytes]:
        for number in range(num_frames):
            yield slowly(made, x[number % len(x)])

    with torch.inference_mode():
        expected = [model(sample) for sample in x]
    num_wrong = num_answered = 0
    arrivals: list[float] = []
    for answer in tail.stream(payloads()):
        arrivals.append(time.perf_counter())
        output = coding.decode(answer.payload, notes[num_answered])
        num_wrong += not (answer.request_id == num_answered and torch.equal(output, expected[num_answered % len(x)]))
        num_answered += 1
        if num_answered % 50 == 0:
            print(num_answered, flush=True)
    steady = arrivals[_NUM_WARM_UP:]
    counters = {name: value for name, value in vars(tail.counters).items() if value}
    pace_s = (steady[-1] - steady[0]) / (len(steady) - 1)
    return {
        "frames": num_answered,
        "wrong": num_wrong,
        "pace_s": pace_s,
        "camera_s": slowly.mean_s,
        **counters,
    }


class Machine:
    """A process of this script on a machine of the chain."""

    def __init__(self, line: ChainLine, machine: str, arguments: dict[str, Any], folder: Path) -> None:
        self.line, self.machine, self.arguments, self.folder = line, machine, arguments, folder
        folder.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, and wait for its address."""
        (self.folder / "address.txt").unlink(missing_ok=True)
        command = [sys.executable, __file__, json.dumps({"serve": [*self.arguments.values(), str(self.folder)]})]
        self.process = self.line.start(self.machine, command, cwd=ROOT, env=environment())
        give_up = time.monotonic() + 60
        while not (self.folder / "address.txt").exists() or not self.address:
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self.machine} did not start")
            time.sleep(0.02)

    @property
    def address(self) -> str:
        """Where it listens."""
        return (self.folder / "address.txt").read_text().strip()

    def stop(self) -> float:
        """Stop it; its mean stage in seconds."""
        self.process.terminate()
        self.process.wait(20)
        path = self.folder / "stage.txt"
        return float(path.read_text()) if path.exists() else 0.0

    def again(self) -> None:
        """Kill it, and start it at the same address."""
        self.arguments["bind"] = self.address
        self.process.kill()
        self.process.wait()
        self.start()


def main() -> None:
    """All three machines, and what became of the frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--stages", default="40,60,50", help="milliseconds of camera, gateway and server")
    parser.add_argument("--kill", type=int, default=0, metavar="TIMES", help="end the server so often")
    parser.add_argument("--loopback", action="store_true", help="no namespaces")
    args = parser.parse_args()
    stop_cleanly()
    camera_s, gateway_s, server_s = (float(each) / 1000 for each in args.stages.split(","))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            line = ChainLine({}) if args.loopback else stack.enter_context(chain_line("chain"))
        except NoNamespacesError as exc:
            print(f"{exc}: on the loopback")
            line = ChainLine({})
        print(state_of_the_machine(), "in namespaces" if line.namespaces else "on the loopback", flush=True)
        facts = {"bind": f"{line.addresses['server']}:0", "forward": "", "stage_s": server_s}
        server = Machine(line, "server", facts, folder / "server")
        stack.callback(server.process.kill)
        facts = {"bind": f"{line.addresses['gateway']}:0", "forward": server.address, "stage_s": gateway_s}
        gateway = Machine(line, "gateway", facts, folder / "gateway")
        stack.callback(gateway.process.kill)
        command = [sys.executable, __file__, json.dumps({"camera": [gateway.address, args.frames, camera_s]})]
        process = line.start("camera", command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE)
        stack.callback(process.kill)
        assert process.stdout is not None
        every, last = args.frames // (args.kill + 1), ""
        deaths = [every * number for number in range(1, args.kill + 1)]
        for last in process.stdout:
            if deaths and last.strip().isdecimal() and int(last) >= deaths[0]:
                deaths.pop(0)
                server.again()
        found = json.loads(last)
        stages = {"camera": found["camera_s"], "gateway": gateway.stop(), "server": server.stop()}
    slowest = max(stages.values())
    print("  ".join(f"{name} {1e3 * took_s:.2f} ms" for name, took_s in stages.items()))
    print(f"{found['frames']} frames, {found['wrong']} wrong or out of order (identity, bit for bit)")
    share = f"{slowest / found['pace_s']:.1%} of the slowest stage's {1 / slowest:.2f}"
    print(f"{1 / found['pace_s']:.2f} frames a second: {share}")
    what = f"a chain of three machines{f', its server killed {args.kill} times' if args.kill else ''}"
    record(f"{what}: frames unlike the unsplit network", f"{found['wrong']}", "0", found["wrong"] > 0)
    if not args.kill:  # else the pace has the time in which no server was there
        reached = slowest / found["pace_s"]
        record(f"{what}: pace, of the slowest stage", f"{reached:.1%}", "≥ 95 %", reached < 0.95)
    print({name: value for name, value in found.items() if name.startswith(("frames_", "re"))})


if __name__ == "__main__":
    asked = json.loads(sys.argv[1]) if len(sys.argv) == 2 and sys.argv[1].startswith("{") else {}
    if "serve" in asked:
        serve(*asked["serve"])
    elif "camera" in asked:
        print(json.dumps(camera(*asked["camera"])))
    else:
        main()
