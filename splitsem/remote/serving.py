"""serve starts a Server: a network cut anywhere, or any function of tensors, for clients that ``connect``."""

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from splitsem.errors import ConfigError
from splitsem.remote.engine import Engine, TailServer
from splitsem.remote.function_engine import FunctionEngine
from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem_device import arrays
from splitsem_device.grpc.connection import Security
from splitsem_device.remotes import reach

if TYPE_CHECKING:  # a server of a function of numpy arrays needs no torch
    from splitsem.codecs.codec import Codec
    from splitsem.splitting.cut_graph import CutGraph


@contextlib.contextmanager
def signalled() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, in place of what they do otherwise; for the main thread."""
    stopped = threading.Event()
    handlers = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Server:
    """A server that runs in threads of this process; a context that stops it.

    Args:
        engine: answers the frames.
        end: receives them.
        grace_s: the longest time that ``stop`` waits for frames that were received.

    Attributes:
        address: the ``host:port`` that it listens on.

    Raises:
        ConfigError: it cannot listen there.
    """

    def __init__(self, engine: Engine, end: TailServer, grace_s: float = 5.0) -> None:
        self.engine, self.grace_s, self._end = engine, grace_s, end
        engine.metrics.watch(end)
        self.address = end.start()
        self._is_stopped = False

    def __repr__(self) -> str:
        offers = f"{len(self.engine.point_names)} split points" if self.engine.point_names else "a function"
        return f"Server({self.address}, {offers} on {self.engine.place}, {self.num_answered} answered)"

    @property
    def num_answered(self) -> int:
        """Calls answered so far."""
        return self.engine.num_answered

    def wait(self) -> None:
        """Return at SIGTERM or SIGINT; for the main thread."""
        with signalled() as stopped:
            stopped.wait()

    def stop(self) -> None:
        """Take nothing new, answer what was received, for ``grace_s`` at most; harmless when it is stopped."""
        if not self._is_stopped:
            self._is_stopped = True
            self._end.stop(self.grace_s)
            self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def serve(
    served: "CutGraph | Callable[..., Any]",
    *,
    bind: str = "127.0.0.1:0",
    codecs: "Sequence[Codec]" = (),
    tensors: Literal["torch", "numpy"] = "torch",
    security: Security | None = None,
    limits: Limits | None = None,
    micro_batch: int = 1,
    grace_s: float = 5.0,
    forward: str | None = None,
    encoders: "Mapping[str, Codec] | None" = None,
) -> Server:
    """Serve a network, at any split point and with any codec of it, or any function.

    Args:
        served: what ``splitsem.split`` made; or a function. Its arguments are tensors, numbers and texts, and lists,
            tuples and dicts of these; it returns such a structure. Clients call it at the same time, in threads.
        bind: ``host:port`` to listen on; port 0 takes a free one. A public address needs ``security``.
        codecs: of a network: codecs with weights or settings of their own; built-in ones are read without.
        tensors: of a function: what it takes and returns. ``"numpy"`` imports no torch.
        security: TLS, mutual TLS and token; None: none, on this machine only.
        limits: what clients are granted; None: the defaults.
        micro_batch: of a network: samples of several clients that may be computed together.
        grace_s: see ``Server``.
        forward: of a network: ``host:port`` of the next machine of a chain, which gets what crosses at the cuts that a
            client names as ``onward``; with this ``security``.
        encoders: of a network with ``forward``: make those payloads, by the names that clients give them; None: the
            tensors as they are, by the name ``identity``.

    Raises:
        ConfigError: nothing can listen there, or an argument is wrong.
    """
    limits, security = limits or Limits(), security or Security()
    engine = _engine(served, codecs, tensors, limits, micro_batch, _onward(forward, encoders, security))
    try:
        end = GrpcServer(engine, bind, security, limits)
        security.check_server(bind)
    except ValueError as exc:
        raise ConfigError(f"serve: {exc}") from exc
    return Server(engine, end, grace_s)


def _onward(forward: str | None, encoders: "Mapping[str, Codec] | None", security: Security) -> dict[str, Any]:
    """What only a ForwardingEngine takes. Raises ConfigError for codecs that nothing is sent by."""
    if forward is None:
        if encoders is not None:
            raise ConfigError("encoders make what the next machine is sent: serve(…, forward='host:port', encoders=…)")
        return {}
    from splitsem.codecs.tensorwise import Identity

    end = functools.partial(reach, forward, None, 32, security)
    end()  # which says what is wrong with the address
    return {"next_end": end, "encoders": {"identity": Identity()} if encoders is None else encoders}


def _engine(
    served: Any, codecs: "Sequence[Codec]", tensors: str, limits: Limits, micro_batch: int, onward: dict[str, Any]
) -> Engine:
    if "torch" in sys.modules:  # else nobody can have made a graph
        from splitsem.splitting.cut_graph import CutGraph

        if isinstance(served, CutGraph):
            from splitsem.remote.forwarding_engine import engine_of

            return engine_of(served, codecs, micro_batch, onward)
    if onward:
        raise ConfigError("forward is for a network, whose cuts several machines can share; a function has none")
    if not callable(served):
        raise ConfigError(f"serve takes what splitsem.split makes, or a function, got a {type(served).__name__}")
    most = limits.max_payload_bytes or arrays.MOST_BYTES
    if tensors == "numpy":
        return FunctionEngine(served, most)
    if tensors != "torch":
        raise ConfigError(f"tensors must be 'torch' or 'numpy', got {tensors!r}")
    from splitsem.remote.tensor_arrays import as_arrays, as_tensors

    return FunctionEngine(served, most, as_tensors, as_arrays)
