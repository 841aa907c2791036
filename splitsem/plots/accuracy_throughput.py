"""Accuracy against throughput: every configuration of a sweep, the Pareto front and the references."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from splitsem.plots import results as rs
from splitsem.plots import style
from splitsem.plots.points import draw_front, draw_points, draw_references, draw_unsplit, label_points


def accuracy_throughput(results: pd.DataFrame) -> Figure:
    """Score over throughput, one dot a configuration; up and to the right is better.

    Args:
        results: one row a job, as in results.csv; failed jobs are left out.

    Returns:
        The figure. Configurations on the Pareto front are ringed, joined and named; the dashed line is the unsplit
        score; "just send the picture" rows have markers of their own.
    """
    frame = rs.prepare(results)
    shown = frame[frame["is_ok"] & np.isfinite(frame["throughput_hz"]) & (frame["throughput_hz"] > 0)]
    figure = style.new_figure(8.4, 4.4, "Accuracy against throughput", rs.describe(frame))
    ax = figure.add_subplot()
    style.style_axes(ax, "Throughput (samples per second, Hz)", "Score (0 to 1, higher is better)")
    if shown.empty:
        style.empty(ax)
        return figure
    split, reference = rs.splits(shown), rs.references(shown)
    handles = draw_points(ax, split, "throughput_hz")
    front = split[split["pareto"]].sort_values(["throughput_hz", "score"])
    handles.append(draw_front(ax, front, "throughput_hz", falling=True))
    unsplit, unsplit_scores = draw_unsplit(ax, shown)
    handles += unsplit + draw_references(ax, reference, "throughput_hz")
    style.unit_axis(ax, "Hz", shown["throughput_hz"].tolist())
    spread = [*(shown["score"] - shown["score_std"]), *(shown["score"] + shown["score_std"])]
    style.score_axis(ax, [*spread, *unsplit_scores])
    style.legend_outside(ax, handles)
    label_points(ax, front, shown, "throughput_hz")
    return figure
