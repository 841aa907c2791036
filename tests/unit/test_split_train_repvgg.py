"""A network with branches, their batch norms and α trains split as it trains whole, and deploys alike afterwards."""

import copy

import pytest
import torch

from splitsem.models.repvgg import HyperRepVgg
from splitsem.remote.split_module import train_split
from splitsem.remote.training_tail import LocalTrainingTail
from splitsem.tasks.digits import Digits
from tests.training import FIT, SHAPE, Side

TINY = {"blocks": [2, 2], "widths": [4, 6, 8], "stem_stride": 1}  # all three branches on either side of stage2.0


@pytest.fixture(scope="module")
def sides() -> tuple[Side, Side]:
    """Placement and server."""
    return tuple(Side(make=lambda: HyperRepVgg(SHAPE, (10,), **TINY)) for _ in range(2))


def test_branches_train_split_as_they_train_whole(sides):
    device, server = (side.reset() for side in sides)
    whole = copy.deepcopy(device.model)
    expected = FIT.run(whole, Digits(), torch.device("cpu"), seed=3)
    tail = LocalTrainingTail(server.engine())
    trainer = device.trainer(tail, "stage2.0", total_steps=FIT.total_steps(Digits()))
    history = train_split(FIT, trainer, Digits(), seed=3)
    for epoch, unsplit in zip(history, expected, strict=True):
        assert epoch == pytest.approx(unsplit, rel=1e-4)
    torch.testing.assert_close(device.model.state_dict(), whole.state_dict(), rtol=1e-3, atol=1e-5)
    assert all(device.model.blocks[block].alpha[b].item() != 1.0 for block in (2, 4) for b in "DKI")
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    gammas = device.model.closest(13)
    with torch.inference_mode():
        torch.testing.assert_close(device.model.deploy(gammas)(x), whole.deploy(gammas)(x), rtol=1e-3, atol=1e-4)
