"""Parsing: reads requests in our own code, as gRPC keeps some 15 KB for each message that its deserializer refuses."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from splitsem.errors import PayloadError


class Parsing(grpc.ServerInterceptor):
    """Takes each method's deserializer away from gRPC (1.85 leaks when it raises) and calls it before the method.

    A single request that cannot be read is answered with INVALID_ARGUMENT; in a stream of requests the iterator
    raises PayloadError, which is the method's to answer.
    """

    def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        """See grpc.ServerInterceptor."""
        handler = continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        name = "_".join(
            "stream" if many else "unary" for many in (handler.request_streaming, handler.response_streaming)
        )
        wrap = _many if handler.request_streaming else _one
        method = wrap(getattr(handler, name), handler.request_deserializer)
        make = getattr(grpc, f"{name}_rpc_method_handler")
        return make(method, response_serializer=handler.response_serializer)


def _one(method: Callable[..., Any], read: Callable[[bytes], Any]) -> Callable[..., Any]:
    def answer(message: bytes, context: grpc.ServicerContext) -> Any:
        try:
            request = _read(message, read)
        except PayloadError as exc:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
        return method(request, context)

    return answer


def _many(method: Callable[..., Any], read: Callable[[bytes], Any]) -> Callable[..., Any]:
    def requests(messages: Iterator[bytes]) -> Iterator[Any]:
        for message in messages:
            yield _read(message, read)

    return lambda messages, context: method(requests(messages), context)


def _read(message: bytes, read: Callable[[bytes], Any]) -> Any:
    try:
        return read(message)
    except (ValueError, DecodeError) as exc:
        raise PayloadError(f"expected a protobuf message of this method, got something else: {exc}") from exc
