"""A Coder is the part of a codec that becomes a graph; the Framing of a coder makes the codec's payload."""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from splitsem.codecs import wire
from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.learned.crbq import CrBq
from splitsem.codecs.learned.entropic_student import EntropicStudent
from splitsem.codecs.learned.learned import LearnedCodec
from splitsem.codecs.learned.symbol_codec import SymbolCodec
from splitsem.codecs.picture import PictureCodec
from splitsem.codecs.quantise import Affine, Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity, saturate_to_half
from splitsem.codecs.topk import TopK
from splitsem.errors import ConfigError
from splitsem_device.entropy import AUTO
from splitsem_device.framing import AffineFraming, Framing, InputShape, PriorFraming, RawFraming, SymbolFraming

AnyLearned = TypeVar("AnyLearned", bound=LearnedCodec)


class Coder(nn.Module):
    """Maps the crossing tensors of a sample to the outputs that a payload is packed from; can be exported."""

    @abstractmethod
    def forward(self, z: Tensors) -> Tensors:
        """The outputs, in the order of ``framing(...).outputs``."""

    @abstractmethod
    def framing(self, input_shape: InputShape, z: Tensors) -> Framing:
        """How the outputs become the payload; ``z``: example crossing tensors of a sample, for dtypes and shapes."""


class SymbolCoder(Coder):
    """The coder of a codec whose payload is a constant header and symbols of fixed length."""

    def __init__(self, codec: SymbolCodec) -> None:
        super().__init__()
        self.codec = _devices_half(codec, codec.device_modules())

    def forward(self, z: Tensors) -> Tensors:
        """See Coder."""
        return (self.codec.words(*z),)

    def framing(self, input_shape: InputShape, z: Tensors) -> Framing:
        """See Coder."""
        payload = self.codec.encode(z)
        header = payload[: self.codec.protected_bytes(payload)]
        return SymbolFraming(input_shape, self.codec.num_symbols, self.codec.centres.bits_per_symbol, header.hex())


class QuantiseCoder(Coder):
    """The coder of ``quant`` and ``fixed``, which quantise the crossing tensors themselves."""

    def __init__(self, codec: Quantise) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, z: Tensors) -> Tensors:
        """See Coder."""
        bit_width = self.codec.bit_width
        return tuple(
            out
            for t in z
            for out in (_affine_outputs(*self.codec.integers(t), bit_width) if t.is_floating_point() else (t,))
        )

    def framing(self, input_shape: InputShape, z: Tensors) -> Framing:
        """See Coder."""
        codec, shapes = self.codec, [tuple(t.shape) for t in z]
        is_fixed = isinstance(codec, FixedLength)
        return AffineFraming(
            input_shape,
            codec.codec_id,
            [wire.tensor_head(t.dtype, shape).hex() for t, shape in zip(z, shapes, strict=True)],
            [list(shape) for shape in shapes],
            codec.bit_width,
            [codec.is_channelwise(shape) for shape in shapes],
            codec.flags if isinstance(codec, FixedLength) else 0,
            None if is_fixed else codec.entropy if codec.entropy != AUTO else "context",  # a device knows no rate
            ["" if t.is_floating_point() else _numpy_name(t.dtype) for t in z],
        )


class CrBqCoder(Coder):
    """The coder of ``crbq``, which quantises a code with each sample's own range."""

    def __init__(self, codec: CrBq) -> None:
        super().__init__()
        self.codec = _devices_half(codec, codec.device_modules())

    def forward(self, z: Tensors) -> Tensors:
        """See Coder."""
        return _affine_outputs(*self.codec.integers(*z), self.codec.bit_width)

    def framing(self, input_shape: InputShape, z: Tensors) -> Framing:
        """See Coder."""
        shape = (1, self.codec.num_values)
        head = wire.tensor_head(z[0].dtype, shape).hex()
        codec = self.codec
        return AffineFraming(
            input_shape, codec.codec_id, [head], [list(shape)], codec.bit_width, [False], 0, None, [""]
        )


class PriorCoder(Coder):
    """The coder of ``entropic_student``: outputs integers; the framing holds the prior's tables, the graph does not."""

    def __init__(self, codec: EntropicStudent) -> None:
        super().__init__()
        self.codec = _devices_half(codec, [codec.encoder])
        self.tables: list[list[int]] = codec.prior.tables.tolist()

    def forward(self, z: Tensors) -> Tensors:
        """See Coder."""
        return (self.codec.integers(*z).to(torch.int16),)

    def framing(self, input_shape: InputShape, z: Tensors) -> Framing:
        """See Coder."""
        head = wire.tensor_head(z[0].dtype, (1,)).hex()
        return PriorFraming(input_shape, self.codec.codec_id, head, self.tables)


class RawCoder(Coder):
    """The coder of ``identity`` and ``fp16``: the crossing tensors themselves, those of floating point in 16 bits."""

    def __init__(self, codec: Identity | HalfPrecision) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, z: Tensors) -> Tensors:
        """See Coder."""
        return tuple(saturate_to_half(t) if self._is_halved(t) else t for t in z)

    def framing(self, input_shape: InputShape, z: Tensors) -> Framing:
        """See Coder."""
        heads = [wire.tensor_head(t.dtype, tuple(t.shape)).hex() for t in z]
        dtypes = [_numpy_name(torch.float16 if self._is_halved(t) else t.dtype) for t in z]
        return RawFraming(input_shape, self.codec.codec_id, heads, dtypes)

    def _is_halved(self, t: Tensor) -> bool:
        return isinstance(self.codec, HalfPrecision) and t.is_floating_point() and t.element_size() != 2


_CODERS: dict[Any, Any] = {
    SymbolCodec: SymbolCoder,
    Quantise: QuantiseCoder,
    CrBq: CrBqCoder,
    EntropicStudent: PriorCoder,
    Identity: RawCoder,
    HalfPrecision: RawCoder,
}
_REASONS: tuple[tuple[type, str], ...] = (
    (TopK, "how many values it sends depends on the sample, and a device's file has outputs of fixed shapes"),
    (PictureCodec, "its encoder is an image library, not a network"),
)


def check(kind: type[Codec]) -> None:
    """Raise ConfigError, with the reason, unless codecs of this class have an encoder that can be exported."""
    makes_output = kind.local_output is not Codec.local_output
    if makes_output or not issubclass(kind, tuple(_CODERS)):
        reasons = (reason for known, reason in _REASONS if issubclass(kind, known))
        reason = next(reasons, "nothing here knows which part of it is the device's")
        if makes_output:
            reason = "its device makes an output of its own beside the payload, which the file would lack"
        raise ConfigError(
            f"{kind.__name__} cannot be exported: {reason}; choose codec=semanticnn, deepcod, adjscc, "
            "bottleneck, crbq, entropic_student, fixed, quant, fp16 or identity"
        )


def coder(codec: Codec) -> Coder:
    """The coder of a codec in eval mode. Raises ConfigError, see ``check``."""
    check(type(codec))
    made = next(made for known, made in _CODERS.items() if isinstance(codec, known))
    found: Coder = made(codec)
    return found


def _devices_half(codec: AnyLearned, kept: Sequence[nn.Module]) -> AnyLearned:
    """A copy of the codec without the server's networks; later training of the codec does not change the copy."""
    half = copy.deepcopy(codec)
    kept_names = {name for name, child in codec.named_children() if child in set(kept)}
    for name in [name for name, _ in half.named_children() if name not in kept_names]:
        delattr(half, name)
    return half


def _affine_outputs(integers: Tensor, affine: Affine, bit_width: int) -> Tensors:
    return integers.to(torch.uint8 if bit_width <= 8 else torch.int32), affine.scale, affine.zero_point


def _numpy_name(dtype: torch.dtype) -> str:
    """Numpy's name of a dtype that a crossing tensor may have. Raises ConfigError for bfloat16, which numpy lacks."""
    if dtype is torch.bfloat16:
        raise ConfigError("a device without torch has no bfloat16: give precision=float32")
    return str(dtype).removeprefix("torch.")
