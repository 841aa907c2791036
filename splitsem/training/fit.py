"""Fit holds the settings of a training (epochs, batches, learning rate) and runs the training."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from splitsem import extras
from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError
from splitsem.models.capabilities import HyperWeighted
from splitsem.tasks.task import Task

if TYPE_CHECKING:
    from lightning import LightningModule
    from lightning.pytorch.callbacks import Callback

    from splitsem.training.modules import KeepsLoss, MakeOptimizer

log = logging.getLogger(__name__)
_FEW_STEPS = 50  # of the optimiser in a whole training
_WITHOUT = "or give trained weights by trainer.weights=FILE"


@dataclass
class Fit:
    """Settings of one training; the weights of the epoch with the best validation score are kept.

    Args:
        max_epochs: passes over the training data; 0 leaves the network as it is.
        batch_size: samples a step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: AdamW's.
        gradient_clip_norm: largest gradient norm.
        num_workers: processes that load data; 0 loads in this one.
        weights: a .safetensors file to use instead of training, as written by an earlier run.
        limit_train_batches: share (float) or number (int) of batches an epoch, to shrink a trial run.
        gradient_codec: codes every step's gradients, with error feedback; None leaves the gradients as they are.
    """

    max_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    gradient_clip_norm: float
    num_workers: int = 0
    weights: str | None = None
    limit_train_batches: float | int = 1.0
    gradient_codec: Codec | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "learning_rate", "gradient_clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("max_epochs", "weight_decay", "num_workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        limit = self.limit_train_batches
        if not (limit >= 1 if isinstance(limit, int) else 0 < limit <= 1):
            raise ValueError(f"limit_train_batches must be a share in (0, 1] or a whole number from 1 on, got {limit}")
        if not isinstance(self.gradient_codec, Codec | None):
            raise ValueError(f"gradient_codec must be a codec or null, got {self.gradient_codec!r}")

    def run(self, network: nn.Module, task: Task, device: torch.device, seed: int) -> list[dict[str, float]]:
        """Train ``network`` in place on ``task``; returns the metrics of each epoch.

        If the network has ``alpha_epochs``, its hyper-weights α learn alone in so many further epochs. The last of
        these epochs is kept: the term on α shrinks α step by step, so the first epoch would have the best score.

        Raises:
            ConfigError: there is no whole batch to train on.
        """
        if self.max_epochs:
            self._warn_of_few_steps(len(task.splits().train))  # type: ignore[arg-type]
        epochs = self._run(network, task, device, seed, "val_score") if self.max_epochs else []
        if isinstance(network, HyperWeighted) and network.alpha_epochs:
            network.learn(weights=False, alpha=True)
            epochs += replace(self, max_epochs=network.alpha_epochs)._run(network, task, device, seed + 1, None)
            network.learn(weights=True, alpha=False)  # as the network was built
        return epochs

    def _run(
        self, network: nn.Module, task: Task, device: torch.device, seed: int, monitor: str | None
    ) -> list[dict[str, float]]:
        """Trains the network's learning weights; keeps the best epoch by ``monitor``, or the last one."""
        with extras.needed("training", "training a network", _WITHOUT):
            from splitsem.training.modules import TaskModule

        module = TaskModule(task, network, self.learning_rate, self.weight_decay)
        network.train()
        if self.gradient_codec is None:
            epochs = self.run_module(module, task, device, seed, monitor, self.gradient_clip_norm)
        else:
            from splitsem.training.gradient_codec import CompressedGradients

            compressed = CompressedGradients(self.gradient_codec)
            epochs = self.run_module(module, task, device, seed, monitor, self.gradient_clip_norm, [compressed])
            epochs = [epoch | facts for epoch, facts in zip(epochs, compressed.epochs, strict=True)]
        network.to(device).eval()
        return epochs

    def run_local(
        self,
        network: nn.Module,
        task: Task,
        samples: Dataset,
        device: torch.device,
        seed: int,
        make_optimizer: "MakeOptimizer",
        learning_rate_share: float = 1.0,
        proximal_mu: float = 0.0,
    ) -> float:
        """Train a federated client's copy in place on its own samples; returns the last epoch's mean loss.

        The training runs all ``max_epochs`` and holds out no samples: a client neither chooses an epoch nor scores. The
        learning rate is constant: ``learning_rate · learning_rate_share``; ``make_optimizer`` has all other settings.
        """
        with extras.needed("training", "training a network"):
            from splitsem.training.modules import LocalModule

        network.train()
        learning_rate = self.learning_rate * learning_rate_share
        module = LocalModule(task, network, make_optimizer, learning_rate, proximal_mu)
        loss = self.run_local_module(module, samples, device, seed, self.gradient_clip_norm)
        network.to(device).eval()
        return loss

    def local_steps(self, num_samples: int) -> int:
        """Steps of ``run_local`` on so many samples. Raises ConfigError when there are none."""
        num_batches = (num_samples - self._is_last_dropped(num_samples) - 1) // self.batch_size + 1
        return self._steps(num_batches)

    def total_steps(self, task: Task) -> int:
        """Steps of the whole training. Raises ConfigError when there are none."""
        num_samples = len(task.splits().train)  # type: ignore[arg-type]
        return self._steps(num_samples // min(self.batch_size, num_samples))

    def _steps(self, num_batches: int) -> int:
        limit = self.limit_train_batches
        per_epoch = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
        if per_epoch * self.max_epochs == 0:
            raise ConfigError(
                f"there is nothing to train: {num_batches} batches of {self.batch_size} an epoch, "
                f"limit_train_batches={limit}, max_epochs={self.max_epochs}"
            )
        return per_epoch * self.max_epochs

    def _is_last_dropped(self, num_samples: int) -> bool:
        """Whether the last batch would hold one sample, from which batch normalisation cannot learn."""
        return num_samples > 1 and num_samples % self.batch_size == 1

    def run_local_module(
        self,
        module: "KeepsLoss",
        samples: Dataset,
        device: torch.device,
        seed: int,
        gradient_clip_norm: float | None = None,
    ) -> float:
        """Runs all epochs on a client's samples; returns the last epoch's mean loss."""
        import lightning

        from splitsem.training.loop import run_bare

        train: DataLoader = DataLoader(
            samples,
            batch_size=self.batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
            drop_last=self._is_last_dropped(len(samples)),  # type: ignore[arg-type]
            num_workers=self.num_workers,
        )
        lightning.seed_everything(seed, workers=True, verbose=False)
        run_bare(
            module,
            train,
            device=device,
            max_epochs=self.max_epochs,
            gradient_clip_norm=gradient_clip_norm,
            limit_train_batches=self.limit_train_batches,
        )
        return module.train_loss

    def run_module(
        self,
        module: "LightningModule",
        task: Task,
        device: torch.device,
        seed: int,
        monitor: str | None = None,
        gradient_clip_norm: float | None = None,
        callbacks: "Sequence[Callback]" = (),
    ) -> list[dict[str, float]]:
        """Runs one fit with the project's data order and seeds; returns the metrics of each epoch."""
        import lightning  # takes seconds, which a run with trained weights saves

        from splitsem.training.loop import run_loop

        splits = task.splits()
        batch_size = self._whole_batch(len(splits.train))  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(seed)
        loader = partial(
            DataLoader,
            batch_size=batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
        train = loader(splits.train, shuffle=True, generator=generator, drop_last=True)
        val = loader(splits.val)
        lightning.seed_everything(seed, workers=True, verbose=False)
        return run_loop(
            module,
            train,
            val,
            device=device,
            max_epochs=self.max_epochs,
            gradient_clip_norm=gradient_clip_norm,
            monitor=monitor,
            limit_train_batches=self.limit_train_batches,
            callbacks=callbacks,
        )

    def _warn_of_few_steps(self, num_samples: int) -> None:
        if self.limit_train_batches != 1.0:  # a trial run, as asked for
            return
        batch_size = min(self.batch_size, num_samples)
        smaller, steps = max(2, batch_size // 8), self._steps(num_samples // batch_size)
        if steps < _FEW_STEPS:
            log.warning(
                "%d training samples in batches of %d make %d steps in all, few to learn from: %sa larger "
                "trainer.max_epochs makes more",
                *(num_samples, batch_size, steps, f"trainer.batch_size={smaller} or " * (smaller < batch_size)),
            )

    def _whole_batch(self, num_samples: int) -> int:
        """``batch_size``, or all samples where there are fewer: an epoch has whole batches only.

        Raises ConfigError where an epoch has no batch: the learning-rate schedule needs at least one step.
        """
        batch_size = min(self.batch_size, num_samples)
        if batch_size < self.batch_size:
            log.info("trainer.batch_size=%d: taking the %d samples that there are", self.batch_size, num_samples)
        num_batches, limit = num_samples // batch_size, self.limit_train_batches
        if not (limit if isinstance(limit, int) else int(num_batches * limit)):
            raise ConfigError(f"trainer.limit_train_batches={limit} of {num_batches} batches leaves none to train on")
        return batch_size
