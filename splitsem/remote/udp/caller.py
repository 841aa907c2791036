"""Caller is the client's protocol: handshake, requests, answers, heartbeat, reconnecting; no socket, no thread."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from splitsem.errors import BusyError, ConfigError, LinkError, PayloadError, SplitSemError
from splitsem.remote.ends import Answer, Counters
from splitsem.remote.udp import packets
from splitsem.remote.udp.conversation import Conversation
from splitsem.remote.udp.endpoint import Address
from splitsem.remote.udp.inbox import Message
from splitsem.remote.udp.outbox import RoundTrip
from splitsem.remote.udp.packets import (
    NO_COOKIE,
    TOKEN_BYTES,
    Datagram,
    Hello,
    Kind,
    Limits,
    Packet,
    Purpose,
    Reset,
    parse_answer,
)
from splitsem.remote.udp.settings import Counts, Settings

_DIAGNOSIS = "is `workflow=serve transport=udp` running there, and may UDP pass?"
_RESET_REASONS = {Reset.FULL: "it has no room for another client (max_clients)"}


class _Request(NamedTuple):
    payload: bytes
    purpose: Purpose


class Caller:
    """Gets one answer for each request, in any order, across lost packets and restarted servers.

    Any thread may call the methods, except those of ``Side``, which the endpoint calls.

    Args:
        peer: the server's name, for messages.
        settings: how to send and how much to keep.
        plan: what the server must agree to, as JSON.
        counters: where to count frames, retries and reconnects.
    """

    def __init__(self, peer: str, settings: Settings, plan: str, counters: Counters) -> None:
        self.lock = threading.Condition()
        self.counts = Counts()
        self.counters = counters
        self._peer, self._settings, self._plan = peer, settings, plan.encode()
        self._token = os.urandom(TOKEN_BYTES)
        self._requests: dict[int, _Request] = {}  # unanswered, ascending
        self._request_bytes = 0
        self._outcomes: dict[int, Answer | SplitSemError] = {}
        self._abandoned: set[int] = set()  # unanswered requests that nobody waits for
        self._next_request = 0
        self._limits: Limits | None = None
        self._failure: SplitSemError | None = None
        self._trouble = ""
        self._is_leaving = False
        self._num_fruitless = 0  # reconnects since the last answer
        self._begin_handshake(time.monotonic())

    # for other threads

    def wait_until_agreed(self) -> None:
        """Return when the server has agreed to the plan. Raises ConfigError or LinkError."""
        with self.lock:
            self.lock.wait_for(lambda: self._has_agreed or self._failure is not None)
            self._raise_failure()

    def submit(self, payload: bytes, purpose: Purpose) -> int:
        """Queue a request as soon as the window allows; returns its number. Raises LinkError, PayloadError."""
        with self.lock:
            self.lock.wait_for(lambda: self._failure is not None or self._has_room(len(payload)))
            self._raise_failure()
            assert self._limits is not None  # a plan was agreed
            if len(payload) > self._limits.max_message_bytes:
                raise PayloadError(
                    f"expected a payload of at most {self._limits.max_message_bytes} bytes "
                    f"(max_message_bytes of {self._peer}), got {len(payload)}"
                )
            number = self._next_request
            self._next_request += 1
            self._requests[number] = _Request(payload, purpose)
            self._request_bytes += len(payload)
            self._offer(number)
            return number

    def wait(self, number: int) -> Answer:
        """Wait for the answer to a request and forget the request. Raises the request's error, or LinkError."""
        with self.lock:
            self.lock.wait_for(lambda: number in self._outcomes or self._failure is not None)
            if number not in self._outcomes:
                self._raise_failure()
            outcome = self._outcomes.pop(number)
        if isinstance(outcome, SplitSemError):
            raise outcome
        return outcome

    def abandon(self, numbers: set[int]) -> None:
        """Discard the answers to these requests."""
        with self.lock:
            for number in numbers:
                if self._outcomes.pop(number, None) is None:
                    self._abandoned.add(number)

    def leave(self) -> None:
        """Send BYE with the next datagrams; no request is answered afterwards."""
        with self.lock:
            self._is_leaving = True
            self._fail(LinkError(f"the connection to {self._peer} was closed on this side"))

    # for the endpoint

    def receive(self, datagram: memoryview, address: Address, now_s: float) -> None:
        """See Side."""
        packet = packets.parse(datagram)
        if packet is None:
            self.counts.malformed += 1
            return
        self.counts.packets_received += 1
        if packet.connection != self._connection or self._failure is not None:
            self.counts.strangers += 1
        elif packet.kind is Kind.RESET:
            self._take_reset(packet, now_s)
        elif self._conversation is None:
            self._take_handshake(packet, now_s)
        else:
            message = self._conversation.receive(packet, now_s)
            if message is not None:
                self._conversation.inbox.release(len(message.payload))
                self._take_answer(message)

    def outgoing(self, now_s: float) -> Iterator[tuple[Address, list[Datagram]]]:
        """See Side."""
        if self._is_leaving:
            self._is_leaving = False
            yield (), [packets.pack(Kind.BYE, self._connection)]
        if self._failure is not None:
            return
        if self._conversation is None:
            yield from self._hello(now_s)
            return
        if now_s - self._conversation.heard_s >= self._settings.heartbeat_s:
            self._conversation.outbox.ping()
        datagrams = self._conversation.outgoing(now_s)
        if self._conversation.has_failed:
            self._fail(self._no_answer())
        elif datagrams:
            yield (), datagrams

    def next_s(self, now_s: float) -> float:
        """See Side."""
        if self._failure is not None:
            return now_s + 1.0
        if self._conversation is None:
            return self._hello_s
        heartbeat_s = max(self._conversation.heard_s + self._settings.heartbeat_s, now_s + 0.01)
        return min(self._conversation.next_s(now_s), heartbeat_s)

    def trouble(self, error: OSError | None) -> None:
        """See Side."""
        if error is None:
            self._fail(LinkError(f"the connection to {self._peer} is closed"))
        elif error.errno == errno.EMSGSIZE:
            self._trouble = f"fragment_bytes={self._settings.fragment_bytes} does not fit into the MTU on the way there"
        else:
            self._trouble = str(error.strerror)

    # handshake

    def _begin_handshake(self, now_s: float) -> None:
        self._connection = int.from_bytes(os.urandom(8), "little")
        self._conversation: Conversation | None = None
        self._has_agreed = False  # to the plan, on this connection: no frame may overtake the plan
        self._cookie = NO_COOKIE
        self._base = next(iter(self._requests), self._next_request)
        self._hello_s, self._num_hellos, self._num_challenges = now_s, 0, 0

    def _hello(self, now_s: float) -> Iterator[tuple[Address, list[Datagram]]]:
        if now_s < self._hello_s:
            return
        if self._num_hellos > self._settings.retries:
            self._fail(self._no_answer())
            return
        if self._num_hellos:
            self.counts.timeouts += 1
            self.counters.retries += 1
        self._hello_s = now_s + RoundTrip().timeout_s(self._num_hellos)
        self._num_hellos += 1
        yield (), [self._pack_hello()]

    def _pack_hello(self) -> Datagram:
        return packets.pack(Kind.HELLO, self._connection, 0, Hello(self._cookie, self._token, self._base).pack())

    def _take_handshake(self, packet: Packet, now_s: float) -> None:
        if packet.kind is Kind.CHALLENGE and len(packet.body) == len(NO_COOKIE) and self._cookie != packet.body:
            self._cookie = bytes(packet.body)
            self._num_challenges += 1
            if self._num_challenges <= self._settings.retries + 1:  # else wait: challenges may go on for ever
                self._hello_s, self._num_hellos = now_s, 0
        elif packet.kind is Kind.WELCOME and self._cookie != NO_COOKIE and (limits := Limits.parse(packet.body)):
            self._limits = limits
            self._conversation = Conversation(self._connection, self._settings, self.counts, now_s)
            self._conversation.outbox.on_timeout = self._count_retry
            self._conversation.outbox.offer(0, Purpose.PLAN, self._plan)
        else:
            self.counts.malformed += 1

    def _take_reset(self, packet: Packet, now_s: float) -> None:
        reason = packet.body[0] if len(packet.body) == 1 else 0
        if reason == Reset.VERSION:
            self._fail(
                ConfigError(
                    f"{self._peer} speaks version {packet.version} of the datagram format, this end "
                    f"{packets.VERSION}: run the same splitsem on both ends"
                )
            )
        elif reason == Reset.FULL:
            self._trouble = _RESET_REASONS[Reset.FULL]
        elif reason == Reset.UNKNOWN and self._conversation is not None:
            self._num_fruitless += 1
            if self._num_fruitless > self._settings.retries:
                self._fail(LinkError(f"{self._peer} broke off {self._num_fruitless} times without an answer"))
                return
            self.counters.reconnects += 1
            self._begin_handshake(now_s)

    # requests and answers

    def _has_room(self, num_bytes: int) -> bool:
        limits = self._limits
        if limits is None or not self._has_agreed:
            return False
        if not self._requests:
            return True
        window = min(limits.window, self._settings.window)
        return (
            len(self._requests) < window
            and self._next_request < next(iter(self._requests)) + window
            and self._request_bytes + num_bytes <= limits.buffer_bytes
        )

    def _offer(self, number: int) -> None:
        assert self._conversation is not None  # a plan was agreed on it
        payload, purpose = self._requests[number]
        if purpose is Purpose.FRAME:
            self.counters.frames_sent += 1
        tolerant = purpose is Purpose.FRAME and self._settings.loss == "tolerate"
        self._conversation.outbox.offer(number - self._base + 1, purpose, payload, tolerant)

    def _take_answer(self, message: Message) -> None:
        if message.purpose != Purpose.AGREED or not self._requests:
            self._num_fruitless = 0
        if message.purpose == Purpose.DISAGREED:
            self._fail(ConfigError(_text(message.payload)))
        elif message.purpose == Purpose.AGREED:
            self._has_agreed = True
            for number in self._requests:
                self._offer(number)
        elif message.number == 0:
            self._fail(PayloadError(f"expected {self._peer} to agree to the plan, got: {_text(message.payload)}"))
        elif (number := message.number + self._base - 1) in self._requests:
            request = self._requests.pop(number)
            self._request_bytes -= len(request.payload)
            outcome = self._outcome(number, message)
            if number in self._abandoned:
                self._abandoned.discard(number)
            else:
                self._outcomes[number] = outcome
        self.lock.notify_all()

    def _outcome(self, number: int, message: Message) -> Answer | SplitSemError:
        if message.purpose == Purpose.PROFILED and (fields := parse_answer(message.payload)) is not None:
            return Answer(number, *fields)
        if message.purpose == Purpose.BUSY:
            return BusyError(f"{self._peer}: {_text(message.payload)}")
        if message.purpose in (Purpose.ANSWER, Purpose.FILLED):
            fields = parse_answer(message.payload)
            if fields is not None:
                self.counts.frames_filled += message.purpose == Purpose.FILLED
                self.counters.frames_answered += 1
                return Answer(number, *fields)
        if message.purpose == Purpose.LOST:
            self.counts.frames_lost += 1
            return Answer(number, b"", 0.0, 0.0)
        if message.purpose == Purpose.ECHOED:
            return Answer(number, b"", 0.0, 0.0)
        if message.purpose in (Purpose.BAD_FRAME, Purpose.FAILED):
            return PayloadError(f"{self._peer}: {_text(message.payload)}")
        return PayloadError(f"expected an answer from {self._peer}, got a message of purpose {message.purpose}")

    def _count_retry(self) -> None:
        self.counters.retries += 1

    def _fail(self, failure: SplitSemError) -> None:
        if self._failure is None:
            self._failure = failure
        self._conversation = None
        self.lock.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args)

    def _no_answer(self) -> LinkError:
        trouble = f" ({self._trouble})" if self._trouble else ""
        return LinkError(
            f"{self._peer} does not answer over UDP after {self._settings.retries + 1} tries{trouble}: {_DIAGNOSIS}"
        )


def _text(body: memoryview) -> str:
    return bytes(body[:2000]).decode("utf-8", "replace")
