"""Where the time of each cut goes: a bar a split point, a panel a setting."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from splitsem.report import legends, style
from splitsem.report import results as rs
from splitsem.report.figure_choice import chosen
from splitsem.report.style import Chart
from splitsem.report.units import format_seconds

_MAX_FACETS, _MAX_COLUMNS = 6, 3
_MAX_SPREAD = 3.0  # most ratio of the panels' longest bars on one time axis
_XLABEL, _YLABEL = "Latency of one sample", "Split point, in network order"
_FEW_ROWS = 6
_TOLD = ["split_point", "series", "reference"]
_ROW_IN = 0.21  # height of one bar with its gap
_LINE_IN = 0.16  # height of a line of a panel's heading
_HEADING_EM, _SUM_EM = 0.68, 0.62  # mean width of a letter, in font sizes: of a bold one, and of a figure
_HEADING_PT, _SUM_PT = 9.5, 7.5


def latency_breakdown(results: pd.DataFrame) -> Figure:
    """Stacked horizontal bars of the stages that ``style.STAGES`` names, from the input down to the output.

    Up to six series (codecs, links, …) get a panel each, on one time axis unless the series differ too much to be
    readable. For more series, only the fastest at each split point is drawn and named. The height grows with the
    number of points. Each bar ends with its sum; the smallest sum of all cuts is bold. Of pictures in several
    qualities, the one of lowest latency that keeps the score is drawn, else the one of the best score.

    Args:
        results: one row a job, as in results.csv; failed jobs are left out.
    """
    frame = rs.prepare(results)
    times = rs.stage_times(frame)
    frame = frame.drop(columns=list(times), errors="ignore").join(times)
    whole = np.isfinite(times.to_numpy()).all(axis=1)
    shown = frame.assign(latency_s=times.sum(axis=1))[frame["is_ok"].to_numpy() & whole]
    split, reference = rs.splits(shown), _one_a_family(rs.references(shown))
    if split["series"].nunique() > 1:  # what sends nothing is of no series: it stands in each panel
        silent = rs.sends_nothing(split)
        split, reference = split[~silent], pd.concat([reference, split[silent]])
    names = list(split["series"].unique())
    best_only = len(names) > _MAX_FACETS
    if best_only:
        fastest = split.loc[split.groupby("split_point", sort=False)["latency_s"].idxmin()]
        panels = {"": fastest.sort_values("split_index", kind="stable")}
    else:
        panels = {name: split[split["series"] == name] for name in names} or {"": split}
    rows = _row_names(split, reference)
    num_columns = min(len(panels), _MAX_COLUMNS)
    num_rows = -(-len(panels) // num_columns)
    figure = style.new_figure(
        8.4 if len(panels) == 1 else 2.4 + 2.4 * num_columns,
        max((0.8 + _ROW_IN * len(rows)) * num_rows + 0.3, 2.2),
        "Where the time goes" + (", fastest setting per split point" if best_only else ""),
        rs.describe(frame),
        num_side_by_side=num_columns,
        kept="height",
    )
    figure.data = shown[[*_TOLD, *style.STAGES, "latency_s"]]
    panel_in = _panel_in(figure, rows, num_columns)
    letters = int(panel_in * 72 / (_HEADING_EM * min(_HEADING_PT, chosen().style.most_pt)))
    panels = {textwrap.fill(name, max(letters, 8)): panel for name, panel in panels.items()}
    more_in = _LINE_IN * num_rows * max(name.count("\n") for name in panels)
    figure.set_height(figure.get_size_inches()[1] + more_in)
    grid = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
    if not rows:
        style.style_axes(grid[0, 0], _XLABEL, _YLABEL, grid="x")
        style.empty(grid[0, 0])
        return figure
    for ax in grid.flat[len(panels) :]:
        ax.remove()
    grid[0, 0].set_yticks(range(len(rows)), rows)
    grid[0, 0].set_ylim(len(rows) - 0.4, -0.6)
    own_scale = _draw_panels(list(grid.flat), panels, reference, rows, panel_in, name_series=best_only)
    stages = [Patch(label=label, **style.stage_look(stage)) for stage, (label, _) in style.STAGES.items()]
    legends.outside(grid[0, -1], stages)
    figure.supxlabel(_XLABEL + (": each panel has its own scale" if own_scale else ""), size=9.5, color=style.INK)
    y_label = _YLABEL if len(rows) * num_rows > _FEW_ROWS else _YLABEL.partition(",")[0]  # else it meets the header
    figure.supylabel(y_label, size=9.5, color=style.INK)
    return figure


def _panel_in(figure: Chart, rows: list[str], num_columns: int) -> float:
    """About how wide a panel is, beside the names of the rows and the legend."""
    names_in = 0.45 + 0.062 * max(map(len, rows), default=0)
    legend_in = 0.0 if chosen().style.has_legend_above else 1.25
    return float(max((figure.get_size_inches()[0] - names_in - legend_in) / num_columns - 0.1, 0.8))


def _one_a_family(reference: pd.DataFrame) -> pd.DataFrame:
    """Of each kind of picture, link and pair of machines, the fastest that keeps the score, else the best score."""
    keys = ["family", "transport", "edge", "server", "model"]
    ranked = reference.assign(keeps=rs.keeps_score(reference))
    ranked["rank"] = ranked["latency_s"].where(ranked["keeps"], -ranked["score"])
    ranked = ranked.sort_values(["keeps", "rank"], ascending=[False, True], kind="stable")
    return reference.loc[ranked.drop_duplicates(keys).index.sort_values()]


def _beside(reference: pd.DataFrame, panel: pd.DataFrame) -> pd.DataFrame:
    """What did not differ from the panel's rows in link, machines or model."""
    return rs.references_for(reference.assign(is_reference=True), panel).assign(
        is_reference=lambda f: f["reference"].notna()
    )


def _reference_name(row: pd.Series) -> str:
    if not row["is_reference"]:
        return rs.REFERENCES["all_on_edge"] if row["split_point"] == "output" else str(row["split_point"])
    return f"{row['series']} at input" if row["split_point"] == "input" else str(row["series"])


def _draw_panels(
    axes: list[Axes],
    panels: dict[str, pd.DataFrame],
    reference: pd.DataFrame,
    rows: list[str],
    panel_in: float,
    *,
    name_series: bool,
) -> bool:
    """Draw one panel a series; returns whether each got its own time axis, because one series dwarfs the others."""
    bars = []
    for panel in panels.values():
        own = _beside(reference, panel) if len(panel) else reference  # an empty panel has only references
        bars.append(pd.concat([own, panel]) if len(own) else panel)
    longest_s = [float(b["latency_s"].max()) for b in bars]
    own_scale = max(longest_s) > _MAX_SPREAD * min(longest_s)
    sums = [_sum(bar, name_series=name_series) for panel in bars for _, bar in panel.iterrows()]
    sum_in = 0.06 + max(map(len, sums), default=0) * _SUM_EM * _SUM_PT / 72
    room = 1 / (1 - min(sum_in / panel_in, 0.5))  # leaves space for the sums beside the bars
    for ax, name, panel, panel_s in zip(axes, panels, bars, longest_s, strict=False):
        style.style_axes(ax, "", "", grid="x")
        limit_s = room * (panel_s if own_scale else max(longest_s)) or 1.0
        ax.set_xlim(0, limit_s)
        _draw_bars(ax, panel, rows, limit_s, name_series=name_series)
        style.unit_ticks(ax.xaxis, "s", 5 if len(panels) == 1 else 3)
        if len(panels) > 1:
            ax.set_title(name, size=_HEADING_PT, weight="bold", color=style.INK, loc="left")
    return own_scale


def _sum(bar: pd.Series, *, name_series: bool) -> str:
    """What stands beside a bar."""
    return format_seconds(bar["latency_s"]) + (f" · {bar['series']}" if name_series and not bar["is_reference"] else "")


def _row_names(split: pd.DataFrame, reference: pd.DataFrame) -> list[str]:
    points = split.sort_values("split_index", kind="stable")["split_point"].drop_duplicates()
    return [*dict.fromkeys(_reference_name(row) for _, row in reference.iterrows()), *points]


def _draw_bars(ax: Axes, bars: pd.DataFrame, rows: list[str], limit_s: float, *, name_series: bool) -> None:
    place = {name: i for i, name in enumerate(rows)}
    is_named = [bar["is_reference"] or bar["split_point"] not in place for _, bar in bars.iterrows()]
    rows_of_bars = zip(is_named, bars.iterrows(), strict=True)
    names = [_reference_name(bar) if named else bar["split_point"] for named, (_, bar) in rows_of_bars]
    y = np.array([place[name] for name in names], dtype=float)
    # Several jobs can share a place (a swept setting that is no series of its own): draw the fastest.
    bars = bars.assign(y=y).sort_values("latency_s", kind="stable").drop_duplicates("y").sort_values("y")
    left = np.zeros(len(bars))
    for stage, (label, _) in style.STAGES.items():
        ax.barh(bars["y"], bars[stage], left=left, height=0.72, label=label, **style.stage_look(stage))
        left = left + bars[stage].to_numpy()
    own = left[~bars["is_reference"].to_numpy()]
    fastest = own.min() if len(own) else None
    for y_value, total, (_, bar) in zip(bars["y"], left, bars.iterrows(), strict=True):
        is_best = total == fastest
        ax.text(
            total + 0.01 * limit_s,
            y_value,
            _sum(bar, name_series=name_series),
            va="center",
            size=_SUM_PT,
            color=style.INK if is_best else style.MUTED,
            weight="bold" if is_best else "normal",
        )
