"""LearnedCodec: what all learned codecs share — one crossing tensor, weights on both ends, scaling, training.

Shapes: B samples, C channels, H × W positions of the crossing tensor.
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from math import isfinite, prod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.expected import Head
from splitsem.errors import ConfigError, PayloadError

_LEAST_BATCH, _MOST_BATCH = 8, 128
_BATCHES = 100  # least number of batches in an epoch, where the batch size is not given


@dataclass(frozen=True)
class Stage:
    """How long a stage lasts, and its loss: the sum of the terms below, each times its weight; 0 leaves a term out.

    Args:
        max_epochs: passes over the training data; 0 skips the stage.
        learning_rate: peak of the one-cycle schedule.
        batch_size: samples a step; None: 128, or on small data fewer, so that an epoch has 100 steps (but at least 8).
        weight_decay: weight decay of AdamW.
        feature_weight: weight of the squared error of ``z_hat``, as a share of the variance of ``z``.
        layers_weight: weight of the squared errors, as shares of the variance, summed over the tail's split points
            at which one tensor crosses (the uncoded network is the teacher).
        logits_weight: weight of the squared error of the network's output against the uncoded network's, as a share of
            the variance; of several tensors the mean.
        distill_weight: weight of the Kullback–Leibler divergence of the output's classes from the uncoded network's; of
            an output that is no logits (a detector's raw maps), the same as for ``logits_weight``.
        task_weight: weight of the task's own loss; where it has none for the network's raw output, or no labels, what
            ``distill_weight`` stands for takes its place, and the log says so.
        rate_weight: weight of the estimated bits of a sample's code.
        importance_weight: weight of the expected damage of the code's symbols, each times its importance to the task.
        local_weight: weight of the task's loss of the local output alone, for codecs with a local output.
        skewness_weight: weight of AgileNN's loss for features whose importance is not concentrated in the local ones.
        is_encoder_frozen: whether only the decoder learns, and the tail where it is tuned.
        is_tail_tuned: whether the server's half of the network learns too, in a copy that belongs to the codec; its
            batch normalisation keeps its statistics. The uncoded network stays as it is and remains the teacher.
        limit_train_batches: share (float) or number (int) of batches an epoch, to shrink a trial run.
    """

    max_epochs: int
    learning_rate: float = 3e-3
    batch_size: int | None = None
    weight_decay: float = 1e-4
    feature_weight: float = 0.0
    layers_weight: float = 0.0
    logits_weight: float = 0.0
    distill_weight: float = 0.0
    task_weight: float = 0.0
    rate_weight: float = 0.0
    importance_weight: float = 0.0
    local_weight: float = 0.0
    skewness_weight: float = 0.0
    is_encoder_frozen: bool = False
    is_tail_tuned: bool = False
    limit_train_batches: float | int = 1.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if self.batch_size is not None and self.batch_size <= 0:
            raise ValueError(f"batch_size must be above 0, or null for one that suits the data, got {self.batch_size}")
        limit = self.limit_train_batches
        if not (limit >= 1 if isinstance(limit, int) else 0 < limit <= 1):
            raise ValueError(f"limit_train_batches must be a share in (0, 1] or a whole number from 1 on, got {limit}")
        weights = [field.name for field in fields(self) if field.name.endswith("_weight")]
        for name in ("max_epochs", "weight_decay", *weights):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not any(getattr(self, f"{name}_weight") for name in ("feature", "layers", "logits", "distill", "task")):
            raise ValueError(
                "a stage needs one of feature_weight, layers_weight, logits_weight, distill_weight and task_weight"
            )

    def batch_size_for(self, num_samples: int) -> int:
        """Samples a step with so much training data.

        >>> stage = Stage(1, task_weight=1.0)
        >>> [stage.batch_size_for(n) for n in (55_000, 1_078, 300, 5)]
        [128, 10, 8, 5]
        """
        if self.batch_size is not None:
            return self.batch_size
        return min(_MOST_BATCH, max(_LEAST_BATCH, num_samples // _BATCHES), num_samples)

    @property
    def is_judged_by_score(self) -> bool:
        """Whether the epoch of the best validation score is kept; otherwise that of the least validation loss."""
        return self.task_weight > 0 and self.rate_weight == 0


class Coded(NamedTuple):
    """What a learned codec makes of one crossing tensor in memory, with gradients.

    Attributes:
        z_hat: what the tail receives ``(B, C, H, W)``.
        code: the values that the decoder was given, one row a sample ``(B, N)``; None for a codec without such values.
        damage: expected squared error of each value of the code ``(B, N)``, or None.
        rate_bits: estimated bits of a sample's code, a scalar, or None where its length is fixed.
        local: what the edge makes of the tensor without the link, see ``Codec.local_output``.
    """

    z_hat: Tensor
    code: Tensor | None = None
    damage: Tensor | None = None
    rate_bits: Tensor | None = None
    local: Tensor | None = None


class LearnedCodec(Codec):
    """An encoder for the edge and a decoder for the server, built for one image-like crossing tensor.

    ``forward`` in train mode goes through the channel that the codec is trained for; in eval mode it gives what the
    bytes give over a clean link. Channels are standardised by mean and deviation of the training data (``calibrate``).

    Args:
        tensor_shape: shape of the crossing tensor for one sample, ``(C, H, W)``.
        stages: the stages of its training, in order, by name.
        weights: a .safetensors file of an earlier training; None trains the codec, or takes weights from the cache.
        snr_range_db: least and largest signal-to-noise ratio that training meets, drawn anew for each batch.
    """

    is_framed = True
    is_learned = True
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
            snr_db: signal-to-noise ratio of the link; None is a clean link.
        """

    @abstractmethod
    def device_modules(self) -> Sequence[nn.Module]:
        """The modules that run on the edge; all others run on the server."""

    def adopt_tail(self, tail: nn.Module) -> None:
        """Take a copy of the network's tail, to be tuned or loaded, where a stage of the training tunes it."""
        if any(stage.is_tail_tuned for stage in self.stages.values()):
            self.tail = copy.deepcopy(tail)

    def finish_training(self) -> None:
        """Fix what is derived from the learned weights and must be the same on both ends."""

    @property
    def encoder_bytes(self) -> int:
        """Size of the weights that the edge holds for this codec."""
        tensors = [t for module in self.device_modules() for t in module.state_dict().values()]
        return sum(t.nbytes for t in (*tensors, self.mean, self.deviation))

    def draw_snr_db(self) -> float | None:
        """A ratio in ``snr_range_db``, from torch's global generator; None where training meets no noise."""
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

    def batch_of_code(self, head: Head, *code_shape: int) -> int:
        """The samples of a code of shape ``(samples, *code_shape)``. Raises PayloadError for what is not expected."""
        if not head.dtype.is_floating_point or not head.shape or head.shape[1:] != code_shape:
            raise PayloadError(f"expected the code of one floating-point tensor, got {head.dtype} {head.shape}")
        self.expected.check([(head.dtype, (head.shape[0], *self.tensor_shape))])
        return head.shape[0]

    def _only(self, z: Tensors) -> Tensor:
        """The one tensor of a cut, at this codec's placement; ConfigError unless the codec was built for it."""
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


class LearnedId(IntEnum):
    """Which learned codec made a payload, above ``wire.CodecId``. Append only."""

    SEMANTICNN = 128
    DEEPCOD = 129
    ADJSCC = 130
    ENTROPIC_STUDENT = 131
    CRBQ = 132
    AGILENN = 133
    BOTTLENECK = 134
    KLT = 135
