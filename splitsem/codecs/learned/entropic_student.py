"""EntropicStudent: a bottleneck with a learned prior, entropy-coded (Matsubara et al., WACV 2022, arXiv 2108.11898).

Shapes: B samples, C channels, H × W positions; K channels of the code at h × w positions.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.codecs import wire
from splitsem.codecs.codec import Tensors
from splitsem.codecs.learned.blocks import Gdn
from splitsem.codecs.learned.ids import LearnedId
from splitsem.codecs.learned.learned import Coded, LearnedCodec
from splitsem.codecs.learned.prior import FactorisedPrior
from splitsem.codecs.learned.stage import Stage
from splitsem.codecs.tensorwise import StraightThrough
from splitsem.errors import PayloadError

_MOST = 1 << 14  # integers beyond are clipped; the coder's escape holds 16 bits


class EntropicStudent(LearnedCodec):
    """Convolutions with GDN, integers, a factorised prior and its entropy coder; convolutions with inverse GDN back.

    The rate is that of the stages' ``rate_weight``; real payloads have the length that the coder gives, which differs
    from sample to sample. One wrong bit ruins what follows it: the payload is checked as a whole and needs a link that
    delivers it undamaged.

    Args:
        tensor_shape: ``(C, H, W)`` of the crossing tensor.
        code_channels: K.
        width: channels inside encoder and decoder.
        stages: see LearnedCodec.
        weights: see LearnedCodec.
    """

    codec_id = LearnedId.ENTROPIC_STUDENT

    def __init__(
        self,
        tensor_shape: Sequence[int],
        code_channels: int = 24,
        width: int = 32,
        stages: Mapping[str, Stage] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(tensor_shape, stages, weights)
        if code_channels < 1 or width < 1:
            raise ValueError(f"code_channels and width must be at least 1, got {code_channels} and {width}")
        channels, height, breadth = self.tensor_shape
        self.code_shape = (code_channels, -(-height // 4), -(-breadth // 4))
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, padding=1),
            Gdn(width),
            nn.Conv2d(width, width, 3, 2, padding=1),
            Gdn(width),
            nn.Conv2d(width, code_channels, 1),
        )
        self.prior = FactorisedPrior(code_channels)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(code_channels, width, 4, 2, padding=1),
            Gdn(width, inverse=True),
            nn.ConvTranspose2d(width, width, 4, 2, padding=1),
            Gdn(width, inverse=True),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def device_modules(self) -> Sequence[nn.Module]:
        """See LearnedCodec."""
        return self.encoder, self.prior

    @property
    def encoder_bytes(self) -> int:
        """See LearnedCodec; the coder needs the prior's tables, not what they were made from."""
        return super().encoder_bytes - self.prior.logits.nbytes

    def code(self, z: Tensor, snr_db: float | None) -> Coded:
        """See LearnedCodec; noise of ±½ for the rate in training, rounding straight through for the decoder."""
        y_BKP = self._to_code(z)
        everywhere = torch.ones_like(y_BKP, dtype=torch.bool)
        rounded = StraightThrough.apply(y_BKP, y_BKP.detach().round().clamp(-_MOST, _MOST), everywhere)
        noisy = y_BKP + torch.rand_like(y_BKP) - 0.5 if self.training else rounded
        rate_bits = self.prior.bits(noisy).sum((1, 2)).mean()
        return Coded(self._from_code(rounded, z.dtype), rounded.flatten(1), rate_bits=rate_bits)

    def integers(self, z: Tensor) -> Tensor:
        """The device's half: integers ``(B, K, P)`` as float32 of the crossing tensor ``(B, C, H, W)``."""
        return self._to_code(z).round().clamp(-_MOST, _MOST)

    @torch.no_grad()
    def encode(self, z: Tensors) -> bytes:
        """See Codec. Raises ConfigError for other tensors than the one it was built for."""
        tensor = self._only(z)
        codes = [self.prior.encode(sample) for sample in self.integers(tensor)]
        body = b"".join([*(wire.varint(len(code)) + code for code in codes[:-1]), codes[-1]])
        return wire.pack(self.codec_id, [wire.Part(tensor.dtype, (len(tensor),), body)])

    @torch.no_grad()
    def decode(self, payload: bytes) -> Tensors:
        """See Codec."""
        parts = wire.unpack(payload, self.codec_id)
        if len(parts) != 1 or not parts[0].dtype.is_floating_point or len(parts[0].shape) != 1:
            raise PayloadError(f"expected the code of one floating-point tensor, got {len(parts)} or another kind")
        dtype, (batch,), body = parts[0]
        reader = wire.Reader(body)
        codes = [reader.take(reader.varint("size of a code", len(body)), "code") for _ in range(batch - 1)]
        num_positions = self.code_shape[1] * self.code_shape[2]
        integers = torch.stack([self.prior.decode(code, num_positions) for code in (*codes, reader.rest())])
        return (self._from_code(integers.to(self.mean.device), dtype).cpu(),)

    def finish_training(self) -> None:
        """See LearnedCodec: fix the coder's tables."""
        self.prior.freeze()

    def _to_code(self, z: Tensor) -> Tensor:
        x_BCHW = self.standardise(z)
        height, width = x_BCHW.shape[2:]
        return self.encoder(F.pad(x_BCHW, (0, -width % 4, 0, -height % 4))).flatten(2)

    def _from_code(self, integers_BKP: Tensor, dtype: torch.dtype) -> Tensor:
        return self.restore(self.decoder(integers_BKP.reshape(-1, *self.code_shape)), dtype)
