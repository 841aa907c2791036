"""The points of a graph: which are offered, what they are called, what is known about them."""

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from torch import Tensor, nn

from splitsem.errors import ConfigError, SplitPointError
from splitsem.splitting.graph import SplitGraph


class Normalised(nn.Module):
    """Normalises, then two conv → batch norm → relu layers, a pooling and a classifier."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.layer2 = nn.Sequential(nn.Conv2d(width, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer2(self.layer1((x - 0.5) / 0.25))
        return self.classifier(y.mean((2, 3)))


class Forecaster(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.readout = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.lstm(x)[0][:, -1])


@pytest.fixture(scope="module")
def graph() -> SplitGraph:
    return SplitGraph(Normalised(), (3, 8, 8))


def test_a_layer_is_one_point_and_the_ends_are_points(graph: SplitGraph) -> None:
    assert [p.name for p in graph.points] == ["input", "layer1", "mean", "output"]
    assert [p.index for p in graph.points] == [0, 1, 2, 3]


def test_op_granularity_offers_every_operation_once() -> None:
    graph = SplitGraph(Normalised(), (3, 8, 8), granularity="op")
    names = [p.name for p in graph.points]
    assert names == ["input", "sub", "div", "layer1.0", "layer1.1", "layer1",
                     "layer2.0", "layer2.1", "layer2", "mean", "output"]  # fmt: skip


def test_a_name_means_the_same_cut_at_both_granularities(graph: SplitGraph) -> None:
    fine = SplitGraph(Normalised(), (3, 8, 8), granularity="op")
    for point in graph.points:
        assert fine.point(point.name).head_flops == point.head_flops
        assert fine.point(point.name).tensors == point.tensors


def test_a_point_knows_its_bytes_and_whether_it_is_a_bottleneck(graph: SplitGraph) -> None:
    assert [p.raw_bytes for p in graph.points] == [3 * 64 * 4, 8 * 64 * 4, 16 * 4, 10 * 4]
    assert [p.is_bottleneck for p in graph.points] == [False, False, True, True]
    assert graph.point("layer1").tensors[0].shape == (1, 8, 8, 8)


def test_half_precision_features_count_as_float32_and_integers_at_their_own_size() -> None:
    class Rounds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 255).to(torch.uint8) + 1

    assert SplitGraph(Normalised().bfloat16(), (3, 8, 8)).point("layer1").raw_bytes == 8 * 64 * 4
    graph = SplitGraph(Rounds(), (3, 8, 8), granularity="op")
    assert [p.raw_bytes for p in graph.points] == [768, 768, 192, 192]


def test_work_moves_from_tail_to_head(graph: SplitGraph) -> None:
    total = graph.points[0].tail_flops
    assert graph.points[0].head_ops == ()
    assert graph.points[-1].tail_ops == ()
    for point in graph.points:
        assert point.head_flops + point.tail_flops == total
    assert [p.head_flops for p in graph.points] == sorted(p.head_flops for p in graph.points)


def test_weights_move_from_tail_to_head(graph: SplitGraph) -> None:
    layer1 = sum(t.numel() for n, t in Normalised().state_dict().items() if "layer1" in n and t.is_floating_point()) * 4
    assert graph.points[0].head_param_bytes == 0
    assert graph.point("layer1").head_param_bytes == layer1
    assert len({p.head_param_bytes + p.tail_param_bytes for p in graph.points}) == 1


def test_an_unknown_point_lists_the_valid_ones_and_suggests_the_closest(graph: SplitGraph) -> None:
    with pytest.raises(SplitPointError, match=r"did you mean 'layer1'.*input, layer1, mean, output"):
        graph.point("layer_1")
    with pytest.raises(SplitPointError, match=r"no split point 4; valid: 0…3"):
        graph.point(4)
    assert graph.point(-1).name == "output"


def test_a_tuple_never_crosses() -> None:
    graph = SplitGraph(Forecaster(), (5, 4), granularity="op")
    assert graph.refused == {"lstm.lstm": "a tuple crosses"}
    assert [p.name for p in graph.points] == ["input", "lstm", "select", "output"]
    with pytest.raises(SplitPointError, match="a tuple crosses"):
        graph.point("lstm.lstm")


def test_names_survive_a_hydra_command_line() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.ModuleDict({"null": nn.Linear(4, 4)})["null"])
    model.add_module("output", nn.Linear(4, 4))
    model.add_module("naïve-name", nn.Sequential(nn.Linear(4, 4), nn.GELU()))
    model.add_module("end", nn.Linear(4, 4))
    names = [p.name for p in SplitGraph(model, (4,), granularity="op").points]
    assert len(set(names)) == len(names)
    assert "model.output" in names
    parsed = OverridesParser.create().parse_overrides([f"split.point={name}" for name in names])
    assert [p.value() for p in parsed] == names


def test_repeated_modules_get_numbered_names() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 4))
    assert [p.name for p in SplitGraph(model, (4,)).points] == ["input", "model.1", "model.3", "output"]


def test_the_fingerprint_follows_structure_and_shapes_but_not_values(graph: SplitGraph) -> None:
    torch.manual_seed(3)
    assert SplitGraph(Normalised(), (3, 8, 8), granularity="op").fingerprint == graph.fingerprint
    assert SplitGraph(Normalised(width=9), (3, 8, 8)).fingerprint != graph.fingerprint
    assert SplitGraph(Normalised(), (3, 9, 9)).fingerprint != graph.fingerprint


def test_bad_arguments_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="granularity must be 'layer' or 'op', got 'block'"):
        SplitGraph(Normalised(), (3, 8, 8), granularity="block")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a shape must be"):
        SplitGraph(Normalised(), ())


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda x: x, "computes nothing"),
        (lambda x: x + 1 if x.sum() > 0 else x, "decides by values"),
        (lambda x: x @ torch.ones(7, 7), "does not run on an input of .1, 4.: .*"),
    ],
)
def test_models_that_cannot_be_split_say_why(forward: object, reason: str) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)  # type: ignore[operator]

    with pytest.raises(ConfigError, match=reason):
        SplitGraph(Odd(), (4,))


def test_a_mapping_is_returned_whole() -> None:
    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.classifier, self.aux = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = self.body(x)
            return {"aux": nn.functional.relu_(self.aux(y)), "out": self.classifier(y)}

    model, x = Segments(), torch.rand(3, 3, 4, 4)
    cut = SplitGraph(model, (3, 4, 4)).cut("body")
    split, whole = cut.tail(*cut.head(x)), model(x)
    assert list(split) == list(whole)
    assert all(torch.equal(split[name], whole[name]) for name in whole)


def test_preprocessing_that_shrinks_the_input_is_a_point_of_its_own() -> None:
    class Crops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x[:, :, ::2, ::2] - 0.5)

    assert [p.name for p in SplitGraph(Crops(), (3, 8, 8)).points] == ["input", "sub", "output"]
