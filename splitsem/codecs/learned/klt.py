"""Klt: what differs from a background, in the channels' principal directions, rounded and entropy-coded.

Shapes: B samples, C channels, H × W positions; K channels of the code at P = H · W positions.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from splitsem.codecs.learned.learned import LearnedId, Stage
from splitsem.codecs.learned.prior_codec import NeighbourPrior, PriorCodec

Centre = Literal["channel", "position"]
_BATCH = 16  # samples at a time whose integers are counted


class Klt(PriorCodec):
    """A Karhunen–Loève transform of the channels around a centre, whole numbers, and tables chosen by neighbours.

    ``calibrate`` finds all of it in closed form: the centre; the eigenvectors of the residual's covariance, the largest
    eigenvalue first (Goyal, "Theoretical foundations of transform coding", IEEE SPM 2001, section on the KLT); and
    tables from the training samples' integers. Stages of training are optional: they start from there, and move both
    transforms and the tables by gradients.

    Args:
        tensor_shape: ``(C, H, W)`` of the crossing tensor.
        step: of the quantiser, as a share of the residual's root mean square; a smaller one sends more bytes.
        centre: what is subtracted before coding: ``channel``: each channel's mean; ``position``: the median of the
            training samples at each position of each channel, which is the background where the camera stands still.
        code_channels: K; None for C.
        stages: see LearnedCodec.
        weights: see LearnedCodec.
    """

    codec_id = LearnedId.KLT
    encoder: nn.Conv2d
    prior: NeighbourPrior

    def __init__(
        self,
        tensor_shape: Sequence[int],
        step: float = 1.0,
        centre: Centre = "channel",
        code_channels: int | None = None,
        stages: Mapping[str, Stage] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(tensor_shape, stages, weights)
        channels, height, width = self.tensor_shape
        kept = channels if code_channels is None else code_channels
        if not step > 0:
            raise ValueError(f"step must be above 0, got {step}")
        if centre not in get_args(Centre):
            raise ValueError(f"centre must be one of {', '.join(get_args(Centre))}, got {centre!r}")
        if not 1 <= kept <= channels:
            raise ValueError(f"code_channels must be null or from 1 to the tensor's {channels}, got {code_channels}")
        self.step, self.centre = step, centre
        self.mean = torch.zeros(self.tensor_shape if centre == "position" else (channels, 1, 1))
        self.code_shape = (kept, height, width)
        self.encoder = nn.Conv2d(channels, kept, 1, bias=False)
        self.prior = NeighbourPrior(self.code_shape)
        self.decoder = nn.Conv2d(kept, channels, 1, bias=False)

    @torch.no_grad()
    def calibrate(self, z_batches: Sequence[Tensor]) -> None:
        """Find centre, transform and tables from samples of the crossing tensor, ``(B, C, H, W)`` each."""
        z = torch.cat([batch.float() for batch in z_batches])
        by_channel = z.transpose(0, 1).flatten(1).mean(1)[:, None, None]
        self.mean.copy_(z.median(0).values if self.centre == "position" else by_channel)
        residual_CN = (z - self.mean).transpose(0, 1).flatten(1)
        covariance = (residual_CN @ residual_CN.T / residual_CN.shape[1]).double()
        self.deviation.copy_(covariance.diagonal().sqrt().clamp(min=1e-6))
        step = self.step * float(covariance.diagonal().mean().sqrt().clamp(min=1e-6))
        directions_CK = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : self.code_shape[0]]
        self.encoder.weight.copy_((directions_CK.T / step)[:, :, None, None])
        self.decoder.weight.copy_((directions_CK * step)[:, :, None, None])
        self.prior.count(torch.cat([self.integers(part) for part in z.split(_BATCH)]))

    def to_code(self, z: Tensor) -> Tensor:
        """See PriorCodec."""
        coded: Tensor = self.encoder(z.float() - self.mean)
        return coded.flatten(2)

    def from_code(self, integers_BKP: Tensor, dtype: torch.dtype) -> Tensor:
        """See PriorCodec."""
        residual: Tensor = self.decoder(integers_BKP.reshape(-1, *self.code_shape))
        return (residual + self.mean).to(dtype)
