"""Codecs learn for networks that return any structure, before a postprocess, and for tasks without labels."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchmetrics import MeanMetric, MetricCollection

from splitsem.codecs.learned.agilenn import AgileNN
from splitsem.codecs.learned.entropic_student import EntropicStudent
from splitsem.codecs.learned.learned import LearnedCodec, Stage
from splitsem.codecs.learned.semanticnn import SemanticNN
from splitsem.errors import ConfigError
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.agreement import OwnResults
from splitsem.tasks.task import Splits, Task
from splitsem.training.codec_fit import fit_codec
from splitsem.training.importance import code_importance
from splitsem.training.output_loss import OutputLoss, distance, divergence


class Closeness(MeanMetric):
    """Of answers ``(B, 6)``, what a postprocess gives and raw maps cannot."""

    def update(self, output: Tensor, y: Tensor) -> None:  # type: ignore[override]
        assert output.shape == y.shape
        super().update(1 / (1 + (output - y).square().mean(1)))


class Pictures(Dataset):
    def __init__(self, seed: int, num: int) -> None:
        self.x = torch.rand(num, 3, 8, 8, generator=torch.Generator().manual_seed(seed))

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]

    def __len__(self) -> int:
        return len(self.x)


class Unlabelled(Task):
    """The network's own answers are the targets."""

    is_agreement = True
    input_shape, output_shape, input_bytes = (3, 8, 8), (6,), 192

    def __init__(self) -> None:
        self._splits = Splits(*(OwnResults(Pictures(seed, 32), lambda made: made) for seed in range(3)))

    def splits(self) -> Splits:
        return self._splits

    def label_by(self, network) -> None:
        for split in self._splits:
            split.label_by(network)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        raise AssertionError("there are no labels")

    def metrics(self) -> MetricCollection:
        return MetricCollection({"score": Closeness()})


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.fine, self.coarse = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 2, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.first(x).relu()
        return {"fine": 100 * self.fine(z), "coarse": self.coarse(z)}


class Means(nn.Module):
    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        return torch.cat([maps["fine"].mean((2, 3)), maps["coarse"].mean((2, 3))], 1)


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network, self.postprocess = Maps(), Means()

    def forward(self, x: Tensor) -> Tensor:
        return self.postprocess(self.network(x))


@pytest.fixture(scope="module")
def graph() -> SplitGraph:
    torch.manual_seed(0)
    return SplitGraph(TwoParts(), (3, 8, 8))


@pytest.fixture(scope="module")
def task(graph) -> Unlabelled:
    made, cut = Unlabelled(), graph.cut("first")
    made.label_by(lambda x: cut.tail(*cut.head(x)))
    return made


STAGES = [
    (SemanticNN, {"decoder_width": 8}, {"task_weight": 1.0, "importance_weight": 0.1}),
    (EntropicStudent, {"width": 8}, {"task_weight": 0.5, "distill_weight": 0.5, "is_tail_tuned": True}),
    (EntropicStudent, {"width": 8}, {"logits_weight": 1.0, "layers_weight": 1.0, "rate_weight": 1e-5}),
]


@pytest.mark.parametrize(("kind", "settings", "terms"), STAGES)
@pytest.mark.parametrize("feature_cache_bytes", [1 << 30, 0])
def test_a_codec_learns_for_raw_maps_without_labels(kind, settings, terms, feature_cache_bytes, graph, task, caplog):
    torch.manual_seed(0)
    codec: LearnedCodec = kind((4, 8, 8), stages={"all": Stage(4, 1e-2, 8, **terms)}, **settings)
    with caplog.at_level(logging.INFO):
        history = fit_codec(codec, graph, graph.point("first"), task, 0, feature_cache_bytes)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert 0 < history[-1]["val_score"] <= 1
    assert "In place of the task's loss: distance of the raw outputs" in caplog.text


def test_importance_is_found_without_labels(graph, task):
    codec = SemanticNN((4, 8, 8), decoder_width=8).eval()
    x, y = (torch.stack(part) for part in zip(*(task.splits().val[i] for i in range(3)), strict=True))
    values, what = code_importance(codec, graph.cut("first"), task, x, y)
    assert what == "symbols"
    assert bool((values > 0).any())


def test_logits_of_the_edge_need_logits_of_the_network(graph, task):
    codec = AgileNN((4, 8, 8), num_classes=3, stages={"all": Stage(1, task_weight=1.0)})
    with pytest.raises(ConfigError, match="this network's output is no logits"):
        fit_codec(codec, graph, graph.point("first"), task, 0)


def test_each_tensor_counts_by_its_own_variance():
    target = {"a": torch.randn(4, 3), "b": 1000 * torch.randn(4, 2)}
    halved = {name: tensor / 2 for name, tensor in target.items()}
    one = distance(halved["a"], target["a"])
    assert torch.allclose(distance(halved, target), (one + distance(halved["b"], target["b"])) / 2)
    assert torch.allclose(distance(halved["a"] * 1000, target["a"] * 1000), one)
    assert distance(target, target) == 0


def test_one_tensor_of_classes_is_distilled_by_divergence():
    output, target = torch.randn(4, 3), torch.randn(4, 3)
    found = OutputLoss.of(Unlabelled(), output, torch.zeros(4), has_postprocess=False)
    assert not found.has_own
    assert found.distillation(output, target) == divergence(output, target)
    assert divergence(target, target).abs() < 1e-6


def test_a_loss_that_refuses_the_raw_output_is_told(caplog):
    class Labelled(Unlabelled):
        is_agreement = False

        def loss(self, y_hat, y):
            raise ConfigError("other maps")

    with caplog.at_level(logging.INFO):
        found = OutputLoss.of(Labelled(), (torch.zeros(1, 2, 3),), torch.zeros(1), has_postprocess=True)
    assert not found.has_own
    assert "has no loss for this network's raw output: other maps" in caplog.text
