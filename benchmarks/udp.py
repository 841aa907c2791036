"""Speed of datagrams with acknowledgements against bare datagrams. Loopback, two processes.

    python benchmarks/udp.py

The yardstick is a bare UDP echo: equally large datagrams to a process that sends back a byte for every message's last
datagram, at most 256 KB under way, nothing checked, nothing ever resent (a lost datagram ends the measurement). Rounds
alternate between echo and transport; the table has medians.
"""

import argparse
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from splitsem.remote.plan import Plan
from splitsem.remote.udp.client import UdpTail
from splitsem.remote.udp.server import UdpServer

DATAGRAM_BYTES = 1400
SIZES = (4096, 262_144, 1_600_000, 12_800_000)
PLAN = Plan("bench", "bench", "bench", "layer", "float32", "Identity")
STRIDE = 180  # datagrams between the yardstick's acknowledgements


class Echo:
    """An engine that computes nothing."""

    def open(self, plan: Plan) -> str:
        """Accept any plan."""
        return plan.point

    def answer(self, session: str, payload: bytes, queue_s: float = 0.0) -> tuple[bytes, float]:
        """Answer with the first bytes, as a classifier's output is short."""
        return bytes(payload[:40]), 0.0


def bare_server(pipe: Connection) -> None:
    """Acknowledge every ``STRIDE``-th datagram and every datagram shorter than a full one."""
    sock = open_socket()
    sock.bind(("127.0.0.1", 0))
    pipe.send(sock.getsockname())
    num = 0
    while True:
        data, address = sock.recvfrom(1 << 16)
        num += 1
        if len(data) < DATAGRAM_BYTES or num == STRIDE:
            num = 0
            sock.sendto(b"\0", address)


def real_server(pipe: Connection) -> None:
    """Run the transport's server until the pipe speaks."""
    server = UdpServer(Echo())  # type: ignore[arg-type]
    pipe.send(server.start())
    pipe.recv()


def open_socket() -> socket.socket:
    """A socket with the buffer sizes of the transport."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 1 << 22)
    sock.settimeout(5)
    return sock


def bare_round_trip_s(sock: socket.socket, payload: memoryview) -> float:
    """Seconds from a message's first datagram to its last acknowledgement; the last datagram is short."""
    began = time.perf_counter()
    num = 0
    for start in range(0, len(payload) + 1, DATAGRAM_BYTES):
        sock.send(payload[start : start + DATAGRAM_BYTES])
        num += 1
        if num == STRIDE and start + DATAGRAM_BYTES <= len(payload):
            num = 0
            sock.recv(16)
    sock.recv(16)
    return time.perf_counter() - began


def started(target: Callable[[Connection], None]) -> tuple[multiprocessing.Process, Connection]:
    """A new process that runs ``target``, and the pipe to that process."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(there,), daemon=True)
    process.start()
    return process, here


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    _, bare_pipe = started(bare_server)
    _, real_pipe = started(real_server)
    sock = open_socket()
    sock.connect(bare_pipe.recv())
    tail = UdpTail(real_pipe.recv())
    tail.open(PLAN)
    print(f"{'bytes':>10} {'bare ms':>9} {'udp ms':>9} {'bare Mbit/s':>12} {'udp Mbit/s':>11} {'ratio':>6}")
    for size in SIZES:
        payload = memoryview(bytes(size))
        bare_s, real_s = [], []
        for _ in range(rounds):
            bare_s.append(bare_round_trip_s(sock, payload))
            real_s.append(tail.echo_s(size))
        bare, real = statistics.median(bare_s), statistics.median(real_s)
        row = (
            f"{size:>10} {1e3 * bare:>9.2f} {1e3 * real:>9.2f} {8e-6 * size / bare:>12.0f} {8e-6 * size / real:>11.0f}"
        )
        print(f"{row} {real / bare:>6.2f}")
    for size in (4096, 262_144):
        num = 2000 if size < 10_000 else 200
        began = time.perf_counter()
        num_answers = sum(1 for _ in tail.stream(bytes(size) for _ in range(num)))
        took_s = time.perf_counter() - began
        rates = f"{num / took_s:.0f}/s, {8e-6 * num * size / took_s:.0f} Mbit/s"
        print(f"streamed {num_answers} frames of {size} bytes: {rates}")
    print(tail.counts)
    tail.close()


if __name__ == "__main__":
    main()
