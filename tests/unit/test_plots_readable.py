"""What a reader needs of a figure: an axis that ends where a score does, labels beside lines, headings apart."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from splitsem.report.federated_figures import score_by_update
from splitsem.report.joint_report import domain_gains
from splitsem.report.label_places import place_labels
from splitsem.report.style import new_figure
from splitsem.report.sweep_figures import accuracy_throughput, rate_accuracy
from tests.unit.sample_results import UNET, complete_results

NEAR_ONE = complete_results(UNET[::3]).assign(score=0.995, score_val=0.995, score_unsplit=1.0, score_ci95=0.02)
DOMAINS = pd.DataFrame(
    {"label": ["a", "b"], "accuracy": [1.0, 0.99], "accuracy_ci95": [0.02, 0.02], "accuracy_ref": 1.0, "epsilon": 0.02}
).assign(feasible=True, gain_over_baseline=0.1, gain_over_stronger=0.2)
MEANS = pd.DataFrame({"label": ["a", "b"], "num_runs": 3, "score": [1.0, 0.98], "score_ci95": [0.03, 0.03]}).assign(
    uplink_bytes=1e4, uplink_raw_bytes=4e4
)


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
