"""run_loop and run_bare are the Lightning loops of every training; run_loop keeps the best epoch's weights."""

import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from splitsem.placement import keep_freed_memory
from splitsem.training.time_left import time_left

log = logging.getLogger(__name__)
_BAR = "{desc}{percentage:3.0f}% |{bar}| {remaining} left{postfix}"


class History(Callback):
    """Keeps each epoch's metrics as a dict of plain numbers, and shows them with the time that is left.

    A terminal gets a bar over the batches of all epochs, what is no terminal a line of the log an epoch.

    Args:
        quiet: draw no bar and log nothing, for one of many short trainings.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.epochs: list[dict[str, float]] = []
        self.quiet = quiet
        self.has_bar = sys.stderr.isatty() and not quiet
        self.bar: tqdm | None = None
        self.began_s = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to count."""
        self.began_s = time.perf_counter()
        if self.has_bar:
            num_batches = trainer.num_training_batches * (trainer.max_epochs or 0)
            self.bar = tqdm(total=num_batches, desc="Training", leave=False, bar_format=_BAR)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """The same, where the training fails."""
        if self.bar is not None:
            self.bar.close()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the validation metrics of this epoch."""
        if not trainer.sanity_checking:
            self.epochs.append({name: float(v) for name, v in trainer.callback_metrics.items() if name[:4] == "val_"})

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the epoch's training loss, which Lightning computes after the validation."""
        if len(self.epochs) <= trainer.current_epoch:  # there was no validation
            self.epochs.append({})
        row = self.epochs[-1]
        row["train_loss"] = float(trainer.callback_metrics["train_loss"])
        num_epochs = trainer.max_epochs or len(self.epochs)
        if self.bar is not None:
            self.bar.set_description(f"{len(self.epochs)} of {num_epochs} epochs", refresh=False)
            self.bar.set_postfix_str(f"validation score {row['val_score']:.4f}" if "val_score" in row else "")
        elif not self.quiet:
            left = time_left(time.perf_counter() - self.began_s, len(self.epochs), num_epochs)
            log.info(
                "epoch %d/%d: loss %.4f, validation score %.4f%s",
                *(len(self.epochs), num_epochs, row["train_loss"], row["val_score"], left and f", {left}"),
            )


class KeepBest(Callback):
    """Keeps the weights of the best epoch in memory, the first of equal ones: a training needs no disk.

    Args:
        monitor: the metric that says which epoch is best; NaN is the worst.
        mode: whether its largest or its least value is the best.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"]) -> None:
        self.monitor, self.sign = monitor, 1 if mode == "max" else -1
        self.best = -math.inf
        self.state: dict[str, torch.Tensor] = {}

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep a copy of the weights where this epoch is the best so far."""
        value = self.sign * float(trainer.callback_metrics[self.monitor])
        if not self.state or value > self.best:
            self.best = -math.inf if math.isnan(value) else value
            self.state = {name: tensor.detach().cpu().clone() for name, tensor in pl_module.state_dict().items()}


def run_loop(
    module: lightning.LightningModule,
    train: Any,
    val: Any = None,
    *,
    device: torch.device,
    max_epochs: int,
    gradient_clip_norm: float | None = None,
    monitor: str | None = "val_score",
    mode: Literal["min", "max"] = "max",
    limit_train_batches: float | int = 1.0,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
) -> list[dict[str, float]]:
    """Train ``module`` in place, give it the weights of its best epoch, and return the metrics of each epoch.

    Args:
        module: logs ``train_loss``, ``val_score`` and ``monitor``.
        train: batches to learn from.
        val: batches that choose the epoch, never of the test split; None, with ``monitor=None``: no validation.
        device: where to train.
        max_epochs: passes over ``train``.
        gradient_clip_norm: largest gradient norm; None does not clip.
        monitor: metric that says which epoch is best; None keeps the last epoch, for weights that lie elsewhere.
        mode: whether the largest or the least value of ``monitor`` is the best.
        limit_train_batches: share (float) or number (int) of batches an epoch.
        quiet: draw no progress bar and log nothing.
        callbacks: further Lightning callbacks of the loop.
    """
    keep_freed_memory()
    history = History(quiet)
    with _quiet():
        best = [KeepBest(monitor, mode)] if monitor else []
        trainer = lightning.Trainer(
            accelerator=_accelerator(device),
            devices=1,
            max_epochs=max_epochs,
            limit_train_batches=limit_train_batches,
            gradient_clip_val=gradient_clip_norm,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=[*callbacks, *best, history],
        )
        trainer.fit(module, train, val)
        _stop_if_asked(trainer)
        for kept in best:
            module.load_state_dict(kept.state)
    return history.epochs


def run_bare(
    module: lightning.LightningModule,
    train: Any,
    *,
    device: torch.device,
    max_epochs: int,
    gradient_clip_norm: float | None = None,
    limit_train_batches: float | int = 1.0,
) -> None:
    """Train ``module`` in place without validation, log, bar or choice of an epoch, for many short trainings."""
    keep_freed_memory()
    with _quiet():
        trainer = lightning.Trainer(
            accelerator=_accelerator(device),
            devices=1,
            max_epochs=max_epochs,
            limit_train_batches=limit_train_batches,
            gradient_clip_val=gradient_clip_norm,
            barebones=True,
        )
        trainer.fit(module, train)
        _stop_if_asked(trainer)


def _stop_if_asked(trainer: lightning.Trainer) -> None:
    """Raise what a signal asked for: Lightning catches SIGINT and SIGTERM and only ends its loop."""
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.received_sigterm:
        raise SystemExit(128 + signal.SIGTERM)


def _accelerator(device: torch.device) -> str:
    return "gpu" if device.type == "cuda" else device.type


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's greetings and advertisements, and its warnings about what is intended here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # lightning 2.6 against torch 2.14
        warnings.filterwarnings("ignore", ".*configure_optimizers. returned .None.*")  # split training brings its own
        warnings.filterwarnings("ignore", r".*module\(s\) in eval mode")  # frozen parts are: batch norm, tail
        yield
