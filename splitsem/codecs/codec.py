"""Codec: the interface between the crossing tensors and the bytes on the wire."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar

from torch import Tensor, nn

from splitsem.codecs.expected import ANYTHING, Expected, kinds
from splitsem.errors import ContractError, PayloadError, SplitSemError
from splitsem_device import fields
from splitsem_device.fields import Payload

Tensors = tuple[Tensor, ...]
_reading: ContextVar[tuple[object, Expected]] = ContextVar("_reading", default=(None, ANYTHING))


class Codec(nn.Module, ABC):
    """Turns the crossing tensors ``z`` into one payload and back into ``z_hat``.

    Two paths describe the same loss: ``forward`` is differentiable and stays in memory, for training;
    ``encode`` and ``decode`` make and read the real bytes, for everything that is reported. A fresh codec of the
    same class decodes from the bytes alone (learned codecs: and the weights that both ends share).

    A codec of one's own needs these three methods; ``splitsem.check`` tests what they promise. What travels is
    ``payload``: the bytes of ``encode`` in an envelope with the codec's name and a checksum, which ``read`` takes off.

    Attributes:
        is_framed: whether ``encode`` makes whole payloads of the wire format, which need no envelope.
        is_learned: whether the codec has weights that are trained for one cut; see ``learned.learned.LearnedCodec``.
        is_samplewise: whether ``forward`` makes of a batch of tensors with two or more dimensions what it makes of each
            sample alone, bit for bit; what scores in memory then takes whole batches.
        snr_db: signal-to-noise ratio of the link, as the receiver sees it (Eb/N0 of a bit on the air); set before
            ``decode`` where it is known.
        tail: the server's half of the network as it was tuned together with this codec, to be run in place of the
            network's own (``Cut.with_tail``); None where the network stayed as it was. The codec owns these weights.
    """

    is_framed: ClassVar[bool] = False
    is_learned: ClassVar[bool] = False
    is_samplewise: bool = False
    snr_db: float | None = None
    tail: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("tail", None)

    def __repr__(self) -> str:
        """The class with its plain settings; all of them and the weights would fill pages."""
        kept = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        plain = (bool, int, float, str, tuple)
        settings = {name: value for name in kept if isinstance(value := getattr(self, name, None), plain)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"

    @property
    def name(self) -> str:
        """The codec's identity on the wire, at most 255 bytes: both ends need a codec of this name and its weights."""
        return type(self).__name__

    @property
    def expected(self) -> Expected:
        """What the receiver takes, while ``read`` runs: ``decode`` unpacks at most ``expected.most_bytes`` bytes.

        A payload comes from anyone, its checksum proves nothing, and a few bytes can unpack to gigabytes. It is an
        ``Expected`` of any tensors where the receiver knows nothing.
        """
        codec, expected = _reading.get()
        return expected if codec is self else ANYTHING

    @contextmanager
    def expecting(self, expected: Expected) -> Iterator[None]:
        """Set ``expected`` in this thread."""
        token = _reading.set((self, expected))
        try:
            yield
        finally:
            _reading.reset(token)

    @property
    def encoder_bytes(self) -> int:
        """Size of the weights that encoding needs on the edge, beyond the head's; 0 for codecs without weights."""
        return 0

    @abstractmethod
    def forward(self, z: Tensors) -> Tensors:
        """The ``z_hat`` that ``decode(encode(z))`` would give, with gradients (straight-through where it rounds)."""

    @abstractmethod
    def encode(self, z: Tensors) -> bytes:
        """The bytes of the tensors of one cut (any batch size; the edge sends batch 1).

        The bytes must say all that ``decode`` needs, shapes and dtypes included.

        Raises:
            ValueError: the codec cannot take such tensors.
        """

    @abstractmethod
    def decode(self, payload: bytes) -> Tensors:
        """The tensors, of their original shapes and dtypes, on the CPU.

        Args:
            payload: what ``encode`` made, unless someone forged it; undamaged on its way, unless ``is_framed``.

        Raises:
            PayloadError: the bytes are damaged, or no such tensors.
        """

    def payload(self, z: Tensors) -> bytes:
        """What travels: ``encode`` in the framework's envelope. Raises ContractError unless ``encode`` gives bytes."""
        try:
            encoded = self.encode(z)
        except (SplitSemError, ValueError):  # what encode may raise
            raise
        except Exception as exc:
            raise self.broken(f"encode raised {type(exc).__name__} ({_line(exc)})") from exc
        if not isinstance(encoded, bytes | bytearray | memoryview):
            raise self.broken(f"encode must return bytes, got {type(encoded).__name__}")
        return bytes(encoded) if self.is_framed else fields.seal(self.name, bytes(encoded))

    def read(self, payload: Payload, expected: Expected = ANYTHING) -> Tensors:
        """Undo ``payload``.

        Args:
            payload: the bytes as they arrived, from anyone.
            expected: what the receiver takes. Built-in codecs compare it with the header before they decode.

        Raises:
            PayloadError: damage of any kind, the payload of another codec, or of tensors that are not expected.
            ContractError: ``decode`` returned something else than tensors.
        """
        token = _reading.set((self, expected))
        try:
            return self.decode(payload) if self.is_framed else self._open(payload, expected)  # type: ignore[arg-type]
        finally:
            _reading.reset(token)

    def _open(self, payload: Payload, expected: Expected) -> Tensors:
        if len(payload) > (most := 4 * expected.most_bytes):
            raise PayloadError(f"expected a payload of at most {most} bytes, got {len(payload)}")
        encoded = fields.unseal(payload, self.name)
        try:
            z_hat = self.decode(encoded)
        except PayloadError:
            raise
        except Exception as exc:  # the bytes may be forged, so that this need not be the codec's fault
            raise PayloadError(f"decode raised {type(exc).__name__} on undamaged bytes ({_line(exc)})") from exc
        if not isinstance(z_hat, tuple | list) or not all(isinstance(tensor, Tensor) for tensor in z_hat):
            raise self.broken(f"decode must return a tuple of tensors, got {type(z_hat).__name__}")
        expected.check(kinds(z_hat), "decode must give back")
        return tuple(z_hat)

    def broken(self, promise: str) -> ContractError:
        """The error that says which promise this codec broke, and how to see all of them."""
        where = f"{type(self).__module__}.{type(self).__qualname__}"
        return ContractError(f"{self.name} breaks the contract of a codec: {promise}; python -m splitsem.check {where}")

    def local_output(self, z: Tensors) -> Tensor | None:
        """What the edge itself makes of ``z``, to be combined with the tail's output; it never travels.

        A codec whose result is the tail's output returns None, as here. For any other codec, the tail's output is sent
        back to the edge, as a payload of the identity codec, and its bytes and time are counted.
        """
        return None

    def combine(self, local: Tensor, output: Tensor | None) -> Tensor:
        """The result, on the edge, of ``local_output`` and the tail's output for the same samples; here the sum.

        Where the payload or the answer was lost, ``output`` is None and the local output is all there is.
        """
        return local if output is None else local + output.to(local.device)

    def protected_bytes(self, payload: bytes) -> int:
        """How many leading bytes of a payload must arrive undamaged for the rest to be of use; here all of them.

        A codec that tolerates bit errors says how long its header is.
        """
        return len(payload)

    def decode_all(self, payloads: Sequence[bytes], snr_db: Sequence[float | None]) -> list[Tensors | None]:
        """The tensors of several payloads, each with its link's ``snr_db``; None for a payload that cannot be read.

        This reads one payload after the other; a codec with a network overrides it, to run the network once for all.
        """
        tensors: list[Tensors | None] = []
        for payload, seen_db in zip(payloads, snr_db, strict=True):
            self.snr_db = seen_db
            try:
                tensors.append(self.read(payload, self.expected))
            except PayloadError:
                tensors.append(None)
        return tensors


def has_base(module: nn.Module) -> bool:
    """Whether the constructor of a module called that of its base, without which it fails at the first use."""
    return "_modules" in vars(module)


def _line(exc: Exception) -> str:
    """What an exception says, in one line."""
    return " ".join(str(exc).split())
