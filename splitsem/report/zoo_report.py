"""zoo_report: where the networks of many families have bottlenecks, as a table for the terminal and as a figure."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter
from rich.table import Table

from splitsem.report import style
from splitsem.report.terminal import WIDTH, grid_of
from splitsem.report.units import MISSING, format_number

_COLUMNS = 2
_ROW_IN = 0.2


def family_table(frame: pd.DataFrame) -> Table:
    """One line a family, at most 100 columns wide; below it why networks are not cut or not exact.

    Args:
        frame: one row a network, as in the zoo's results.csv.
    """
    is_cut, is_exact = frame["num_points"] > 2, frame["is_exact"] == "yes"
    grid = grid_of(f"{len(frame)} networks: {is_cut.sum()} cut inside, {is_exact.sum()} exact at every point")
    grid.add_column("family", overflow="fold", min_width=12)
    for header in ("networks", "cut", "exact", "points", "bottle-\nnecks", "smallest\n% of input",
                   "first after\n% of FLOPs", "s to\ncut", "s to\ncheck"):  # fmt: skip
        grid.add_column(header, justify="right", no_wrap=True)
    for family, group in frame.groupby("family", sort=False):
        middle = group.median(numeric_only=True)
        grid.add_row(
            str(family).replace("[", r"\["),
            str(len(group)),
            str(is_cut[group.index].sum()),
            str(is_exact[group.index].sum()),
            *(
                MISSING if pd.isna(middle[name]) else f"{middle[name]:.0f}"
                for name in ("num_points", "num_bottlenecks")
            ),
            *(format_number(100 * middle[name], 2) for name in ("smallest_share", "first_flops_share")),
            *(format_number(middle[name], 2) for name in ("cut_s", "check_s")),
        )
    notes = ["points and all to their right: medians · bottleneck: fewer values cross than at the input, ends left out"]
    for _, row in frame[frame["reason"] != ""].iterrows():
        line = f"{row['network']}: {row['reason']}"
        notes.append((line if len(line) <= WIDTH else line[: WIDTH - 1] + "…").replace("[", r"\["))
    grid.caption = "\n".join(notes)
    return grid


def _whole(value: float) -> str:
    return MISSING if pd.isna(value) else f"{value:.0f}"


def bottlenecks(frame: pd.DataFrame) -> Figure:
    """A row of dots a family: how little crosses at each network's smallest cut; the colour says how early it narrows.

    Args:
        frame: one row a network, as in the zoo's results.csv.
    """
    cut = frame[frame["smallest_share"].notna()]
    families = cut.groupby("family")["smallest_share"].median().sort_values(kind="stable").index.tolist()
    has_any = int((cut["num_bottlenecks"] > 0).sum())
    per_column = max(-(-len(families) // _COLUMNS), 1)
    title = f"{has_any} of {len(cut)} networks have a cut where fewer values cross than at the input"
    about = (
        "each dot a network, at its smallest cut between the ends (raw tensors, both as float32 or as their whole "
        "numbers); colour: the share of the network's operations that precede its first bottleneck"
    )
    figure = style.new_figure(11.0, per_column * _ROW_IN + 1.4, title, about, kept="height")
    if cut.empty:
        style.empty(figure.subplots(), "no network could be cut")
        return figure
    limits = (float(cut["smallest_share"].min()) / 1.6, max(float(cut["smallest_share"].max()), 1.0) * 1.6)
    all_axes = figure.subplots(1, _COLUMNS, squeeze=False)[0]
    ramp = seaborn.color_palette("viridis_r", as_cmap=True)
    for number, ax in enumerate(all_axes):
        _draw(ax, cut, families[number * per_column : (number + 1) * per_column], limits, ramp)
    mappable = style.mpl.cm.ScalarMappable(style.mpl.colors.Normalize(0, 1), ramp)
    bar = figure.colorbar(mappable, ax=all_axes.tolist(), fraction=0.02, pad=0.02, aspect=40)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    bar.ax.tick_params(labelsize=8.5, length=0, labelcolor=style.INK)
    bar.set_label("operations before the first bottleneck (grey: it has none)", size=9, color=style.INK)
    bar.outline.set_visible(False)
    return figure


def _draw(ax: Axes, cut: pd.DataFrame, families: Sequence[str], limits: tuple[float, float], ramp: object) -> None:
    shown = cut[cut["family"].isin(families)]
    shown = shown.assign(row=[families.index(family) for family in shown["family"]] + _apart(shown))
    narrows = shown["first_flops_share"].notna()
    marks = {"x": "smallest_share", "y": "row", "s": 26, "linewidth": 0.4, "edgecolor": style.PAPER, "zorder": 3}
    if not narrows.all():
        seaborn.scatterplot(shown[~narrows], color=style.FAINT, ax=ax, **marks)
    if narrows.any():
        coloured = {"hue": "first_flops_share", "hue_norm": (0, 1), "palette": ramp, "legend": False}
        seaborn.scatterplot(shown[narrows], ax=ax, **coloured, **marks)
    style.style_axes(ax, "Smallest crossing bytes / bytes of the input", "")
    ax.axvline(1.0, color=style.MUTED, linewidth=1.0, linestyle="--", zorder=2)
    ax.set_xscale("log")
    ax.set_xlim(*limits)
    ax.set_ylim(len(families) - 0.4, -0.6)
    ax.set_yticks(range(len(families)), [f"{family} ({(cut['family'] == family).sum()})" for family in families])
    ax.xaxis.set_major_locator(LogLocator(10, numticks=12))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def _apart(shown: pd.DataFrame) -> np.ndarray:
    """Moves networks of one family apart, up to a quarter of a row."""
    groups = shown.groupby("family")["family"]
    share: np.ndarray = ((groups.cumcount() + 0.5) / groups.transform("size").astype(float)).to_numpy()
    return 0.5 * share - 0.25
