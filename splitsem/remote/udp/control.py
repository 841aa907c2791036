"""The control channel of a session: one gRPC stream that begins with the keys and lasts as long as the session.

The edge sends one request, its plan; the server's first message is the Welcome, and every further one an answer that is
too long for a datagram. Both are JSON or packets.py's content, so that there is no second schema of them. TLS, token
and heartbeat are those of transport=grpc. The session is over with its stream, whoever ends it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import msgspec

from splitsem.errors import ConfigError, LinkError, PayloadError
from splitsem.json_files import decode
from splitsem.remote.grpc.arrivals import statuses
from splitsem.remote.udp.packets import KEY_BYTES
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.plan import Plan

SERVICE = "splitsem.v1.Datagrams"
_MOST_REQUEST_BYTES = 1 << 14


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """The edge's request.

    Attributes:
        plan: as JSON.
        fragment_bytes: payload bytes in each datagram.
    """

    plan: str
    fragment_bytes: int


class Welcome(msgspec.Struct, forbid_unknown_fields=True):
    """The server's first message.

    Attributes:
        session: number of the session.
        key: of the datagrams, both ways.
        port: where the server takes datagrams, on the host of the control channel.
        is_ipv6: whether datagrams shall go by IPv6, where the server's name has addresses of both kinds.
        max_window: frames that may be unanswered.
        max_frame_bytes: the longest frame.
    """

    session: int
    key: bytes
    port: int
    is_ipv6: bool
    max_window: int
    max_frame_bytes: int


Stream = Callable[[Ask, grpc.ServicerContext], Iterator[bytes]]


def handlers(serve: Stream) -> grpc.GenericRpcHandler:
    """The service for a GrpcServer; ``serve`` makes the messages of one session."""

    def start(message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with statuses(context):
            if len(message) > _MOST_REQUEST_BYTES:
                raise PayloadError(f"expected a request of at most {_MOST_REQUEST_BYTES} bytes, got {len(message)}")
            try:
                ask = decode(message, Ask)
            except ValueError as exc:
                raise PayloadError(f"expected a plan and fragment_bytes as JSON, got something else: {exc}") from exc
            yield from serve(ask, context)

    return grpc.method_handlers_generic_handler(SERVICE, {"Start": grpc.unary_stream_rpc_method_handler(start)})


class ControlTail(GrpcTail):
    """The edge's end of the control channel; its own frames are those of transport=grpc."""

    def start(self, plan: Plan, fragment_bytes: int) -> tuple[Welcome, Any]:
        """A new session: the Welcome, and the call that yields the long answers.

        Raises ConfigError (no agreement) and LinkError (no server), after the retries.
        """
        self._plan = plan  # for ``profile``
        request = msgspec.json.encode(Ask(plan.to_json(), fragment_bytes))

        def once() -> tuple[Welcome, Any]:
            call = self._connected().unary_stream(f"/{SERVICE}/Start")(request, metadata=self._metadata)
            return self._welcome(next(call, b"")), call

        found: tuple[Welcome, Any] = self._persist(once)
        return found

    def _welcome(self, message: bytes) -> Welcome:
        try:
            welcome = decode(message, Welcome)
        except ValueError as exc:
            raise LinkError(f"{self.target}: expected a welcome as JSON, got something else: {exc}") from exc
        if len(welcome.key) != KEY_BYTES or not 0 < welcome.port <= 65535 or welcome.max_window < 1:
            raise ConfigError(f"{self.target}: expected a key, a port and a window, got none: run the same splitsem")
        return welcome
