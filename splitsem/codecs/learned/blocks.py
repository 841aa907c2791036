"""Layers that learned codecs share: GDN, attention to the signal-to-noise ratio, power normalisation.

Shapes: B samples, C channels, H × W positions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
