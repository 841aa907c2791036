"""Stage: one stage of a learned codec's training, as plain values."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Stage:
    """How long a stage lasts, and its loss: the sum of the terms below, each times its weight; 0 leaves a term out.

    Args:
        max_epochs: passes over the training data; 0 skips the stage.
        learning_rate: peak of the one-cycle schedule.
        batch_size: samples a step.
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
    batch_size: int = 128
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
        for name in ("learning_rate", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        weights = [field.name for field in fields(self) if field.name.endswith("_weight")]
        for name in ("max_epochs", "weight_decay", *weights):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not any(getattr(self, f"{name}_weight") for name in ("feature", "layers", "logits", "distill", "task")):
            raise ValueError(
                "a stage needs one of feature_weight, layers_weight, logits_weight, distill_weight and task_weight"
            )

    @property
    def is_judged_by_score(self) -> bool:
        """Whether the epoch of the best validation score is kept; otherwise that of the least validation loss."""
        return self.task_weight > 0 and self.rate_weight == 0
