"""EntropicStudent: a bottleneck with a learned prior, entropy-coded (Matsubara et al., WACV 2022, arXiv 2108.11898).

Shapes: B samples, C channels, H × W positions; K channels of the code at h × w = P positions.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.codecs import wire
from splitsem.codecs.codec import Tensors
from splitsem.codecs.expected import Head
from splitsem.codecs.learned.blocks import Gdn
from splitsem.codecs.learned.learned import Coded, LearnedCodec, LearnedId, Stage
from splitsem.codecs.tensorwise import StraightThrough
from splitsem.errors import PayloadError
from splitsem_device.entropy import context

_LEAST_PROBABILITY = 1e-6


class FactorisedPrior(nn.Module):
    """Probability of each integer in −R…R by channel, as learned logits; anything beyond is an escape.

    Training sees integers with uniform noise of ±½ (Ballé et al., arXiv 1611.01704). A noisy value's probability is
    interpolated between its neighbouring integers, which integrates a piecewise constant density. ``freeze`` turns
    the learned probabilities into the integer tables that both ends share and the coder uses: tables are never computed
    twice, because two machines may disagree in the last bit.

    Args:
        channels: K.
        largest: R.
    """

    tables: Tensor

    def __init__(self, channels: int, largest: int = 15) -> None:
        super().__init__()
        self.largest = largest
        steps = torch.arange(-largest - 1, largest + 2)  # one more on either side: the escape
        self.logits = nn.Parameter((-steps.abs().float() / 2).repeat(channels, 1))
        self.register_buffer("tables", torch.zeros(channels, 2 * largest + 2, dtype=torch.int32))
        self.freeze()

    def bits(self, y_BKP: Tensor) -> Tensor:
        """Estimated bits of each value, rounded or noisy, with gradients to values and probabilities; same shape."""
        probability_KS = self.logits.softmax(1)
        place = (y_BKP + self.largest + 1).clamp(0, 2 * self.largest + 2 - 1e-3)
        lower = place.detach().floor()
        share = place - lower
        rows = torch.arange(len(probability_KS), device=y_BKP.device)[None, :, None].expand_as(lower)
        below, above = probability_KS[rows, lower.long()], probability_KS[rows, lower.long() + 1]
        probability = below * (1 - share) + above * share
        beyond = (y_BKP.abs() - self.largest).clamp(min=0)  # the escape's raw bits, and a slope that leads back
        return -(probability + _LEAST_PROBABILITY).log2() + beyond

    @torch.no_grad()
    def freeze(self) -> None:
        """Make the integer tables from what was learned."""
        probability_KS = self.logits.double().softmax(1).cpu().numpy()
        escape = probability_KS[:, :1] + probability_KS[:, -1:]
        tables = context.to_frequencies(np.concatenate([probability_KS[:, 1:-1], escape], 1))
        self.tables.copy_(torch.from_numpy(tables))

    def encode(self, integers_KP: Tensor) -> bytes:
        """One sample's integers as bytes."""
        return context.encode_rows(integers_KP.cpu().numpy(), self.tables.cpu().numpy().astype(np.int64))

    def decode(self, data: bytes | memoryview, num_positions: int) -> Tensor:
        """Undo ``encode``: ``(K, P)``, float32. Raises PayloadError."""
        symbols = context.decode(data, self._rows(num_positions), self.tables.cpu().numpy().astype(np.int64))
        return torch.tensor(symbols, dtype=torch.float32).reshape(-1, num_positions) - self.largest

    def _rows(self, num_positions: int) -> list[int]:
        return [row for row in range(len(self.tables)) for _ in range(num_positions)]


_SIZE_BYTES = 12  # of a sample's code: its size, and the coder's last state
_MOST = 1 << 14  # integers beyond are clipped; the coder's escape holds 16 bits


class EntropicStudent(LearnedCodec):
    """Convolutions with GDN, integers, a factorised prior and its entropy coder; convolutions with inverse GDN back.

    The stages' ``rate_weight`` sets the rate; a real payload has the length that the coder gives, which differs from
    sample to sample. One wrong bit ruins all bits behind it: the payload is checked as a whole and needs a link that
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
        """See LearnedCodec; the coder needs the prior's tables, not its logits."""
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
        """The edge's half: integers ``(B, K, P)`` as float32 of the crossing tensor ``(B, C, H, W)``."""
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
        ((dtype, (batch,), body),) = wire.unpack(payload, self.codec_id, 1, self._check_heads)
        reader = wire.Reader(body)
        codes = [reader.take(reader.varint("size of a code", len(body)), "code") for _ in range(batch - 1)]
        num_positions = self.code_shape[1] * self.code_shape[2]
        integers = torch.stack([self.prior.decode(code, num_positions) for code in (*codes, reader.rest())])
        return (self._from_code(integers.to(self.mean.device), dtype).cpu(),)

    def _check_heads(self, heads: Sequence[Head]) -> None:
        batch = self.batch_of_code(heads[0])
        most = batch * (context.MOST_SYMBOL_BYTES * math.prod(self.code_shape) + _SIZE_BYTES)
        if heads[0].num_bytes > most:
            raise PayloadError(f"expected at most {most} bytes for {batch} codes, got {heads[0].num_bytes}")

    def finish_training(self) -> None:
        """See LearnedCodec: fix the coder's tables."""
        self.prior.freeze()

    def _to_code(self, z: Tensor) -> Tensor:
        x_BCHW = self.standardise(z)
        height, width = x_BCHW.shape[2:]
        return self.encoder(F.pad(x_BCHW, (0, -width % 4, 0, -height % 4))).flatten(2)

    def _from_code(self, integers_BKP: Tensor, dtype: torch.dtype) -> Tensor:
        return self.restore(self.decoder(integers_BKP.reshape(-1, *self.code_shape)), dtype)
