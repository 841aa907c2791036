"""Stage: one stage of a learned codec's training, as plain values."""

from dataclasses import dataclass, fields

_LEAST_BATCH, _MOST_BATCH = 8, 128
_BATCHES = 100  # of an epoch, at least, where the batch is not given


@dataclass(frozen=True)
class Stage:
    """How long a stage lasts, and its loss: the sum of the terms below, each times its weight; 0 leaves a term out.

    Args:
        max_epochs: passes over the training data; 0 skips the stage.
        learning_rate: peak of the one-cycle schedule.
        batch_size: samples a step; None: 128, or on small data fewer, so that an epoch has 100 steps (but at least 8).
        weight_decay: AdamW's.
        feature_weight: of the squared error of ``z_hat``, as a share of the variance of ``z``.
        layers_weight: of the sum of the same share at every later split point of the tail at which one tensor crosses
            (the uncoded network is the teacher).
        logits_weight: of the mean squared error of the network's output against the uncoded network's.
        distill_weight: of the Kullback–Leibler divergence of the output from the uncoded network's.
        task_weight: of the task's own loss.
        rate_weight: of the estimated bits of a sample's code.
        importance_weight: of the expected damage of the code's symbols, each weighted by its importance to the task.
        local_weight: of the task's loss of the local output alone, for codecs that make one.
        skewness_weight: of AgileNN's loss for features whose importance is not concentrated in the local ones.
        is_encoder_frozen: whether only the decoder learns, and the tail where it is tuned.
        is_tail_tuned: whether the server's half of the network learns too, in a copy that belongs to the codec; its
            batch normalisation keeps its statistics. The uncoded network stays as it is, and the teacher.
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
