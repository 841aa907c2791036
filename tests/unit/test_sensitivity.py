"""How far an assumption may be off: known breakpoints, the units of the link, and no mixing of links."""

import numpy as np
import pandas as pd
import pytest

from splitsem.report.best import best
from splitsem.report.results import describe, prepare
from splitsem.report.sensitivity import KNOBS, MOST, how_sure, sensitivity
from splitsem.report.sensitivity_figure import sensitivity_figure
from splitsem.report.sweep_report import report
from tests.unit.sample_results import UNET, complete_results

ACTIVE_W, IDLE_W = 4.0, 1.0


def configuration(point: str, **changes) -> dict:
    """One row of results.csv, of times in milliseconds; the algebra fills in the rest."""
    parts = ("head_s", "encode_s", "link_busy_s", "link_delay_s", "decode_s", "tail_s", "answer_encode_s", "answer_s")
    row = dict.fromkeys((*parts, "answer_busy_s", "answer_decode_s", "link_j"), 0.0) | changes
    row["link_s"] = row["link_busy_s"] + row["link_delay_s"]
    row["edge_s"] = row["head_s"] + row["encode_s"] + row["answer_decode_s"]
    row["server_s"] = row["decode_s"] + row["tail_s"] + row["answer_encode_s"]
    row["latency_s"] = row["edge_s"] + row["link_s"] + row["server_s"] + row["answer_s"]
    row["cycle_s"] = max(row["edge_s"], row["link_busy_s"], row["server_s"], row["answer_busy_s"])
    row["throughput_hz"] = 1 / row["cycle_s"]
    row["edge_j"], row["idle_j"] = ACTIVE_W * row["edge_s"], IDLE_W * (row["cycle_s"] - row["edge_s"])
    row["energy_j"] = row["edge_j"] + row["idle_j"] + row["link_j"]
    scores = {"score": 0.9, "score_unsplit": 0.9, "score_val": 0.9, "score_val_unsplit": 0.9}
    labels = {"transport": "wifi", "edge": "pi", "server": "gpu", "codec": "quant8", "link_bandwidth_bps": 1e7}
    return {"split_point": point, "status": "ok", "link_rtt_s": 0.006, **scores, **labels, **row}


EARLY = configuration("early", head_s=0.002, link_busy_s=0.004, link_delay_s=0.003, tail_s=0.001, link_j=0.004)
LATE = configuration("late", head_s=0.006, link_busy_s=0.0005, link_delay_s=0.003, tail_s=0.0002, link_j=0.0005)


def reach_of(answers, goal: int, knob: str):
    return answers[goal].reaches[[k.title for k in KNOBS].index(knob)]


def test_seeds_whose_times_differ_have_an_answer():
    slow = EARLY | {"seed": 1} | {name: 1.3 * EARLY[name] for name in ("link_busy_s", "link_s", "cycle_s")}
    slow |= {"throughput_hz": 1 / slow["cycle_s"]}
    found = sensitivity(pd.DataFrame([EARLY | {"seed": 0}, slow, LATE | {"seed": 0}, LATE | {"seed": 1}]))
    assert "Highest throughput" in [one.goal.title for one in found]


def test_a_goal_without_an_answer_is_told():
    never_waits = pd.DataFrame([configuration("a", head_s=0.004), configuration("b", head_s=0.005)])
    answers, sure = best(never_waits), sensitivity(never_waits)
    *told, last = how_sure(answers, sure)
    assert len(told) == len(sure) == 2
    assert last.startswith("Lowest energy on the edge: not told; ")
    assert how_sure(answers[:2], sure) == told
    assert how_sure(answers, []) == []


def test_each_breakpoint_is_where_the_algebra_says():
    throughput, latency, energy = sensitivity(pd.DataFrame([EARLY, LATE]))
    assert throughput.name == "early"
    # 4 ms / b on the link against 6 ms on the late edge, which must be 2 % faster.
    reach = reach_of([throughput], 0, "bandwidth")
    assert reach.low == pytest.approx(4 / (6 * 1.02), rel=1e-6)
    assert (reach.below, reach.above, reach.high) == ("late", "", MOST)
    # An edge that is e times as fast takes 6 ms / e against the link's 4 ms.
    reach = reach_of([throughput], 0, "edge speed")
    assert (reach.high, reach.above) == (pytest.approx(1.02 * 6 / 4, rel=1e-6), "late")
    assert latency.name == "late"
    # Late: 9.7 ms. Early: 10 ms, of which 2 ms are the head: e slower, late has 6 ms of head.
    reach = reach_of([latency], 0, "edge speed")
    slow = 1 / reach.low
    assert 1.02 * (2 * slow + 8) == pytest.approx(6 * slow + 3.7, rel=1e-6)
    assert reach.below == "early"
    reach = reach_of([latency], 0, "bandwidth")
    assert 1.02 * (2 + 3 + 1 + 4 / reach.high) == pytest.approx(6 + 3 + 0.2 + 0.5 / reach.high, rel=1e-6)
    assert reach_of([latency], 0, "round trip").below == reach_of([latency], 0, "round trip").above == ""
    # 8 mJ + 4 mJ radio + 2 ms · 1 W = 14 mJ against 24.5 mJ.
    assert energy.name == "early"
    power = reach_of([energy], 0, "radio power").high
    assert 1.02 * (24 + 0.5 * power) == pytest.approx(8 + 4 * power + 2, rel=1e-6)


def test_the_worst_corner_is_closer_than_any_single_knob():
    for answer in sensitivity(pd.DataFrame([EARLY, LATE])):
        single = min(min(reach.high, 1 / reach.low) for reach in answer.reaches)
        assert 1 <= answer.corner <= single + 1e-9
        assert answer.corner_rival
    throughput = sensitivity(pd.DataFrame([EARLY, LATE]))[0]
    # The bandwidth and the edge's speed together: 4 f against 6 / f.
    assert throughput.corner == pytest.approx((6 / 4 * 1.02) ** 0.5, rel=1e-6)


def test_the_sentence_has_the_links_units_and_who_takes_over():
    sentence = sensitivity(pd.DataFrame([EARLY, LATE]))[0].sentence
    assert sentence.startswith(
        "Highest throughput: early stays best from 6.54 Mbit/s on (assumed: 10 Mbit/s, below it late); with edge"
    )
    unknown = pd.DataFrame([EARLY, LATE]).assign(link_bandwidth_bps=np.nan)
    assert "from 0.65× the bandwidth on (below it late)" in sensitivity(unknown)[0].sentence


def test_winners_are_compared_over_their_own_link_and_machines_only():
    elsewhere = [{**LATE, "transport": "lora", "split_point": "other"}, {**LATE, "edge": "tx2", "split_point": "other"}]
    answers = sensitivity(pd.DataFrame([EARLY, LATE, *elsewhere]))
    taking = {name for answer in answers for reach in answer.reaches for name in (reach.below, reach.above)}
    assert not any(name.startswith("other") for name in taking)
    assert all(answer.num_rivals == 1 for answer in answers if answer.row["transport"] == "wifi")


def test_a_winner_without_rivals_says_so():
    bad = {**LATE, "score_val": 0.5}
    answer = sensitivity(pd.DataFrame([EARLY, bad]))[0]
    assert "has no rival" in answer.sentence
    assert {(reach.low, reach.high) for reach in answer.reaches} == {(1 / MOST, MOST)}


def test_results_without_the_parts_of_the_times_have_no_answer():
    results = pd.DataFrame([EARLY, LATE])
    assert sensitivity(results.drop(columns="head_s")) == []
    assert sensitivity(results.assign(status="failed", score=np.nan)) == []
    assert [a.goal.column for a in sensitivity(results.assign(latency_s=1.0))] == ["throughput_hz", "energy_j"]


def test_the_idle_power_is_that_of_any_row_with_the_same_edge():
    busy = [configuration(name, head_s=ms / 1e3, link_busy_s=0.001, link_j=0.01) for name, ms in (("a", 4), ("b", 5))]
    assert "energy_j" not in [a.goal.column for a in sensitivity(pd.DataFrame(busy))]
    sent = configuration("input", encode_s=0.001, link_busy_s=0.004) | {"reference": "png"}
    energy = sensitivity(pd.DataFrame([*busy, sent]))[-1]
    assert (energy.goal.column, energy.name, energy.num_rivals) == ("energy_j", "a", 1)


def test_the_chart_has_a_bar_a_knob_and_names_who_takes_over():
    results = complete_results(UNET, ("quant8", "quant4"))
    answers = sensitivity(results)
    figure = sensitivity_figure(answers, describe(prepare(results)))
    figure.draw_without_rendering()
    assert len(figure.axes) == 3
    for ax, answer in zip(figure.axes, answers, strict=True):
        assert len(ax.patches) == len(KNOBS) + 1
        for bar, reach in zip(ax.patches, answer.reaches, strict=False):
            assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((reach.low, reach.high))
        texts = " ".join(text.get_text() for text in ax.texts)
        assert answer.reaches[0].below in texts
        inside = figure.bbox
        for text in ax.texts:
            box = text.get_window_extent()
            assert inside.x0 <= box.x0
            assert box.x1 <= inside.x1
    assert len(sensitivity_figure([], "nothing").axes) == 1


def test_the_page_says_how_sure_the_winners_are():
    results = complete_results(UNET[:4])
    answers = sensitivity(results)
    page = report(
        results, {"sensitivity": sensitivity_figure(answers, "")}, "t", "c", {}, {"sensitivity": answers[0].sentence}
    )
    assert answers[0].sentence in page


def test_a_choice_that_small_errors_change_is_called_fragile():
    near = configuration("near", head_s=0.0041, link_busy_s=0.002, link_delay_s=0.003, tail_s=0.001, link_j=0.002)
    close, far = (sensitivity(pd.DataFrame([EARLY, rival]))[0] for rival in (near, LATE))
    assert close.sentence.endswith(" wins.")
    assert "Fragile: if all six are off by " in close.sentence
    assert f"{100 * (close.corner - 1):.2g}"[:3] in close.sentence
    assert "Fragile" not in far.sentence
    assert "If all six are off by more than 1.24× at a time, in the worst directions, late wins." in far.sentence
