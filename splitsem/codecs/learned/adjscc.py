"""Adjscc: joint source and channel coding with attention to the noise (ADJSCC; Xu et al., arXiv 2012.00533).

Shapes: B samples, C channels, H × W positions; K channels of the code at h × w positions.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.codecs.learned.blocks import Centres, Gdn, SnrAttention, normalise_power
from splitsem.codecs.learned.learned import LearnedId, Stage
from splitsem.codecs.learned.symbol_codec import SymbolCodec

_SPREAD = 2.5  # in deviations of a code of mean square one: 99 % of a normal one


class Adjscc(SymbolCodec):
    """Four convolutions with GDN, PReLU and attention to the noise, and their mirror image; one network for all noises.

    The published symbols are analogue. Here a payload is bytes: each symbol, of power one, is rounded to 2^b even
    levels in ±2.5 that do not learn, and sent as b Gray-coded bits, in training as in use. The edge has no feedback
    from the receiver: its attention is told the middle of the range; the server's is told what the receiver saw.

    Args:
        tensor_shape: ``(C, H, W)`` of the crossing tensor.
        code_channels: K.
        bits_per_symbol: b.
        width: channels of the inner convolutions.
        strides: strides of the four convolutions, each 1 or 2.
        snr_range_db: see LearnedCodec.
        stages: see LearnedCodec.
        weights: see LearnedCodec.
    """

    codec_id = LearnedId.ADJSCC

    def __init__(
        self,
        tensor_shape: Sequence[int],
        code_channels: int = 16,
        bits_per_symbol: int = 4,
        width: int = 32,
        strides: Sequence[int] = (1, 2, 2, 2),
        snr_range_db: Sequence[float] = (-6.0, 7.0),
        stages: Mapping[str, Stage] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(tensor_shape, stages, weights, snr_range_db)
        if code_channels < 1 or width < 1:
            raise ValueError(f"code_channels and width must be at least 1, got {code_channels} and {width}")
        if len(strides) != 4 or any(stride not in (1, 2) for stride in strides):
            raise ValueError(f"strides must be four of 1 and 2, got {list(strides)}")
        channels, *size = self.tensor_shape
        self.total_stride = prod(strides)
        height, breadth = (-(-side // self.total_stride) for side in size)
        self.code_shape = (code_channels, height, breadth)
        self.num_symbols = prod(self.code_shape)
        plan = [*pairwise((channels, width, width, width, code_channels))]
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride, padding=1), Gdn(o), nn.PReLU(o))
            for (i, o), stride in zip(plan, strides, strict=True)
        )
        self.down_attention = nn.ModuleList(SnrAttention(o) for _, o in plan[:-1])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(o, i, 3, stride, padding=1, output_padding=stride - 1)
            for (i, o), stride in zip(reversed(plan), reversed(strides), strict=True)
        )
        self.up_norm = nn.ModuleList(nn.Sequential(Gdn(i, inverse=True), nn.PReLU(i)) for i, _ in reversed(plan[1:]))
        self.up_attention = nn.ModuleList(SnrAttention(i) for i, _ in reversed(plan[1:]))
        self.centres = Centres(bits_per_symbol, "gray", are_learned=False, spread=_SPREAD)

    def device_modules(self) -> Sequence[nn.Module]:
        """See LearnedCodec."""
        return self.down, self.down_attention, self.centres

    def to_code(self, x_BCHW: Tensor) -> Tensor:
        """See SymbolCodec."""
        assert self.snr_range_db is not None
        height, width = x_BCHW.shape[2:]
        x = F.pad(x_BCHW, (0, -width % self.total_stride, 0, -height % self.total_stride))
        assumed_db_B = torch.full((len(x),), sum(self.snr_range_db) / 2, device=x.device)
        for block, attention in zip(self.down[:-1], self.down_attention, strict=True):
            x = attention(block(x), assumed_db_B)
        return normalise_power(self.down[-1](x).flatten(1))

    def from_code(self, values_BN: Tensor, snr_db_B: Tensor) -> Tensor:
        """See SymbolCodec."""
        x = values_BN.reshape(-1, *self.code_shape)
        for conv, norm, attention in zip(self.up[:-1], self.up_norm, self.up_attention, strict=True):
            x = attention(norm(conv(x)), snr_db_B)
        return self.up[-1](x)
