"""One look for all figures: colours that colour-blind readers can tell apart, header, axes, legend, and the files.

What a figure is for and its formats are chosen in ``figure_choice``. Figures are made without pyplot and without
rcParams, so they can be drawn in any thread or worker process.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection, PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from splitsem.files import write_csv, write_whole
from splitsem.report.figure_choice import chosen
from splitsem.report.units import format_bytes, format_hz, format_seconds

if TYPE_CHECKING:
    import pandas as pd

STAR = "#f2c200"
INK, MUTED, FAINT, GRID, PAPER = "#1b1f24", "#59636e", "#9aa4af", "#e6e9ed", "#ffffff"
# Okabe & Ito 2008 without the yellow, which is too light on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")
MARKERS = ("o", "s", "^", "v", "P", "X", "h")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (8, 2, 2, 2)),
    (0, (3, 3)),
    (0, (1, 2.5)),
)
# A hue for each place, the lighter one for what is not its main work.
STAGES = {
    "head_s": ("head", "#0072b2"),
    "encode_s": ("encode", "#7cc4f0"),
    "link_busy_s": ("link, busy", "#e69f00"),
    "link_delay_s": ("link, delay", "#f6d99b"),
    "decode_s": ("decode", "#7fd6bd"),
    "tail_s": ("tail", "#009e73"),
    "answer": ("answer", "#b5559b"),
}
_HATCHES = {"encode_s": "....", "link_busy_s": "/////", "decode_s": "....", "tail_s": "----", "answer": "xxxx"}
REFERENCES = {
    "JPEG": ("D", "#8b1e3f"),
    "WebP": ("d", "#5b3a8c"),
    "uint8": ("P", "#7a4b00"),
    "PNG": ("X", "#7a4b00"),
    "WebP lossless": ("p", "#5b3a8c"),
    "all on the edge": (">", "#1b1f24"),
    "sample as it is": ("P", "#7a4b00"),
}
FORMATS: dict[str, Callable[..., str]] = {"s": format_seconds, "B": format_bytes, "Hz": format_hz}
_HEADER_IN = 0.62  # height of title and subtitle, in inches
TICKS_IN = 0.75  # height of an axis's ticks and title, and of what pads them
_TWO_COLUMNS_IN = 9.0  # a figure that is wider than this takes two columns
_HALF_MARKER = 0.025  # half the height of a marker, as a share of an axis
_COMPRESS_LEVEL = 3  # of a PNG: 60 % of the time that 6 takes, for 10 % more bytes


class Chart(Figure):
    """A figure with the numbers that it shows.

    Attributes:
        data: a row a mark; None where a file beside the figure holds them, or it shows pictures.
        entries: what the legend above its axes lists, in styles that have one.
        is_fitted: it has the sizes of its style.
        header_in: height of its title and subtitle, in inches.
    """

    data: "pd.DataFrame | None" = None
    entries: tuple[Any, ...] = ()
    is_fitted: bool = False
    header_in: float = 0.0

    def set_height(self, height_in: float) -> None:
        """Make it higher or lower; the header keeps its distance from the upper edge."""
        width_in, old_in = self.get_size_inches()
        self.set_size_inches(width_in, height_in)
        self.get_layout_engine().set(rect=(0, 0, 1, 1 - self.header_in / height_in))  # type: ignore[union-attr, call-arg]
        for text in self.texts:
            text.set_y(1 - (1 - text.get_position()[1]) * old_in / height_in)


def new_figure(
    width_in: float,
    height_in: float,
    title: str,
    subtitle: str,
    *,
    num_side_by_side: int = 1,
    kept: Literal["", "height", "size"] = "",
) -> Chart:
    """An empty figure in the chosen style; a left-aligned header, where it has one, stands above the axes.

    Args:
        width_in: on a screen; a paper's figure has the width of one column or of two.
        height_in: of what is below the header, on a screen.
        title: for the header.
        subtitle: for the header.
        num_side_by_side: panels beside each other, which need two columns.
        kept: what a narrower style does not shrink: the height, where it is that of rows of text or bars.
    """
    style, shrunk = chosen().style, 1.0
    if style.widths_in and kept != "size":
        wide = width_in > _TWO_COLUMNS_IN or num_side_by_side > 1
        shrunk, width_in = style.widths_in[wide] / width_in, style.widths_in[wide]
    height_in *= 1.0 if kept else min(1.0, 1.5 * shrunk)
    lines = textwrap.wrap(subtitle, int(width_in * 15)) or [""]
    header_in = _HEADER_IN + 0.15 * (len(lines) - 1) if style.has_header else 0.0
    height_in += header_in
    figure = Chart(figsize=(width_in, height_in), dpi=style.dpi, facecolor=PAPER, layout="constrained")
    figure.header_in = header_in
    engine = figure.get_layout_engine()
    pad = 0.08 if style.has_header else 0.03
    engine.set(w_pad=pad, h_pad=pad, wspace=0.03, rect=(0, 0, 1, 1 - header_in / height_in))  # type: ignore[union-attr, call-arg]
    if style.has_header:
        left = 0.12 / width_in
        figure.text(left, 1 - 0.12 / height_in, title, size=12, weight="bold", color=INK, va="top")
        figure.text(left, 1 - 0.36 / height_in, "\n".join(lines), size=8.5, color=MUTED, va="top", linespacing=1.3)
    return figure


def fit(figure: Figure) -> None:
    """Give text, markers and lines the sizes of the chosen style; call it when all is drawn."""
    style = chosen().style
    for text in figure.findobj(Text):
        text.set_size(min(text.get_size(), style.most_pt))  # type: ignore[attr-defined]
    if style.marks == 1.0 or not isinstance(figure, Chart) or figure.is_fitted:
        return
    figure.is_fitted = True
    for artist in figure.findobj(lambda one: isinstance(one, Line2D | Collection)):
        artist.set_linewidth(style.marks * np.asarray(artist.get_linewidth()))  # type: ignore[attr-defined]
        if isinstance(artist, Line2D):
            artist.set_markersize(style.marks * artist.get_markersize())
        elif isinstance(artist, PathCollection):
            artist.set_sizes(style.marks**2 * artist.get_sizes())


class UnitTicks(Formatter):
    """Ticks with SI prefixes, in as many digits as tell one from the next: 385 Hz, 387.5 Hz, 390 Hz."""

    def __init__(self, unit: str) -> None:
        self.form = FORMATS[unit]

    def __call__(self, value: float, pos: int | None = None) -> str:
        """The text of a value by itself."""
        return self.form(value)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The texts of all ticks of an axis."""
        places = np.unique(np.asarray(values, dtype=float))
        step = np.diff(places).min() if len(places) > 1 else np.inf
        for digits in range(3, 9):
            if all(abs(float(f"{place:.{digits - 1}e}") - place) <= 0.01 * step for place in places):
                break
        return [self.form(value, digits) for value in values]


def unit_ticks(axis: Axis, unit: str, most: int | None = None) -> None:
    """Write an axis's ticks with their ``unit``: s, B or Hz; at ``most`` so many."""
    if most:
        axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(UnitTicks(unit))


def style_axes(ax: Axes, xlabel: str, ylabel: str, grid: str = "both") -> None:
    """Give the axes a light grid behind the data, no box, and small quiet ticks."""
    ax.set_xlabel(xlabel, size=9.5, color=INK, labelpad=6)
    ax.set_ylabel(_in_lines(ax, ylabel), size=9.5, color=INK, labelpad=6)
    ax.set_axisbelow(True)
    ax.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    ax.tick_params(which="both", labelsize=8.5, labelcolor=INK, color=FAINT, length=0, pad=5)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(FAINT)


def unit_axis(ax: Axes, unit: str, values: Sequence[float], log: bool | None = None) -> None:
    """Scale the x axis in ``unit`` with SI prefixes; logarithmic when the values span more than a factor of ten."""
    positive = [float(v) for v in values if 0 < v < float("inf")]
    spread = max(positive) / min(positive) if positive else 1.0
    num = 6 if width_of(ax) > 5.0 else 4
    if not positive or not (spread > 10 if log is None else log):
        unit_ticks(ax.xaxis, unit, num)
        return
    ax.set_xscale("log")
    pad = max(spread**0.06, 1.25)
    ax.set_xlim(min(positive) / pad, max(positive) * pad)
    tight = 1.0 if num == 6 else 0.1  # a narrow axis has room for a tick a decade
    subs = (1.0,) if spread > 3e3 * tight else (1.0, 3.0) if spread > 150 * tight else (1.0, 2.0, 5.0)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    unit_ticks(ax.xaxis, unit)  # set_xscale drops the formatter


def score_axis(ax: Axes, values: Sequence[float], needed: Sequence[float] = ()) -> None:
    """Set limits around the scores that never blow up differences of a tenth of a point.

    Scores are from 0 to 1: the axis passes neither end by more than half a marker, and has no tick beyond.

    Args:
        ax: the axes.
        values: all scores, with the ends of their intervals.
        needed: the ones that must be seen apart. Values that lie deeper below the highest one than one and
            a half times the spread of these are left out; by default none is.
    """
    values = [min(max(value, 0.0), 1.0) for value in values]
    high = max(values)
    floor = high - 1.5 * max(high - min(needed), 0.01) if len(needed) else -np.inf
    seen = [value for value in values if value >= floor]
    low = min(seen)
    room = max(0.12 * (high - low), 0.01)
    hair = _HALF_MARKER * (min(high + room, 1.0) - max(low - room, 0.0))
    ax.set_ylim(max(low - room, -hair), min(high + room, 1 + hair))
    ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))


def interval_bars(scores: ArrayLike, half: ArrayLike) -> NDArray[np.float64]:
    """How far the bars of intervals reach below and above scores, ``(2, n)``: no further than a score can, 0 to 1.

    Args:
        scores: the middles of the intervals.
        half: half of each interval; NaN where there is none.
    """
    middles, halves = np.asarray(scores, dtype=float), np.asarray(half, dtype=float)
    return np.stack([np.minimum(halves, middles), np.minimum(halves, 1 - middles)]).clip(0)


def width_of(ax: Axes) -> float:
    """The width of the figure in inches."""
    figure = ax.get_figure(root=True)
    return float(figure.get_size_inches()[0]) if figure else 0.0


def _in_lines(ax: Axes, ylabel: str) -> str:
    """A label in as many lines as the axis's height asks for."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Chart)
    room_in = share_of(ax) * (figure.get_size_inches()[1] - figure.header_in) - TICKS_IN
    most = max(14, int(room_in * 72 / (0.52 * min(9.5, chosen().style.most_pt))))
    if len(ylabel) <= most:
        return ylabel
    return "\n".join(textwrap.fill(part, most) for part in ylabel.replace(" (", "\n(").splitlines())


def share_of(ax: Axes) -> float:
    """Which share of the figure's height, without the header's, the axes have."""
    place = ax.get_subplotspec()
    if place is None:
        return 1.0
    ratios = np.asarray(place.get_gridspec().get_height_ratios(), dtype=float)
    return float(ratios[place.rowspan.start : place.rowspan.stop].sum() / ratios.sum())


def note(ax: Axes, text: str) -> None:
    """A remark above the axes, in as many lines as it needs."""
    ax.set_title(textwrap.fill(text, int(width_of(ax) * 13)), size=8.5, color=MUTED, loc="left")


def palette(count: int) -> list[Any]:
    """``count`` colours: qualitative colours while they suffice, else an ordered colour-blind safe ramp."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    ramp = mpl.colormaps["viridis"]
    return [ramp(0.92 * i / (count - 1)) for i in range(count)]


def stage_look(stage: str) -> dict[str, Any]:
    """Colour and, where the style has it, hatching of a stage's bars."""
    hatch = _HATCHES.get(stage, "") if chosen().style.has_hatches else ""
    return {"facecolor": STAGES[stage][1], "edgecolor": PAPER if hatch else "none", "hatch": hatch, "linewidth": 0}


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the chosen formats, and its numbers as CSV beside it.

    Args:
        figure: from ``new_figure``.
        path: of the files, without a suffix.
    """
    for kind in chosen().formats:
        write_whole(content(figure, kind), path.with_name(f"{path.name}.{kind}"))
    if isinstance(figure, Chart) and figure.data is not None:
        write_csv(figure.data, path.with_name(f"{path.name}.csv"))


def content(figure: Figure, kind: str = "png", sharper: float = 1.0) -> bytes:
    """The file of a figure; the same figure gives the same bytes.

    Args:
        figure: from ``new_figure``.
        kind: png, pdf or svg. Fonts are embedded: as TrueType in a PDF (publishers refuse Type 3), as outlines in SVG.
        sharper: times the resolution of the style.
    """
    fit(figure)
    buffer, dates = io.BytesIO(), {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with mpl.rc_context(
        {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "splitsem", "hatch.linewidth": 0.6}
    ):
        if kind == "png":
            _draw_once(figure, sharper * chosen().style.dpi, buffer)
        else:
            figure.savefig(buffer, format=kind, dpi=sharper * chosen().style.dpi, metadata=dates.get(kind))
    return buffer.getvalue()


def _draw_once(figure: Figure, dpi: float, buffer: io.BytesIO) -> None:
    """Write a PNG. ``savefig`` lays out and draws all twice, for margins it might trim; the pixels are the same."""
    usual = figure.dpi
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    opaque = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(opaque).save(buffer, "png", dpi=(dpi, dpi), compress_level=_COMPRESS_LEVEL)
    figure.set_dpi(usual)


def empty(ax: Axes, message: str = "no job of this sweep succeeded") -> None:
    """Say that there is nothing to draw."""
    ax.text(0.5, 0.5, message, transform=ax.transAxes, ha="center", va="center", size=11, color=MUTED)
    ax.set_xticks([])
    ax.set_yticks([])
