"""UdpTail is the edge's end: frames leave as datagrams, and each gets an answer or counts as lost."""

import contextlib
import errno
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, NamedTuple

import grpc

from splitsem.errors import LinkError, SplitSemError
from splitsem.remote.udp.control import ControlTail, Welcome
from splitsem.remote.udp.filling import header_bytes
from splitsem.remote.udp.pace import Pace
from splitsem.remote.udp.packets import (
    IP_UDP_BYTES,
    Became,
    Direction,
    Fragment,
    Report,
    Seal,
    SpentKeyError,
    num_fragments,
    pack,
    parse,
)
from splitsem.remote.udp.settings import Settings, datagram_socket
from splitsem.remote.udp.unanswered import Frame, Frames, Stream
from splitsem_device.answers import EVERYTHING, Answer, Profile, RemoteTail, ToMeasure
from splitsem_device.grpc.connection import host_port
from splitsem_device.plan import Plan
from splitsem_device.retry import Retry

_BATCH = 64
_LONGEST_WAIT_S = 0.1
# pieces of a frame, from which those with the payload's header are worth sending twice: if some were lost, and always
_REPEAT_FROM, _REPEAT_ALWAYS_FROM = 2, 8
_MAX_FRUITLESS, _FRUITFUL_S = 30, 1.0
_NUM_ECHOES, _ECHO_S = 3, 2.0
_JOIN_S = 1.0


class _Link(NamedTuple):
    """A session of this end: its control channel, its keys and its pace."""

    call: Any
    seal: Seal
    pace: Pace
    welcome: Welcome


class UdpTail(RemoteTail):
    """Sends frames to a UdpServer; what does not arrive is not sent again, but asked for once its answer is due.

    A lost or late frame gets an answer that ``is_lost``. When the control channel breaks, the edge begins another
    session, and frames without an answer are sent again while they are within their deadline.

    Args:
        control: the control channel to the server.
        settings: how to send.
        datagram_target: ``host:port`` that datagrams go to; None: the control channel's host, and the port it tells.
    """

    def __init__(self, control: ControlTail, settings: Settings, datagram_target: str | None = None) -> None:
        self._control, self.settings = control, settings
        self._datagram_target = host_port(datagram_target) if datagram_target else None
        self.target, self.counters = control.target, control.counters
        self._frames: Frames | None = None
        self._threads: list[threading.Thread] = []

    def open(self, plan: Plan) -> None:
        """See RemoteTail. Raises ConfigError (no agreement) and LinkError (no server, or no datagram passes)."""
        self._end()
        self._plan = plan
        self._socket: socket.socket | None = None
        self._link: _Link | None = self._begin()
        self._frames = frames = Frames(self.target, self.counters, self.settings.fragment_bytes)
        self._resume(frames, self._link)
        for run in (self._listen, self._receive, self._send):
            thread = threading.Thread(target=run, args=(frames, self._socket), name="splitsem-udp", daemon=True)
            thread.start()
            self._threads.append(thread)
        try:
            self.echo(0)
        except SplitSemError:
            self.close()
            raise

    def stream(self, payloads: Iterable[bytes], window: int | None = None) -> Iterator[Answer]:
        """See RemoteTail; a lost or late frame's answer ``is_lost``.

        Raises LinkError (the server is gone), ConfigError (a restarted server disagrees with the plan) and PayloadError
        (the server cannot read a frame that came whole).
        """
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        return Stream(self._opened(), payloads, min(window or self.settings.window, self.settings.window)).answers()

    def echo_s(self, num_bytes: int) -> float:
        """See RemoteTail; of what arrives."""
        return self.echo(num_bytes)[0]

    def echo(self, num_bytes: int) -> tuple[float, float]:
        """Seconds as in ``echo_s``, and the share of the bytes that did not arrive. Raises LinkError."""
        frames = self._opened()
        for _ in range(_NUM_ECHOES):
            before = frames.num_bytes, frames.num_missing
            began = time.perf_counter()
            answer = frames.wait(frames.submit(bytes(num_bytes), is_echo=True))
            took_s = time.perf_counter() - began
            if not answer.is_lost:
                return took_s, (frames.num_missing - before[1]) / max(1, frames.num_bytes - before[0])
        raise LinkError(
            f"{self.target} answers over gRPC, but no datagram comes back: may UDP pass to port {self._port} there? "
            "a link over gRPC alone does without"
        )

    def profile(self, asked: ToMeasure = EVERYTHING) -> Profile:
        """See RemoteTail; asked over the control channel."""
        self._opened()
        return self._control.profile(asked)

    def close(self) -> None:
        """See RemoteTail."""
        self._end()
        self._control.close()

    def hurry(self) -> Retry:
        """See RemoteTail."""
        return self._control.hurry()

    def _end(self) -> None:
        if self._frames is None:
            return
        frames, self._frames = self._frames, None
        with frames.changed:
            frames.fail(LinkError(f"the connection to {self.target} was closed on this side"))
            if self._link is not None:
                self._link.call.cancel()
        for thread in self._threads:
            thread.join(_JOIN_S)  # the one that begins sessions may be waiting for a server that is gone
        self._threads.clear()
        assert self._socket is not None  # was open
        self._socket.close()

    def _opened(self) -> Frames:
        if self._frames is None:
            raise LinkError("open(plan) first: there is no connection")
        return self._frames

    # sessions, in the thread of the control channel

    def _begin(self) -> _Link:
        welcome, call = self._control.start(self._plan, self.settings.fragment_bytes)
        host, self._port = self._datagram_target or (host_port(self.target)[0], welcome.port)
        try:
            found = socket.getaddrinfo(host.strip("[]"), self._port, type=socket.SOCK_DGRAM)
            wanted = socket.AF_INET6 if welcome.is_ipv6 else socket.AF_INET
            family, _, _, _, address = min(found, key=lambda one: one[0] != wanted)
            self._socket = self._socket or datagram_socket(family)
            self._socket.connect(address)
        except OSError as exc:
            call.cancel()
            raise LinkError(f"{host}:{self._port} cannot be reached over UDP: {exc.strerror}") from exc
        pace = Pace(self.settings.rate_bps, self.settings.packet_bytes)
        return _Link(call, Seal(welcome.session, welcome.key, Direction.TO_SERVER), pace, welcome)

    def _resume(self, frames: Frames, link: _Link) -> None:
        frames.resume(min(self.settings.window, link.welcome.max_window), link.welcome.max_frame_bytes)

    def _listen(self, frames: Frames, _: socket.socket) -> None:
        """Take what comes over the control channel; when it ends, begin another session."""
        num_fruitless = 0
        while (link := self._link) is not None and frames.failure is None:
            began_s = time.monotonic()
            with contextlib.suppress(grpc.RpcError):  # the end of the session, for whatever reason
                for content in link.call:
                    self._take(frames, link, content)
            if frames.failure is not None:
                return
            self._link = None
            frames.resume(0, 0)
            self.counters.reconnects += 1
            num_fruitless = num_fruitless + 1 if time.monotonic() - began_s < _FRUITFUL_S else 0
            try:
                if num_fruitless > _MAX_FRUITLESS:
                    raise LinkError(f"{self.target} ended {num_fruitless} sessions, each within {_FRUITFUL_S:.0f} s")
                begun = self._begin()
            except SplitSemError as exc:
                frames.fail(exc)
                return
            with frames.changed:
                if frames.failure is not None:  # closed meanwhile, and perhaps opened anew
                    begun.call.cancel()
                    return
                self._link = begun
                self._resume(frames, begun)

    # frames out

    def _send(self, frames: Frames, sock: socket.socket) -> None:
        while True:
            with frames.changed:
                frames.changed.wait_for(lambda: frames.failure or (frames.to_send and self._link))
                if frames.failure is not None:
                    return
                frame, link = frames.to_send.popleft(), self._link
                frames.changed.notify_all()
            assert link is not None
            try:
                self._send_frame(frames, sock, link, frame)
            except SpentKeyError:
                link.call.cancel()  # another session has another key
            except OSError as exc:
                if exc.errno != errno.EMSGSIZE:
                    raise
                what = f"fragment_bytes={self.settings.fragment_bytes}"
                frames.fail(LinkError(f"{what} does not fit into the MTU on the way to {self.target}"))

    def _send_frame(self, frames: Frames, sock: socket.socket, link: _Link, frame: Frame) -> None:
        step, size = self.settings.fragment_bytes, len(frame.payload)
        num = num_fragments(size, step)
        least = _REPEAT_FROM if frames.num_missing else _REPEAT_ALWAYS_FROM
        again = -(-header_bytes(frame.payload) // step) if num >= least and not frame.is_echo else 0
        for place in (*range(num), *range(again)):
            body = bytes(frame.payload[place * step : (place + 1) * step])
            content = pack(Fragment(frame.number, size, place, body, is_echo=frame.is_echo))
            if not self._wait_for_turn(frames, link, frame):
                return
            self._put(frames, sock, link, content)
            if frame.due_s == inf and not frame.is_echo:
                frame.due_s = time.monotonic() + self.settings.deadline_s
        if num > 1 and self._wait_for_turn(frames, link, frame):
            self._put(frames, sock, link, pack(Fragment(frame.number, size, 0, b"", True, frame.is_echo)))
        self.counters.frames_sent += not frame.is_echo
        frame.ask_s = time.monotonic() + link.pace.timeout_s
        if frame.is_echo:
            frame.due_s = time.monotonic() + _ECHO_S

    def _wait_for_turn(self, frames: Frames, link: _Link, frame: Frame) -> bool:
        """Wait until a datagram may leave; False when the frame is no longer to be sent."""
        while True:
            with frames.changed:
                if self._link is not link or not frames.is_wanted(frame):
                    return False
                wait_s = link.pace.wait_s(time.monotonic())
                if wait_s == inf:
                    frames.changed.wait(link.pace.timeout_s)
                    continue
            if wait_s <= 0:
                return True
            time.sleep(wait_s)

    def _put(self, frames: Frames, sock: socket.socket, link: _Link, content: bytes) -> None:
        with frames.changed:
            number, datagram = link.seal.seal(content)
            link.pace.sent(number, len(datagram) + IP_UDP_BYTES, time.monotonic())
        try:
            sock.send(datagram)
        except BlockingIOError:  # the network card is slower: wait a little
            select.select([], [sock], [], 0.05)
        except OSError as exc:  # as lost as others
            if exc.errno == errno.EMSGSIZE:
                raise

    # answers in

    def _receive(self, frames: Frames, sock: socket.socket) -> None:
        wait_s = 0.0
        while frames.failure is None:
            select.select([sock], [], [], wait_s)
            link = self._link
            for _ in range(_BATCH):
                try:
                    datagram = sock.recv(1 << 16)
                except BlockingIOError:
                    break
                except OSError:  # an ICMP answer; the control channel tells whether the server is there
                    continue
                content = link.seal.open(datagram) if link is not None else None
                if link is not None and content is not None:
                    self._take(frames, link, content)
            wait_s = self._ask(frames, sock)

    def _take(self, frames: Frames, link: _Link, content: bytes) -> None:
        """Take an answer or a report, from whichever channel."""
        said = parse(content)
        if isinstance(said, Became):
            frames.became(said)
        elif isinstance(said, Report):
            with frames.changed:
                link.pace.report(said, time.monotonic())
                frames.changed.notify_all()

    def _ask(self, frames: Frames, sock: socket.socket) -> float:
        """Ask for the answers that are due; seconds until the next look."""
        link = self._link
        asks, next_s = frames.look_after(time.monotonic(), link.pace.timeout_s if link else inf)
        try:
            for ask in asks:
                if link is not None:
                    self._put(frames, sock, link, pack(ask))
        except SpentKeyError:
            if link is not None:
                link.call.cancel()
        return min(max(0.0, next_s - time.monotonic()), _LONGEST_WAIT_S)
