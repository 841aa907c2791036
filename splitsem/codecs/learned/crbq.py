"""CrBq: channel reduction and 8-bit quantisation, trained by head network distillation (GHND).

Matsubara et al., "Supervised compression for resource-constrained edge computing systems", WACV 2022, arXiv 2108.11898;
GHND: arXiv 2007.15818.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.codecs import tolerant, wire
from splitsem.codecs.codec import Tensors
from splitsem.codecs.expected import Head
from splitsem.codecs.learned.learned import Coded, LearnedCodec, LearnedId, Stage
from splitsem.codecs.quantise import (
    Affine,
    affine_for,
    choose_range,
    from_integers,
    read_affine,
    to_integers,
    values_of,
    write_affine,
)
from splitsem.codecs.tensorwise import StraightThrough
from splitsem.errors import PayloadError
from splitsem_device.entropy.bits import pack_bits, packed_size, unpack_bits

_SETTINGS_BYTES = 5  # of a sample: scale and zero point


class CrBq(LearnedCodec):
    """Convolutions down to few channels, affine quantisation with each sample's own range, convolutions back.

    Training goes through the quantiser, with straight-through gradients (the paper quantises after it). Scales and zero
    points travel in the protected header; a wrong bit in the body moves one value of the code.

    Args:
        tensor_shape: ``(C, H, W)`` of the crossing tensor.
        code_channels: channels that remain.
        bit_width: 1…8; 8 as published.
        stride: stride from the tensor to the code: 1, 2 or 4.
        width: channels inside encoder and decoder.
        stages: see LearnedCodec.
        weights: see LearnedCodec.
    """

    codec_id = LearnedId.CRBQ

    def __init__(
        self,
        tensor_shape: Sequence[int],
        code_channels: int = 3,
        bit_width: int = 8,
        stride: int = 4,
        width: int = 32,
        stages: Mapping[str, Stage] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(tensor_shape, stages, weights)
        if not 1 <= bit_width <= 8:
            raise ValueError(f"bit_width must be 1…8, got {bit_width}")
        if stride not in (1, 2, 4):
            raise ValueError(f"stride must be 1, 2 or 4, got {stride}")
        if code_channels < 1 or width < 1:
            raise ValueError(f"code_channels and width must be at least 1, got {code_channels} and {width}")
        channels, height, breadth = self.tensor_shape
        self.bit_width, self.stride = bit_width, stride
        self.code_shape = (code_channels, -(-height // stride), -(-breadth // stride))
        self.num_values = code_channels * self.code_shape[1] * self.code_shape[2]
        first, second = min(stride, 2), max(1, stride // 2)
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, first, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, code_channels, 3, second, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.BatchNorm2d(code_channels),
            nn.ReLU(),
            nn.ConvTranspose2d(code_channels, width, 3, second, padding=1, output_padding=second - 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 3, first, padding=1, output_padding=first - 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def device_modules(self) -> Sequence[nn.Module]:
        """See LearnedCodec."""
        return (self.encoder,)

    def code(self, z: Tensor, snr_db: float | None) -> Coded:
        """See LearnedCodec; training meets no channel."""
        code_BN = self._to_code(z)
        symbols, affine = self._quantise(code_BN.detach())
        rounded = from_integers(symbols, affine, torch.float32)
        values = StraightThrough.apply(code_BN, rounded, torch.ones_like(code_BN, dtype=torch.bool))
        return Coded(self._from_code(values, z.dtype), values)

    def integers(self, z: Tensor) -> tuple[Tensor, Affine]:
        """The edge's half: integers ``(B, N)`` as float32 of the tensor ``(B, C, H, W)``, and what they mean."""
        return self._quantise(self._to_code(z))

    @torch.no_grad()
    def encode(self, z: Tensors) -> bytes:
        """See Codec. Raises ConfigError for other tensors than the one it was built for."""
        tensor = self._only(z)
        symbols, affine = self.integers(tensor)
        settings = write_affine(Affine(*(t.cpu() for t in affine)), self.bit_width, channelwise=False)
        body = pack_bits(symbols.reshape(-1).cpu().numpy().astype(np.uint8), self.bit_width)
        part = tolerant.TolerantPart(tensor.dtype, (len(tensor), self.num_values), settings, body)
        return tolerant.pack(self.codec_id, [part])

    @torch.no_grad()
    def decode(self, payload: bytes) -> Tensors:
        """See Codec."""
        ((dtype, shape, settings, body),) = tolerant.unpack(payload, self.codec_id, 1, self._check_heads)
        reader = wire.Reader(settings)
        affine, bit_width = read_affine(reader, shape)
        reader.finish()
        num = shape[0] * self.num_values
        if bit_width != self.bit_width or len(body) != packed_size(num, bit_width):
            raise PayloadError(f"expected {num} values of {self.bit_width} bits, got {len(body)} bytes of {bit_width}")
        values = values_of(unpack_bits(memoryview(body), num, bit_width), affine, torch.float32)
        return (self._from_code(values.to(self.mean.device), dtype).cpu(),)

    def _check_heads(self, heads: Sequence[Head]) -> None:
        batch = self.batch_of_code(heads[0], self.num_values)
        most = batch * _SETTINGS_BYTES + 1 + packed_size(batch * self.num_values, self.bit_width)
        if heads[0].num_bytes > most:
            raise PayloadError(f"expected at most {most} bytes for {batch} codes, got {heads[0].num_bytes}")

    def protected_bytes(self, payload: bytes) -> int:
        """Header, scales and zero points."""
        return tolerant.header_bytes(payload)

    def _to_code(self, z: Tensor) -> Tensor:
        x_BCHW = self.standardise(z)
        height, width = x_BCHW.shape[2:]
        return self.encoder(F.pad(x_BCHW, (0, -width % self.stride, 0, -height % self.stride))).flatten(1)

    def _from_code(self, values_BN: Tensor, dtype: torch.dtype) -> Tensor:
        return self.restore(self.decoder(values_BN.reshape(-1, *self.code_shape)), dtype)

    def _quantise(self, code_BN: Tensor) -> tuple[Tensor, Affine]:
        affine = affine_for(choose_range(code_BN, self.bit_width, "minmax", 100.0), self.bit_width)
        return to_integers(code_BN, affine, self.bit_width), affine
