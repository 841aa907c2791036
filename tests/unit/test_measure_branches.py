"""Measuring units: what is run, how often, and that a table of it fits the network."""

from dataclasses import replace

import pytest
import torch

from splitsem.cost.branch_meter import BranchMeter, describe_now
from splitsem.cost.measure import MachineRates, measure_rates
from splitsem.errors import ConfigError
from splitsem.placement import Placement
from tests.unit.toy_chain import ToyChain, whole_gammas

CPU = Placement("cpu")


def test_every_unit_is_measured_in_every_way_and_ways_take_turns() -> None:
    chain = ToyChain()
    lut = BranchMeter(budget_s=30, repeats=4).measure("toy", chain, CPU, MachineRates(1e11, 1e10))
    lut.check_fits("toy", chain.facts())
    ways = [(row, g) for row, spec in enumerate(chain.specs) for g in spec.gammas]
    whole = [pair for folded in (False, True) for pair in enumerate(whole_gammas(lut, folded))]
    assert sorted(chain.made) == sorted([*ways, *whole])
    assert {way.repeats for way in lut.units[1].ways.values()} == {4}  # the richest unit: once a round
    assert sum(way.repeats for way in lut.units[2].ways.values()) == 4 * 14  # the others as often in all
    assert max(w.repeats for w in lut.units[2].ways.values()) - min(w.repeats for w in lut.units[2].ways.values()) <= 4
    assert all(way.time.p10_s > 0 for unit in lut.units for way in unit.ways.values())
    assert lut.machine["accelerator"] == "cpu"
    assert lut.machine["num_threads"] == str(torch.get_num_threads())
    assert lut.packages["torch"] == torch.__version__


def test_little_memory_means_several_stretches_and_the_same_table() -> None:
    chain = ToyChain()
    lut = BranchMeter(budget_s=30, repeats=3, memory_bytes=1.0).measure("toy", chain, CPU)
    lut.check_fits("toy", chain.facts())
    assert {way.repeats for unit in lut.units for way in unit.ways.values()} == {3}


def test_a_spent_budget_still_gives_three_repeats() -> None:
    lut = BranchMeter(budget_s=1e-9, repeats=1000).measure("toy", ToyChain(), CPU)
    assert {way.repeats for way in lut.units[1].ways.values()} == {3}


def test_half_precision_halves_the_bytes() -> None:
    whole, half = (
        BranchMeter(budget_s=1e-9).measure("toy", ToyChain(), Placement("cpu", precision)).to_arrays()
        for precision in ("float32", "bfloat16")
    )
    assert (whole.link_bytes == 2 * half.link_bytes).all()
    assert (whole.bytes[0] == 2 * half.bytes[0]).any()
    assert (whole.flops == half.flops).all()


def test_a_unit_that_makes_another_shape_is_refused() -> None:
    chain = ToyChain()
    chain.specs[2] = replace(chain.specs[2], output_shape=(8, 8, 8))
    with pytest.raises(ConfigError, match=r"'stage1.1' with γ 0 makes \[1, 8, 4, 4\], expected \[1, 8, 8, 8\]"):
        BranchMeter().measure("toy", chain, CPU)


def test_whole_networks_take_turns_with_the_units_and_are_held_against_their_sum() -> None:
    chain = ToyChain()
    meter = BranchMeter(budget_s=30, repeats=4)
    lut = meter.measure("toy", chain, CPU)
    assert lut.calibration is not None
    assert [c.gammas for c in lut.calibration.chains] == [
        whole_gammas(lut, folded=False),
        whole_gammas(lut, folded=True),
    ]
    assert all(c.sum_s == lut.sum_s(c.gammas) for c in lut.calibration.chains)
    assert 0.02 < lut.calibration.factor < 50  # a sanity bound: this machine is shared
    chosen = meter.measure("toy", chain, CPU, choices=[[0, 2, 1, 0]]).calibration
    assert chosen is not None
    assert [c.gammas for c in chosen.chains] == [(0, 2, 1, 0)]
    for wrong in ([0, 2, 2, 0], [0, 2, 1]):
        with pytest.raises(ValueError, match="an offered γ for each of the 4 units"):
            meter.measure("toy", chain, CPU, choices=[wrong])


@pytest.mark.parametrize("setting", [{"budget_s": 0}, {"repeats": 2}, {"memory_bytes": float("nan")}])
def test_settings_without_sense_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be"):
        BranchMeter(**setting)  # type: ignore[arg-type]


def test_this_machine_has_a_knee() -> None:
    rates = measure_rates(CPU, budget_s=1e-9)
    assert 1e8 < rates.peak_flops_per_s < 1e15
    assert 1e8 < rates.memory_bytes_per_s < 1e13
    assert rates.knee == rates.peak_flops_per_s / rates.memory_bytes_per_s


def test_a_busy_machine_is_told_and_in_the_file(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("psutil.getloadavg", lambda: (999.0, 0.0, 0.0))
    assert describe_now(CPU)["load"] == "999.00"
    assert "The machine is busy (load 999.0" in caplog.text
