"""The figure and the table of BD-rates from anchors.csv: python experiments/real/pedestrians/curves.py"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from splitsem.report.bd_rate import Curve, bd_rate
from splitsem.report.style import COLOURS, MARKERS

ANCHORS = ("JPEG", "WebP", "H.265 intra", "H.265 inter")
FIELD = ("tiles + x265 intra", "tiles + x265 inter")


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
    figure = Figure(figsize=(5 * len(cuts), 4.6), dpi=150, layout="constrained")
    for place, cut in enumerate(cuts, 1):
        axes = figure.add_subplot(1, len(cuts), place)
        for name, dash in zip(ANCHORS, (":", "--", "-.", "-"), strict=True):
            part = rows[rows["codec"] == name].sort_values("bytes_per_frame")
            axes.plot(part["bytes_per_frame"], part["agreement"], dash, color="0.45", label=f"frames as {name}")
        here = rows[rows["cut"] == cut]
        for number, (name, part) in enumerate(here.groupby("codec", sort=False)):
            part = part.sort_values("bytes_per_frame")
            axes.plot(
                part["bytes_per_frame"], part["agreement"], marker=MARKERS[number], color=COLOURS[number], label=name
            )
        axes.set(xscale="log", xlabel="bytes a frame", title=f"cut at {cut}", ylim=(0, 1.02))
        axes.grid(visible=True, color="0.9")
    figure.axes[0].set_ylabel("agreement (mAP 50–95 against the unsplit network)")
    figure.axes[0].legend(fontsize=7)
    return figure


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    write_curves(pd.read_csv(out / "anchors.csv"), out)
