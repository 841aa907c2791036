"""A framing turns the outputs of an exported file into a payload; it runs on the edge with numpy, without torch."""

from collections.abc import Mapping
from math import prod
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

    A crossing tensor that is not of floating point travels as it is, and is one output.

    Attributes:
        input_shape: of one sample, without the batch; by the inputs' names where there are several.
        codec_id: of the wire format.
        heads_hex: dtype and shape of each crossing tensor, as ``wire.tensor_head`` writes them.
        shapes: of each crossing tensor's integers, with the batch of one.
        bit_width: of an integer.
        channelwise: for each tensor, whether each channel has its own range.
        flags: flags of symbols of fixed length, for the settings' first byte.
        entropy: the entropy coder of ``quant``; None: symbols of fixed length in the tolerant format.
        dtypes: numpy's name of the dtype of each tensor that travels as it is; empty of each that is quantised.
    """

    input_shape: InputShape
    codec_id: int
    heads_hex: list[str]
    shapes: list[list[int]]
    bit_width: int
    channelwise: list[bool]
    flags: int
    entropy: str | None
    dtypes: list[str]

    @property
    def outputs(self) -> list[str]:
        """Names of the file's outputs: three for each crossing tensor that is quantised."""
        made = [("tensor",) if dtype else ("symbols", "scales", "zero_points") for dtype in self.dtypes]
        return [f"{name}{end}" for names, end in zip(made, _ends(len(made)), strict=True) for name in names]

    def payload(self, *outputs: Array) -> bytes:
        """The payload of one sample; symbols uint8 or wider, scales and zero points float32, in any shape."""
        fields, left = [], iter(outputs)
        for k, (head, shape) in enumerate(zip(self.heads_hex, self.shapes, strict=True)):
            head_bytes, num = bytes.fromhex(head), prod(shape)
            if self.dtypes[k]:
                body = _raw(next(left), self.dtypes[k])
                is_tolerant = self.entropy is None  # there, what must arrive exactly stands in the header
                fields.append(Field(head_bytes, num, b"" if is_tolerant else body, body if is_tolerant else b""))
                continue
            symbols, scales, zero_points = next(left), next(left), next(left)
            settings = affine_bytes(scales, zero_points, self.bit_width, self.channelwise[k], self.flags)
            symbols = symbols.reshape(-1).astype(np.uint8 if self.bit_width <= 8 else np.uint16)
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


class RawFraming(NamedTuple):
    """How the crossing tensors themselves become a payload of ``identity`` or ``fp16``.

    Attributes:
        input_shape: of one sample, without the batch; by the inputs' names where there are several.
        codec_id: of the wire format.
        heads_hex: dtype and shape of each crossing tensor, as ``wire.tensor_head`` writes them.
        dtypes: numpy's name of the dtype in which each tensor travels.
    """

    input_shape: InputShape
    codec_id: int
    heads_hex: list[str]
    dtypes: list[str]

    @property
    def outputs(self) -> list[str]:
        """Names of the file's outputs."""
        return [f"tensor{end}" for end in _ends(len(self.dtypes))]

    def payload(self, *outputs: Array) -> bytes:
        """The payload of one sample."""
        parts = zip(self.heads_hex, outputs, self.dtypes, strict=True)
        return join(
            self.codec_id, [Field(bytes.fromhex(head), out.size, _raw(out, dtype)) for head, out, dtype in parts]
        )


def _ends(num_tensors: int) -> list[str]:
    """What the names of the outputs of each crossing tensor end in."""
    return [f"_{k}" for k in range(num_tensors)] if num_tensors > 1 else [""]


def _raw(tensor: Array, dtype: str) -> bytes:
    """The elements as they lie in memory, row-major, little-endian."""
    return np.ascontiguousarray(tensor).astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes()


Framing = SymbolFraming | AffineFraming | PriorFraming | RawFraming
_KINDS: dict[str, type[Framing]] = {
    "symbols": SymbolFraming,
    "affine": AffineFraming,
    "prior": PriorFraming,
    "raw": RawFraming,
}


def to_card(framing: Framing) -> dict[str, Any]:
    """A framing as plain values, for a JSON file."""
    kind = next(name for name, known in _KINDS.items() if isinstance(framing, known))
    return {"kind": kind, "outputs": framing.outputs, **framing._asdict()}


def of_card(card: Mapping[str, Any]) -> Framing:
    """Undo ``to_card``; on the edge: ``of_card(card).payload(*session.run(card["outputs"], {"x": x}))``.

    Raises:
        ValueError: it is of no kind that this version knows, or has other fields.
    """
    facts = {name: value for name, value in card.items() if name not in ("kind", "outputs")}
    kind = _KINDS.get(str(card.get("kind")))
    if kind is None or facts.keys() != set(kind._fields):
        raise ValueError(f"a framing is one of {', '.join(_KINDS)} with its fields, got {card.get('kind')!r}")
    return kind(**facts)
