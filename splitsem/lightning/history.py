"""History: the metrics of each epoch of a training, kept and shown."""

import logging
import sys

import lightning
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)


class History(Callback):
    """Keeps the epoch's metrics as plain numbers, a dict an epoch; logs them where no progress bar is drawn.

    Args:
        quiet: neither bar nor log, for one of many short trainings.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.epochs: list[dict[str, float]] = []
        self.quiet = quiet
        self.has_bar = sys.stderr.isatty() and not quiet

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the validation metrics of this epoch."""
        if not trainer.sanity_checking:
            self.epochs.append({name: float(v) for name, v in trainer.callback_metrics.items() if name[:4] == "val_"})

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the epoch's training loss, known only now."""
        if len(self.epochs) <= trainer.current_epoch:  # there was no validation
            self.epochs.append({})
        row = self.epochs[-1]
        row["train_loss"] = float(trainer.callback_metrics["train_loss"])
        if not self.has_bar and not self.quiet:
            log.info(
                "epoch %d/%d: loss %.4f, validation score %.4f",
                *(len(self.epochs), trainer.max_epochs, row["train_loss"], row["val_score"]),
            )
