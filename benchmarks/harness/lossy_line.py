"""A line with delay, rate, queue and loss between two network namespaces, on which TCP itself recovers from loss.

Each namespace has a TUN device; one process reads the IP packets of both and hands each to the other side later, or
never. Kernels without netem need no more than /dev/net/tun. Needs root and ip.

    python benchmarks/harness/lossy_line.py PREFIX SHAPE_AS_JSON     # the relay; SIGTERM ends it with its figures
"""

import fcntl
import heapq
import json
import os
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness.line import DEVICE_ADDRESS, MTU, SERVER_ADDRESS, Line, NoNamespacesError, run

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_BATCH = 64  # packets read at a time from one side, so that the other waits no longer than it takes to read them
_REALTIME = 10


@dataclass(frozen=True)
class Shape:
    """What happens to a packet on the line, each way alike and each way by itself.

    Attributes:
        rate_bps: bits of IP packets a second.
        round_trip_s: delay of both ways together, beyond the time in the queue.
        loss: probability that a packet, which took its time on the line, does not arrive.
        queue_s: how long a packet may wait for the line; what would wait longer is dropped.
        seed: of the losses.
    """

    rate_bps: float
    round_trip_s: float = 0.02
    loss: float = 0.0
    queue_s: float = 0.05
    seed: int = 0


class Way:
    """One direction: packets go in with the time, and come out when they are due."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self._shape, self._random = shape, random.Random(seed)
        self._free_s = 0.0
        self.num_packets = self.num_dropped = self.num_lost = 0
        self.waiting: deque[tuple[float, bytes]] = deque()

    def take(self, packet: bytes, now_s: float) -> None:
        """Put a packet on the line, lose it, or drop it at a full queue."""
        self.num_packets += 1
        starts_s = max(self._free_s, now_s)
        if starts_s - now_s > self._shape.queue_s:
            self.num_dropped += 1
            return
        self._free_s = starts_s + 8 * len(packet) / self._shape.rate_bps
        if self._random.random() < self._shape.loss:
            self.num_lost += 1
        else:
            self.waiting.append((self._free_s + self._shape.round_trip_s / 2, packet))


class Relay:
    """Passes packets between two TUN devices until it is stopped.

    Args:
        files: the two devices.
        shape: of both ways.
    """

    def __init__(self, files: tuple[int, int], shape: Shape) -> None:
        self._files = files
        self._ways = Way(shape, 2 * shape.seed), Way(shape, 2 * shape.seed + 1)
        self._late_s: list[float] = []  # the largest, as a heap
        self._num_delivered = 0

    def run(self) -> None:
        """Relay until SystemExit."""
        targets = self._files[::-1]
        while True:
            due_s = min((way.waiting[0][0] for way in self._ways if way.waiting), default=float("inf"))
            select.select(self._files, [], [], min(max(due_s - time.monotonic(), 0.0), 1.0))
            now_s = time.monotonic()
            for file, way in zip(self._files, self._ways, strict=True):
                with suppress(BlockingIOError):
                    for _ in range(_BATCH):
                        way.take(os.read(file, 2048), now_s)
            for file, way in zip(targets, self._ways, strict=True):
                while way.waiting and way.waiting[0][0] <= now_s:
                    due_s, packet = way.waiting.popleft()
                    with suppress(BlockingIOError):
                        os.write(file, packet)
                    self._note(now_s - due_s)

    def figures(self) -> dict[str, float]:
        """How well the relay kept up: packets, and how much later than due the latest 1 in 1,000 were handed on."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "num_packets": sum(way.num_packets for way in self._ways),
            "num_dropped": sum(way.num_dropped for way in self._ways),
            "num_lost": sum(way.num_lost for way in self._ways),
            "late_p999_s": self._late_s[0] if self._late_s else 0.0,
            "late_most_s": max(self._late_s, default=0.0),
            "cpu_s": used.ru_utime + used.ru_stime,
        }

    def _note(self, late_s: float) -> None:
        self._num_delivered += 1
        if len(self._late_s) < 1 + self._num_delivered // 1000:
            heapq.heappush(self._late_s, late_s)
        else:
            heapq.heappushpop(self._late_s, late_s)


@contextmanager
def lossy_line(prefix: str, shape: Shape) -> Iterator[tuple[Line, dict[str, float]]]:
    """A line that is up while the context lasts, and the relay's figures, which are there when it is over.

    Raises:
        NoNamespacesError: the user is not root, ip or /dev/net/tun is missing, or the kernel refuses.
    """
    if os.geteuid() or not os.path.exists("/dev/net/tun"):
        raise NoNamespacesError("a lossy line needs root, ip and /dev/net/tun")
    names = [f"{prefix}-{end}-{os.getpid()}" for end in ("d", "s")]
    figures: dict[str, float] = {}
    relay = None
    try:
        try:
            for name in names:
                run("ip", "netns", "add", name)
            command = [sys.executable, __file__, *names, json.dumps(asdict(shape))]
            relay = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert relay.stdout is not None
            if relay.stdout.readline() != "relaying\n":
                raise NoNamespacesError("the relay did not start: no TUN device here?")
        except (subprocess.CalledProcessError, FileNotFoundError) as exc:
            raise NoNamespacesError(f"no network namespaces here: {exc}") from exc
        yield Line(names[0], names[1], shape.rate_bps), figures
    finally:
        if relay is not None:
            relay.terminate()
            said = relay.communicate(timeout=10)[0]
            figures.update(json.loads(said or "{}"))
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _tun(namespace: str, address: str) -> int:
    """A TUN device with this address in the namespace; its file stays here."""
    name = f"tun{os.getpid()}"
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    run("ip", "link", "set", name, "netns", namespace)
    for words in (f"link set {name} name line mtu {MTU} txqueuelen 1000", f"address add {address}/24 dev line",
                  "link set line up", "link set lo up"):  # fmt: skip
        run("ip", "-n", namespace, *words.split())
    return file


def main() -> None:
    """Run the relay."""
    device, server, shape = sys.argv[1:]
    relay = Relay((_tun(device, DEVICE_ADDRESS), _tun(server, SERVER_ADDRESS)), Shape(**json.loads(shape)))
    with suppress(PermissionError):  # the machine's other work shall not add to the line's delay
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_REALTIME))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("relaying", flush=True)
    try:
        relay.run()
    finally:
        print(json.dumps(relay.figures()), flush=True)


if __name__ == "__main__":
    main()
