"""LearnedCodec: what all learned codecs share — one crossing tensor, weights on both ends, scaling, training.

Shapes: B samples, C channels, H × W positions of the crossing tensor.
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import isfinite, prod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.learned.stage import Stage
from splitsem.errors import ConfigError


class Coded(NamedTuple):
    """What a learned codec makes of one crossing tensor in memory, with gradients.

    Attributes:
        z_hat: what the tail receives ``(B, C, H, W)``.
        code: the values that the decoder was given, one row a sample ``(B, N)``; None where there is no such thing.
        damage: expected squared error of each value of the code ``(B, N)``, or None.
        rate_bits: estimated bits of a sample's code, a scalar, or None where its length is fixed.
        local: what the device makes of it without the link, see ``Codec.local_output``.
    """

    z_hat: Tensor
    code: Tensor | None = None
    damage: Tensor | None = None
    rate_bits: Tensor | None = None
    local: Tensor | None = None


class LearnedCodec(Codec):
    """An encoder for the device and a decoder for the server, built for one image-like crossing tensor.

    ``forward`` in training mode goes through the channel that the codec is trained for; in eval mode it is what the
    bytes give over a clean link. Channels are standardised by mean and deviation of the training data (``calibrate``).

    Args:
        tensor_shape: shape of the crossing tensor for one sample, ``(C, H, W)``.
        stages: how it is trained, in order, by name.
        weights: a .safetensors file of an earlier training; None: trained, or found in the cache.
        snr_range_db: least and largest signal-to-noise ratio that training meets, drawn anew for each batch.
    """

    codec_id: ClassVar[int]
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        tensor_shape: Sequence[int],
        stages: Mapping[str, Stage] | None,
        weights: str | None,
        snr_range_db: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        shape = tuple(tensor_shape)
        if len(shape) != 3 or not all(isinstance(size, int) and size >= 1 for size in shape):
            raise ValueError(f"tensor_shape must be (channels, height, width), each at least 1, got {shape}")
        if snr_range_db is not None and not (
            len(snr_range_db) == 2 and all(map(isfinite, snr_range_db)) and snr_range_db[0] <= snr_range_db[1]
        ):
            raise ValueError(f"snr_range_db must be (least, largest) in dB, got {tuple(snr_range_db)}")
        self.tensor_shape: tuple[int, ...] = shape
        self.stages = dict(stages or {})
        self.weights = weights
        self.snr_range_db = None if snr_range_db is None else (float(snr_range_db[0]), float(snr_range_db[1]))
        self.register_buffer("mean", torch.zeros(shape[0]))
        self.register_buffer("deviation", torch.ones(shape[0]))

    @abstractmethod
    def code(self, z: Tensor, snr_db: float | None) -> Coded:
        """Encode, send and decode in memory, with gradients.

        Args:
            z: the crossing tensor ``(B, C, H, W)``.
            snr_db: of the link; None is a clean link.
        """

    @abstractmethod
    def device_modules(self) -> Sequence[nn.Module]:
        """What runs on the device; the rest is the server's."""

    def adopt_tail(self, tail: nn.Module) -> None:
        """Take a copy of the network's tail, to be tuned or loaded, where a stage of the training tunes it."""
        if any(stage.is_tail_tuned for stage in self.stages.values()):
            self.tail = copy.deepcopy(tail)

    def finish_training(self) -> None:
        """Fix what is derived from the learned weights and must be the same on both ends."""

    @property
    def encoder_bytes(self) -> int:
        """Size of the weights that the device holds for this codec."""
        tensors = [t for module in self.device_modules() for t in module.state_dict().values()]
        return sum(t.nbytes for t in (*tensors, self.mean, self.deviation))

    def draw_snr_db(self) -> float | None:
        """A ratio of the training's range, from torch's global generator; None where training meets no noise."""
        if self.snr_range_db is None:
            return None
        low, high = self.snr_range_db
        return low + (high - low) * float(torch.rand(()))

    @torch.no_grad()
    def calibrate(self, z_batches: Sequence[Tensor]) -> None:
        """Take mean and deviation of each channel from samples of the crossing tensor, ``(B, C, H, W)`` each."""
        z_CN = torch.cat([z.float().transpose(0, 1).flatten(1) for z in z_batches], 1)
        self.mean.copy_(z_CN.mean(1))
        deviation = z_CN.std(1)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, z: Tensors) -> Tensors:
        """See Codec; the class says what channel it goes through."""
        tensor = self._only(z)
        return (self.code(tensor, self.draw_snr_db() if self.training else None).z_hat,)

    def standardise(self, z: Tensor) -> Tensor:
        """Channels of mean 0 and deviation 1, float32."""
        return (z.float() - self.mean[:, None, None]) / self.deviation[:, None, None]

    def restore(self, x_BCHW: Tensor, dtype: torch.dtype) -> Tensor:
        """Undo ``standardise``; also crops what the decoder's strides made too large."""
        _, height, width = self.tensor_shape
        cropped = x_BCHW[:, :, :height, :width]
        return (cropped * self.deviation[:, None, None] + self.mean[:, None, None]).to(dtype)

    def known_snr_db(self, seen_db: Sequence[float | None]) -> Tensor:
        """What the decoder is told ``(B,)``: the links' ratios within the range it learned, its upper end for None."""
        low, high = self.snr_range_db or (0.0, 0.0)
        known = [high if snr_db is None else min(max(snr_db, low), high) for snr_db in seen_db]
        return torch.tensor(known, device=self.mean.device)

    def _only(self, z: Tensors) -> Tensor:
        """The one tensor of a cut, on this codec's device; ConfigError unless it is what this was built for."""
        got = " ".join(f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in z)
        if len(z) != 1 or not z[0].is_floating_point() or tuple(z[0].shape[1:]) != self.tensor_shape or not len(z[0]):
            raise ConfigError(
                f"this {type(self).__name__} was built for one floating-point tensor "
                f"(batch, {', '.join(map(str, self.tensor_shape))}), got {got or 'no tensor'}"
            )
        return z[0].to(self.mean.device)

    def extra_repr(self) -> str:
        """What it was built for."""
        return f"tensor_shape={self.tensor_shape}, {prod(self.tensor_shape)} values"
