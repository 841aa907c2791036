"""Evaluation of one cut: what chooses is scored on validation, what is reported on test, and all work is priced."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from splitsem.codecs.quantise import Quantise
from splitsem.errors import ConfigError
from splitsem.intervals import half_width
from splitsem.tasks.digits import Digits
from splitsem.tasks.task import Splits, Task
from splitsem.workflows import assemble, evaluation
from splitsem.workflows.assemble import Network
from splitsem.workflows.evaluation import Evaluation
from splitsem.workflows.shared_features import SharedFeatures
from tests.conftest import ROOT

FIXED = ("task=digits", "model=cnn", "device=cpu", "trainer.max_epochs=1", "trainer.batch_size=32")


class WrongLabels(Digits):
    """Digits whose test labels are all wrong, so that a score tells the split that it was made on."""

    def splits(self) -> Splits:
        """See Task."""
        splits = super().splits()
        return splits._replace(test=_relabelled(splits.test))


def _relabelled(data: Dataset) -> Dataset:
    samples = [data[i] for i in range(60)]
    return TensorDataset(torch.stack([x for x, _ in samples]), torch.full((60,), 7))


class Silent(Digits):
    """Digits that do not say what their answer is."""

    answer_coder = Task.answer_coder


def config(cache: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", [*FIXED, f"cache_dir={cache}", *overrides])


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def evaluate(cfg: DictConfig, network: Network, point: str) -> Evaluation:
    return evaluation.evaluate(cfg, network, network.graph.cut(point), Quantise(8), Quantise(8))


@pytest.fixture(scope="module")
def trained(cache: Path) -> tuple[DictConfig, Network]:
    cfg = config(cache)
    return cfg, assemble.network(cfg)


def test_each_split_gives_its_own_score(cache: Path) -> None:
    cfg = config(cache, f"task._target_={__name__}.WrongLabels")
    metrics = evaluate(cfg, assemble.network(cfg), "stage1").metrics
    assert metrics["num_samples"] == 60
    assert metrics["num_val_samples"] == 359
    assert metrics["score"] == metrics["score_unsplit"] < 0.3  # as often as the network says 7
    assert abs(metrics["score_val"] - metrics["score"]) > 0.1 or metrics["score_val"] < 0.3
    sevens = (assemble.network(cfg).model(_inputs(cfg, "val")).argmax(1) == _labels(cfg, "val")).float().mean().item()
    assert metrics["score_val"] == pytest.approx(sevens, abs=0.01)


def test_a_network_that_has_not_learned_is_told_once(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = config(cache, "trainer.max_epochs=0")
    network = assemble.network(cfg)
    for point in ("stem", "stage1"):
        evaluate(cfg, network, point)
    assert caplog.text.count("not surely better than chance among 10 classes") == 1


def test_a_training_of_few_steps_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assemble.network(config(tmp_path, "trainer.batch_size=400", "trainer.max_epochs=2"))
    assert "make 4 steps in all, few to learn from: trainer.batch_size=50 or a larger" in caplog.text


def _inputs(cfg: DictConfig, split: str) -> Tensor:
    data = getattr(assemble.network(cfg).task.splits(), split)
    return torch.stack([data[i][0] for i in range(len(data))])


def _labels(cfg: DictConfig, split: str) -> Tensor:
    data = getattr(assemble.network(cfg).task.splits(), split)
    return torch.tensor([int(data[i][1]) for i in range(len(data))])


def test_the_stages_add_up_and_coding_is_among_them(trained: tuple[DictConfig, Network]) -> None:
    metrics = evaluate(*trained, "stage1").metrics
    assert metrics["edge_s"] == pytest.approx(metrics["head_s"] + metrics["encode_s"] + metrics["answer_decode_s"])
    assert metrics["server_s"] == pytest.approx(metrics["decode_s"] + metrics["tail_s"] + metrics["answer_encode_s"])
    assert metrics["latency_s"] == pytest.approx(
        metrics["edge_s"] + metrics["link_s"] + metrics["server_s"] + metrics["answer_s"]
    )
    assert metrics["link_s"] == pytest.approx(metrics["link_busy_s"] + metrics["link_delay_s"])
    busy = ("edge_s", "link_busy_s", "server_s", "answer_busy_s")
    assert metrics["throughput_hz"] == pytest.approx(1 / max(metrics[name] for name in busy))
    assert min(metrics[name] for name in ("encode_s", "decode_s", "answer_encode_s", "answer_decode_s")) > 0
    assert all(metrics[f"{name}_ci95"] > 0 for name in ("encode_s", "decode_s"))
    assert metrics["coding_drift"] > 0
    assert metrics["answer_bytes"] == 1


COUNTED = ("score", "score_val", "score_ci95", "payload_bytes", "wire_bytes", "answer_bytes", "distortion_mse")


@pytest.mark.parametrize("transport", ["wifi", "bsc"])
def test_cuts_that_share_features_find_what_each_finds_alone(
    trained: tuple[DictConfig, Network], transport: str
) -> None:
    _, network = trained
    cfg = config(Path(trained[0].cache_dir), "workflow.num_samples=20", f"transport={transport}")
    shared = SharedFeatures(1 << 24)
    for point in network.graph.points[1::3]:
        parts = network.graph.cut(point), Quantise(4), Quantise(4)
        alone, other = (evaluation.evaluate(cfg, network, *parts, shared=which) for which in (None, shared))
        names = [name for name in COUNTED if name in alone.metrics]
        assert [other.metrics[name] for name in names] == [alone.metrics[name] for name in names], point.name
        assert all((other.draws[split] == alone.draws[split]).all() for split in alone.draws)
    assert shared.num_bytes > 0


def test_coding_takes_longer_on_a_machine_that_codes_more_slowly(trained: tuple[DictConfig, Network]) -> None:
    cfg, network = trained
    slow = config(Path(cfg.cache_dir), "hardware.edge.coding_bytes_per_s=1e5")
    assert evaluate(slow, network, "stage1").metrics["encode_s"] > 10 * evaluate(*trained, "stage1").metrics["encode_s"]


def test_a_machine_without_a_coding_rate_says_how_to_measure_it(trained: tuple[DictConfig, Network]) -> None:
    cfg = config(Path(trained[0].cache_dir), "hardware.edge.coding_bytes_per_s=null")
    with pytest.raises(ConfigError, match=r"needs coding_bytes_per_s.*python -m splitsem.cost.coding_rate"):
        evaluate(cfg, trained[1], "stage1")


def test_differences_to_unsplit_are_paired(trained: tuple[DictConfig, Network]) -> None:
    found = evaluate(*trained, "stage1")
    metrics = found.metrics
    assert metrics["score_ci95"] == pytest.approx(half_width(found.draws["test"]))
    assert metrics["score_delta_ci95"] < metrics["score_ci95"]
    assert metrics["score_delta"] == metrics["score"] - metrics["score_unsplit"]


def test_all_on_the_edge_costs_nothing_on_the_link_unless_the_server_needs_the_answer(
    trained: tuple[DictConfig, Network],
) -> None:
    metrics = evaluate(*trained, "output").metrics
    assert [metrics[name] for name in ("payload_bytes", "link_s", "answer_s", "server_s")] == [0, 0, 0, 0]
    assert "compression_ratio" not in metrics
    assert metrics["latency_s"] == metrics["head_s"]
    sent = evaluate(config(Path(trained[0].cache_dir), "answer.at=server"), trained[1], "output").metrics
    assert sent["payload_bytes"] == 1
    assert sent["link_s"] > 0
    assert "answer_bytes" not in sent


def test_raw_answers_are_all_of_the_output(trained: tuple[DictConfig, Network]) -> None:
    cfg = config(Path(trained[0].cache_dir), "answer=raw")
    metrics = evaluate(cfg, trained[1], "stage1").metrics
    assert metrics["answer_bytes"] == 4 * 10
    assert metrics["score"] == evaluate(*trained, "stage1").metrics["score"]


def test_a_task_without_an_answer_is_told_so_and_runs_with_raw_answers(cache: Path) -> None:
    silent = f"task._target_={__name__}.Silent"
    cfg = config(cache, silent)
    with pytest.raises(ConfigError, match="answer=raw"):
        evaluate(cfg, assemble.network(cfg), "stage1")
    cfg = config(cache, silent, "answer=raw")
    assert evaluate(cfg, assemble.network(cfg), "stage1").metrics["answer"] == "values(10,)"


def test_a_single_sample_has_no_interval(trained: tuple[DictConfig, Network]) -> None:
    cfg = config(Path(trained[0].cache_dir), "workflow.num_samples=1")
    found = evaluate(cfg, trained[1], "stage1")
    assert found.metrics["num_samples"] == 1
    assert "score_ci95" not in found.metrics
    assert found.draws == {}


def test_another_place_for_the_answer_is_refused(trained: tuple[DictConfig, Network]) -> None:
    cfg = config(Path(trained[0].cache_dir), "answer.at=cloud")
    with pytest.raises(ConfigError, match=r"answer\.at is edge or server, got cloud"):
        evaluate(cfg, trained[1], "stage1")
