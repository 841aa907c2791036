"""TaskModule: a task's loss, optimiser and validation score around any network."""

from typing import Any

import lightning
from torch import Tensor, nn

from splitsem.lightning.optimiser import adamw_one_cycle
from splitsem.models.capabilities import Regularised
from splitsem.tasks.task import Task


class TaskModule(lightning.LightningModule):
    """Trains ``network`` on ``task`` with AdamW and a one-cycle learning rate (Smith & Topin 2018, arXiv 1708.07120).

    Args:
        task: gives loss and metrics.
        network: any module from ``(batch, *input_shape)`` to ``(batch, *output_shape)``; a SplitNetwork trains
            with the codec in the loop, a Regularised one adds a term of its own to what is minimised.
        learning_rate: the peak of the cycle.
        weight_decay: AdamW's.
    """

    def __init__(self, task: Task, network: nn.Module, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        self.task, self.network = task, network
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.val_metrics = task.metrics()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """What is minimised on one batch; logs the task's part of it, which networks can be compared by."""
        x, y = batch
        loss = self.task.loss(self.network(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss + self.network.regularisation() if isinstance(self.network, Regularised) else loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        x, y = batch
        self.val_metrics.update(self.network(x), y)

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
