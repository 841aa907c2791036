"""connect gives a Remote for torch's tensors: to a server's function, or to the tail of a cut through a codec."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from splitsem.errors import ConfigError, PayloadError
from splitsem_device.async_remote import AsyncRemote
from splitsem_device.fields import Payload, Pieces
from splitsem_device.grpc.connection import Security
from splitsem_device.plan import Hop, Plan
from splitsem_device.remotes import ArrayCoding, Coding, Remote, reach
from splitsem_device.retry import Retry

if TYPE_CHECKING:  # numpy arrays are sent without torch
    from torch import Tensor

    from splitsem.codecs.codec import Codec
    from splitsem.splitting.cut import Cut


@dataclass(frozen=True)
class TensorCoding(ArrayCoding):
    """As ArrayCoding, for tensors too: a call with a tensor among its arguments gets tensors, else arrays."""

    def encode(self, args: tuple[Any, ...]) -> tuple[Payload, Any]:
        """See Coding; notes what makes the results of arrays."""
        if "torch" not in sys.modules:  # nobody can have made a tensor
            return super().encode(args)
        from splitsem.remote.tensor_arrays import as_arrays, as_tensors
        from splitsem.trees import leaves

        payload, _ = super().encode(as_arrays(args))
        return payload, as_tensors if leaves(args) else None

    def decode(self, answer: Payload, note: Callable[[Any], Any] | None) -> Any:
        """See Coding."""
        result = super().decode(answer, None)
        return result if note is None else note(result)


class CutCoding:
    """A head's tensors through a codec; results are the network's output.

    Args:
        cut: where the network is cut, of ``CutGraph.cut``.
        codec: makes the payloads; None: the tensors as they are.
        onward: the further cuts of a chain of machines: names of split points and of the codecs there.
    """

    def __init__(self, cut: "Cut", codec: "Codec | None", onward: Iterable[tuple[str, str]] = ()) -> None:
        from splitsem.codecs.tensorwise import Identity
        from splitsem.tasks.answer import raw_coder
        from splitsem.trees import mapped

        self.cut, self.codec, self.onward = cut, codec or Identity(), tuple(Hop(*hop) for hop in onward)
        self.coder = raw_coder(mapped(lambda tensor: tensor.detach(), cut.tail(*cut.head(*cut.example))))

    def plan(self) -> Plan:
        """See Coding."""
        from splitsem.remote.labels import codec_label, plan_of

        return replace(plan_of(self.cut, codec_label(self.codec), self.coder.name), onward=self.onward)

    def encode(self, args: tuple["Tensor", ...]) -> tuple[Payload, Any]:
        """See Coding; notes the number of samples, and what the edge itself makes of the tensors."""
        import torch

        expected = len(self.cut.point.tensors)
        if len(args) != expected or not all(isinstance(tensor, torch.Tensor) for tensor in args):
            got = ", ".join(type(arg).__name__ for arg in args)
            raise ConfigError(
                f"{expected} tensor(s) cross at {self.cut.point.name}, got {got}: give what cut.head returns"
            )
        with torch.inference_mode():
            return self.codec.payload(args), (len(args[0]), self.codec.local_output(args))

    def decode(self, answer: Payload, note: Any) -> Any:
        """See Coding."""
        import torch

        from splitsem.trees import joined

        (number, local), whole = note, bytes(answer) if isinstance(answer, Pieces) else answer
        if len(whole) % number:
            raise PayloadError(f"expected the answers for {number} samples, got {len(whole)} bytes")
        size = len(whole) // number
        with torch.inference_mode():
            parts = [self.coder.decode(whole[k * size : (k + 1) * size]) for k in range(number)]
            output = joined([self.coder.as_output(part) for part in parts])
            return output if local is None else self.codec.combine(local, output)


def connect(
    address: str,
    *,
    cut: "Cut | None" = None,
    codec: "Codec | None" = None,
    onward: Iterable[tuple[str, str]] = (),
    compression: str = "none",
    retry: Retry | None = None,
    window: int = 32,
    security: Security | None = None,
) -> Remote[Any]:
    """Connect to a server: of ``splitsem.serve``, or of ``workflow=serve`` with the same network.

    Args:
        address: the server's ``host:port``.
        cut: where the served network is cut; ``compute`` then takes what ``cut.head`` returns, and gives the network's
            output. None: the server offers a function.
        codec: with a cut, makes the bytes that cross; None: the tensors as they are.
        onward: with a cut, the further cuts of a chain of machines: ``[("stage3", "identity")]`` has the server, which
            was started with ``forward``, compute up to ``stage3`` and the next machine do the rest.
        compression: of a function's arguments and results: ``"none"`` or ``"zstd"``.
        retry: deadline of a call, and when it is made again: ``Backoff`` (the default), ``Fixed`` or ``NoRetry``.
        window: calls of a stream that may be unanswered.
        security: TLS, mutual TLS and token; None: none, on this machine only.

    Raises:
        ConfigError: an argument is wrong, or the server does not agree: a line for each disagreement.
        LinkError: the server cannot be reached within the patience of ``retry``.
    """
    hops = [*onward] if isinstance(onward, list | tuple) else [onward]
    if not all(isinstance(hop, list | tuple) and [*map(type, hop)] == [str, str] for hop in hops):
        raise ConfigError(f'onward must be pairs of names, [("stage3", "identity")], got {onward!r}')
    if isinstance(codec, str):
        raise ConfigError(f'codec must be a codec, splitsem.codec("{codec}"), got its name')
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigError(f"retry must be splitsem.Backoff(…), Fixed(…) or NoRetry(), got {retry!r}")
    if cut is None and not (codec is None and onward == ()):
        raise ConfigError("a codec codes what crosses at a cut: connect(address, cut=graph.cut(…), codec=…, onward=…)")
    coding: Coding[Any] = TensorCoding(compression) if cut is None else CutCoding(cut, codec, onward)
    return Remote(reach(address, retry, window, security), coding)


def connect_async(address: str, *, max_calls: int = 32, **settings: Any) -> AsyncRemote:
    """As ``connect``, for asyncio: ``async with connect_async(address) as remote: y = await remote.compute(z)``.

    Args:
        address: the server's ``host:port``.
        max_calls: calls that may be under way at one time; further ones wait.
        settings: those of ``connect``.
    """
    return AsyncRemote(lambda: connect(address, **settings), max_calls)
