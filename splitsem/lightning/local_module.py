"""LocalModule: a client's training of the global network on its own samples."""

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from splitsem.tasks.task import Task


class LocalModule(lightning.LightningModule):
    """AdamW at a constant rate on ``loss + μ/2 · ‖w − w₀‖²`` (FedProx: Li et al., MLSys 2020, arXiv 1812.06127).

    Args:
        task: gives the loss.
        network: as received; its weights are w₀.
        learning_rate: AdamW's.
        weight_decay: AdamW's.
        proximal_mu: μ; 0 for no pull towards the received weights.
    """

    def __init__(
        self, task: Task, network: nn.Module, learning_rate: float, weight_decay: float, proximal_mu: float = 0.0
    ) -> None:
        super().__init__()
        if proximal_mu < 0:
            raise ValueError(f"proximal_mu must be 0 or more, got {proximal_mu}")
        self.task, self.network = task, network
        self.learning_rate, self.weight_decay, self.proximal_mu = learning_rate, weight_decay, proximal_mu
        self._trained = [p for p in network.parameters() if p.requires_grad]
        self._received = [p.detach().clone() for p in self._trained] if proximal_mu else []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch; the task's part of it is logged."""
        x, y = batch
        loss = self.task.loss(self.network(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        if self.proximal_mu:
            pairs = zip(self._trained, self._received, strict=True)
            distance = torch.stack([(p - received.to(p.device)).square().sum() for p, received in pairs]).sum()
            loss = loss + self.proximal_mu / 2 * distance
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW over what is trained."""
        return AdamW(self._trained, lr=self.learning_rate, weight_decay=self.weight_decay)
