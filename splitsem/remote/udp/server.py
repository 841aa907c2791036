"""UdpServer is the server's end: datagrams to one socket, one gRPC stream for each session, answers from one engine."""

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import grpc
import msgspec

from splitsem.errors import BusyError, ConfigError, PayloadError, SessionError, SplitPointError, SplitSemError
from splitsem.remote.engine import TailServer
from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.udp import control
from splitsem.remote.udp.control import Ask, Welcome
from splitsem.remote.udp.filling import filled
from splitsem.remote.udp.packets import KEY_BYTES, Became, Outcome, SpentKeyError, session_of
from splitsem.remote.udp.session import Address, Job, Session
from splitsem.remote.udp.settings import Grant, check_fragment_bytes, datagram_socket
from splitsem_device.grpc.connection import HEARTBEAT_S, Security, host_port
from splitsem_device.plan import Plan

log = logging.getLogger(__name__)
_BATCH = 64
_SWEEP_S = 1.0
_IDLE_S = 30.0  # without a datagram, after which a session makes room for another
_MOST_TEXT = 1000
_TORCH_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


class UdpServer(TailServer):
    """Answers the frames of several edges from one engine.

    Args:
        engine: answers the frames.
        bind: ``host:port`` of the control channel (TCP) and of the datagrams (UDP); port 0 takes free ones.
        security: TLS and token of the control channel; without TLS the keys travel in the clear.
        limits: of gRPC; ``max_clients`` sessions at a time, each with ``max_window`` unanswered frames.
        grant: of datagrams.
        heartbeat_s: of the control channel, see ``heartbeat_options``.
    """

    def __init__(
        self,
        engine: TailEngine,
        bind: str,
        security: Security,
        limits: Limits,
        grant: Grant,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._engine, self._bind, self._limits, self._grant = engine, bind, limits, grant
        self._control = GrpcServer(engine, bind, security, limits, heartbeat_s, more=[control.handlers(self._serve)])
        self._sessions: dict[int, Session] = {}
        self._lock = threading.Lock()
        self._is_draining = self._is_closed = False
        self._told = ("", "")  # client and plan of the last line in the log
        self.num_refused = 0
        """Datagrams of no session that is open."""

    def start(self) -> str:
        """See TailServer."""
        host, port = host_port(self._bind)
        try:
            family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)[0]
            self._socket = datagram_socket(family)
            self._socket.bind(address)
        except OSError as exc:
            raise ConfigError(f"cannot listen on {self._bind} over UDP: {exc.strerror}") from exc
        self.port = self._socket.getsockname()[1]
        try:
            bound = self._control.start()
        except (SplitSemError, ValueError):
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._receive, name="splitsem-udp", daemon=True)
        self._thread.start()
        return bound

    def stop(self, grace_s: float = 5.0) -> None:
        """See TailServer."""
        with self._lock:
            self._is_draining = True
            sessions = list(self._sessions.values())
        for session in sessions:
            with session.changed:
                session.changed.notify_all()
        self._control.stop(grace_s)
        self._is_closed = True
        self._thread.join()
        self._socket.close()

    def queue_depth(self) -> int:
        """See TailServer."""
        with self._lock:
            return sum(len(session.jobs) for session in self._sessions.values()) + self._control.queue_depth()

    def num_clients(self) -> int:
        """See TailServer."""
        return len(self._sessions) + self._control.num_clients()

    def held_bytes(self) -> int:
        """Bytes of frames that wait, whole or in pieces."""
        with self._lock:
            return sum(session.held_bytes for session in self._sessions.values())

    # a session, in the thread of its control channel

    def _serve(self, ask: Ask, context: grpc.ServicerContext) -> Iterator[bytes]:
        plan = Plan.from_json(ask.plan)
        try:
            check_fragment_bytes(ask.fragment_bytes)
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc
        key, opened = os.urandom(KEY_BYTES), self._engine.open(plan)
        number = int.from_bytes(os.urandom(8), "little")
        session = Session(number, key, ask.fragment_bytes, self._limits.max_window, self._grant)
        if not context.add_callback(session.end):
            return
        self._let_in(session)
        peer = context.peer()
        if not plan.is_of_probes and self._told != (peer, opened):  # a client may begin its session again
            self._told = peer, opened
            log.info(
                "A client at %s sends datagrams for %s with %s", peer, plan.point, plan.codec, extra={"peer": peer}
            )
        is_ipv6 = self._socket.family == socket.AF_INET6 and peer.startswith("ipv6:") and "::ffff:" not in peer
        grant = (self.port, is_ipv6, self._limits.max_window, self._grant.max_frame_bytes)
        try:
            yield msgspec.json.encode(Welcome(number, key, *grant))
            while (job := session.next_job(lambda: self._is_draining)) is not None:
                answer, opened = self._answer(job, plan, opened)
                content = session.answered(answer, job)
                if session.fits(content):
                    self._send(session, content)
                else:
                    yield content
            if self._is_draining:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        except SpentKeyError:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the session's key is spent: begin another session")
        finally:
            self._let_go(session)
            log.debug("The client at %s is gone", peer, extra={"peer": peer})

    def _let_in(self, session: Session) -> None:
        """Give the session a place, if need be that of the one unheard for longest. Raises BusyError."""
        with self._lock:
            if len(self._sessions) >= self._limits.max_clients:
                idle = min(self._sessions.values(), key=lambda one: one.heard_s)
                if time.monotonic() - idle.heard_s < _IDLE_S:
                    raise BusyError(f"the server has its {self._limits.max_clients} clients")
                idle.end()
                del self._sessions[idle.seal.session]
            self._sessions[session.seal.session] = session
            self._share()

    def _let_go(self, session: Session) -> None:
        with self._lock:
            self._sessions.pop(session.seal.session, None)
            self._share()

    def _share(self) -> None:
        for session in self._sessions.values():
            session.max_held_bytes = self._grant.buffer_bytes // len(self._sessions)

    def _answer(self, job: Job, plan: Plan, opened: str) -> tuple[Became, str]:
        """What became of a frame, and the engine's session, which may be a new one."""
        queue_s = time.monotonic() - job.arrived_s

        def became(outcome: Outcome, body: bytes = b"", server_s: float = 0.0) -> Became:
            return Became(outcome, job.frame, job.num_missing, server_s, queue_s, body)

        if job.is_echo:
            return became(Outcome.ANSWERED), opened
        payload = b"" if plan.is_of_probes else filled(job.payload, job.gaps)  # nobody reads probes
        if payload is None:
            return became(Outcome.LOST), opened
        try:
            try:
                output, server_s = self._engine.answer(opened, payload, queue_s)
            except SessionError:  # the engine dropped the session for other clients
                opened = self._engine.open(plan)
                output, server_s = self._engine.answer(opened, payload, queue_s)
        except PayloadError as exc:
            return became(Outcome.LOST if job.gaps else Outcome.REFUSED, _text(exc)), opened
        except (SplitPointError, SplitSemError) as exc:
            return became(Outcome.FAILED, _text(exc)), opened
        except _TORCH_ERRORS as exc:  # an error of this frame must not stop other frames
            return became(Outcome.REFUSED, b"the tail failed: " + _text(exc)), opened
        return became(Outcome.FILLED if job.gaps else Outcome.ANSWERED, bytes(output), server_s), opened

    # datagrams, in the socket's thread

    def _receive(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        sweep_s = wait_s = 0.0
        waiting: set[Session] = set()  # sessions whose frames settle soon
        while not self._is_closed:
            if poll.poll(1000 * min(wait_s, 0.1)):
                waiting |= self._drain()
            now_s = time.monotonic()
            if now_s >= sweep_s:
                sweep_s = now_s + _SWEEP_S
                with self._lock:
                    waiting |= set(self._sessions.values())
            settles = {session: session.settle(now_s) for session in waiting}
            waiting = {session for session, next_s in settles.items() if next_s is not None}
            soonest_s = min((next_s for next_s in settles.values() if next_s is not None), default=sweep_s)
            wait_s = max(0.0, soonest_s - now_s)

    def _drain(self) -> set[Session]:
        """Take the datagrams that are there; the sessions that they are of."""
        heard: set[Session] = set()
        for _ in range(_BATCH):
            try:
                datagram, address = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # an ICMP answer to something sent before
                continue
            session = self._sessions.get(session_of(datagram) or 0)
            if session is None or self._is_draining:
                self.num_refused += 1
                continue
            for content in session.receive(datagram, address, time.monotonic()):
                self._send(session, content)
            heard.add(session)
        return heard

    def _send(self, session: Session, content: bytes) -> None:
        """Send a datagram; one that the operating system does not take is as lost as others."""
        try:
            datagram = session.seal.seal(content)[1]
        except SpentKeyError:
            session.end()
            return
        address: Address = session.address
        with contextlib.suppress(OSError):
            if address:
                self._socket.sendto(datagram, address)


def _text(exc: Exception) -> bytes:
    return str(exc)[:_MOST_TEXT].encode()
