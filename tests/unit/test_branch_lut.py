"""Tables of units: written, read back, refused with a reason, merged, and turned into arrays."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from splitsem.cost.branch_lut import BranchLut, UnitLut, Way, branch_frame, choice_frame
from splitsem.cost.fits import AnswerWay, FrameFit, LinkFit, fit_link
from splitsem.cost.hardware_lut import merge, read_branch_lut, write_branch_lut, write_hardware_lut
from splitsem.cost.measure import Calibration, ChainTime, MachineRates, Timing
from splitsem.errors import ConfigError
from tests.unit.hardware_lut_file import read_hardware_lut
from tests.unit.toy_chain import ToyChain, block_spec, whole_gammas

CHAIN = ToyChain()


def table(factor: float = 1.0, **changes: Any) -> BranchLut:
    """A table of the toy chain whose times are its FLOPs in nanoseconds, times ``factor``."""
    units = []
    for spec in CHAIN.facts():
        times_s = {gamma: factor * flops * 1e-9 for gamma, flops in spec.flops.items()}
        ways = {
            gamma: Way(Timing(t, 0.9 * t, 1.2 * t), 7, spec.flops[gamma], spec.bytes[gamma])
            for gamma, t in times_s.items()
        }
        units.append(UnitLut(spec.name, spec.input_shape, spec.output_shape, 4 * int(np.prod(spec.output_shape)), ways))
    rates = MachineRates(1e11, 2e10)
    return replace(BranchLut("toy", 768, units, {"processor": "p"}, {"torch": "2.14.1"}, rates), **changes)


def calibrated() -> BranchLut:
    lut = table()
    choices = whole_gammas(lut, folded=True), whole_gammas(lut, folded=False)
    chains = [ChainTime(gammas, Timing(*[1.5 * lut.sum_s(gammas)] * 3), lut.sum_s(gammas)) for gammas in choices]
    return replace(lut, calibration=Calibration(chains))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lut.json"
    write_branch_lut(calibrated(), path)
    return path


def test_a_table_survives_its_file(path: Path) -> None:
    assert read_branch_lut(path) == replace(calibrated(), source=str(path))


def test_arrays_hold_infinity_exactly_where_a_way_is_not_offered() -> None:
    lut = table()
    arrays = lut.to_arrays()
    assert arrays.time_s.shape == arrays.flops.shape == arrays.bytes.shape == (4, 14)
    for row, unit in enumerate(lut.units):
        assert set(np.flatnonzero(np.isfinite(arrays.time_s[row]))) == set(unit.ways)
    assert arrays.time_s[2, 3] == lut.units[2].ways[3].time.median_s
    assert arrays.link_bytes.tolist() == [768, 1024, 1024, 512, 20]


def test_whole_networks_calibrate_the_times() -> None:
    lut = calibrated()
    assert lut.calibration is not None
    assert lut.calibration.factor == pytest.approx(1.5)
    assert lut.calibration.worst_error == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(lut.to_arrays(calibrated=True).time_s, 1.5 * lut.to_arrays().time_s)
    assert whole_gammas(lut, folded=True) == (0, 13, 4, 0)
    assert whole_gammas(lut, folded=False) == (0, 9, 3, 0)


def test_undisturbed_times_are_the_tenth_percentiles() -> None:
    np.testing.assert_allclose(table().to_arrays(undisturbed=True).time_s, 0.9 * table().to_arrays().time_s)
    with pytest.raises(ValueError, match="exclude each other"):
        table().to_arrays(calibrated=True, undisturbed=True)


def test_ways_that_leave_the_same_convolutions_take_the_same_time() -> None:
    """D, D+K, D+I and D+K+I are one convolution of 3 × 3, whatever noise there was between them."""
    work, other = {"flops": 9.0, "bytes": 5.0}, {"flops": 1.0, "bytes": 4.0}
    times = {0: (1.0, work), 4: (3.0, work), 6: (1.5, work), 13: (2.5, work), 1: (0.5, other)}
    measured = {gamma: Way(Timing(t, t, t), 100, **of) for gamma, (t, of) in times.items()}
    unit = replace(table().units[2], ways=measured)
    got = replace(table(), units=[unit], calibration=None).to_arrays().time_s[0]
    assert got[[0, 4, 6, 13, 1]].tolist() == [2.0, 2.0, 2.0, 2.0, 0.5]
    published = {gamma: structs.replace(way, repeats=0) for gamma, way in measured.items()}
    got = replace(table(), units=[replace(unit, ways=published)], calibration=None).to_arrays().time_s[0]
    assert got[[0, 4, 6, 13, 1]].tolist() == [1.0, 3.0, 1.5, 2.5, 0.5]


def test_two_networks_that_disagree_leave_an_error() -> None:
    timing = [Timing(t, t, t) for t in (1.0, 1.21)]
    calibration = Calibration([ChainTime((0,), t, 1.0) for t in timing])
    assert calibration.factor == pytest.approx(1.1)
    assert calibration.worst_error == pytest.approx(0.1)


def test_a_selection_starts_with_what_crosses_before_it() -> None:
    part = table().select(["stage1.1", "head"])
    assert part.to_arrays().link_bytes.tolist() == [1024, 512, 20]
    with pytest.raises(ConfigError, match=r"units that follow each other, of: stem, stage1.0, stage1.1, head"):
        table().select(["stem", "stage1.1"])


def test_every_unit_and_way_has_a_row_with_its_intensity() -> None:
    frame = branch_frame(table())
    assert len(frame) == 1 + 14 + 4 + 1
    row = frame.set_index(["unit", "gamma"]).loc[("stage1.1", 4)]
    assert (row["label"], row["origin"], row["repeats"]) == ("D+K", "measured", 7)
    assert row["flop_per_byte"] == row["flops"] / row["bytes"]
    assert row["flops_per_s"] == pytest.approx(1e9)
    assert frame.groupby("unit", sort=False)["branches"].first().tolist() == ["", "DKI", "DK", ""]


def test_a_solution_says_where_each_unit_runs() -> None:
    frame = choice_frame(table(), (0, 13, 4, 0), num_on_edge=2)
    assert frame["tier"].tolist() == ["edge", "edge", "server", "server"]
    assert frame["gamma"].tolist() == [0, 13, 4, 0]


def set_value(document: dict[str, Any], keys: tuple[Any, ...], value: Any) -> dict[str, Any]:
    inner: Any = document
    for key in keys[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return document


UNIT = ("units", 1)
WAY = (*UNIT, "ways", "4")
PLACE = r"\$.units\[1\].ways.4"
A_WAY = {"time_s": {"median": 1, "p10": 1, "p90": 1}, "repeats": 1, "flops": 1, "bytes": 1}


@pytest.mark.parametrize(
    ("keys", "value", "why"),
    [
        (("schema",), "splitsem.branch_lut/2", "its schema is 'splitsem.branch_lut/2'"),
        (("unit",), "ms", "its unit must be 's', got 'ms'"),
        (("units",), ..., "missing required field `units`"),
        (("units",), [], "units must hold at least one unit"),
        ((*UNIT, "name"), "stem", "units must have names of their own, got 'stem' twice"),
        ((*UNIT, "origin"), "guessed", "origin must be one of measured, published, assumed, got 'guessed'"),
        ((*UNIT, "output_shape"), [4, 0, 8], r"Expected `int` >= 1 - at `\$.units\[1\].output_shape\[1\]`"),
        ((*UNIT, "output_bytes"), -1, r"Expected `int` >= 0 - at `\$.units\[1\].output_bytes`"),
        ((*UNIT, "ways", "14"), A_WAY, r"unit 'stage1.0': γ must be 0…13, got 14 - at `\$.units\[1\]`"),
        ((*UNIT, "ways", "14"), {}, r"missing required field `time_s` - at `\$.units\[1\].ways.14`"),
        ((*UNIT, "ways", "04"), A_WAY, r"Expected `int`, got `str` - at `\$.units\[1\].ways.04`"),
        ((*WAY, "time_s", "median"), -0.1, rf"need 0 <= p10 <= median.* - at `{PLACE}.time_s`"),
        ((*WAY, "time_s", "median"), float("nan"), r"JSON is malformed: invalid character \(byte \d+\)"),
        ((*WAY, "time_s", "p90"), ..., rf"missing required field `p90` - at `{PLACE}.time_s`"),
        ((*WAY, "flops"), float("nan"), r"JSON is malformed: invalid character \(byte \d+\)"),
        ((*WAY, "flops"), -1, rf"Expected `float` >= 0.0 - at `{PLACE}.flops`"),
        ((*WAY, "bytes"), "many", rf"Expected `float`, got `str` - at `{PLACE}.bytes`"),
        ((*WAY, "repeats"), 1.5, rf"Expected `int`, got `float` - at `{PLACE}.repeats`"),
        (("rates", "memory_bytes_per_s"), 0, r"memory_bytes_per_s must be positive and finite.* - at `\$.rates`"),
        (("calibration", "chains", 0, "gammas"), [0, 2, 2, 0], "unit 'stage1.1' has no time for γ 2"),
        (("calibration", "chains", 0, "sum_s"), 0, r"both times must be positive.* at `\$.calibration.chains\[0\]`"),
        (("model", "name"), None, r"Expected `str`, got `null` - at `\$.model.name`"),
    ],
)
def test_a_damaged_table_says_where(path: Path, keys: tuple[Any, ...], value: Any, why: str) -> None:
    path.write_text(json.dumps(set_value(json.loads(path.read_text()), keys, value)))
    with pytest.raises(ConfigError, match=why) as caught:
        read_branch_lut(path)
    assert "\n" not in str(caught.value)


def test_a_table_fits_its_own_model_and_one_whose_branches_were_pruned() -> None:
    specs = list(CHAIN.facts())
    table().check_fits("toy", specs)
    specs[1] = replace(specs[1], flops={4: specs[1].flops[4]})
    table().check_fits("toy", specs)


STRANGERS = {
    "another γ set: unit 'stage1.1' was measured with γ 0, 1, 3, 4, that of toy offers 0, 1, 2": replace(
        CHAIN.specs[2], flops=block_spec("stage1.1", 4, 4, 8, 1).flops
    ),
    "unit 'stage1.1' takes .4, 8, 8. and makes .8, 4, 4., that of toy .4, 8, 8. and .8, 8, 8.": replace(
        CHAIN.specs[2], output_shape=(8, 8, 8)
    ),
    "unit 'stage1.1' with γ 0 has 9472 FLOPs, that of toy 1": replace(CHAIN.specs[2], flops={0: 1.0}),
    "other units than toy: it lacks stage9": replace(CHAIN.specs[2], name="stage9"),
}


@pytest.mark.parametrize("why", STRANGERS)
def test_a_table_of_another_model_is_refused(why: str) -> None:
    specs = [*CHAIN.specs[:2], STRANGERS[why], CHAIN.specs[3]]
    with pytest.raises(ConfigError, match=why):
        table().check_fits("toy", specs)


def test_a_table_of_another_name_or_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'toy', not of 'repvgg_a0'.* model=repvgg_a0 'workflow\.steps=\[lut\]'"):
        table().check_fits("repvgg_a0", CHAIN.specs)
    with pytest.raises(ConfigError, match="it has head"):
        table().check_fits("toy", CHAIN.specs[:3])


def test_two_machines_and_a_link_survive_their_file(tmp_path: Path) -> None:
    frames = FrameFit(1.1, 1.3, 1e-3, 2e-3, -1e-4, 1e-7, 3000.0, 0.02, 0.03, 9)
    whole = replace(
        merge(table(3.0), calibrated(), LinkFit(1e-6, 0.002, 1e-4, 12)),
        answer=AnswerWay("edge", 1, 0.002, 0.001),
        frames=frames,
    )
    write_hardware_lut(whole, tmp_path / "hardware_lut_complete.json")
    read = read_hardware_lut(tmp_path / "hardware_lut_complete.json")
    assert (read.link, read.answer, read.frames) == (whole.link, whole.answer, frames)
    assert (read.edge.units, read.server.units) == (whole.edge.units, whole.server.units)
    assert read.server.calibration == whole.server.calibration
    np.testing.assert_allclose(read.edge.to_arrays().time_s, 3 * read.server.to_arrays().time_s)


def test_a_unit_may_be_missing_on_one_machine_but_not_on_both() -> None:
    edge = table()
    edge = replace(edge, units=[*edge.units[:-1], replace(edge.units[-1], ways={})])
    assert np.isinf(merge(edge, table()).edge.to_arrays().time_s[-1]).all()
    with pytest.raises(ConfigError, match=r"unit 'head' of .* has no time on either machine"):
        merge(edge, edge)


def test_tables_that_are_no_pair_are_refused() -> None:
    ours, last = table(), table().units[-1]
    with pytest.raises(ConfigError, match="two models, 'toy' and 'b'"):
        merge(ours, table(model="b"))
    with pytest.raises(ConfigError, match="different units: head"):
        merge(ours, replace(ours, units=ours.units[:-1]))
    with pytest.raises(ConfigError, match="inputs of 768 and 384 bytes"):
        merge(ours, replace(ours, input_bytes=384))
    with pytest.raises(ConfigError, match=r"unit 'head' .* crossing bytes differ"):
        merge(ours, replace(ours, units=[*ours.units[:-1], replace(last, output_bytes=10)]))
    with pytest.raises(ConfigError, match=r"unit 'head' .* γ sets differ, \[0\] and \[0, 1\]"):
        merge(ours, replace(ours, units=[*ours.units[:-1], replace(last, ways={0: last.ways[0], 1: last.ways[0]})]))


def test_a_link_is_found_again_in_noisy_transfers() -> None:
    rng = np.random.default_rng(0)
    sizes = np.repeat([1e3, 1e4, 1e5, 1e6], 25)
    times_s = 8e-8 * sizes + 0.003 + rng.normal(0, 1e-4, 100)
    fit = fit_link(list(zip(sizes, times_s, strict=True)))
    assert fit.s_per_byte == pytest.approx(8e-8, rel=0.01)
    assert fit.delay_s == pytest.approx(0.003, rel=0.02)
    assert fit.residual_s == pytest.approx(1e-4, rel=0.2)


@pytest.mark.parametrize(
    ("transfers", "expected"),
    [([(0, 0.002), (1000, 0.001)], (0.0, 0.0015)), ([(1000, 0.001), (2000, 0.004)], (1.8e-6, 0.0))],
)
def test_a_fitted_link_never_sends_faster_than_at_once(transfers: Any, expected: tuple[float, float]) -> None:
    fit = fit_link(transfers)
    assert (fit.s_per_byte, fit.delay_s) == pytest.approx(expected)
    assert fit.residual_s > 0


@pytest.mark.parametrize("transfers", [[], [(5, 1.0), (5, 2.0)], [(5, 1.0), (6, float("nan"))], [(-1, 1.0), (6, 1.0)]])
def test_transfers_that_say_nothing_are_refused(transfers: Any) -> None:
    with pytest.raises(ValueError, match="transfers must have"):
        fit_link(transfers)
