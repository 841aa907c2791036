"""task=lookalikes: descriptions of photographs, and how often the most similar known one stays the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from splitsem.check import check_task
from splitsem.data import shelf
from splitsem.errors import ConfigError
from splitsem.models.mobilenetv2_embedder import UNIT_NAMES, mobilenetv2_embedder
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.agreement_metrics import MeanCosine, SameLookalike
from splitsem.tasks.lookalikes import Lookalikes


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 16, 6)).eval()


def labelled(root: Path) -> Lookalikes:
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(root / f"{number}.png")
    task = Lookalikes(num_values=6, root=str(root), image_size=32)
    task.label_by(network())
    return task


def test_it_keeps_the_contract_of_a_task(tmp_path: Path) -> None:
    check_task(lambda: labelled(tmp_path))


def test_the_unsplit_network_agrees_with_itself_and_one_that_turns_descriptions_round_does_not(tmp_path: Path) -> None:
    task, own = labelled(tmp_path), network()
    scores = {}
    for sign in (1, -1):
        metrics = task.metrics()
        for x, y in DataLoader(task.splits().test, batch_size=5):
            metrics.update(sign * own(x).detach(), y)
        scores[sign] = {name: float(value) for name, value in metrics.compute().items()}
    assert scores[1] == {"score": 1, "cosine": pytest.approx(1)}
    assert scores[-1] == {"score": 0, "cosine": 0}


def test_the_most_similar_is_judged_by_the_angle_alone() -> None:
    metric = SameLookalike(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
    # (3, 2) points to the first; a longer second one does not draw it over. (2, 3) points to the second.
    metric.update(torch.tensor([[3.0, 2.0], [2.0, 3.0]]), torch.tensor([[1.0, 0.1], [1.0, 0.1]]))
    assert float(metric.compute()) == 0.5
    cosine = MeanCosine()
    cosine.update(torch.tensor([[1.0, 1.0]]), torch.tensor([[9.0, 0.0]]))
    assert float(cosine.compute()) == pytest.approx(0.5**0.5)


def test_metrics_without_a_network_and_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="no labels"):
        Lookalikes().metrics()
    with pytest.raises(ValueError, match="num_values"):
        Lookalikes(num_values=0)


def test_the_network_without_its_weights_names_the_command_and_classes_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"splitsem\.data get mobilenetv2-embedder"):
        mobilenetv2_embedder((3, 224, 224), (1280,))
    with pytest.raises(ConfigError, match="task=lookalikes"):
        mobilenetv2_embedder((3, 224, 224), (1000,))


@pytest.mark.skipif(
    any(shelf.where(shelf.named(name)) is None for name in ("photographs", "mobilenetv2-embedder")),
    reason="`python -m splitsem.data get photographs mobilenetv2-embedder` was not run here",
)
def test_the_real_network_finds_a_photograph_most_like_its_mirror_image() -> None:
    crops = Lookalikes(scales=(1.0,), most_per_photograph=1).photos.crops()[2]
    model = mobilenetv2_embedder((3, 224, 224), (1280,)).eval()
    x = torch.stack([crops[number] for number in range(len(crops))])
    with torch.inference_mode():
        y, mirrored = (nn.functional.normalize(model(pictures)) for pictures in (x, x.flip(3)))
    assert (y @ mirrored.T).argmax(1).tolist() == list(range(len(x)))
    points = [point.name for point in SplitGraph(model, (3, 224, 224)).points]
    assert points == ["input", *UNIT_NAMES[:-1], "output"]
