"""AgileNN: what stays on the device stays there, the way back is counted, and importance moves where it belongs."""

from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from splitsem.codecs.learned.agilenn import AgileNN
from splitsem.codecs.learned.bottleneck import Bottleneck
from splitsem.codecs.learned.learned import Stage
from splitsem.errors import ConfigError
from splitsem.export import coders
from splitsem.links.channel import Bsc
from splitsem.links.link import Link
from splitsem.links.lossy import LossyLink
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames, Pipeline
from splitsem.scoring import score
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import Values
from splitsem.tasks.digits import Digits
from splitsem.training.codec_fit import fit_codec
from splitsem.training.codec_module import skewness
from splitsem.workflows import assemble
from splitsem.workflows.replay import Recording
from tests.conftest import ROOT

TASK = Digits()
SIZES = {"feature_channels": 6, "local_channels": 2, "code_channels": 3, "decoder_width": 4}


@pytest.fixture(scope="module")
def graph() -> SplitGraph:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)).eval()
    return SplitGraph(net, TASK.input_shape, granularity="op")


@pytest.fixture(scope="module")
def cut(graph: SplitGraph) -> Cut:
    return graph.cut(next(p for p in graph.points if p.tensors[0].shape[1:] == (4, 8, 8)))


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    val = TASK.splits().val
    x, y = zip(*(val[i] for i in range(12)), strict=True)
    return torch.stack(x), torch.as_tensor(y)


def build(seed: int = 0, **settings: object) -> AgileNN:
    torch.manual_seed(seed)
    return AgileNN((4, 8, 8), 10, **{**SIZES, **settings}).eval()  # type: ignore[arg-type]


class Losing(Link):
    """Loses what the predicate says."""

    def __init__(self, what: str) -> None:
        self.what, self.carrier = what, SimulatedLink(1e6, 0.01, 1e-8)

    def send(self, payload, protected_bytes=None):
        report = self.carrier.send(payload)
        return replace(report, payload=None) if self.what == "all" else report

    def send_back(self, answer):
        return replace(self.carrier.send_back(answer), payload=None)


def test_the_payload_knows_nothing_of_the_local_features(cut, batch):
    codec, z = build(), cut.head(batch[0])
    payload, local = codec.encode(z), codec.local_output(z)
    assert len(codec.encode((z[0][:1],))) == 11 + 3 * 2 * 2 * 3 // 8 + 1
    with torch.no_grad():
        codec.local_head.linear.weight.add_(1)
        codec.extract_local[0].weight.mul_(-1)
    assert codec.encode(z) == payload
    assert not torch.equal(codec.local_output(z), local)


@pytest.mark.parametrize("what", ["all", "answers"])
def test_without_an_answer_the_result_is_that_of_the_local_head(what, cut, batch):
    codec, (x, y), frames = build(), batch, Frames()
    local = torch.cat([codec.local_output(cut.head(sample)) for sample in x.split(1)])
    assert torch.equal(Pipeline(cut, codec, codec, Losing(what)).run(x, frames), local)
    scores, played = Recording(cut, codec, [(x, y)]).play(codec, Losing(what), TASK)
    assert scores["score"] == pytest.approx((local.argmax(1) == y).float().mean().item())
    assert played.num_lost == frames.num_lost == len(x)
    assert len(frames.answer_bytes) == (len(x) if what == "answers" else 0)


def test_both_logits_are_weighed_and_the_way_back_is_counted_for_such_a_codec_only(cut, batch):
    codec, link, frames = build(), SimulatedLink(1e6, 0.01, 1e-8), Frames()
    x = batch[0][:1]
    with torch.inference_mode():
        codec.local_head.mix.fill_(1.0)
        z = cut.head(x)
        payload = codec.encode(z)
        output = cut.tail(*codec.decode(payload))
    share = torch.tensor(1.0).sigmoid()
    expected = share * codec.local_output(z) + (1 - share) * output
    torch.testing.assert_close(Pipeline(cut, codec, codec, link).run(x, frames), expected)
    answer = Values((10,)).encode(output)
    there, back = link.send(payload), link.send_back(answer)
    assert (frames.link_s, frames.answer_s) == ([there.link_s], [back.link_s])
    assert frames.wire_bytes == [len(payload) + len(answer)]
    assert (frames.payload_bytes, frames.answer_bytes) == ([len(payload)], [len(answer)])
    assert frames.link_j == [there.energy_j + back.energy_j]
    other, plain = Frames(), Bottleneck((4, 8, 8)).eval()
    Pipeline(cut, plain, plain, link).run(x, other)
    assert other.link_s == [link.send(plain.encode(z)).link_s]
    assert other.answer_bytes == []


def test_a_recording_scores_and_counts_as_the_pipeline_does_over_a_link_that_loses_both_ways(cut, batch):
    def link() -> LossyLink:
        return LossyLink(Bsc(0.004), SimulatedLink(1e6, 0.01, 1e-8), resends=0)

    codec, frames = build(), Frames()
    pipeline = Pipeline(cut, codec, codec, link())
    expected = score(lambda x: pipeline.run(x, frames), TASK, [batch])
    scores, played = Recording(cut, codec, [batch]).play(codec, link(), TASK)
    assert scores == expected
    assert 0 < frames.num_lost < len(batch[0])
    sizes = ("payload_bytes", "answer_bytes", "wire_bytes")
    for name in (*sizes, "link_s", "answer_s", "num_lost", "air_bits", "air_errors"):
        assert getattr(played, name) == getattr(frames, name), name


def test_the_loss_is_the_missing_share_and_the_disorder():
    codec = build(feature_channels=4, local_importance=0.5)
    importance = torch.tensor([[3.0, 1.0, 4.0, 2.0], [6.0, 3.0, 1.0, 0.0]])  # 0.1 too little, 0.3 out of order; neither
    assert codec.skewness_loss(importance).item() == pytest.approx(0.2)


def test_training_moves_importance_to_the_local_features_and_learns_the_task(graph, cut, batch):
    (x, y), missing = batch, []
    for weight in (0.0, 2.0):
        stage = Stage(2, 1e-2, 64, task_weight=1.0, skewness_weight=weight, is_tail_tuned=True, limit_train_batches=15)
        codec = build(stages={"task": stage}, local_importance=0.8)
        history = fit_codec(codec, graph, cut.point, TASK, seed=0)
        missing.append(skewness(codec, codec.tail, lambda output: TASK.loss(output, y), cut.head(x)[0].detach()).item())
        assert history[-1]["val_score"] > 0.4
    assert missing[1] < 0.5 * missing[0]


def test_a_task_without_classes_is_refused_in_one_line():
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", ["workflow=codec", "task=netqos", "codec=agilenn"])
    with pytest.raises(ConfigError, match=r"AgileNN adds up the logits of classes, but .* is no classification"):
        assemble.check_settings(cfg)


def test_a_file_without_the_local_output_is_refused():
    with pytest.raises(ConfigError, match="AgileNN cannot be exported: its device makes an output of its own"):
        coders.check(AgileNN)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"local_channels": 6}, "local_channels must be at least 1 and below feature_channels, got 6 and 6"),
        ({"local_importance": 1.0}, r"local_importance must be in \(0, 1\), got 1.0"),
        ({"code_channels": 0}, "code_channels must be at least 1, got 0"),
    ],
)
def test_bad_settings_name_the_setting_the_rule_and_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
