"""LightningModules of split training, where the tail learns on another machine: on a task, or on a client's samples."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from splitsem.errors import ConfigError
from splitsem.remote.head_trainer import HeadTrainer
from splitsem.tasks.task import Task
from splitsem.training.fit import Fit
from splitsem.training.modules import KeepsLoss, TaskModule
from splitsem.trees import num_samples


def train_split(fit: Fit, trainer: HeadTrainer, task: Task, seed: int) -> list[dict[str, float]]:
    """Train the head here and the tail on the server, as ``fit.run`` trains a whole network; returns its metrics.

    Raises:
        ConfigError: ``fit`` has a gradient codec, which works for whole networks only.
    """
    if fit.gradient_codec is not None:
        raise ConfigError("trainer.gradient_codec is workflow=train's; here: codec@workflow.gradient_codec=")
    epochs = fit.run_module(SplitTaskModule(task, trainer), task, trainer.device, seed)
    trainer.finish()
    return epochs


def train_local_split(fit: Fit, trainer: HeadTrainer, samples: Dataset, seed: int) -> float:
    """Train a client's head on its own samples, the tail on the server; returns the last epoch's mean loss.

    The training is that of ``fit.run_local``, with ``fit.local_steps`` steps.
    """
    return fit.run_local_module(LocalSplitModule(trainer), samples, trainer.device, seed)


class SplitTaskModule(TaskModule):
    """Runs a HeadTrainer's steps in Lightning's loop; the halves with the best validation score are kept.

    Each half has its own optimiser, the tail's on the server, so Lightning optimises nothing (manual optimisation).

    Args:
        task: gives metrics.
        trainer: does the steps.
    """

    def __init__(self, task: Task, trainer: HeadTrainer) -> None:
        super().__init__(task, nn.Identity(), trainer.plan.learning_rate, trainer.plan.weight_decay)
        self.automatic_optimization = False
        self.halves = trainer
        self._best_score = float("-inf")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One round trip of split training."""
        x, y = batch
        loss = torch.tensor(self.halves.step(x, y))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=num_samples(x))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to the validation metrics, through the link."""
        x, y = batch
        self.val_metrics.update(self.halves.evaluate(x), y)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, and keep both halves when the score is the best so far."""
        score = float(self.val_metrics.compute()["score"])
        super().on_validation_epoch_end()
        if score > self._best_score:
            self._best_score = score
            self.halves.keep()

    def configure_optimizers(self) -> Any:
        """None: the trainer has its own optimisers."""
        return None


class LocalSplitModule(KeepsLoss):
    """Runs a HeadTrainer's steps on a federated client's samples, without validation and without a choice of epoch.

    Args:
        trainer: does the steps.
    """

    def __init__(self, trainer: HeadTrainer) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.halves = trainer

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One round trip of split training."""
        x, y = batch
        loss = torch.tensor(self.halves.step(x, y))
        self.count(loss, num_samples(x))
        return loss

    def configure_optimizers(self) -> Any:
        """None: the trainer has its own optimisers."""
        return None
