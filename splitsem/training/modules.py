"""LightningModules that train a network on a task: TaskModule as a whole, LocalModule on a federated client."""

import math
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from splitsem.models.capabilities import Regularised
from splitsem.tasks.task import Task
from splitsem.training.optimiser import adamw_one_cycle
from splitsem.trees import call, num_samples


class TaskModule(lightning.LightningModule):
    """Trains ``network`` on ``task`` with AdamW and a one-cycle learning rate (Smith & Topin 2018, arXiv 1708.07120).

    Args:
        task: gives loss and metrics.
        network: any module from ``(batch, *input_shape)`` to ``(batch, *output_shape)``; a SplitNetwork trains
            with the codec in the loop, a Regularised network adds its own term to the loss.
        learning_rate: the peak of the cycle.
        weight_decay: AdamW's.
    """

    def __init__(self, task: Task, network: nn.Module, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        self.task, self.network = task, network
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.val_metrics = task.metrics()

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, with the network's own term; logs the task's part, which all networks share."""
        x, y = batch
        loss = self.task.loss(call(self.network, x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss + self.network.regularisation() if isinstance(self.network, Regularised) else loss

    def validation_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        x, y = batch
        self.val_metrics.update(call(self.network, x), y)

    def on_validation_epoch_end(self) -> None:
        """Log every metric of the task as ``val_<name>``."""
        values = self.val_metrics.compute()
        self.val_metrics.reset()
        self.log("val_score", values.pop("score"), prog_bar=True)
        self.log_dict({f"val_{name}": value for name, value in values.items()})

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle over all steps of the fit."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        total_steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = adamw_one_cycle(parameters, self.learning_rate, self.weight_decay, total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


MakeOptimizer = Callable[..., Optimizer]


class KeepsLoss(lightning.LightningModule):
    """Keeps the mean loss of an epoch for ``run_bare``, where Lightning's log is off.

    Attributes:
        train_loss: mean of the task's loss over the last epoch; NaN before the first epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.train_loss = math.nan
        self._summed, self._num_samples = torch.zeros(()), 0

    def count(self, loss: Tensor, num_samples: int) -> None:
        """Add a batch's mean loss to the epoch's mean."""
        self._summed += loss.detach() * num_samples
        self._num_samples += num_samples

    def on_train_epoch_start(self) -> None:
        """Begin a new mean loss."""
        self._summed, self._num_samples = torch.zeros((), device=self.device), 0

    def on_train_epoch_end(self) -> None:
        """Set ``train_loss`` to the epoch's mean."""
        self.train_loss = float(self._summed) / max(self._num_samples, 1)


class LocalModule(KeepsLoss):
    """Minimises ``loss + μ/2 · ‖w − w₀‖²`` at a constant rate (FedProx: Li et al., MLSys 2020, arXiv 1812.06127).

    Args:
        task: gives the loss.
        network: as received; its weights are w₀.
        make_optimizer: makes a new optimiser from the weights and ``lr`` for each training.
        learning_rate: of the optimiser.
        proximal_mu: μ; 0: no pull towards the received weights.
    """

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        make_optimizer: MakeOptimizer,
        learning_rate: float,
        proximal_mu: float = 0.0,
    ) -> None:
        super().__init__()
        if proximal_mu < 0:
            raise ValueError(f"proximal_mu must be 0 or more, got {proximal_mu}")
        self.task, self.network = task, network
        self.make_optimizer, self.learning_rate, self.proximal_mu = make_optimizer, learning_rate, proximal_mu
        self._trained = [p for p in network.parameters() if p.requires_grad]
        self._received = [p.detach().clone() for p in self._trained] if proximal_mu else []

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, with the FedProx term; ``train_loss`` counts the task's part alone."""
        x, y = batch
        loss = self.task.loss(call(self.network, x), y)
        self.count(loss, num_samples(x))
        if self.proximal_mu:
            pairs = zip(self._trained, self._received, strict=True)
            distance = torch.stack([(p - received.to(p.device)).square().sum() for p, received in pairs]).sum()
            loss = loss + self.proximal_mu / 2 * distance
        return loss

    def configure_optimizers(self) -> Any:
        """A new optimiser over the weights that are trained."""
        return self.make_optimizer(self._trained, lr=self.learning_rate)
