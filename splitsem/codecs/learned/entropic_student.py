"""EntropicStudent: a bottleneck with a learned prior, entropy-coded (Matsubara et al., WACV 2022, arXiv 2108.11898).

Shapes: B samples, C channels, H × W positions; K channels of the code at h × w = P positions.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.codecs.learned.blocks import Gdn
from splitsem.codecs.learned.learned import LearnedId, Stage
from splitsem.codecs.learned.prior_codec import FactorisedPrior, PriorCodec


class EntropicStudent(PriorCodec):
    """Convolutions with GDN, integers, a factorised prior and its entropy coder; convolutions with inverse GDN back.

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

    def to_code(self, z: Tensor) -> Tensor:
        """See PriorCodec."""
        x_BCHW = self.standardise(z)
        height, width = x_BCHW.shape[2:]
        return self.encoder(F.pad(x_BCHW, (0, -width % 4, 0, -height % 4))).flatten(2)

    def from_code(self, integers_BKP: Tensor, dtype: torch.dtype) -> Tensor:
        """See PriorCodec."""
        return self.restore(self.decoder(integers_BKP.reshape(-1, *self.code_shape)), dtype)
