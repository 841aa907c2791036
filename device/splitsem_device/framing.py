"""A framing turns the outputs of an exported file into a payload; it runs on the edge with numpy, without torch."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem_device import entropy
from splitsem_device.entropy import context
from splitsem_device.entropy.bits import pack_symbols, to_gray
from splitsem_device.fields import GRAY_FLAG, PLANES_FLAG, Field, affine_bytes, join, join_tolerant

Array = NDArray[Any]
InputShape = list[int] | dict[str, list[int]]


class SymbolFraming(NamedTuple):
    """How symbols become a payload: the header, then the low bits of each symbol, first bit first, without gaps.

    Attributes:
        input_shape: of one sample, without the batch; by the inputs' names where there are several.
        num_symbols: of one sample.
        bits_per_symbol: bits of a symbol in the payload.
        header_hex: header of every payload of one sample.
    """

    input_shape: InputShape
    num_symbols: int
    bits_per_symbol: int
    header_hex: str

    @property
    def outputs(self) -> list[str]:
        """Names of the file's outputs."""
        return ["symbols"]

    def payload(self, symbols: Array) -> bytes:
        """The payload of one sample.

        >>> framing = SymbolFraming([1], num_symbols=4, bits_per_symbol=2, header_hex="ff")
        >>> framing.payload(np.array([1, 2, 0, 3], np.uint8)).hex()
        'ff63'
        """
        bits = np.unpackbits(symbols.reshape(-1, 1), axis=1)[:, -self.bits_per_symbol :]
        return bytes.fromhex(self.header_hex) + np.packbits(bits).tobytes()


class AffineFraming(NamedTuple):
    """How integers, scales and zero points become a payload of ``fixed``, ``quant`` or ``crbq``.

    Attributes:
        input_shape: of one sample, without the batch; by the inputs' names where there are several.
        codec_id: of the wire format.
        heads_hex: dtype and shape of each crossing tensor, as ``wire.tensor_head`` writes them.
        shapes: of each crossing tensor's integers, with the batch of one.
        bit_width: of an integer.
        channelwise: for each tensor, whether each channel has its own range.
        flags: flags of symbols of fixed length, for the settings' first byte.
        entropy: the entropy coder of ``quant``; None: symbols of fixed length in the tolerant format.
    """

    input_shape: InputShape
    codec_id: int
    heads_hex: list[str]
    shapes: list[list[int]]
    bit_width: int
    channelwise: list[bool]
    flags: int
    entropy: str | None

    @property
    def outputs(self) -> list[str]:
        """Names of the file's outputs: three for each crossing tensor."""
        ends = [f"_{k}" for k in range(len(self.shapes))] if len(self.shapes) > 1 else [""]
        return [f"{name}{end}" for end in ends for name in ("symbols", "scales", "zero_points")]

    def payload(self, *outputs: Array) -> bytes:
        """The payload of one sample; symbols uint8 or wider, scales and zero points float32, in any shape."""
        fields = []
        for k, (head, shape) in enumerate(zip(self.heads_hex, self.shapes, strict=True)):
            symbols, scales, zero_points = outputs[3 * k : 3 * k + 3]
            settings = affine_bytes(scales, zero_points, self.bit_width, self.channelwise[k], self.flags)
            symbols = symbols.reshape(-1).astype(np.uint8 if self.bit_width <= 8 else np.uint16)
            head_bytes, num = bytes.fromhex(head), symbols.size
            if self.entropy is None:
                mapped = to_gray(symbols) if self.flags & GRAY_FLAG else symbols
                body = pack_symbols(mapped, self.bit_width, bool(self.flags & PLANES_FLAG))
                fields.append(Field(head_bytes, num, body, settings))
            else:
                fill = int(zero_points.reshape(-1)[0])
                coded = entropy.encode(symbols, tuple(shape), self.bit_width, fill, self.entropy)
                fields.append(Field(head_bytes, num, settings + coded))
        return (join_tolerant if self.entropy is None else join)(self.codec_id, fields)


class PriorFraming(NamedTuple):
    """How the integers of ``entropic_student`` become a payload, coded with the tables of the codec's prior.

    Attributes:
        input_shape: of one sample, without the batch; by the inputs' names where there are several.
        codec_id: of the wire format.
        head_hex: dtype and batch size, as ``wire.tensor_head`` writes them.
        tables: frequencies of each channel's integers, see ``FactorisedPrior``.
    """

    input_shape: InputShape
    codec_id: int
    head_hex: str
    tables: list[list[int]]

    @property
    def outputs(self) -> list[str]:
        """Names of the file's outputs."""
        return ["integers"]

    def payload(self, integers_1KP: Array) -> bytes:
        """The payload of one sample."""
        body = context.encode_rows(integers_1KP[0], np.array(self.tables, np.int64))
        return join(self.codec_id, [Field(bytes.fromhex(self.head_hex), 1, body)])


Framing = SymbolFraming | AffineFraming | PriorFraming
_KINDS: dict[str, type[Framing]] = {"symbols": SymbolFraming, "affine": AffineFraming, "prior": PriorFraming}


def write(framing: Framing, path: Path) -> None:
    """Write a framing as a JSON file."""
    kind = next(name for name, known in _KINDS.items() if isinstance(framing, known))
    path.write_text(json.dumps({"kind": kind, "outputs": framing.outputs, **framing._asdict()}, indent=2) + "\n")


def read(path: Path) -> Framing:
    """The framing that ``write`` wrote; on the edge: ``read(path).payload(*session.run(None, {"x": x}))``."""
    card = json.loads(path.read_text())
    del card["outputs"]
    return _KINDS[card.pop("kind")](**card)
