"""Sessions is the server's protocol: handshakes, requests in, answers out, in bounded memory; no socket, no thread."""

import hmac
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from splitsem.remote.plan import Plan
from splitsem.remote.replies import Replies
from splitsem.remote.udp import packets
from splitsem.remote.udp.conversation import Conversation
from splitsem.remote.udp.endpoint import Address
from splitsem.remote.udp.outbox import TokenBucket
from splitsem.remote.udp.packets import COOKIE_BYTES, Datagram, Hello, Kind, Limits, Packet, Purpose, Reset
from splitsem.remote.udp.settings import Counts, Settings

log = logging.getLogger(__name__)
_COOKIE_LIFE_S = 60
_CONTROL_BPS = 8e6  # limit of answers to peers that have not proved their address
_SWEEP_S = 1.0


class Session:
    """One client across all its connections: its plan, its waiting requests, its last answers."""

    def __init__(self, token: bytes, window: int, now_s: float) -> None:
        self.token = token
        self.conversation: Conversation | None = None
        self.address: Address = ()
        self.base = 0
        self.plan: Plan | None = None
        self.key = ""
        self.replies = Replies(window)
        self.jobs: deque[Job] = deque()
        self.is_busy = False
        self.heard_s = now_s


class Job(NamedTuple):
    """A request to be answered.

    Attributes:
        session: the client that asks.
        conversation: carries the answer back.
        number: of the message.
        request_id: of the request, the same in every connection of the session.
        purpose: what is asked.
        payload: the message's bytes.
        missing: missing stretches of ``payload``.
        arrived_s: when the message was whole, on the ``time.monotonic`` clock.
    """

    session: Session
    conversation: Conversation
    number: int
    request_id: int
    purpose: int
    payload: memoryview
    missing: tuple[tuple[int, int], ...]
    arrived_s: float


class Sessions:
    """All clients of a server. Workers call ``next_job`` and ``done``; the endpoint calls the methods of ``Side``.

    A client must first return a cookie that depends on its address, so that forged addresses take no memory and get
    fewer bytes than they sent.

    Args:
        settings: how to send, and the limits for each client.
        max_clients: sessions at a time.
        idle_s: seconds of silence after which a client is forgotten.
    """

    def __init__(self, settings: Settings, max_clients: int, idle_s: float) -> None:
        self.lock = threading.Condition()
        self.counts = Counts()
        self.is_draining = False
        self._settings, self._max_clients, self._idle_s = settings, max_clients, idle_s
        self._secret = os.urandom(32)
        self._sessions: dict[bytes, Session] = {}
        self._by_connection: dict[int, Session] = {}
        self._turns: deque[Session] = deque()  # sessions with work, without repeats; a worker takes one request a turn
        self._control: list[tuple[Address, list[Datagram]]] = []
        self._control_bucket = TokenBucket(_CONTROL_BPS, burst_bytes=1 << 16)
        self._sweep_s = 0.0
        self._has_stopped = False

    # for the workers

    def next_job(self) -> Job | None:
        """The next request, fair between clients, at most one at a time per client; None when the server stops."""
        with self.lock:
            self.lock.wait_for(lambda: self._turns or self._has_stopped)
            if not self._turns:
                return None
            session = self._turns.popleft()
            session.is_busy = True
            return session.jobs.popleft()

    def done(self, job: Job, purpose: Purpose, body: bytes) -> None:
        """Send the answer, unless the client has gone or reconnected meanwhile."""
        with self.lock:
            session = job.session
            session.is_busy = False
            job.conversation.inbox.release(len(job.payload))
            if job.conversation is session.conversation:
                job.conversation.outbox.offer(job.number, purpose, body)
            self._take_turn(session)
            self.lock.notify_all()

    def stop(self) -> None:
        """Let the workers end."""
        with self.lock:
            self._has_stopped = True
            self.lock.notify_all()

    @property
    def is_idle(self) -> bool:
        """Whether every received request is answered and every answer acknowledged."""
        return all(
            not (s.jobs or s.is_busy or (s.conversation and not s.conversation.outbox.is_idle))
            for s in self._sessions.values()
        )

    @property
    def num_clients(self) -> int:
        """Number of known clients."""
        return len(self._sessions)

    @property
    def num_waiting(self) -> int:
        """Number of requests that wait for a worker."""
        return sum(len(session.jobs) for session in self._sessions.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of messages kept for all clients, in parts or waiting."""
        return sum(s.conversation.inbox.held_bytes for s in self._by_connection.values() if s.conversation)

    # for the endpoint

    def receive(self, datagram: memoryview, address: Address, now_s: float) -> None:
        """See Side."""
        packet = packets.parse(datagram)
        if packet is None:
            self.counts.malformed += 1
            return
        self.counts.packets_received += 1
        session = self._by_connection.get(packet.connection)
        if packet.kind is Kind.HELLO:
            self._take_hello(packet, address, now_s)
        elif session is None or session.conversation is None or session.address != address:
            self.counts.strangers += 1
            if packet.kind in (Kind.DATA, Kind.PING, Kind.FINISH):
                self._reply(address, packet, Kind.RESET, bytes((Reset.UNKNOWN,)), now_s)
        elif packet.kind is Kind.BYE:
            self._forget(session)
        elif not (self.is_draining and packet.kind in (Kind.DATA, Kind.FINISH)):
            session.heard_s = now_s
            self._take_message(session, session.conversation, packet, now_s)

    def outgoing(self, now_s: float) -> Iterator[tuple[Address, list[Datagram]]]:
        """See Side."""
        if now_s >= self._sweep_s:
            self._sweep(now_s)
        yield from self._control
        self._control.clear()
        for session in list(self._by_connection.values()):
            assert session.conversation is not None
            datagrams = session.conversation.outgoing(now_s)
            if session.conversation.has_failed:
                self._disconnect(session)
            elif datagrams:
                yield session.address, datagrams

    def next_s(self, now_s: float) -> float:
        """See Side."""
        times = (s.conversation.next_s(now_s) for s in self._by_connection.values() if s.conversation)
        return min(self._sweep_s, *times) if self._by_connection else self._sweep_s

    def trouble(self, error: OSError | None) -> None:
        """See Side. Time-outs find the trouble of a single client."""
        if error is None:
            self.stop()

    # inside

    def _take_hello(self, packet: Packet, address: Address, now_s: float) -> None:
        hello = Hello.parse(packet.body)
        if packet.version != packets.VERSION:
            self._reply(address, packet, Kind.RESET, bytes((Reset.VERSION,)), now_s)
        elif hello is None:
            self.counts.malformed += 1
        elif not self._is_cookie(hello, packet.connection, address):
            cookie = self._cookie(hello.token, packet.connection, address, _period())
            self._reply(address, packet, Kind.CHALLENGE, cookie, now_s)
        elif not self.is_draining:
            session = self._sessions.get(hello.token)
            if session is None and len(self._sessions) >= self._max_clients:
                self._reply(address, packet, Kind.RESET, bytes((Reset.FULL,)), now_s)
                return
            if session is None:
                session = self._sessions[hello.token] = Session(hello.token, self._settings.window, now_s)
            self._connect(session, packet.connection, address, hello.base, now_s)
            limits = Limits(self._settings.window, self._settings.max_message_bytes, self._settings.buffer_bytes)
            self._reply(address, packet, Kind.WELCOME, limits.pack(), now_s)

    def _connect(self, session: Session, connection: int, address: Address, base: int, now_s: float) -> None:
        session.heard_s = now_s
        if session.conversation is not None and session.conversation.connection == connection:
            return  # the client's WELCOME was lost
        self._disconnect(session)
        session.conversation = Conversation(connection, self._settings, self.counts, now_s)
        session.address, session.base = address, base
        log.info("A client sends from %s", _peer(address), extra={"peer": _peer(address)})
        self._by_connection[connection] = session

    def _take_message(self, session: Session, conversation: Conversation, packet: Packet, now_s: float) -> None:
        message = conversation.receive(packet, now_s)
        if message is not None:
            request_id = session.base + message.number - 1
            job = Job(session, conversation, message.number, request_id, message.purpose, message.payload,
                      message.missing, now_s)  # fmt: skip
            session.jobs.append(job)
            if len(session.jobs) == 1:
                self._take_turn(session)

    def _take_turn(self, session: Session) -> None:
        if session.jobs and not session.is_busy and session not in self._turns:
            self._turns.append(session)
            self.lock.notify_all()

    def _disconnect(self, session: Session) -> None:
        """Drop the connection; a living client resends its unanswered requests."""
        if session.conversation is not None:
            del self._by_connection[session.conversation.connection]
            session.conversation = None
        session.jobs.clear()
        if session in self._turns:
            self._turns.remove(session)

    def _forget(self, session: Session) -> None:
        self._disconnect(session)
        log.info("The client at %s is gone", _peer(session.address), extra={"peer": _peer(session.address)})
        del self._sessions[session.token]

    def _sweep(self, now_s: float) -> None:
        self._sweep_s = now_s + _SWEEP_S
        for session in list(self._sessions.values()):
            if now_s - session.heard_s > self._idle_s:
                self._forget(session)
            elif session.conversation is not None and session.conversation.inbox.expire(now_s):
                self._disconnect(session)

    def _reply(self, address: Address, packet: Packet, kind: Kind, body: bytes, now_s: float) -> None:
        if self._control_bucket.ready_s(now_s) <= now_s:
            datagram = packets.pack(kind, packet.connection, 0, body)
            self._control_bucket.take(len(datagram[0]))
            self._control.append((address, [datagram]))

    def _cookie(self, token: bytes, connection: int, address: Address, period: int) -> bytes:
        facts = repr((token, connection, address[:2], period)).encode()
        return hmac.digest(self._secret, facts, "sha256")[:COOKIE_BYTES]

    def _is_cookie(self, hello: Hello, connection: int, address: Address) -> bool:
        periods = (_period(), _period() - 1)
        cookies = (self._cookie(hello.token, connection, address, period) for period in periods)
        return any(hmac.compare_digest(hello.cookie, cookie) for cookie in cookies)


def _peer(address: Address) -> str:
    host, port = address[:2]
    return f"{host}:{port}"


def _period() -> int:
    return int(time.monotonic() / _COOKIE_LIFE_S)
