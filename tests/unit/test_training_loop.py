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
