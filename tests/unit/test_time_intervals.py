"""Times that the clock took part in have intervals, and what differs by less is a tie that is named."""

import numpy as np
import pandas as pd
import pytest

from splitsem.intervals import median_half_width, of_one, wander
from splitsem.report import results as rs
from splitsem.report.best import as_metrics, best
from splitsem.report.fronts import TOLERANCE
from splitsem.report.tables import table
from splitsem.report.terminal import Screen, terminal
from splitsem.report.time_intervals import drift, with_intervals
from tests.unit.test_sensitivity import EARLY, configuration

MEASURED = {"encode_s_ci95": 0.0, "decode_s_ci95": 0.0, "coding_drift": 0.05}


def sweep(*encode_s: float, head_s: float = 0.001, **changes) -> pd.DataFrame:
    """Cuts ``p0``, ``p1``, … whose edge is the slowest stage, and which differ in the time of coding."""
    rows = [configuration(f"p{i}", head_s=head_s, encode_s=s, link_busy_s=0.0005) for i, s in enumerate(encode_s)]
    return pd.DataFrame(rows).assign(**(MEASURED | changes))


def test_coding_that_may_be_off_moves_the_latency_by_as_much():
    results = sweep(0.002, 0.004)
    off = drift(results)
    found = with_intervals(results)
    np.testing.assert_allclose(found["latency_s_ci95"], off * results["encode_s"], rtol=1e-9)
    exact = [abs(1 / (s * (1 + off) + 0.001) - 1 / (s * (1 - off) + 0.001)) / 2 for s in results["encode_s"]]
    np.testing.assert_allclose(found["throughput_hz_ci95"], exact, rtol=1e-9)
    np.testing.assert_allclose(found["energy_j_ci95"], 4.0 * off * results["encode_s"], rtol=1e-9)  # ACTIVE_W


def test_the_spread_over_the_samples_adds_to_the_drift():
    results = sweep(0.002, encode_s_ci95=0.0006)
    np.testing.assert_allclose(
        with_intervals(results)["latency_s_ci95"], 0.002 * np.hypot(drift(results), 0.3), rtol=1e-9
    )


def test_a_pace_that_the_link_sets_is_as_exact_as_estimates_are():
    results = pd.DataFrame([EARLY | {"encode_s": 1e-9}]).assign(**MEASURED)
    found = with_intervals(results).iloc[0]
    assert found["throughput_hz_ci95"] == pytest.approx(TOLERANCE / 2**0.5 * EARLY["throughput_hz"])


def test_halves_that_were_measured_drift_like_coding():
    results = sweep(0.002, edge_timing="measured", server_timing="roofline")
    assert with_intervals(results)["latency_s_ci95"].item() == pytest.approx(0.003 * drift(results))


def test_a_time_is_no_more_off_than_all_its_coding():
    found = with_intervals(sweep(0.002, encode_s_ci95=0.1)).iloc[0]
    assert 0.0018 < found["latency_s_ci95"] < 0.002
    assert 0.9 < found["energy_j_ci95"] / (4.0 * 0.002) < 1.0  # ACTIVE_W


def test_coding_without_an_interval_leaves_the_row_without_one():
    found = with_intervals(sweep(0.002, 0.003).assign(encode_s_ci95=[0.0, np.nan]))
    assert found["latency_s_ci95"].isna().tolist() == [False, True]


def test_times_over_seeds_are_no_more_exact_than_estimates_are():
    results = sweep(0.002, 0.002, head_s=0.001).assign(split_point="p0", split_index=1, series="quant8")
    results["override.seed"] = [0, 1]
    row = rs.prepare(with_intervals(results)).iloc[0]
    assert row["num_runs"] == 2
    assert row["latency_s_ci95"] == pytest.approx(TOLERANCE / 2**0.5 * row["latency_s"])


def test_one_odd_job_does_not_make_all_times_vague():
    calm = sweep(*[0.002] * 20)
    odd = calm.assign(coding_drift=[0.05] * 19 + [3.0])
    assert drift(odd) == pytest.approx(drift(calm))
    assert np.isnan(drift(calm.drop(columns="coding_drift")))
    pd.testing.assert_frame_equal(with_intervals(calm.drop(columns="coding_drift")), calm.drop(columns="coding_drift"))


def test_the_drift_covers_the_deviation_that_it_was_told_from():
    draw = np.random.default_rng(0)
    jobs = draw.normal(0.0, 0.1, (400, 4))
    off = of_one(jobs.std(axis=1, ddof=1).tolist(), 3)
    assert off == pytest.approx(1.96 * 0.1, rel=0.1)


def test_the_median_of_a_job_lies_in_its_interval_19_times_of_20():
    draw = np.random.default_rng(0)
    jobs = draw.exponential(1.0, (500, 96))
    halves = [median_half_width(times) for times in jobs]
    assert 0.92 < (np.abs(np.median(jobs, axis=1) - np.log(2)) < halves).mean() < 0.99


def test_a_machine_that_slows_down_is_seen_by_its_wander_and_not_by_the_spread():
    slowing = [1.0] * 48 + [1.3] * 48
    assert wander(slowing) > 0.1
    assert wander([1.0, 1.3] * 48) == 0.0


def test_cuts_whose_times_cannot_be_told_apart_are_named_as_ties_the_same_in_words_and_in_numbers():
    results = with_intervals(sweep(0.0020, 0.0021, 0.0030))
    for answer in best(results):
        assert answer.row["split_point"] == "p0"
        assert "; a tie with p1" in answer.sentence
        assert "p2" not in answer.sentence
    found = as_metrics(best(results))
    assert (found["winner_latency_s"], found["tied_latency_s"]) == ("p0 · quant8", "p1 · quant8")
    assert "± " in best(results)[1].sentence.partition(" at score")[0]
    calm = with_intervals(sweep(0.0020, 0.0021, 0.0030, coding_drift=1e-4))
    assert not any(name.startswith("tied") for name in as_metrics(best(calm)))


def test_a_baseline_beats_the_cuts_beyond_the_interval_only():
    for encode_s, is_beaten in ((0.00195, False), (0.001, True)):
        sent = configuration("input", encode_s=encode_s, head_s=0.001, link_busy_s=0.0005) | {"reference": "png"}
        results = with_intervals(pd.concat([sweep(0.002), pd.DataFrame([sent]).assign(**MEASURED)]))
        answer = best(results)[1]
        assert ("beats every cut" in answer.sentence) == is_beaten
        assert ("beaten_latency_s" in as_metrics([answer])) == is_beaten
        assert ("a tie with sending the picture" in answer.sentence) != is_beaten


def test_the_table_says_what_was_measured_here_and_how_exactly():
    console = terminal(Screen(100, False))
    timings = {"edge_timing": "roofline", "server_timing": "roofline", "coding_timing": "scaled"}
    with console.capture() as shown:
        console.print(table(sweep(0.002, 0.004, **timings)))
    text = " ".join(shown.get().split())
    assert f"measured here: coding (±{100 * drift(sweep(0.002, 0.004)):.0f} %), scaled" in text
    assert "scaled · estimated: head, tail, energy" in text
