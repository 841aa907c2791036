"""Early exit: who exits is decided by validation alone, what exits sends nothing, and all of it is counted."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from splitsem.cost.machines import Local, Roofline
from splitsem.errors import ConfigError, SettingError
from splitsem.models.exit_head import ExitHead, confidence, pooled
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.digits import Digits
from splitsem.tasks.task import Splits
from splitsem.training.exit_fit import Confidence, TradeOff, best_temperature, calibration_error, fit_exit
from splitsem.workflows import assemble, assemble_codec, early_exit, evaluation, settings
from splitsem.workflows.assemble import Network
from splitsem.workflows.result import Metrics
from tests.unit import test_evaluation

FIXED = ("task=digits", "model=cnn", "device=cpu", "trainer.max_epochs=3", "trainer.batch_size=32")
SAME = ("score", "score_val", "score_delta", "payload_bytes", "wire_bytes", "answer_bytes", "distortion_mse", "link_s")


def config(cache: Path, *overrides: str) -> DictConfig:
    return test_evaluation.config(cache, *FIXED, *overrides)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def network(cache: Path) -> Network:
    return assemble.network(config(cache))


def run(cfg: DictConfig, network: Network, point: str = "stage1") -> tuple[Metrics, early_exit.EarlyExit | None]:
    """The metrics of a run at a cut, and its exit."""
    cut = network.graph.cut(point)
    codecs = [assemble_codec.codec(cfg, network, cut.point) for _ in range(2)]
    early = early_exit.early_exit(cfg, network, cut)
    return evaluation.evaluate(cfg, network, cut, *codecs, early=early).metrics, early


def with_exit(cache: Path, network: Network, *overrides: str, point: str = "stage1") -> Metrics:
    return run(config(cache, "exit=confidence", *overrides), network, point)[0]


@pytest.mark.parametrize("overrides", [(), ("answer.at=server",), ("transport=bsc", "transport.channel.ber=1e-3")])
def test_at_threshold_one_nothing_exits_and_all_is_as_without_an_exit(cache, network, overrides):
    plain, _ = run(config(cache, *overrides), network)
    found = with_exit(cache, network, "exit.threshold=1.0", *overrides)
    same = [name for name in (*SAME, "score_clean", "num_lost", "ber") if name in plain]
    assert {name: found[name] for name in same} == {name: plain[name] for name in same}
    assert found["exit_share"] == found["exit_share_val"] == found["exit_loss_val"] == 0


@pytest.mark.parametrize("overrides", [(), ("transport=bsc", "transport.channel.ber=1e-3")])
def test_at_threshold_zero_all_exit_and_no_byte_is_sent(cache, network, overrides):
    found = with_exit(cache, network, "exit.threshold=0", *overrides)
    assert found["exit_share"] == 1
    assert found["payload_bytes"] == found["wire_bytes"] == found["link_s"] == found["server_s"] == 0
    assert found["latency_s"] == found["edge_s"] == found["head_s"] > found["exit_s"] > 0
    assert found["score"] == pytest.approx(found["exit_score"])


def test_bytes_and_times_are_means_over_all_samples(cache, network):
    plain, _ = run(config(cache), network)
    found, early = run(config(cache, "exit=confidence", "exit.threshold=0.9"), network)
    assert early is not None
    exited = early.frames.payload_bytes
    assert 0 < len(exited) < found["num_samples"]
    assert found["exit_share"] == len(exited) / found["num_samples"]
    assert set(exited) == {0}
    on = 1 - found["exit_share"]
    assert found["payload_bytes"] == pytest.approx(on * plain["payload_bytes"], rel=0.05)
    assert found["link_s"] == pytest.approx(on * plain["link_s"], rel=0.01)
    assert found["answer_s"] == pytest.approx(on * plain["answer_s"], rel=0.01)
    assert found["answer_bytes"] == pytest.approx(on * plain["answer_bytes"])
    assert found["tail_s"] == pytest.approx(on * plain["tail_s"], rel=1e-9)  # of the same modelled machine
    assert found["head_s"] == pytest.approx(plain["head_s"] + found["exit_s"], rel=1e-9)


def test_where_the_server_needs_the_answer_an_exit_sends_it_alone(cache, network):
    found, early = run(config(cache, "exit=confidence", "exit.threshold=0", "answer.at=server"), network)
    assert early is not None
    assert set(early.frames.payload_bytes) == {1}  # a class of ten
    assert found["payload_bytes"] == 1
    assert found["link_s"] > 0


def test_the_threshold_knows_that_an_exits_answer_can_get_lost(cache, network):
    lossy = ("transport=erasure", "transport.channel.rate=0.4", "transport.resends=0", "answer.at=server")
    plain, _ = run(config(cache, "codec=fixed", *lossy), network)
    found = with_exit(cache, network, "codec=fixed", "exit.threshold=0", *lossy)
    assert found["score_val"] == pytest.approx(plain["score_val"], abs=0.15)  # the same share of answers is lost
    assert found["score"] == pytest.approx(plain["score"], abs=0.15)


def test_over_a_lossy_link_only_what_goes_on_can_be_damaged(cache, network):
    lossy = ("transport=bsc", "transport.channel.ber=0.05")
    alone, _ = run(config(cache, *lossy), network)
    found = with_exit(cache, network, "exit.threshold=0.5", *lossy)
    assert 0.3 < found["exit_share"] < 1
    assert alone["score"] < found["score"] <= found["score_clean"]


class WrongTest(Digits):
    """Digits whose test labels are all wrong."""

    def splits(self) -> Splits:
        """See Task."""
        splits = super().splits()
        return splits._replace(test=_relabelled(splits.test))


def _relabelled(data: Dataset) -> Dataset:
    samples: list[Any] = [data[i] for i in range(60)]
    return TensorDataset(torch.stack([x for x, _ in samples]), torch.full((60,), 7))


def test_threshold_and_temperature_never_see_the_test_split(cache, network):
    names = ("exit_threshold", "exit_temperature", "exit_share_val", "exit_loss_val", "score_val")
    found = with_exit(cache, network, "exit.max_loss=0.02")
    cfg = config(cache, "exit=confidence", "exit.max_loss=0.02", f"task._target_={__name__}.WrongTest")
    wrong = network._replace(task=instantiate(cfg.task), key=f"{network.key}-wrong")
    other, _ = run(cfg, wrong)
    assert {name: other[name] for name in names} == {name: found[name] for name in names}
    assert other["score"] < 0.5 < found["score"]


def test_the_chosen_threshold_keeps_to_the_loss_and_a_lower_one_does_not(cache, network):
    found, early = run(config(cache, "exit=confidence", "exit.max_loss=0.01"), network, "stem")
    assert early is not None
    assert early.trade_off is not None
    assert found["exit_loss_val"] <= 0.01 + 1e-9
    places = early.trade_off
    lost = [places.score[0] - score + half for score, half in zip(places.score, places.loss_ci95, strict=True)]
    below = [loss for t, loss in zip(places.threshold, lost, strict=True) if t < found["exit_threshold"]]
    assert below
    assert min(below) > 0.01
    stricter = with_exit(cache, network, "exit.max_loss=0", point="stem")
    assert stricter["exit_threshold"] >= found["exit_threshold"]


def test_the_exit_is_trained_once_and_kept(cache, network, caplog):
    caplog.set_level("INFO")
    first, second = (with_exit(cache, network, "exit.grid=1", "exit.threshold=0.8") for _ in range(2))
    assert [first[n] for n in ("score", "exit_share", "exit_ece")] == [
        second[n] for n in ("score", "exit_share", "exit_ece")
    ]
    assert caplog.text.count("Training the exit at stage1") == 1
    with_exit(cache, network, "exit.grid=1", "exit.threshold=0.7", "exit.max_loss=0.5")  # neither makes another exit
    assert caplog.text.count("Training the exit at stage1") == 1


def test_the_network_stays_as_it_was(cache, network):
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    with_exit(cache, network, "exit.grid=3")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.model.state_dict().items())


def test_at_the_end_of_the_network_there_is_no_exit(cache, network):
    found, early = run(config(cache, "exit=confidence"), network, "output")
    assert early is None
    assert "exit_share" not in found


@pytest.mark.parametrize("shape", [(16, 6, 6), (12, 16), (16,), (8, 2, 4, 4), ()])
def test_an_exit_learns_from_maps_tokens_and_flat_features(shape):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (200,), generator=generator)
    z = torch.randn(200, *shape, generator=generator)
    z += 3.0 * (y - 1.0).reshape(-1, *[1] * len(shape))
    head = ExitHead([(1, *shape)], num_classes=3)
    halves = [[((z[part], torch.arange(100)), y[part])] for part in (slice(100), slice(100, 200))]
    [losses] = fit_exit(head, *halves)
    assert losses["val_loss"] <= losses["val_loss_uncalibrated"] + 1e-6
    with torch.no_grad():
        logits, _ = head(z[100:], torch.arange(100))  # whole numbers are not read
    assert (logits.argmax(dim=1) == y[100:]).float().mean() > 0.8
    assert F.cross_entropy(logits, y[100:]).item() == pytest.approx(losses["val_loss"], rel=1e-4)


def test_what_a_grid_pools_is_the_mean_of_each_cell():
    z = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pooled(z, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert pooled(z, 1).tolist() == [[7.5]]
    assert torch.equal(pooled(z, 9), z.flatten(1))


@given(st.floats(0.2, 5.0), st.integers(0, 10**6))
def test_the_temperature_finds_what_the_logits_were_multiplied_by(scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(400, 4, generator=generator, dtype=torch.float64)
    y = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)  # calibrated by construction
    own, scaled = best_temperature(logits, y), best_temperature(scale * logits, y)
    assert scaled == pytest.approx(scale * own, rel=0.01)
    assert F.cross_entropy(scale * logits / scaled, y) <= F.cross_entropy(scale * logits, y) + 1e-9
    assert own == pytest.approx(1.0, abs=0.5)


@given(st.data())
def test_a_trade_off_says_what_each_threshold_does(data):
    num = data.draw(st.integers(1, 12))
    sure = torch.tensor(data.draw(st.lists(st.sampled_from([0.2, 0.5, 0.7, 0.9, 1.0]), min_size=num, max_size=num)))
    exit_right, right = (torch.tensor(data.draw(st.lists(st.booleans(), min_size=num, max_size=num))) for _ in range(2))
    found = TradeOff.of(sure, exit_right, right)
    assert found.threshold[0] == 1.0
    assert found.threshold[-1] == 0.0
    for threshold, share, score, half in zip(*asdict(found).values(), strict=True):
        is_out = sure.double() > threshold
        mixed = torch.where(is_out, exit_right, right).double()
        assert share == pytest.approx(is_out.double().mean().item())
        assert score == pytest.approx(mixed.mean().item())
        deviation = (mixed - right.double()).std(unbiased=False).item()
        assert half == pytest.approx(1.96 * deviation / num**0.5, abs=1e-9)
    assert found.lowest(max_loss=2.0) == 0.0


def test_a_calibrated_exit_has_a_small_calibration_error_and_an_overconfident_one_has_not():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    y = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
    assert calibration_error(logits, y) < 0.02
    gap = (confidence(4 * logits) - (logits.argmax(dim=1) == y).double()).mean().item()
    assert calibration_error(4 * logits, y) == pytest.approx(gap, abs=0.02)
    assert gap > 0.1


def test_what_an_exit_cannot_do_is_told_in_one_line(cache, network):
    with pytest.raises(ConfigError, match=r"by labels, and Disaster has none: take a classification task"):
        early_exit.check(config(cache, "exit=confidence", "task=disaster", "model=unet"))
    early_exit.check(config(cache, "exit=confidence"))
    with pytest.raises(SettingError, match=r"exit=confidence is for workflow=split and workflow=offload"):
        settings.check(config(cache, "exit=confidence", "workflow=profile"))
    for wrong in ({"threshold": 1.5}, {"max_loss": -0.1}, {"grid": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Confidence(**wrong)  # type: ignore[arg-type]


def test_a_cut_where_only_whole_numbers_cross_is_refused(cache):
    words = nn.Sequential(nn.Embedding(17, 8), nn.Flatten(), nn.Linear(40, 10)).eval()
    graph, cfg = SplitGraph(words, torch.zeros(1, 5, dtype=torch.long)), config(cache, "exit=confidence")
    with pytest.raises(ConfigError, match=r"none crosses at input: choose another split\.point"):
        early_exit.check_point(cfg, graph.point("input"))
    early_exit.check_point(cfg, graph.points[1])


def test_the_time_of_the_exit_is_that_of_one_sample_by_each_kind_of_machine(cache, network):
    early = early_exit.early_exit(config(cache, "exit=confidence"), network, network.graph.cut("stage1"))
    assert early is not None
    one = network.graph.cut("stage1").halves()[1].example
    modelled = early.time_s(Roofline(1e12, 1e12, 1.0, 1.0, overhead_s=1e-3), one)
    assert modelled == pytest.approx(5e-3, rel=0.01)  # five launches
    assert 1e-6 < early.time_s(Local(1.0, 1.0), one) < 0.05


def test_the_figure_shows_the_threshold_that_was_taken(cache, network):
    cfg = config(cache, "exit=confidence", "exit.threshold=0.8")
    metrics, early = run(cfg, network)
    [drawing] = early_exit.figures(early, metrics | {"task": "digits", "model": "cnn", "codec": "quant8"}).values()
    figure = drawing.figure()
    taken = [line.get_xydata().tolist() for ax in figure.axes for line in ax.lines if line.get_marker() == "o"]
    share = 100 * metrics["exit_share_val"]
    assert taken == [[[share, pytest.approx(metrics["score_val"])]], [[share, 0.8]]]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["with exit", "its paired 95 % interval", "without exit", "given"]
    assert early_exit.figures(None, metrics) == {}


def test_the_figure_shows_the_score_that_the_exit_may_cost(cache, network):
    metrics, early = run(config(cache, "exit=confidence", "exit.max_loss=0.05"), network)
    [drawing] = early_exit.figures(early, metrics | {"task": "digits", "model": "cnn", "codec": "quant8"}).values()
    figure = drawing.figure()
    least = "least score allowed by exit.max_loss=0.05, half the paired interval included"
    [allowed] = [line for line in figure.axes[0].lines if line.get_label() == least]
    assert set(allowed.get_ydata()) == {early.trade_off.score[0] - 0.05}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-2:] == [least, "chosen: the lowest threshold that keeps this"]
