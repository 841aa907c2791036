"""Training a learned codec in its stages: what learns, what stays, and what it is judged on."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from splitsem.codecs.learned.klt import Klt
from splitsem.codecs.learned.learned import Stage
from splitsem.codecs.learned.semanticnn import SemanticNN
from splitsem.errors import ConfigError
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames, Pipeline
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.classification import ClassificationTask
from splitsem.tasks.task import Splits
from splitsem.training.codec_fit import fit_codec
from splitsem.workflows.replay import Recording


class Untouchable(Dataset):
    """A test split that must not be looked at."""

    def __getitem__(self, index: int) -> None:
        raise AssertionError("the test split was used in training")

    def __len__(self) -> int:
        return 10


class Corners(ClassificationTask):
    """Which corner of the picture is bright? Learned in seconds."""

    def __init__(self) -> None:
        super().__init__(class_names=("a", "b", "c", "d"), input_shape=(1, 8, 8))

    def _load(self) -> Splits:
        def corners(num: int, seed: int) -> TensorDataset:
            generator = torch.Generator().manual_seed(seed)
            y = torch.randint(0, 4, (num,), generator=generator)
            x = 0.2 * torch.rand(num, 1, 8, 8, generator=generator)
            for k in range(4):
                x[y == k, :, 4 * (k // 2) : 4 * (k // 2) + 4, 4 * (k % 2) : 4 * (k % 2) + 4] += 0.5
            return TensorDataset(x, y)

        return Splits(corners(512, 0), corners(128, 1), Untouchable())


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(4, 4, 4, 4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 4)),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, y = Corners().splits().train.tensors  # type: ignore[attr-defined]
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def graph() -> SplitGraph:
    return SplitGraph(network(), (1, 8, 8))


def trained(
    graph: SplitGraph, stages: dict[str, Stage], feature_cache_bytes: int = 1 << 30, **settings: object
) -> tuple[SemanticNN, list[dict[str, float]]]:
    torch.manual_seed(0)
    codec = SemanticNN((4, 8, 8), bits_per_symbol=2, decoder_width=8, stages=stages, **settings)  # type: ignore[arg-type]
    return codec, fit_codec(codec, graph, graph.points[1], Corners(), 0, feature_cache_bytes)


STAGES = {
    "features": Stage(3, learning_rate=1e-2, batch_size=32, feature_weight=1.0),
    "task": Stage(3, learning_rate=1e-2, batch_size=32, task_weight=1.0, feature_weight=0.1, importance_weight=0.1),
}


@pytest.fixture(scope="module")
def both_stages(graph: SplitGraph) -> tuple[SemanticNN, list[dict[str, float]], dict[str, Tensor]]:
    before = {name: value.clone() for name, value in graph.cut("output").head.state_dict().items()}
    return *trained(graph, STAGES), before


def test_both_stages_make_the_score_better_without_the_test_split(both_stages):
    codec, history, _ = both_stages
    assert len(history) == 6
    assert history[-1]["val_score"] > 0.6  # four classes in 16 bits, of which up to a quarter wrong
    assert history[2]["train_loss"] < history[0]["train_loss"]
    assert not codec.training


def test_levels_and_scaling_are_learned_and_the_network_stays_as_it_was(both_stages, graph):
    codec, _, before = both_stages
    fresh = SemanticNN((4, 8, 8), bits_per_symbol=2)
    assert not torch.allclose(codec.centres.levels, fresh.centres.levels, atol=1e-2)
    assert bool((codec.mean > 0).any())
    after = graph.cut("output").head.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in graph.cut("output").head.parameters())


@pytest.mark.parametrize("feature_cache_bytes", [1 << 30, 0])
def test_the_same_seed_gives_the_same_weights(feature_cache_bytes, graph):
    stages = {"task": Stage(1, batch_size=64, task_weight=1.0)}
    one, two = (trained(graph, stages, feature_cache_bytes)[0] for _ in range(2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


def test_a_frozen_encoder_stays_while_the_decoder_learns(graph):
    stages = {"decoder": Stage(1, batch_size=64, feature_weight=1.0, is_encoder_frozen=True)}
    torch.manual_seed(0)
    fresh = SemanticNN((4, 8, 8), bits_per_symbol=2, decoder_width=8)
    codec, _ = trained(graph, stages)
    for name, value in codec.state_dict().items():
        is_devices = name.startswith(("encoder.", "centres."))
        if is_devices or name.startswith("decoder.last"):
            assert torch.equal(value, fresh.state_dict()[name]) == is_devices, name


@pytest.mark.parametrize("kind", ["even", "random"])
def test_levels_that_are_fixed_stay_fixed_after_a_frozen_stage(kind, graph):
    stages = {
        "decoder": Stage(1, batch_size=64, feature_weight=1.0, is_encoder_frozen=True, limit_train_batches=2),
        "all": Stage(1, batch_size=64, feature_weight=1.0, limit_train_batches=2),
    }
    codec, _ = trained(graph, stages, centres=kind)
    torch.manual_seed(0)
    fresh = SemanticNN((4, 8, 8), bits_per_symbol=2, decoder_width=8, centres=kind)
    assert torch.equal(codec.centres.levels, fresh.centres.levels)


@pytest.mark.parametrize("term", ["feature", "layers", "logits", "distill"])
def test_every_term_of_the_loss_teaches_the_codec(term, graph):
    stage = Stage(2, learning_rate=1e-2, batch_size=32, **{f"{term}_weight": 1.0})
    _, history = trained(graph, {"one": stage})
    assert history[1]["val_loss"] < history[0]["val_loss"]


def test_the_tail_with_layers_gives_the_output_and_what_crosses_later(graph):
    z = graph.cut(graph.points[1]).head(torch.rand(3, 1, 8, 8))[0]
    output, *layers = graph.tail_with_layers(graph.points[1])(z)
    assert torch.equal(output, graph.cut(graph.points[1]).tail(z))
    assert [tuple(layer.shape[1:]) for layer in layers] == [p.tensors[0].shape[1:] for p in graph.points[2:-1]]


TUNED = {
    "features": Stage(1, learning_rate=1e-2, batch_size=64, feature_weight=1.0),
    "task": Stage(2, learning_rate=1e-2, batch_size=32, layers_weight=0.1, task_weight=1.0, is_tail_tuned=True),
}


@pytest.fixture(scope="module")
def with_tail(graph: SplitGraph) -> tuple[SemanticNN, list[dict[str, float]]]:
    return trained(graph, TUNED)


def test_a_tuned_tail_belongs_to_the_codec_and_the_network_stays_as_it_was(with_tail, graph):
    codec, _ = with_tail
    own = graph.cut(graph.points[1]).tail.state_dict()
    before = SplitGraph(network(), (1, 8, 8)).cut(graph.points[1]).tail.state_dict()
    tuned = codec.tail.state_dict()
    assert tuned.keys() == own.keys()
    for name, value in tuned.items():
        assert torch.equal(own[name], before[name]), name
        is_statistic = "running" in name or "num_batches" in name
        assert torch.equal(value, own[name]) == is_statistic, name
    assert {f"tail.{name}" for name in tuned} < set(codec.state_dict())


def test_a_tuned_tail_makes_the_loss_lower_than_the_frozen_one(with_tail, graph):
    frozen = {name: dataclasses.replace(stage, is_tail_tuned=False) for name, stage in TUNED.items()}
    _, history = trained(graph, frozen)
    assert history[0] == with_tail[1][0]  # nothing is tuned yet
    assert with_tail[1][-1]["train_loss"] < 0.95 * history[-1]["train_loss"]


def test_a_stage_that_does_not_tune_keeps_what_an_earlier_one_tuned(graph):
    tuning = Stage(1, batch_size=64, task_weight=1.0, is_tail_tuned=True)
    after = Stage(1, batch_size=64, task_weight=1.0)
    one, _ = trained(graph, {"task": tuning})
    two, _ = trained(graph, {"task": tuning, "after": after})
    for name, value in two.tail.state_dict().items():
        assert torch.equal(value, one.tail.state_dict()[name]), name
    assert all(parameter.requires_grad for parameter in two.tail.parameters())
    assert not torch.equal(two.decoder.last.weight, one.decoder.last.weight)


def test_what_is_scored_is_the_tail_that_was_tuned(with_tail, graph):
    codec, _ = with_tail
    cut, task = graph.cut(graph.points[1]), Corners()
    x, y = task.splits().val.tensors  # type: ignore[attr-defined]
    with torch.inference_mode():
        codes = [codec.decode(codec.encode(cut.head(sample)))[0] for sample in x.split(1)]
        expected = codec.tail(torch.cat(codes))
    link = SimulatedLink(1e6, 0.01, 0.0)
    assert torch.equal(Pipeline(cut, codec, codec, link).run(x, Frames()), expected)
    scores, _ = Recording(cut, codec, [(x, y)]).play(codec, link, task)
    assert scores["score"] == pytest.approx((expected.argmax(1) == y).float().mean().item())
    assert not torch.equal(cut.tail(torch.cat(codes)), expected)


def test_a_stage_whose_batch_is_larger_than_the_data_is_refused_by_name(graph):
    stages = {"features": Stage(1, learning_rate=1e-2, batch_size=513, feature_weight=1.0)}
    with pytest.raises(ConfigError, match=r"codec\.stages\.features\.batch_size=513 is more than the 512 samples"):
        trained(graph, stages)


@pytest.mark.parametrize(
    ("given", "num_samples", "size"),
    [(None, 55_000, 128), (None, 1_078, 10), (None, 300, 8), (None, 5, 5), (64, 80, 64)],
)
def test_small_data_gets_smaller_batches_unless_a_size_is_given(given, num_samples, size):
    assert Stage(1, batch_size=given, task_weight=1.0).batch_size_for(num_samples) == size


def test_klt_needs_no_epoch_and_the_rate_term_shortens_what_it_sends(graph):
    cut, sizes = graph.cut(graph.points[1]), []
    (z,) = cut.head(Corners().splits().val[:8][0])
    for stage in (Stage(0, feature_weight=1.0), Stage(2, 0.3, 32, feature_weight=1.0, rate_weight=1e-2)):
        codec = Klt((4, 8, 8), stages={"tune": stage})
        assert len(fit_codec(codec, graph, graph.points[1], Corners(), 0)) == stage.max_epochs
        sizes.append(len(codec.encode((z,))))
    assert 16 < sizes[1] < 0.9 * sizes[0] < 0.9 * 8 * 4 * 64
