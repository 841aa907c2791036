"""The figure and the BD-rates from anchors.csv and learned.csv: python experiments/real/pedestrians/curves.py"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from splitsem.report.bd_rate import Curve, bd_rate
from splitsem.report.style import COLOURS, MARKERS

ANCHORS = ("JPEG", "WebP", "H.265 intra", "H.265 inter")
TABLES = ("anchors.csv", "learned.csv")
LEAST_LOSS = 1e-4  # of agreement: the upper end of the figure
FIELD = ("tiles + x265 intra", "tiles + x265 inter")


def read_rows(folder: Path) -> pd.DataFrame:
    """The rows of all tables of the folder; those of the learned codec only where they were measured."""
    return pd.concat([pd.read_csv(folder / name) for name in TABLES if (folder / name).exists()], ignore_index=True)


def write_curves(rows: pd.DataFrame, folder: Path) -> None:
    """Write ``bd_rates.md`` and ``rate_agreement.png``."""
    (folder / "bd_rates.md").write_text(table(rows))
    figure = drawn(rows)
    FigureCanvasAgg(figure).print_png(str(folder / "rate_agreement.png"))


def table(rows: pd.DataFrame) -> str:
    """Markdown: for each codec at each cut, its bytes at equal agreement against the anchors; plus is more."""
    curves = {
        key: Curve.of(part["bytes_per_frame"], part["agreement"])
        for key, part in rows.groupby(["codec", "cut"], sort=False)
    }
    lines = [
        "| codec | cut | fewest bytes at agreement ≥ 0.99 | ≥ 0.95 | "
        + " | ".join(f"to {name}" for name in ANCHORS)
        + " | to tiles + x265 inter |",
        "|---|---|" + "--:|" * (3 + len(ANCHORS)),
    ]
    for (codec, cut), curve in curves.items():
        part = rows[(rows["codec"] == codec) & (rows["cut"] == cut)]
        against = [curves[name, "input"] for name in ANCHORS] + [curves.get((FIELD[1], cut))]
        cells = [_fewest(part, least) for least in (0.99, 0.95)] + [_rate(curve, other) for other in against]
        lines.append(f"| {codec} | {cut} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _fewest(part: pd.DataFrame, least: float) -> str:
    enough = part[part["agreement"] >= least]["bytes_per_frame"]
    return "—" if enough.empty else f"{enough.min():,.0f}"


def _rate(curve: Curve, other: Curve | None) -> str:
    if other is None or other is curve:
        return "—"
    try:
        return f"{100 * bd_rate(curve, other):+.0f} %".replace("-", "−")
    except ValueError:
        return "no common agreement"


def drawn(rows: pd.DataFrame) -> Figure:
    """Agreement over bytes a frame, a panel for each cut, the pictures' curves in grey in all of them."""
    cuts = [cut for cut in rows["cut"].unique() if cut != "input"]
    figure = Figure(figsize=(5 * len(cuts), 5), dpi=150, layout="constrained")
    labelled = {}
    for place, cut in enumerate(cuts, 1):
        axes = figure.add_subplot(1, len(cuts), place)
        for name, dash in zip(ANCHORS, (":", "--", "-.", "-"), strict=True):
            labelled[f"frames as {name}"] = _line(axes, rows[rows["codec"] == name], linestyle=dash, color="0.45")
        here = rows[rows["cut"] == cut]
        for number, (name, part) in enumerate(here.groupby("codec", sort=False)):
            labelled[name] = _line(axes, part, marker=MARKERS[number], color=COLOURS[number])
        axes.set(xscale="log", xlabel="bytes a frame", title=f"cut at {cut}", yscale="log", ylim=(1, LEAST_LOSS))
        axes.set_yticks([1, 0.1, 0.01, 0.001], ["0", "0.9", "0.99", "0.999"])
        axes.axhline(0.01, color="0.6", linewidth=0.8)
        axes.grid(visible=True, color="0.9")
    figure.axes[0].set_ylabel("agreement (mAP 50–95 against the unsplit network)")
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=6, fontsize=9)
    return figure


def _line(axes: Axes, part: pd.DataFrame, **style: Any) -> Line2D:
    """The curve of a codec, on the scale of what is missing from full agreement."""
    part = part.sort_values("bytes_per_frame")
    (line,) = axes.plot(part["bytes_per_frame"], (1 - part["agreement"]).clip(lower=1.1 * LEAST_LOSS), **style)
    return line


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    write_curves(read_rows(out), out)
