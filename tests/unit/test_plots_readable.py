"""What a reader needs of a figure: an axis that ends where a score does, labels beside lines, headings apart."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from splitsem.report import figure_choice
from splitsem.report import results as rs
from splitsem.report.breakdown import latency_breakdown
from splitsem.report.federated_figures import score_by_update, score_over_rounds
from splitsem.report.joint_report import domain_gains
from splitsem.report.label_places import place_labels
from splitsem.report.sensitivity import sensitivity
from splitsem.report.sensitivity_figure import sensitivity_figure
from splitsem.report.style import fit, new_figure
from splitsem.report.sweep_figures import accuracy_throughput, rate_accuracy
from tests.unit.sample_results import UNET, complete_results

NEAR_ONE = complete_results(UNET[::3]).assign(score=0.995, score_val=0.995, score_unsplit=1.0, score_ci95=0.02)
DOMAINS = pd.DataFrame(
    {"label": ["a", "b"], "accuracy": [1.0, 0.99], "accuracy_ci95": [0.02, 0.02], "accuracy_ref": 1.0, "epsilon": 0.02}
).assign(feasible=True, gain_over_baseline=0.1, gain_over_stronger=0.2)
MEANS = pd.DataFrame({"label": ["a", "b"], "num_runs": 3, "score": [1.0, 0.98], "score_ci95": [0.03, 0.03]}).assign(
    uplink_bytes=1e4, uplink_raw_bytes=4e4
)

STYLES = ["screen", "paper", "talk"]
FIRST, SECOND = "2026-11-29/11-18-37-split-digits", "2026-11-29/11-25-04-split-digits"


def joined() -> pd.DataFrame:
    """Two sweeps, which have quant8 alike."""
    codecs = ((FIRST, ("quant2", "quant8")), (SECOND, ("quant4", "quant8")))
    frames = [complete_results(UNET[::3], each).assign(sweep=sweep) for sweep, each in codecs]
    return pd.concat(frames, ignore_index=True).drop_duplicates(["sweep", "codec", "split_point", "codec.quality"])


def intervals(figure: Figure) -> np.ndarray:
    """The ends of all bars of intervals in the first axes, ``(n, 2)``."""
    found = [one for one in figure.axes[0].collections if isinstance(one, LineCollection)]
    bars = [segment[:, 1] for one in found for segment in one.get_segments() if np.ptp(segment[:, 0]) == 0]
    return np.array(bars)


@pytest.mark.parametrize(
    ("draw", "results"),
    [(accuracy_throughput, NEAR_ONE), (rate_accuracy, NEAR_ONE), (domain_gains, DOMAINS), (score_by_update, MEANS)],
)
def test_the_axis_of_a_score_and_its_bars_end_at_one(draw, results):
    figure = draw(results)
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    assert 1 < high < 1 + 0.03 * (high - low), "room for half a marker"
    assert max(tick for tick in figure.axes[0].get_yticks() if low <= tick <= high) == pytest.approx(1)
    ends = intervals(figure)
    assert len(ends)
    assert ends.max() == pytest.approx(1)
    assert ends.max() <= 1 + 1e-12


def test_a_difference_ends_where_its_score_does():
    _, below = accuracy_throughput(NEAR_ONE.assign(score_delta=-0.005, score_delta_ci95=0.02)).axes
    bars = [one for one in below.collections if isinstance(one, LineCollection)]
    ends = np.concatenate([segment[:, 1] for one in bars for segment in one.get_segments()])
    assert ends.max() == pytest.approx(0.0, abs=1e-9)  # more would be a score above 1
    assert ends.min() == pytest.approx(-2.5)


def test_a_label_finds_the_place_beside_a_line_and_no_thin_line_runs_through_another_label():
    figure = new_figure(6.0, 4.0, "", "")
    ax = figure.add_subplot()
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    lines = [ax.axvline(x) for x in (0.44, 0.56)] + [ax.axhline(y) for y in (0.46, 0.54)]
    texts = [f"a long label {i}" for i in range(4)]
    labels = place_labels(ax, [(0.5, 0.5), (0.5, 0.49), (0.5, 0.51), (0.49, 0.5)], texts, lines=lines)
    boxes = [super(type(label), label).get_window_extent() for label in labels]
    for line in lines:
        start, end = line.get_transform().transform(line.get_xydata())
        path = np.linspace(start, end, 2000)
        assert not any(box.contains(*point) for box in boxes for point in path)
    for label, own in zip(labels, boxes, strict=True):
        anchor = ax.transData.transform(label.xy)
        join = np.linspace(anchor, [(own.x0 + own.x1) / 2, (own.y0 + own.y1) / 2], 200)
        assert not any(box.contains(*point) for box in boxes if box is not own for point in join)


def test_the_label_of_an_axis_is_no_longer_than_the_axis():
    results = NEAR_ONE.assign(score_name="agreement")
    figure = accuracy_throughput(results)
    figure.draw_without_rendering()
    assert len(figure.axes) == 2
    for ax in figure.axes:
        assert ax.yaxis.label.get_window_extent().height <= 1.05 * ax.get_window_extent().height


def test_only_series_that_two_sweeps_have_alike_are_named_by_their_sweeps():
    series = rs.splits(rs.prepare(joined()))["series"].unique()
    assert set(series) - {"quant2"} == {"quant4", "quant8 · sweep 11-18-37", "quant8 · sweep 11-25-04"}
    alone = rs.prepare(joined().assign(sweep=FIRST))
    assert set(rs.splits(alone)["series"]) == {"quant2", "quant4", "quant8"}


@pytest.mark.parametrize("style", STYLES)
def test_headings_of_panels_and_sums_of_bars_stay_in_their_panels(style):
    results = joined().assign(transport=lambda rows: rows["sweep"].map({FIRST: "a link of long name", SECOND: "lte"}))
    with figure_choice.using(style):
        figure = latency_breakdown(results)
        fit(figure)
        figure.draw_without_rendering()
    assert len(figure.axes) == 4
    titles = [ax.title if ax.title.get_text() else ax._left_title for ax in figure.axes]
    boxes = [title.get_window_extent() for title in titles]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for ax in figure.axes:
        right = ax.get_window_extent().x1
        assert all(text.get_window_extent().x1 <= right for text in ax.texts)


@pytest.mark.parametrize("style", STYLES)
def test_names_beside_bars_cover_no_tick_and_are_whole_and_each_colour_is_explained(style):
    answers = sensitivity(joined())
    with figure_choice.using(style):
        figure = sensitivity_figure(answers, "")
        figure.draw_without_rendering()
    (legend,) = figure.legends
    words = [text.get_text().split(" ")[:2] for text in legend.get_texts()]
    assert words == [["a", "rival"], ["no", "rival"], ["all", "six"]]
    assert not any(legend.get_window_extent().overlaps(ax.get_tightbbox()) for ax in figure.axes)
    names = [text for ax in figure.axes for text in ax.texts]
    assert any("sweep 11-" in text.get_text() for text in names)
    assert not any("…" in text.get_text() for text in names)
    for ax in figure.axes:
        ticks = [label.get_window_extent() for label in ax.get_yticklabels()]
        for text in ax.texts:
            box = super(type(text), text).get_window_extent()
            assert box.x1 <= figure.bbox.x1
            assert not any(box.overlaps(tick) for tick in ticks)


@pytest.mark.parametrize("style", STYLES)
def test_federated_figures_name_their_bars_and_lines_in_each_style(style):
    history = pd.DataFrame({"label": "a", "run": [0, 0, 1, 1], "round/number": [1, 2, 1, 2], "round/val_score": 0.9})
    with figure_choice.using(style):
        update, rounds = score_by_update(MEANS), score_over_rounds(history.assign(**{"round/uplink_bytes": 1e4}))
    found = []
    for figure in (update, rounds):
        legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
        found += [text.get_text().replace("\n", " ") for legend in legends for text in legend.get_texts()]
    assert {"bars: 95 % interval of the mean over runs", "the network as it is", "mean of the runs", "a run"} <= {
        *found
    }
