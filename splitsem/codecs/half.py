"""HalfPrecision: float32 and float64 tensors as IEEE float16."""

import torch
from torch import Tensor

from splitsem.codecs import wire
from splitsem.codecs.tensorwise import TensorwiseCodec


def saturate_to_half(z: Tensor) -> Tensor:
    """Round to float16; finite values beyond ±65504 become ±65504, infinities and NaN stay what they are."""
    most = torch.finfo(torch.float16).max
    return torch.where(z.isinf(), z, z.clamp(-most, most)).to(torch.float16)


class HalfPrecision(TensorwiseCodec):
    """Halves float32; 16-bit tensors are carried as they are. Overflow saturates, see ``saturate_to_half``."""

    codec_id = wire.CodecId.HALF_PRECISION

    def approximate(self, z: Tensor) -> Tensor:
        """See TensorwiseCodec; rounding has the gradient one and saturation none."""
        return z if z.element_size() == 2 else saturate_to_half(z).to(z.dtype)

    def encode_tensor(self, z: Tensor) -> bytes | memoryview:
        """See TensorwiseCodec."""
        return wire.raw_body(z if z.element_size() == 2 else saturate_to_half(z))

    def decode_tensor(self, part: wire.Part) -> Tensor:
        """See TensorwiseCodec."""
        sent = part.dtype if part.dtype.itemsize == 2 else torch.float16
        return wire.tensor_from_raw(part._replace(dtype=sent)).to(part.dtype)
