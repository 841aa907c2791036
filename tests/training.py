"""A small network, its training engine and plans for it, for the tests of split training."""

import copy
import functools
from collections.abc import Callable

import torch
from torch import nn

from splitsem.codecs.tensorwise import Identity
from splitsem.models.cnn import StagedCnn
from splitsem.remote.head_trainer import HeadTrainer
from splitsem.remote.labels import codec_label, weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.training_engine import TrainingEngine, TrainingLimits
from splitsem.remote.training_plan import TrainingPlan, task_name
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.trainable import TrainableCut
from splitsem.tasks.digits import Digits
from splitsem.training.fit import Fit

SHAPE = (1, 8, 8)
FIT = Fit(2, 64, learning_rate=0.01, weight_decay=0.1, gradient_clip_norm=0.5, limit_train_batches=4)


class Side:
    """One end: a network of its own, as both ends build it for themselves.

    Args:
        dropout: the network's.
        make: makes another network than the usual one.
    """

    def __init__(self, dropout: float = 0.0, make: Callable[[], nn.Module] | None = None) -> None:
        torch.manual_seed(0)
        usual = functools.partial(StagedCnn, SHAPE, (10,), widths=[4, 8], stem_width=4, dropout=dropout)
        self.model = (make or usual)().eval()
        self.graph = SplitGraph(self.model, SHAPE)
        self.training = SplitGraph(self.model, SHAPE, granularity="op", training=True)
        self.initial = copy.deepcopy(self.model.state_dict())

    def reset(self) -> "Side":
        """Untrain the network."""
        self.model.load_state_dict(self.initial)
        return self

    def engine(self, limits: TrainingLimits | None = None, **settings) -> TrainingEngine:
        """The server's side of this network."""
        tails = TailEngine(self.graph, weights_digest(self.model))
        tails.training = TrainingEngine(tails, self.training, Digits(), limits or TrainingLimits(), **settings)
        return tails.training

    def plan(self, point: str = "stage1", codec=None, **changes) -> TrainingPlan:
        """What the device proposes; FIT's settings."""
        settings = dict(
            fingerprint=self.graph.fingerprint,
            weights=weights_digest(self.model),
            point=point,
            granularity="layer",
            precision="float32",
            codec=codec_label(codec or Identity()),
            training_fingerprint=self.training.fingerprint,
            task=task_name(Digits()),
            learning_rate=FIT.learning_rate,
            weight_decay=FIT.weight_decay,
            gradient_clip_norm=FIT.gradient_clip_norm,
            total_steps=8,
            seed=0,
        )
        return TrainingPlan(**settings | changes)

    def trainer(self, tail, point: str = "stage1", codec=None, **changes) -> HeadTrainer:
        """The device's side of this network at ``point``, connected to ``tail``."""
        codec = codec or Identity()
        cut = TrainableCut(self.graph, self.training, point)
        return HeadTrainer(self.model, cut, codec, tail, self.plan(point, codec, **changes))


def batches(num: int, size: int = 64) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Digits, the same for every call."""
    train = Digits().splits().train
    samples = [train[i] for i in range(num * size)]
    x, y = (torch.stack([torch.as_tensor(sample[k]) for sample in samples]) for k in (0, 1))
    return list(zip(x.split(size), y.split(size), strict=True))
