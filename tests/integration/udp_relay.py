"""A bad network between a client and a server: a real UDP relay that loses, doubles, delays and damages datagrams."""

import heapq
import random
import select
import socket
import threading
import time
from types import TracebackType

_RCVBUF = 1 << 22


class Relay:
    """Forwards datagrams both ways, each client through a socket of its own; what happens to which is seeded.

    Args:
        target: ``HOST:PORT`` of the server.
        seed: of the random numbers.
        loss: share of the datagrams that vanish, each way.
        duplicate: share that arrive twice.
        late: share that arrive up to ``late_s`` later, so behind others.
        damage: share with one bit turned.
    """

    def __init__(
        self,
        target: str,
        seed: int = 0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        late: float = 0.0,
        late_s: float = 0.005,
        damage: float = 0.0,
    ) -> None:
        host, _, port = target.rpartition(":")
        self._server = (host, int(port))
        self._random = random.Random(seed)
        self.loss, self.duplicate, self.late, self.late_s, self.damage = loss, duplicate, late, late_s, damage
        self._front = self._socket()
        self._front.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._front.getsockname()[1]}"
        self._upstream: dict[tuple[str, int], socket.socket] = {}
        self._clients: dict[socket.socket, tuple[str, int]] = {}
        self._held: list[tuple[float, int, socket.socket, bytes, tuple[str, int]]] = []
        self.num_seen = self.num_lost = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Relay":
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        for sock in (self._front, *self._clients):
            sock.close()

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RCVBUF)
        sock.setblocking(False)
        return sock

    def _run(self) -> None:
        while not self._stop.is_set():
            wait_s = max(self._held[0][0] - time.monotonic(), 0.0) if self._held else 0.05
            ready, _, _ = select.select([self._front, *self._clients], [], [], wait_s)
            for sock in ready:
                self._forward(sock)
            while self._held and self._held[0][0] <= time.monotonic():
                _, _, sock, datagram, address = heapq.heappop(self._held)
                self._send(sock, datagram, address)

    def _forward(self, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                datagram, address = sock.recvfrom(1 << 16)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue
            if sock is self._front:
                if address not in self._upstream:
                    self._upstream[address] = self._socket()
                    self._clients[self._upstream[address]] = address
                self._pass(self._upstream[address], datagram, self._server)
            else:
                self._pass(self._front, datagram, self._clients[sock])

    def _pass(self, sock: socket.socket, datagram: bytes, address: tuple[str, int]) -> None:
        self.num_seen += 1
        if self._random.random() < self.loss:
            self.num_lost += 1
            return
        if self._random.random() < self.damage:
            place = self._random.randrange(len(datagram))
            turned = datagram[place] ^ 1 << self._random.randrange(8)
            datagram = datagram[:place] + bytes((turned,)) + datagram[place + 1 :]
        for _ in range(2 if self._random.random() < self.duplicate else 1):
            if self._random.random() < self.late:
                at_s = time.monotonic() + self._random.random() * self.late_s
                heapq.heappush(self._held, (at_s, self.num_seen, sock, datagram, address))
            else:
                self._send(sock, datagram, address)

    def _send(self, sock: socket.socket, datagram: bytes, address: tuple[str, int]) -> None:
        try:
            sock.sendto(datagram, address)
        except (BlockingIOError, ConnectionRefusedError):
            self.num_lost += 1
