"""Codec: the interface between the crossing tensors and the bytes on the wire."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from splitsem.errors import PayloadError

Tensors = tuple[Tensor, ...]


class Codec(nn.Module, ABC):
    """Turns the crossing tensors ``z`` into one payload and back into ``z_hat``.

    Two paths describe the same loss: ``forward`` is differentiable and stays in memory, for training;
    ``encode`` and ``decode`` make and read the real bytes, for everything that is reported. A fresh codec of the
    same class decodes from the bytes alone (learned codecs: and the weights that both ends share).

    Attributes:
        snr_db: signal-to-noise ratio of the link, as the receiver sees it (Eb/N0 of a bit on the air); set before
            ``decode`` where it is known.
        tail: the server's half of the network as it was tuned together with this codec, to be run in place of the
            network's own (``Cut.with_tail``); None where the network stayed as it was. Its weights are the codec's.
    """

    snr_db: float | None = None
    tail: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("tail", None)

    @property
    def encoder_bytes(self) -> int:
        """Size of the weights that encoding needs on the device, beyond the head's; 0 for codecs without weights."""
        return 0

    @abstractmethod
    def forward(self, z: Tensors) -> Tensors:
        """The ``z_hat`` that ``decode(encode(z))`` would give, with gradients (straight-through where it rounds)."""

    @abstractmethod
    def encode(self, z: Tensors) -> bytes:
        """One payload, header included, for the tensors of one cut (any batch size; a device sends batch 1)."""

    @abstractmethod
    def decode(self, payload: bytes) -> Tensors:
        """The tensors, of their original shapes and dtypes, on the CPU. Raises PayloadError on any damage."""

    def local_output(self, z: Tensors) -> Tensor | None:
        """What the device itself makes of ``z``, to be combined with the tail's output; it never travels.

        None, as here, for codecs whose result is the tail's output. For the others that output is sent back to the
        device, as a payload of the identity codec, and its bytes and time are counted.
        """
        return None

    def combine(self, local: Tensor, output: Tensor | None) -> Tensor:
        """The result, on the device, of ``local_output`` and the tail's output for the same samples; here the sum.

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

        A codec with a network overrides this one-by-one way to run the network once for all of them.
        """
        tensors: list[Tensors | None] = []
        for payload, seen_db in zip(payloads, snr_db, strict=True):
            self.snr_db = seen_db
            try:
                tensors.append(self.decode(payload))
            except PayloadError:
                tensors.append(None)
        return tensors
