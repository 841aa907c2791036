"""Endpoint is a UDP socket and its thread; on Linux, one system call carries many datagrams."""

import contextlib
import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from splitsem.remote.udp.packets import MAX_DATAGRAM_BYTES, Datagram
from splitsem.remote.udp.settings import Counts

Address = tuple[Any, ...]
_BUFFER_BYTES = 1 << 22
_LONGEST_WAIT_S = 1.0
_DRAIN = 64
# linux/udp.h, linux/in.h; not in the socket module of Python 3.11
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_MTU_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
_PMTUDISC_DO = 2
_NO_SEGMENTS = (errno.EINVAL, errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EMSGSIZE)
_MAX_SEGMENTS = 64
_SEGMENT_SIZE = struct.Struct("@H")


class Side(Protocol):
    """The protocol above an endpoint; the endpoint calls it from its own thread, holding ``lock``."""

    lock: threading.Condition
    counts: Counts

    def receive(self, datagram: memoryview, address: Address, now_s: float) -> None:
        """Take in a datagram."""

    def outgoing(self, now_s: float) -> Iterable[tuple[Address, list[Datagram]]]:
        """The datagrams that may leave now, by address."""

    def next_s(self, now_s: float) -> float:
        """When ``outgoing`` is due next, if no datagram arrives before."""

    def trouble(self, error: OSError | None) -> None:
        """Note that the operating system refused to send or receive; None: the endpoint has stopped."""


class Endpoint:
    """Serves a socket until ``close``.

    Args:
        sock: a bound or connected datagram socket; the endpoint closes it.
        side: the protocol above.
    """

    def __init__(self, sock: socket.socket, side: Side) -> None:
        self._sock, self._side = sock, side
        sock.setblocking(False)
        self._can_segment = hasattr(sock, "sendmsg")
        self._set_options()
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        self._sending = threading.Lock()  # datagrams leave in the order of their numbers
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="splitsem-udp", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tell the endpoint's thread that there is something to send."""
        with contextlib.suppress(BlockingIOError, OSError):  # full: the thread wakes anyway; closed: there is no thread
            self._wake_w.send(b"\0")

    def push(self) -> None:
        """Send what may leave at once from the calling thread; the endpoint's thread sends the rest."""
        if self._sending.acquire(blocking=False):
            try:
                self._flush()
            finally:
                self._sending.release()
        self.wake()

    def close(self) -> None:
        """Stop the thread and close the socket."""
        self._is_closing = True
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _set_options(self) -> None:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        with contextlib.suppress(OSError):  # a packet beyond the MTU is an error; IP does not fragment it
            level, option = _MTU_DISCOVER[self._sock.family]
            self._sock.setsockopt(level, option, _PMTUDISC_DO)
        with contextlib.suppress(OSError):
            self._sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake_r, select.POLLIN)
        try:
            while not self._is_closing:
                with self._sending:
                    wait_s = self._flush()
                if poll.poll(1000 * wait_s):
                    self._drain()
        finally:
            with self._sending:
                self._flush()
                self._close_sockets()
            with self._side.lock:
                self._side.trouble(None)

    def _close_sockets(self) -> None:
        for sock in (self._sock, self._wake_r, self._wake_w):
            sock.close()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_r.recv(4096)
        received = []
        for _ in range(_DRAIN):
            try:
                data, extra, _, address = self._sock.recvmsg(1 << 16, socket.CMSG_SPACE(4))
            except BlockingIOError:
                break
            except OSError as exc:  # an ICMP answer to something sent before
                with self._side.lock:
                    self._side.trouble(exc)
                break
            received.append((data, extra, address))
        if not received:
            return
        now_s = time.monotonic()
        with self._side.lock:
            for data, extra, address in received:
                view = memoryview(data)
                step = _segment_bytes(extra) or len(data) or 1
                for start in range(0, len(data) or 1, step):
                    self._side.receive(view[start : start + step], address, now_s)

    def _flush(self) -> float:
        now_s = time.monotonic()
        with self._side.lock:
            ready = list(self._side.outgoing(now_s))
            next_s = now_s if ready else self._side.next_s(now_s)
        for address, datagrams in ready:
            for group in _groups(datagrams) if self._can_segment else ([one] for one in datagrams):
                self._send(group, address)
        return min(max(next_s - time.monotonic(), 0.0), _LONGEST_WAIT_S)

    def _send(self, group: Sequence[Datagram], address: Address) -> None:
        buffers = [buffer for datagram in group for buffer in datagram]
        size = sum(map(len, group[0]))
        control = [(_SOL_UDP, _UDP_SEGMENT, _SEGMENT_SIZE.pack(size))] if len(group) > 1 else []
        for _ in range(2):
            try:
                self._sock.sendmsg(buffers, control, 0, *([address] if address else []))
            except BlockingIOError:  # the network card is slower: wait a little
                select.select([], [self._sock], [], 0.05)
                continue
            except OSError as exc:
                if len(group) > 1 and exc.errno in _NO_SEGMENTS:
                    self._can_segment = False
                    for datagram in group:
                        self._send([datagram], address)
                    return
                self._refused(exc, len(group))
            else:
                with self._side.lock:
                    self._side.counts.packets_sent += len(group)
            return
        with self._side.lock:
            self._side.counts.send_errors += len(group)

    def _refused(self, exc: OSError, num: int) -> None:
        with self._side.lock:
            self._side.counts.send_errors += num
            self._side.trouble(exc)


def _groups(datagrams: Sequence[Datagram]) -> Iterable[Sequence[Datagram]]:
    """Groups of datagrams for one segmented send each: equal sizes, the last datagram may be shorter."""
    start = first = last = total = 0
    for i, datagram in enumerate(datagrams):
        size = sum(map(len, datagram))
        fits = i > start and size <= first and i - start < _MAX_SEGMENTS and total + size <= MAX_DATAGRAM_BYTES
        if i > start and not (fits and last == first):
            yield datagrams[start:i]
            start = i
        if i == start:
            first, total = size, 0
        total += size
        last = size
    if datagrams:
        yield datagrams[start:]


def _segment_bytes(extra: Iterable[tuple[int, int, bytes]]) -> int:
    for level, kind, data in extra:
        if level == _SOL_UDP and kind == _UDP_GRO and len(data) >= 4:
            return int.from_bytes(data[:4], "little" if struct.pack("=H", 1)[0] else "big")
    return 0
