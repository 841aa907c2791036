"""The Lightning loop: a signal that comes when Lightning no longer looks still ends the process."""

import os
import signal

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from splitsem.training.loop import run_bare, run_loop


class Terminated(lightning.LightningModule):
    """Gets SIGTERM after its last batch."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).mean()
        if not self.trainer.barebones:
            self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_end(self):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("run", "settings"), [(run_bare, {}), (run_loop, {"monitor": None, "quiet": True})])
def test_sigterm_after_the_last_batch_ends_the_process(run, settings):
    train = DataLoader(TensorDataset(torch.ones(4, 2)), batch_size=2)
    with pytest.raises(SystemExit) as stopped:
        run(Terminated(), train, device=torch.device("cpu"), max_epochs=1, **settings)
    assert stopped.value.code == 143


class Scripted(lightning.LightningModule):
    """Scores 0.1, 0.9 and 0.3 on validation; its weight is the number of the epoch."""

    def __init__(self):
        super().__init__()
        self.epoch = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.log("train_loss", 0.0, on_step=False, on_epoch=True)
        return 0 * self.epoch

    def on_validation_epoch_start(self):
        with torch.no_grad():
            self.epoch += 1

    def validation_step(self, batch, batch_idx):
        self.log("val_score", [0.1, 0.9, 0.3][int(self.epoch) - 1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 1)])
def test_the_weights_are_those_of_the_epoch_that_is_best_on_validation(mode, best):
    data = DataLoader(TensorDataset(torch.ones(2, 2)), batch_size=2)
    module = Scripted()
    rows = run_loop(module, data, data, device=torch.device("cpu"), max_epochs=3, mode=mode, quiet=True)
    assert [row["val_score"] for row in rows] == pytest.approx([0.1, 0.9, 0.3])
    assert module.epoch.item() == best
