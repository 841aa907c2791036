"""TensorwiseCodec: the base of codecs that treat each crossing tensor by itself; and Identity and HalfPrecision."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from splitsem.codecs import wire
from splitsem.codecs.codec import Codec, Tensors


class TensorwiseCodec(Codec):
    """A codec defined by what it does to one floating-point tensor; integer and bool tensors travel as they are.

    Attributes:
        codec_id: the codec's number in the wire format.
    """

    is_framed = True
    codec_id: ClassVar[int]

    @abstractmethod
    def approximate(self, z: Tensor) -> Tensor:
        """Differentiable ``z_hat`` of one floating-point tensor, equal to what the bytes give."""

    @abstractmethod
    def encode_tensor(self, z: Tensor) -> bytes | memoryview:
        """The body of one floating-point tensor (detached, contiguous, on the CPU)."""

    @abstractmethod
    def decode_tensor(self, part: wire.Part) -> Tensor:
        """Undo ``encode_tensor``. Raises PayloadError."""

    def forward(self, z: Tensors) -> Tensors:
        """See Codec."""
        return tuple(self.approximate(t) if t.is_floating_point() else t for t in z)

    @torch.no_grad()
    def encode(self, z: Tensors) -> bytes:
        """See Codec.

        Raises:
            ValueError: for tensors that this codec or the wire format cannot represent.
        """
        parts = []
        for t in z:
            if t.numel() == 0:
                raise ValueError(f"crossing tensors must not be empty, got shape {tuple(t.shape)}")
            t = t.detach().cpu().contiguous()
            body = self.encode_tensor(t) if t.is_floating_point() else wire.raw_body(t)
            parts.append(wire.Part(t.dtype, tuple(t.shape), body))
        return wire.pack(self.codec_id, parts)

    @torch.no_grad()
    def decode(self, payload: bytes) -> Tensors:
        """See Codec."""
        return tuple(
            self.decode_tensor(part) if part.dtype.is_floating_point else wire.tensor_from_raw(part)
            for part in wire.unpack(payload, self.codec_id, self.expected.num_tensors, self.expected.check_heads)
        )


class StraightThrough(torch.autograd.Function):
    """Gives ``z_hat`` exactly, and the gradient of ``z`` wherever ``mask`` is true (Bengio 2013, arXiv 1308.3432)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, z: Tensor, z_hat: Tensor, mask: Tensor) -> Tensor:
        """Return ``z_hat``; ``z`` only receives the gradient."""
        ctx.save_for_backward(mask)
        return z_hat.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        """Pass the gradient where the mask is true."""
        (mask,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * mask, None, None


class Identity(TensorwiseCodec):
    """Sends every tensor's elements unchanged, NaN and infinities included."""

    is_samplewise = True
    codec_id = wire.CodecId.IDENTITY

    def approximate(self, z: Tensor) -> Tensor:
        """See TensorwiseCodec."""
        return z

    def encode_tensor(self, z: Tensor) -> bytes | memoryview:
        """See TensorwiseCodec."""
        return wire.raw_body(z)

    def decode_tensor(self, part: wire.Part) -> Tensor:
        """See TensorwiseCodec."""
        return wire.tensor_from_raw(part)


def saturate_to_half(z: Tensor) -> Tensor:
    """Round to float16; finite values beyond ±65504 become ±65504, infinities and NaN stay what they are."""
    most = torch.finfo(torch.float16).max
    return torch.where(z.isinf(), z, z.clamp(-most, most)).to(torch.float16)


class HalfPrecision(TensorwiseCodec):
    """Sends 16-bit tensors as they are and all others as float16. Overflow saturates, see ``saturate_to_half``."""

    is_samplewise = True
    codec_id = wire.CodecId.HALF_PRECISION

    def approximate(self, z: Tensor) -> Tensor:
        """See TensorwiseCodec; rounding has the gradient 1, saturation 0."""
        return z if z.element_size() == 2 else saturate_to_half(z).to(z.dtype)

    def encode_tensor(self, z: Tensor) -> bytes | memoryview:
        """See TensorwiseCodec."""
        return wire.raw_body(z if z.element_size() == 2 else saturate_to_half(z))

    def decode_tensor(self, part: wire.Part) -> Tensor:
        """See TensorwiseCodec."""
        sent = part.dtype if part.dtype.itemsize == 2 else torch.float16
        return wire.tensor_from_raw(part._replace(dtype=sent)).to(part.dtype)
