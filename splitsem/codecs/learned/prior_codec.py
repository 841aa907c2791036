"""PriorCodec: the base of learned codecs whose code is integers, entropy-coded by the tables of a learned prior.

Shapes: B samples, C channels, H × W positions; K channels of the code at h × w = P positions.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitsem.codecs import wire
from splitsem.codecs.codec import Tensors
from splitsem.codecs.expected import Head
from splitsem.codecs.learned.learned import Coded, LearnedCodec
from splitsem.codecs.tensorwise import StraightThrough
from splitsem.errors import PayloadError
from splitsem_device.entropy import context, neighbours

_LEAST_PROBABILITY = 1e-6
_PRIOR_COUNT = 4.0  # integers of the mean distribution that each context starts with


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

    def estimate(self, y_BKP: Tensor, rounded_BKP: Tensor) -> Tensor:
        """``bits`` of what will be sent; in training, of the values with noise of ±½."""
        return self.bits(y_BKP + torch.rand_like(y_BKP) - 0.5 if self.training else rounded_BKP)

    def bits(self, y_BKP: Tensor) -> Tensor:
        """Estimated bits of each value, rounded or noisy, with gradients to values and probabilities; same shape."""
        probability_KS = self.logits.softmax(1)
        place = (y_BKP + self.largest + 1).clamp(0, 2 * self.largest + 2 - 1e-3)
        lower = place.detach().floor()
        share = place - lower
        rows = torch.arange(len(probability_KS), device=y_BKP.device)[None, :, None].expand_as(lower)
        below, above = probability_KS[rows, lower.long()], probability_KS[rows, lower.long() + 1]
        probability = below * (1 - share) + above * share
        return -(probability + _LEAST_PROBABILITY).log2() + self._beyond(y_BKP)

    def _beyond(self, y_BKP: Tensor) -> Tensor:
        """Instead of the escape's raw bits, a slope that leads back."""
        return (y_BKP.abs() - self.largest).clamp(min=0)

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


class NeighbourPrior(FactorisedPrior):
    """The same where integers coded before choose each integer's probabilities, see ``entropy.neighbours``.

    Args:
        code_shape: K, h, w.
        largest: R.
    """

    def __init__(self, code_shape: tuple[int, int, int], largest: int = 31) -> None:
        super().__init__(neighbours.NUM_CONTEXTS, largest)
        self.code_shape = code_shape

    def estimate(self, y_BKP: Tensor, rounded_BKP: Tensor) -> Tensor:
        """See FactorisedPrior; without noise, which few integers other than zero would drown in."""
        return self.bits(y_BKP)

    def bits(self, y_BKP: Tensor) -> Tensor:
        """Bits of each value once it is rounded; its gradient is the slope between the integers on either side."""
        rounded = y_BKP.detach().round().clamp(-MOST, MOST)
        contexts = np.stack([neighbours.contexts(self._pictures(sample)) for sample in rounded])
        rows = torch.from_numpy(contexts).to(y_BKP.device).long().reshape(y_BKP.shape)
        bits_RS = self.logits.log_softmax(1) * (-1 / math.log(2))
        middle, last = self.largest + 1, 2 * self.largest + 2
        lower = (y_BKP.detach().floor().long() + middle).clamp(0, last - 1)
        slope = bits_RS.detach()[rows, lower + 1] - bits_RS.detach()[rows, lower]
        sent = bits_RS[rows, (rounded.long() + middle).clamp(0, last)]
        return sent + slope * (y_BKP - y_BKP.detach()) + self._beyond(y_BKP)

    @torch.no_grad()
    def count(self, samples_NKP: Tensor) -> None:
        """Take the probabilities from the integers of training samples, and make the tables."""
        counts = np.zeros((neighbours.NUM_CONTEXTS, self.logits.shape[1]))
        for sample in samples_NKP:
            pictures = self._pictures(sample)
            entries = pictures.clip(-self.largest - 1, self.largest + 1) + self.largest + 1
            np.add.at(counts, (neighbours.contexts(pictures), entries), 1)
        everywhere = counts.sum(0) + _PRIOR_COUNT / counts.shape[1]
        counts += _PRIOR_COUNT * everywhere / everywhere.sum()
        self.logits.copy_(torch.from_numpy(np.log(counts)))
        self.freeze()

    def encode(self, integers_KP: Tensor) -> bytes:
        """See FactorisedPrior."""
        return neighbours.encode(self._pictures(integers_KP), self.tables.cpu().numpy().astype(np.int64))

    def decode(self, data: bytes | memoryview, num_positions: int) -> Tensor:
        """See FactorisedPrior."""
        integers = neighbours.decode(data, self.code_shape, self.tables.cpu().numpy().astype(np.int64))
        return torch.from_numpy(integers).float().reshape(-1, num_positions)

    def _pictures(self, integers_KP: Tensor) -> NDArray[np.int32]:
        return integers_KP.cpu().numpy().astype(np.int32).reshape(self.code_shape)


_SIZE_BYTES = 12  # of a sample's code: its size, and the coder's last state
MOST = 1 << 14  # integers beyond are clipped; the coder's escape holds 16 bits


class PriorCodec(LearnedCodec):
    """Integers of an encoder, coded by a prior; a decoder back.

    The stages' ``rate_weight`` sets the rate; a real payload has the length that the coder gives, which differs from
    sample to sample. One wrong bit ruins all bits behind it: the payload is checked as a whole and needs a link that
    delivers it undamaged.

    Attributes:
        code_shape: K, h, w; set by the subclass.
        encoder: of the edge; set by the subclass.
        prior: of the integers; set by the subclass.
    """

    code_shape: tuple[int, int, int]
    encoder: nn.Module
    prior: FactorisedPrior

    @abstractmethod
    def to_code(self, z: Tensor) -> Tensor:
        """The edge's half: the crossing tensor ``(B, C, H, W)`` to the code ``(B, K, P)``, before rounding."""

    @abstractmethod
    def from_code(self, integers_BKP: Tensor, dtype: torch.dtype) -> Tensor:
        """The server's half: integers to ``z_hat``."""

    def device_modules(self) -> Sequence[nn.Module]:
        """See LearnedCodec."""
        return self.encoder, self.prior

    @property
    def encoder_bytes(self) -> int:
        """See LearnedCodec; the coder needs the prior's tables, not its logits."""
        return super().encoder_bytes - self.prior.logits.nbytes

    def code(self, z: Tensor, snr_db: float | None) -> Coded:
        """See LearnedCodec; the prior estimates the rate, and rounding is straight through for the decoder."""
        y_BKP = self.to_code(z)
        everywhere = torch.ones_like(y_BKP, dtype=torch.bool)
        rounded = StraightThrough.apply(y_BKP, y_BKP.detach().round().clamp(-MOST, MOST), everywhere)
        rate_bits = self.prior.estimate(y_BKP, rounded).sum((1, 2)).mean()
        return Coded(self.from_code(rounded, z.dtype), rounded.flatten(1), rate_bits=rate_bits)

    def integers(self, z: Tensor) -> Tensor:
        """The edge's half: integers ``(B, K, P)`` as float32 of the crossing tensor ``(B, C, H, W)``."""
        return self.to_code(z).round().clamp(-MOST, MOST)

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
        return (self.from_code(integers.to(self.mean.device), dtype).cpu(),)

    def _check_heads(self, heads: Sequence[Head]) -> None:
        batch = self.batch_of_code(heads[0])
        most = batch * (context.MOST_SYMBOL_BYTES * math.prod(self.code_shape) + _SIZE_BYTES)
        if heads[0].num_bytes > most:
            raise PayloadError(f"expected at most {most} bytes for {batch} codes, got {heads[0].num_bytes}")

    def finish_training(self) -> None:
        """See LearnedCodec: fix the coder's tables."""
        self.prior.freeze()
