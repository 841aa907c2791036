"""Who gets in: calls wait for their first message where they can be thrown out, and addresses share the places.

gRPC gives each call a thread of the server's pool before the call's first message is there. A client that opens calls
and sends nothing would so take all threads. Here a call without a message waits in the ``WaitingRoom``, which is
smaller than the pool: when the room is full, the longest wait of the address with the most waits ends.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from splitsem.errors import BusyError, PayloadError
from splitsem.remote.server_metrics import ServerMetrics
from splitsem_device.peer_text import shown

MAX_WAITING = 64
_LARGE_BYTES = 1 << 20
FREE_METHODS = ("Info", "Check")  # they compute nothing, and must answer when all places are taken
PLACED_METHODS = ("Stream",)  # they leave the room with their first message, as they take a place of their own


def address_of(peer: str) -> str:
    """The address that shares places, of gRPC's name of a peer: an IPv4 address, or the first 64 bits of an IPv6 one.

    >>> address_of("ipv4:10.0.0.7:50123"), address_of("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50123"), address_of("unix:")
    ('10.0.0.7', '2001:db8:1:2', 'unix:')
    """
    kind, _, rest = peer.partition(":")
    if kind == "ipv6":
        return ":".join(rest.replace("%5B", "").replace("[", "").split(":")[:4])
    return rest.rpartition(":")[0] if kind == "ipv4" else peer


class WaitingRoom:
    """Calls that have sent nothing so far, each in a thread of its own.

    Args:
        max_waiting: calls that may wait.
        first_s: longest wait.
        metrics: counts who is thrown out.
    """

    def __init__(self, max_waiting: int, first_s: float, metrics: ServerMetrics) -> None:
        self.max_waiting, self.first_s, self.metrics = max_waiting, first_s, metrics
        self._since_s: dict[grpc.ServicerContext, tuple[str, float]] = {}  # oldest first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._since_s)

    def enter(self, context: grpc.ServicerContext) -> None:
        """Let a call wait; a full room throws out the longest wait of the address with the most."""
        victim = None
        with self._lock:
            self._since_s[context] = address_of(context.peer()), time.monotonic()
            if len(self._since_s) > self.max_waiting:
                most, _ = Counter(address for address, _ in self._since_s.values()).most_common(1)[0]
                victim = next(call for call, (address, _) in self._since_s.items() if address == most)
                del self._since_s[victim]
        if victim is not None:
            self._throw_out(victim)

    def leave(self, context: grpc.ServicerContext) -> None:
        """The call has its message, or has ended."""
        with self._lock:
            self._since_s.pop(context, None)

    def expire(self, now_s: float) -> None:
        """Throw out the calls that wait for longer than ``first_s`` at this time (``time.monotonic``)."""
        with self._lock:
            late = [call for call, (_, since_s) in self._since_s.items() if now_s - since_s > self.first_s]
            for call in late:
                del self._since_s[call]
        for call in late:
            self._throw_out(call)

    def _throw_out(self, call: grpc.ServicerContext) -> None:
        self.metrics.refused("half_open")
        call.cancel()


class Places:
    """Places for clients at one time, shared among addresses.

    Args:
        max_places: all places.
        max_per_address: the most that one address may take.
        what: the message's words for those who have the places.
        metrics: counts the refused.
    """

    def __init__(self, max_places: int, max_per_address: int, what: str, metrics: ServerMetrics) -> None:
        self.max_places, self.max_per_address, self.what, self.metrics = max_places, max_per_address, what, metrics
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def has_room(self, address: str) -> bool:
        """Whether this address would get a place now."""
        with self._lock:
            return self._has_room(address)

    def take(self, address: str) -> None:
        """Take a place. Raises BusyError when this address, or all together, have no place left."""
        with self._lock:
            if self._has_room(address):
                self._taken[address] += 1
                return
            is_full = self._taken.total() >= self.max_places
        self.metrics.refused("no_place")
        if is_full:
            raise BusyError(f"the server has its {self.max_places} {self.what}: try again later")
        raise BusyError(
            f"your address {shown(address, 64)} has its {self.max_per_address} of the server's {self.max_places} "
            f"{self.what}: try again later, or raise transport.limits.max_per_address there"
        )

    def _has_room(self, address: str) -> bool:
        return self._taken.total() < self.max_places and self._taken.get(address, 0) < self.max_per_address

    def give_back(self, address: str) -> None:
        """Undo ``take``."""
        with self._lock:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]


class Doors(grpc.ServerInterceptor):
    """Leads every call through the waiting room, and single requests to a place.

    Reads requests itself, since gRPC 1.85 leaks when a deserializer raises: an unreadable single request is answered by
    INVALID_ARGUMENT; in a stream of requests, the iterator raises PayloadError for the method to handle.

    Args:
        room: where calls wait for their first message.
        calls: places for single requests at work.
        has_garbage: set after a large request.
    """

    def __init__(self, room: WaitingRoom, calls: Places, has_garbage: threading.Event) -> None:
        self.room, self.calls, self.has_garbage = room, calls, has_garbage

    def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        """See grpc.ServerInterceptor."""
        handler = continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        read = handler.request_deserializer
        name = details.method.rpartition("/")[2]
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._many(handler.stream_stream, read, name not in PLACED_METHODS),
                response_serializer=handler.response_serializer,
            )
        return grpc.stream_unary_rpc_method_handler(  # on the wire the same; a handler of streams may stop waiting
            self._one(handler.unary_unary, read, name in FREE_METHODS), response_serializer=handler.response_serializer
        )

    def _one(self, method: Callable[..., Any], read: Callable[[bytes], Any], is_free: bool) -> Callable[..., Any]:
        def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            request = self._first(messages, context, read)
            if is_free:
                return method(request, context)
            address = address_of(context.peer())
            try:
                self.calls.take(address)
            except BusyError as exc:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(exc))
            try:
                return method(request, context)
            finally:
                self.calls.give_back(address)

        return answer

    def _many(self, method: Callable[..., Any], read: Callable[[bytes], Any], stays: bool) -> Callable[..., Any]:
        """``stays``: the call is in the room all its life, so that neither its number nor its time is unbounded."""

        def requests(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            for message in messages:
                if not stays:
                    self.room.leave(context)
                yield _read(message, read)

        def answers(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            self.room.enter(context)
            try:
                yield from method(requests(messages, context), context)
            finally:
                self.room.leave(context)

        return answers

    def _first(self, messages: Iterator[bytes], context: grpc.ServicerContext, read: Callable[[bytes], Any]) -> Any:
        self.room.enter(context)
        try:
            message = next(messages, None)
        except grpc.RpcError:  # the client is gone, or was thrown out
            message = None
        finally:
            self.room.leave(context)
        if message is not None and len(message) > _LARGE_BYTES:
            self.has_garbage.set()
        try:
            if message is None:
                raise PayloadError("expected a message, got none")
            return _read(message, read)
        except PayloadError as exc:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))


def _read(message: bytes, read: Callable[[bytes], Any]) -> Any:
    try:
        return read(message)
    except (ValueError, DecodeError) as exc:
        raise PayloadError(f"expected a protobuf message of this method, got something else: {shown(exc)}") from exc
