"""Layers of a network: timed inside the whole network, as tables and figures, and as a machine that is used again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from splitsem.cost.layer_memory import measure_peaks
from splitsem.cost.layer_profile import LayerProfile, layers_json, parse_layers, profile_layers
from splitsem.cost.layers import LayerTimes, measure_layers
from splitsem.cost.lut import measure_lut
from splitsem.cost.machine_file import (
    Errors,
    MachineFile,
    MeasuredNetwork,
    Predictor,
    check_same,
    left_out,
    read_machine_file,
    write_machine_file,
)
from splitsem.cost.measure import MachineRates, Timing
from splitsem.cost.op_regression import OpRegression, group_of
from splitsem.cost.probes import probe_networks
from splitsem.cost.profiled import Profiled
from splitsem.cost.sensors import Watched
from splitsem.errors import ConfigError
from splitsem.models.cnn import StagedCnn
from splitsem.placement import describe_run
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.half import OpCost, OpShape

pytest.importorskip("scipy")
pytest.importorskip("pandas")
SEEN = Watched(1.0, 4.0, "estimated", "time × 4 W", 1.0, 1, 0)


@pytest.fixture(scope="module")
def graph() -> SplitGraph:
    return SplitGraph(StagedCnn((1, 8, 8), (10,)).eval(), (1, 8, 8))


@pytest.fixture(scope="module")
def layers(graph: SplitGraph) -> LayerTimes:
    return measure_layers(graph, rounds=8, budget_s=0.5)


def model_s(op: OpCost) -> float:
    """A machine that takes 1 µs for each operation, 1 ns for a FLOP and 2 ns for a byte."""
    return op.steps * 1e-6 + 1e-9 * op.flops + 2e-9 * op.bytes


def as_measured(graph: SplitGraph, family: str) -> MeasuredNetwork:
    costs = tuple(cost for part in graph.parts() for cost in part.costs)
    times = tuple(Timing.of([model_s(cost)] * 3) for cost in costs)
    whole = Timing.of([1.1 * sum(map(model_s, costs))] * 3)
    return MeasuredNetwork.of(family, graph.fingerprint, LayerTimes(costs, times, whole, 3, (0,) * len(costs)))


@pytest.fixture(scope="module")
def known(graph: SplitGraph) -> MachineFile:
    networks = {"cnn": as_measured(graph, "cnn")}
    for name, network, shape in probe_networks(num=3):
        networks[name] = as_measured(SplitGraph(network, shape), name)
    return MachineFile({"processor": "one that is computed"}, torch.__version__, networks, left_out(networks))


def test_every_operation_has_a_time_and_their_sum_is_near_the_whole(graph: SplitGraph, layers: LayerTimes) -> None:
    assert [cost.name for cost in layers.costs] == [op.name for op in graph.points[-1].head_ops]
    assert all(0 < time.low_s <= time.median_s <= time.high_s <= time.p95_s * 2 for time in layers.times)
    assert 0.3 < layers.sum_ratio < 10
    assert layers.num_rounds >= 5


def test_layers_and_points_have_what_they_cost(graph: SplitGraph, layers: LayerTimes, tmp_path: Path) -> None:
    from splitsem.workflows.layer_tables import draw_roofline, layer_bars, layer_table, point_table, write_tables

    found = LayerProfile(layers, SEEN, (), {})
    table = layer_table(graph, found)
    assert table["weight_bytes"].sum() == graph.points[-1].head_param_bytes
    assert table["flops"].sum() == sum(op.flops for op in graph.points[-1].head_ops)
    assert table["energy_j"].sum() == pytest.approx(4.0 * table["median_s"].sum())
    assert set(table["energy_source"]) == {"estimated"}
    assert (table["live_bytes"] > 0).all()
    lut = measure_lut((half for point in graph.points for half in graph.cut(point).halves()), budget_s=0.001)
    points = point_table(graph, lut, found).set_index("split_point")
    assert points.loc["output", "head_peak_bytes"] == max(layers.peak_bytes) + graph.points[-1].head_param_bytes
    assert points.loc["input", "head_median_s"] == 0 == points.loc["output", "tail_peak_bytes"]
    assert points.loc["output", "head_peak_bytes"] >= graph.points[-1].head_param_bytes
    assert points.loc["input", "tail_parameters"] == points.loc["output", "head_parameters"]
    assert set(write_tables({"layers": table}, tmp_path)) >= {"layers.csv"}
    assert len(layer_bars(table, "a machine").axes[0].patches) == min(len(table), 60)
    assert draw_roofline(table, MachineRates(1e11, 1e10), "a machine").axes
    tails = point_table(graph, replace(lut, times={p: {"tail": t["tail"]} for p, t in lut.times.items()}), found)
    assert "head_median_s" not in tails
    assert "tail_median_s" in tails


class Wide(nn.Module):
    """Two views of one input: what a kernel takes for itself is in no graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.repeat(1, 64)
        return torch.sort(y).values.sum(1, keepdim=True) + y.mean(1, keepdim=True)


def test_peak_memory_is_what_the_allocator_held_and_more_than_the_graph_knows() -> None:
    graph = SplitGraph(Wide().eval(), (1000,))
    peaks = measure_peaks(graph)
    raw = {part.costs[-1].name: part.raw_bytes for part in graph.parts() if part.costs}
    assert 0 <= peaks["repeat"] - (raw["repeat"] + 4 * 1000) < 1000  # what it makes, and the input that it reads
    assert peaks["sort"] >= 2 * raw["sort"] + 8 * 64_000  # read and made, and the places that nobody asked for
    assert peaks["mean"] < peaks["sort"]  # what was sorted is gone by then


def test_a_profile_travels_as_text_and_power_that_was_not_measured_is_the_readers(graph: SplitGraph) -> None:
    found = profile_layers(graph, 0.05, 0.0, "nothing")
    again = parse_layers(layers_json(found, graph.fingerprint), "the server", graph, 30.0, "hardware.server.active_w")
    assert again.times == found.times
    if found.watched.source == "estimated":
        assert (again.watched.watts, again.watched.source) == (30.0, "estimated")
        assert again.watched.said == "time × 30 W of hardware.server.active_w"
    measured = replace(found, watched=replace(found.watched, watts=7.0, source="measured", said="RAPL"))
    again = parse_layers(layers_json(measured, graph.fingerprint), "the server", graph, 30.0, "")
    assert (again.watched.watts, again.watched.source, again.watched.said) == (7.0, "measured", "RAPL")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:-20], "is not a whole profile of layers"),
        (lambda text: text.replace("layers/1", "layers/9"), "its schema is 'splitsem.layers/9'"),
        (lambda text: text.replace('"peak_bytes": ', '"peak_bytes": -'), "Expected `int` >= 0"),
        (lambda text: text.replace('"conv2d"', '"conv9d"'), "has 'conv9d', which is no operation of this network"),
        (lambda text: text.replace('"fingerprint": "', '"fingerprint": "x'), "is of another network"),
    ],
)
def test_a_damaged_profile_is_refused_in_a_line(graph: SplitGraph, change, said: str) -> None:
    text = layers_json(profile_layers(graph, 0.01, 0.0, ""), graph.fingerprint)
    with pytest.raises(ConfigError, match=said) as caught:
        parse_layers(change(text), "the server", graph, 1.0, "")
    assert "\n" not in str(caught.value)


def _conv(shape: OpShape, elements: int) -> OpCost:
    """A convolution that reads so many elements."""
    kernel_bytes = 4.0 * shape.columns * shape.depth
    moved = 4.0 * (elements + shape.rows * shape.columns) + kernel_bytes
    return OpCost("", 1.0, moved, kernel_bytes=kernel_bytes, kind="conv2d", shape=shape)


@pytest.mark.parametrize(
    ("op", "group"),
    [
        (_conv(OpShape(64, 32, 16), 64 * 16), "pointwise"),
        (_conv(OpShape(64, 32, 16, permuted=1), 64 * 16), "pointwise permuted"),
        (_conv(OpShape(16, 32, 16), 64 * 16), "strided"),  # reads four pixels for each that it makes
        (_conv(OpShape(1, 32, 16), 16), "pixel"),
        (_conv(OpShape(49, 512, 4608, 1, 9), 49 * 512), "convolution"),
        (_conv(OpShape(36, 512, 4608, 1, 9), 36 * 512), "small convolution"),
        (_conv(OpShape(36, 64, 75, 1, 25), 36 * 3), "convolution"),  # a window that is no small one
        (OpCost("", 1.0, 1.0, kind="conv2d", shape=OpShape(64, 1, 9, 32, 9)), "depthwise"),
        (OpCost("", 1.0, 1.0, kind="conv2d", shape=OpShape(64, 8, 72, 4, 9)), "grouped"),
        (OpCost("", 1.0, 1.0, kind="gelu"), "gelu"),
        (OpCost("", 1.0, 1.0, kind="lstm"), "lstm"),
        (OpCost("", 1.0, 1.0, kind="linear"), "vector"),
    ],
)
def test_operations_are_grouped_by_what_runs(op: OpCost, group: str) -> None:
    assert group_of(op) == group


def test_operations_say_what_they_multiply() -> None:
    network = nn.Sequential(nn.Conv2d(6, 12, 3, groups=3), nn.Flatten(), nn.Linear(12 * 6 * 6, 5))
    graph = SplitGraph(network.eval(), (6, 8, 8))
    convolution, linear = (cost for part in graph.parts() for cost in part.costs)
    assert (convolution.kind, convolution.shape) == ("conv2d", OpShape(36, 4, 18, 3, 9))
    assert (linear.kind, linear.shape) == ("linear", OpShape(1, 5, 432))
    for op in (convolution, linear):
        rows, columns, depth, groups, *_ = op.shape
        assert op.flops == 2 * rows * columns * depth * groups


def test_a_regression_finds_the_machine_that_made_the_times(known: MachineFile) -> None:
    assert known.errors["all"].median < 0.02
    assert set(known.errors) == {"all", *known.networks}
    predictor = Predictor([*known.networks.values()])
    assert predictor.factor == pytest.approx(1.1, abs=0.02)
    unseen = SplitGraph(StagedCnn((3, 32, 32), (10,)).eval(), (3, 32, 32))
    (head, _), ops = unseen.cut("output").halves(), unseen.points[-1].head_ops
    assert predictor.time_s(head.ops) == pytest.approx(1.1 * sum(map(model_s, ops)), rel=0.25)
    assert predictor.time_s([]) == 0.0


def test_memory_that_is_not_in_order_is_told() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.LayerNorm(4), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    graph = SplitGraph(Last().eval(), (4, 8, 8))
    kinds = {cost.kind: cost.shape.permuted for part in graph.parts() for cost in part.costs if cost.flops}
    assert kinds["conv2d"] == 1
    plain = SplitGraph(nn.Conv2d(4, 4, 1).eval(), (4, 8, 8))
    assert [cost.shape.permuted for part in plain.parts() for cost in part.costs if cost.flops] == [0]


def test_a_convolution_of_broken_vectors_is_not_predicted_from_full_ones() -> None:
    """As torch does it: as many weights take three times as long at 9 pixels as at 16."""

    def op(rows: int, columns: int) -> OpCost:
        shape = OpShape(rows, columns, 512)
        return replace(_conv(shape, rows * 512), flops=2.0 * rows * columns * 512)

    def taken_s(one: OpCost) -> float:
        return 1e-6 + one.flops / 1e11 + (0.0 if one.shape.rows % 16 == 0 else one.kernel_bytes / 3e9)

    seen = [op(rows, columns) for rows in (4, 16, 25, 36, 48, 64) for columns in (128, 192, 256, 384, 512)]
    found = OpRegression(seen, [taken_s(one) for one in seen])
    for rows in (9, 32, 49):
        assert found.times_s([op(rows, 320)])[0] == pytest.approx(taken_s(op(rows, 320)), rel=0.15)


def test_without_operations_there_is_no_regression() -> None:
    with pytest.raises(ValueError, match="8 operations or more"):
        OpRegression([OpCost("a", 1.0, 1.0)], [1.0])


def test_errors_are_of_families_left_out(known: MachineFile) -> None:
    assert Errors.of([1.1, 0.8, 1.0]) == Errors(3, 0.1, 0.18)
    assert left_out({"cnn": known.networks["cnn"]}) == {}


def test_a_machine_file_survives_and_predicts_with_its_error(known: MachineFile, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    write_machine_file(known, path)
    assert read_machine_file(path).networks == dict(known.networks)
    machine = Profiled(str(path), 5.0, 1.0, 1e7)
    half = SplitGraph(StagedCnn((3, 32, 32), (10,)).eval(), (3, 32, 32)).cut("stage2").halves()[0]
    low, high = machine.interval_s(half)
    assert low < machine.time_s(half) < high
    assert machine.error(half) == known.errors["all"].p90
    assert high / machine.time_s(half) == pytest.approx(1 + known.errors["all"].p90)


def test_a_network_in_the_file_has_its_measured_times(graph: SplitGraph, layers: LayerTimes, tmp_path: Path) -> None:
    lut = measure_lut((half for point in graph.points for half in graph.cut(point).halves()), budget_s=0.001)
    own = MeasuredNetwork.of("cnn", graph.fingerprint, layers, lut)
    write_machine_file(MachineFile({}, torch.__version__, {"cnn": own}), tmp_path / "machine.json")
    machine, half = Profiled(str(tmp_path / "machine.json"), 5.0, 1.0, 1e7), graph.cut("stage2").halves()[1]
    assert machine.time_s(half) == lut.times["stage2"]["tail"].median_s
    assert machine.error(half) == 0.0
    other = SplitGraph(StagedCnn((3, 32, 32), (10,)).eval(), (3, 32, 32)).cut("stage2").halves()[0]
    assert machine.error(other) is None
    with pytest.raises(ConfigError, match="networks of one family only"):
        machine.interval_s(other)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": "splitsem.lut/1"}', "its schema is 'splitsem.lut/1'"),
        ('{"schema": "splitsem.machine/1", "torch": "2", "machine": {}, "networks": {}}', "it has no network"),
    ],
)
def test_another_file_is_refused_in_a_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "machine.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_machine_file(tmp_path / "machine.json")


def test_a_file_of_another_version_or_machine_is_not_added_to(known: MachineFile) -> None:
    with pytest.raises(ConfigError, match=r"measured with torch .*, this is 1\.0: measure its networks anew"):
        check_same(known, {"torch": "1.0"})
    with pytest.raises(ConfigError, match="measured with processor one that is computed, this is a Pi: measure"):
        check_same(known, {"processor": "a Pi", "gpu": "none", "torch": known.torch})


def test_a_prediction_says_its_error_and_another_version_once(
    graph: SplitGraph, known: MachineFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, point = tmp_path / "old.json", graph.points[1]
    write_machine_file(replace(known, machine={}, torch="1.0"), path)
    for _ in range(2):
        machine = Profiled(str(path), 5.0, 1.0)
        for half in graph.cut(point).halves():
            machine.time_s(half)
    assert [record.message.partition(", ")[0] for record in caplog.records] == [
        f"{path} was measured with torch 1.0",
        f"{path} has no times of some halves of this network (profiled at other points): they are predicted",
    ]
    assert "90 % within" in caplog.text


def test_a_file_of_another_machine_is_used_and_said_to_be_another_ones(
    graph: SplitGraph, known: MachineFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, half = describe_run("cpu"), graph.cut("stage2").halves()[0]
    version = here.pop("torch")
    others = {"same": {}, "threads": {"num_threads": "64"}, "board": {"processor": "a Pi", "num_threads": "4"}}
    for name, words in others.items():
        write_machine_file(replace(known, machine=here | words, torch=version), tmp_path / f"{name}.json")
        assert Profiled(str(tmp_path / f"{name}.json"), 5.0, 1.0).time_s(half) > 0
    said = [record.message for record in caplog.records if "was measured with" in record.message]
    own = here["num_threads"]
    assert said == [
        f"{tmp_path}/threads.json was measured with num_threads 64, this is {own}: its times are of that machine as it "
        "was then",
        f"{tmp_path}/board.json was measured with processor a Pi, this is {here['processor']}; num_threads 4, this is "
        f"{own}: its times are of that machine as it was then",
    ]
    machine = Profiled(str(tmp_path / "same.json"), 5.0, 1.0)
    machine.say_foreign(here | {"processor": "another", "torch": version}, "the server there:1")
    assert f"processor {here['processor']}, the server there:1 is another: its times" in caplog.records[-1].message
