"""Layers that learned codecs share: GDN, attention to the signal-to-noise ratio, power normalisation, learned levels.

Shapes: B samples, C channels, H × W positions; N symbols a sample, L = 2^bits levels.
"""

from math import erfc, sqrt
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.codecs.tensorwise import StraightThrough

_SNR_SCALE_DB = 10.0


class Gdn(nn.Module):
    """Generalised divisive normalisation ``y_i = x_i / sqrt(β_i + Σ_j γ_ij x_j²)``; the inverse multiplies.

    Ballé, Laparra, Simoncelli, arXiv 1511.06281, equation 1. β and γ are kept positive as squares of what is learned.

    Args:
        channels: C.
        inverse: multiply instead of dividing, for decoders.
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta_root = nn.Parameter(torch.ones(channels))
        self.gamma_root = nn.Parameter((0.1 * torch.eye(channels) + 1e-3).sqrt())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The normalised tensor, of the same shape."""
        gamma = self.gamma_root.square()[:, :, None, None]
        norm = F.conv2d(x_BCHW.square(), gamma, self.beta_root.square() + 1e-6)
        return x_BCHW * (norm.sqrt() if self.inverse else norm.rsqrt())


class SnrAttention(nn.Module):
    """Scales channels by what they hold and by the link: ``x · σ(conv(φ(conv(pool(x) ‖ snr))))``.

    Xu et al., "Wireless image transmission using deep source channel coding with attention modules" (ADJSCC),
    arXiv 2012.00533, figure 4.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // 4)
        self.squeeze = nn.Linear(channels + 1, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x_BCHW: Tensor, snr_db_B: Tensor) -> Tensor:
        """The scaled tensor, of the same shape; ``snr_db_B`` is ``(B,)``."""
        seen = torch.cat([x_BCHW.mean((2, 3)), snr_db_B[:, None] / _SNR_SCALE_DB], 1)
        scale = self.excite(F.leaky_relu(self.squeeze(seen))).sigmoid()
        return x_BCHW * scale[:, :, None, None]


def normalise_power(y_BN: Tensor) -> Tensor:
    """Scale each sample's code to a mean square of one."""
    return y_BN * (y_BN.square().mean(1, keepdim=True) + 1e-8).rsqrt()


Mapping = Literal["gray", "natural"]
Start = Literal["even", "random"]


def bit_error_rate(snr_db: float) -> float:
    """Share of wrong bits over BPSK and white noise: ``½ · erfc(sqrt(10^(snr_db / 10)))``, snr_db being Eb/N0.

    >>> round(bit_error_rate(0.0), 4)
    0.0786
    """
    return 0.5 * erfc(sqrt(10 ** (snr_db / 10)))


class Received(NamedTuple):
    """A code behind a channel.

    Attributes:
        values: level of each received symbol ``(B, N)``, with gradients.
        damage: expected squared error of each sent value ``(B, N)`` from rounding and wrong bits, with gradients.
    """

    values: Tensor
    damage: Tensor


class Centres(nn.Module):
    """Rounds values to the nearest of L learned levels; a symbol is the rank of its level, as Gray-coded bits or plain.

    The hard choice has the gradient of the soft one ``Σ softmax(−(y − c)² / 2s²) · c``, s being half the mean
    distance of neighbours (Agustsson et al., arXiv 1704.00648), so that values and levels learn. A symbol that
    the channel changed has the gradient of the level that arrived, and none towards the sent value.

    Args:
        bits_per_symbol: 1…8.
        mapping: ``gray``: neighbouring levels differ in one bit; ``natural``: the rank as a binary number.
        are_learned: False keeps the levels where they start.
        spread: the outermost levels of an even start; the default suits values of mean square one.
        start: ``even``: evenly spaced; ``random``: drawn from a standard normal distribution with a copy of torch's
            global generator, so that the next layer starts alike in either case.
    """

    word_of_rank: Tensor
    rank_of_word: Tensor
    num_differing_bits: Tensor

    def __init__(
        self,
        bits_per_symbol: int,
        mapping: Mapping = "gray",
        are_learned: bool = True,
        spread: float | None = None,
        start: Start = "even",
    ) -> None:
        super().__init__()
        if not (isinstance(bits_per_symbol, int) and 1 <= bits_per_symbol <= 8):
            raise ValueError(f"bits_per_symbol must be 1…8, got {bits_per_symbol}")
        if mapping not in get_args(Mapping):
            raise ValueError(f"mapping must be one of {', '.join(get_args(Mapping))}, got {mapping!r}")
        if start not in get_args(Start):
            raise ValueError(f"start must be one of {', '.join(get_args(Start))}, got {start!r}")
        self.bits_per_symbol = bits_per_symbol
        num_levels = 1 << bits_per_symbol
        outermost = spread if spread is not None else min(0.5 + 0.4 * bits_per_symbol, 2.5)
        levels = _normal(num_levels) if start == "random" else torch.linspace(-outermost, outermost, num_levels)
        self.levels = nn.Parameter(levels, requires_grad=are_learned)
        ranks = torch.arange(num_levels)
        word_of_rank = ranks ^ (ranks >> 1) if mapping == "gray" else ranks
        self.register_buffer("word_of_rank", word_of_rank, persistent=False)
        self.register_buffer("rank_of_word", word_of_rank.argsort(), persistent=False)
        differing = word_of_rank[:, None] ^ word_of_rank[None, :]
        distance = torch.stack([(differing >> bit) & 1 for bit in range(bits_per_symbol)]).sum(0)
        self.register_buffer("num_differing_bits", distance, persistent=False)

    def forward(self, y_BN: Tensor, bit_error_rate: float = 0.0) -> Received:
        """Round, send bit by bit over a memoryless channel, and look up what arrived; differentiable."""
        levels = self.levels.sort().values  # L comes first below: a softmax over a short last dimension is slow
        squared_LBN = (y_BN - levels[:, None, None]).square()
        width = (levels[-1] - levels[0]).detach().clamp(min=1e-6) / (len(levels) - 1) / 2
        choice_LBN = (squared_LBN * (-1 / (2 * width**2))).softmax(0)
        sent = self._ranks(y_BN)
        soft = (levels @ choice_LBN.flatten(1)).view_as(y_BN)
        rounded = StraightThrough.apply(soft, levels.detach()[sent], torch.ones_like(soft, dtype=torch.bool))
        arrived = self._flip(sent, bit_error_rate)
        values = torch.where(arrived == sent, rounded, levels[arrived])
        damage_LBN = squared_LBN + self._channel_damage(levels, bit_error_rate)[:, None, None]
        return Received(values, (choice_LBN * damage_LBN).sum(0))

    @torch.no_grad()
    def words(self, y_BN: Tensor) -> Tensor:
        """The symbols of a code as words of ``bits_per_symbol`` bits, uint8."""
        return self.word_of_rank[self._ranks(y_BN)].to(torch.uint8)

    @torch.no_grad()
    def values(self, words_BN: Tensor) -> Tensor:
        """The levels that received words stand for; every word stands for one."""
        return self.levels.sort().values[self.rank_of_word[words_BN.long()]]

    @torch.no_grad()
    def _ranks(self, y_BN: Tensor) -> Tensor:
        """The number of the nearest level, counted from the lowest."""
        levels = self.levels.sort().values
        return torch.bucketize(y_BN, (levels[1:] + levels[:-1]) / 2)

    def _flip(self, ranks: Tensor, bit_error_rate: float) -> Tensor:
        if bit_error_rate == 0:
            return ranks
        is_wrong = torch.rand(self.bits_per_symbol, *ranks.shape, device=ranks.device) < bit_error_rate
        mask = sum(flips.long() << bit for bit, flips in enumerate(is_wrong))
        return self.rank_of_word[self.word_of_rank[ranks] ^ mask]

    def _channel_damage(self, levels: Tensor, bit_error_rate: float) -> Tensor:
        """Expected squared difference between the level that arrives and each sent level ``(L,)``."""
        num_bits = self.bits_per_symbol
        wrong = self.num_differing_bits
        probability_LL = bit_error_rate**wrong * (1 - bit_error_rate) ** (num_bits - wrong)
        return (probability_LL * (levels[:, None] - levels[None, :]).square()).sum(1)


def _normal(num_levels: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        return torch.randn(num_levels).sort().values
