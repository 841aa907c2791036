"""DeviceNet: head and encoder as one network from a sample to the symbols of its payload."""

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from splitsem.codecs.codec import Codec
from splitsem.codecs.learned.symbol_codec import SymbolCodec
from splitsem.errors import ConfigError
from splitsem.split.partition import Cut


class DeviceNet(nn.Module):
    """From a batch of samples to symbols, uint8, one row a sample; holds nothing of the server's.

    Args:
        cut: gives the head.
        codec: its encoder is copied, so that what is exported does not follow a later training.
    """

    def __init__(self, cut: Cut, codec: SymbolCodec) -> None:
        super().__init__()
        self.head = cut.head
        self.codec = copy.deepcopy(codec)
        kept = set(self.codec.device_modules())
        for name, child in list(self.codec.named_children()):
            if child not in kept:
                delattr(self.codec, name)

    def forward(self, x: Tensor) -> Tensor:
        """Symbols ``(B, N)`` of samples ``(B, *input_shape)``."""
        (z,) = self.head(x)
        return self.codec.centres.words(self.codec.to_code(self.codec.standardise(z)))


class Framing(NamedTuple):
    """How symbols become a payload: the header, then the low bits of each symbol, first bit first, without gaps.

    Attributes:
        input_shape: of one sample, without the batch.
        num_symbols: of one sample.
        bits_per_symbol: b.
        header_hex: what every payload of one sample starts with.
    """

    input_shape: list[int]
    num_symbols: int
    bits_per_symbol: int
    header_hex: str

    def payload(self, symbols: NDArray[np.uint8]) -> bytes:
        """The payload of one sample.

        >>> framing = Framing([1], num_symbols=4, bits_per_symbol=2, header_hex="ff")
        >>> framing.payload(np.array([1, 2, 0, 3], np.uint8)).hex()
        'ff63'
        """
        bits = np.unpackbits(symbols.reshape(-1, 1), axis=1)[:, -self.bits_per_symbol :]
        return bytes.fromhex(self.header_hex) + np.packbits(bits).tobytes()


def check(kind: type[Codec]) -> None:
    """Raise ConfigError unless codecs of this class have an encoder that is a network ending in symbols."""
    if kind.local_output is not Codec.local_output:
        raise ConfigError(
            f"{kind.__name__} cannot be exported: its device makes an output of its own beside the payload, which the "
            "file would lack; choose codec=semanticnn, deepcod, adjscc or bottleneck"
        )
    if not issubclass(kind, SymbolCodec):
        raise ConfigError(
            f"{kind.__name__} cannot be exported: its encoder is not a network that ends in symbols of fixed length; "
            "choose codec=semanticnn, deepcod, adjscc or bottleneck"
        )


def export(cut: Cut, codec: Codec) -> tuple[ExportedProgram, Framing]:
    """The device's half for one sample at a time, and how its output becomes what ``codec.encode`` makes.

    Args:
        cut: of a network in float32 on the CPU.
        codec: in eval mode, on the CPU.

    Raises:
        ConfigError: the codec's encoder is no network from features to symbols of fixed length.
    """
    check(type(codec))
    assert isinstance(codec, SymbolCodec)
    net = DeviceNet(cut, codec).eval()
    with torch.no_grad():
        payload = codec.encode(cut.head(cut.example))
        program = torch.export.export(net, (cut.example,), strict=False)
    header = payload[: codec.protected_bytes(payload)]
    shape = list(cut.example.shape[1:])
    return program, Framing(shape, codec.num_symbols, codec.centres.bits_per_symbol, header.hex())
