"""Statuses: each of our exceptions as the gRPC status that a client sees, with its one line."""

import contextlib
from collections.abc import Iterator

import grpc

from splitsem.errors import BusyError, ConfigError, PayloadError, SessionError, SplitPointError

_STATUSES = {
    SplitPointError: grpc.StatusCode.NOT_FOUND,
    SessionError: grpc.StatusCode.ABORTED,
    BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    PayloadError: grpc.StatusCode.INVALID_ARGUMENT,
    ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
}


@contextlib.contextmanager
def statuses(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn our exceptions into statuses with their one line."""
    try:
        yield
    except tuple(_STATUSES) as exc:
        code = next(code for kind, code in _STATUSES.items() if isinstance(exc, kind))
        context.abort(code, str(exc))
