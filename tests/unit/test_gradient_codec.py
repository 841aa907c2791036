"""Compressed gradients: real bytes, nothing lost for good, identity changes nothing, and learning still works."""

import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from torch import nn

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.codecs.topk import TopK
from splitsem.errors import ConfigError
from splitsem.models.cnn import StagedCnn
from splitsem.tasks.digits import Digits
from splitsem.training.fit import Fit
from splitsem.training.gradient_codec import CompressedGradients
from splitsem.workflows import train
from tests.conftest import ROOT

SMALL = Fit(2, 64, learning_rate=0.01, weight_decay=0.01, gradient_clip_norm=1.0, limit_train_batches=8)


def network() -> StagedCnn:
    torch.manual_seed(0)
    return StagedCnn((1, 8, 8), (10,), widths=[8, 16], stem_width=8)


def trained(codec=None, **changes) -> tuple[nn.Module, list[dict[str, float]]]:
    fit = Fit(**vars(SMALL) | changes | {"gradient_codec": codec})
    model = network()
    return model, fit.run(model, Digits(), torch.device("cpu"), seed=0)


@pytest.fixture(scope="module")
def plain_score() -> float:
    """The best validation score without compression."""
    return max(row["val_score"] for row in trained(max_epochs=5, limit_train_batches=1.0)[1])


@pytest.mark.parametrize("codec", [TopK(0.1), Quantise(2), TopK(0.05, "quantised", 4)], ids=lambda c: type(c).__name__)
def test_what_is_not_sent_is_sent_later(codec):
    """Over all steps, what the optimiser saw and what is still owed add up to the gradients (error feedback)."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in [(8, 3, 3), (8,), (10, 40)]]
    unused = nn.Parameter(torch.zeros(3))
    compressed = CompressedGradients(codec)
    true = [torch.zeros_like(p) for p in parameters]
    seen = [torch.zeros_like(p) for p in parameters]
    for _ in range(30):
        for p, total in zip(parameters, true, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            total += p.grad
        compressed.step([*parameters, unused])
        for p, total in zip(parameters, seen, strict=True):
            total += p.grad
    for whole, arrived, owed in zip(true, seen, compressed._errors.values(), strict=True):
        torch.testing.assert_close(arrived + owed, whole, rtol=1e-4, atol=1e-4)
        assert owed.abs().max() > 0
    assert unused.grad is None


def test_the_identity_codec_trains_the_same_weights_bit_for_bit():
    plain, history = trained()
    same, through_bytes = trained(Identity())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), same.parameters(), strict=True))
    assert [row["train_loss"] for row in history] == [row["train_loss"] for row in through_bytes]
    assert through_bytes[0]["gradient_bytes"] > through_bytes[0]["gradient_raw_bytes"]  # the header
    assert "gradient_bytes" not in history[0]


@pytest.mark.parametrize(("codec", "least_ratio"), [(TopK(0.05), 8), (Quantise(4), 7)], ids=lambda v: type(v).__name__)
def test_learning_works_with_a_fraction_of_the_bytes(codec, least_ratio, plain_score):
    _, sparse = trained(codec, max_epochs=5, limit_train_batches=1.0)
    assert sparse[0]["gradient_raw_bytes"] / sparse[-1]["gradient_bytes"] > least_ratio
    assert max(row["val_score"] for row in sparse) > plain_score - 0.05
    assert max(row["val_score"] for row in sparse) > 0.85


def test_gradients_that_are_no_numbers_are_one_line_that_names_the_remedy():
    parameter = nn.Parameter(torch.zeros(3, 3))
    parameter.grad = torch.full((3, 3), torch.nan)
    with pytest.raises(ConfigError, match="learning_rate"):
        CompressedGradients(Quantise(4)).step([parameter])


def workflow_metrics(tmp_path, *overrides: str) -> dict:
    fixed = ["workflow=train", "task=digits", "device=cpu", f"cache_dir={tmp_path}", "trainer.max_epochs=1"]
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [*fixed, "trainer.limit_train_batches=2", *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return train.run(cfg, tmp_path).metrics


def test_the_command_counts_the_bytes_and_remembers_them_with_the_weights(tmp_path):
    metrics = workflow_metrics(tmp_path, "trainer.gradient_codec=topk", "workflow.num_samples=8")
    assert metrics["gradient_bytes"] < metrics["gradient_raw_bytes"] / 4
    ratio = metrics["gradient_raw_bytes"] / metrics["gradient_bytes"]
    assert metrics["gradient_compression_ratio"] == pytest.approx(ratio)
    assert json.dumps(metrics)
    group = ("codec@trainer.gradient_codec=topk", "trainer.gradient_codec.keep_ratio=0.1", "workflow.num_samples=8")
    assert workflow_metrics(tmp_path, *group) == metrics  # the same settings, so the same weights from the cache
    less = workflow_metrics(tmp_path, group[0], "trainer.gradient_codec.keep_ratio=0.01", group[2])
    assert less["gradient_bytes"] < metrics["gradient_bytes"] / 3


@pytest.mark.parametrize(("name", "trouble"), [("topq", "no such codec"), ("deepcod", "must have no weights")])
def test_a_codec_that_cannot_carry_gradients_is_refused_in_one_line(name, trouble, tmp_path):
    with pytest.raises(ConfigError, match=trouble) as failure:
        workflow_metrics(tmp_path, f"trainer.gradient_codec={name}")
    assert "\n" not in str(failure.value)
