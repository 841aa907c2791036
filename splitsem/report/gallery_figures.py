"""The gallery: what the unsplit network finds in some samples, beside what the split one finds in them.

All is drawn into one axes whose unit is an inch, with the origin at the top left: an axes a picture takes ten times as
long, and a gallery belongs to each job of a sweep.
"""

import textwrap
from collections.abc import Mapping, Sequence
from math import ceil

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from splitsem.report import style
from splitsem.report.figure_choice import chosen
from splitsem.report.gallery_samples import NOTHING, Forecast, Found, Label, Shown

UNSPLIT, SPLIT = style.COLOURS[0], style.COLOURS[1]
_TEXT_PT = 8.5
_NAME_IN = 0.135  # from one name of a box to the next
_LINE_IN = 0.165
_MARGIN_IN = 0.14
_EM = 0.58  # mean width of a letter, in font sizes
_MOST_VALUES = 12
_PIXELATED_BELOW = 128  # pixels of a side


def labels(samples: Sequence[Shown[Label]], title: str, subtitle: str) -> Figure:
    """Each picture with its true class, the unsplit network's and the split one's, and how sure each is."""
    found = [label for one in samples for label in (one.unsplit, one.split) if label.name != NOTHING]
    keys = []
    if any(one.unsplit.name != one.split.name for one in samples):
        keys.append("orange: another class than unsplit")
    if 0 < sum(label.confidence is None for label in found) < len(found):
        keys.append("without a percentage: the answer names the class alone")
    longest = max(len(label.name) for one in samples for label in (one.unsplit, one.split, one.truth) if label)
    columns, width_in = (4, 2.1) if longest <= 14 else (3, 2.9)
    has_input = any(one.picture is not None or one.text for one in samples)
    side_in = 1.35 if has_input else 0.0
    sheet = _Sheet(len(samples), columns, (width_in, side_in + 4.6 * _LINE_IN), title, subtitle, " · ".join(keys))
    for one, (left, top) in zip(samples, sheet.places, strict=True):
        if one.picture is not None:
            sheet.picture(one.picture, left, top, side_in)
        elif one.text:
            sheet.paragraph(left, top, one.text, width_in - 0.2, int(side_in / _LINE_IN))
        y = top + side_in + 0.16
        color = style.INK if one.unsplit.name == one.split.name else SPLIT
        rows = [("unsplit", one.unsplit, style.INK), ("split", one.split, color)]
        if one.truth is not None:
            rows.insert(0, ("true", one.truth, style.MUTED))
        for row, (what, label, ink) in enumerate(rows):
            sure = "" if label.confidence is None else f" ({100 * label.confidence:.0f} %)"
            sheet.line(left, y + row * _LINE_IN, f"{what}: {label.name}", width_in - 0.15, ink, sure)
    return sheet.figure


def masks(
    samples: Sequence[Shown[NDArray[np.integer]]],
    names: Mapping[int, str],
    palette: NDArray[np.uint8] | None,
    title: str,
    subtitle: str,
) -> Figure:
    """Each picture, the class maps of both networks, and the places where these differ.

    Args:
        samples: their results are class maps ``(height, width)``.
        names: of the classes; a class without one is shown by its number.
        palette: ``(classes, 3)`` RGB; None takes colours that can be told apart.
        title: of the figure.
        subtitle: of the figure.
    """
    num_panels = 4 if samples[0].picture is not None else 3
    columns, side_in = (2, 1.2) if len(samples) > 2 else (1, 1.9)
    seen = np.unique(np.concatenate([np.unique(np.stack([one.unsplit, one.split])) for one in samples]))
    cell = (num_panels * side_in + 0.2, side_in + 1.6 * _LINE_IN)
    names = {int(number): names.get(int(number), str(number)) for number in seen}
    key_in = 0.35 + max(map(len, names.values())) * _EM * _TEXT_PT / 72  # of one class
    in_row = max(1, int((_Sheet.width_in(len(samples), columns, cell[0]) - 2 * _MARGIN_IN) / key_in))
    sheet = _Sheet(
        *(len(samples), columns, cell, title, subtitle, "orange: pixels that differ"),
        below_in=0.22 + 0.2 * ceil(len(seen) / in_row),
    )
    colours = _colours(palette, int(seen.max()) + 1)
    for one, (left, top) in zip(samples, sheet.places, strict=True):
        differs = one.unsplit != one.split
        panels = [("unsplit", colours[one.unsplit]), ("split", colours[one.split])]
        panels.append((f"differ: {100 * differs.mean():.2g} %", _marked(one.picture, differs)))
        if one.picture is not None:
            panels.insert(0, (f"sample {one.number}", one.picture))
        for place, (text, image) in enumerate(panels):
            sheet.picture(image, left + place * side_in, top, side_in - 0.06)
            sheet.line(left + place * side_in, top + side_in + 0.08, text, side_in - 0.06, style.MUTED)
    for place, (number, name) in enumerate(names.items()):
        left = _MARGIN_IN + key_in * (place % in_row)
        y = sheet.bottom + 0.2 * (place // in_row) + 0.1
        sheet.ax.add_patch(Rectangle((left, y - 0.06), 0.12, 0.12, facecolor=colours[number] / 255))
        sheet.line(left + 0.17, y, name, sheet.ax.get_xlim()[1] - left - 0.17, style.INK)
    return sheet.figure


def boxes(samples: Sequence[Shown[Found]], title: str, subtitle: str) -> Figure:
    """Each picture twice: with the boxes of the unsplit network, and with those of the split one."""
    columns, side_in = (2, 2.35) if len(samples) > 1 else (1, 3.6)
    heights = [one.picture.shape[0] / max(one.picture.shape[:2]) for one in samples if one.picture is not None]
    high_in = side_in * max(heights, default=1.0)
    key = "blue: found by both, orange: by one of them"
    sheet = _Sheet(len(samples), columns, (2 * side_in + 0.25, high_in + 1.7 * _LINE_IN), title, subtitle, key)
    for one, (left, top) in zip(samples, sheet.places, strict=True):
        assert one.picture is not None, "boxes lie in a picture"
        for place, (what, found) in enumerate((("unsplit", one.unsplit), ("split", one.split))):
            x, width_in = left + place * side_in, side_in - 0.08
            scale = sheet.picture(one.picture, x, top, width_in)
            _draw_boxes(sheet, found, (x, top), scale, x + width_in)
            num = len(found.corners)
            text = f"sample {one.number}, {what}: {num} box{'' if num == 1 else 'es'}"
            sheet.line(x, top + high_in + 0.08, text, width_in, style.MUTED)
    return sheet.figure


def forecasts(samples: Sequence[Shown[Forecast]], unit: str, title: str, subtitle: str) -> Figure:
    """The end of each series, both forecasts, and the truth."""
    wide_in, high_in = 2.3, 1.25
    key = f"in {unit} · grey: the past, black: the truth, blue: unsplit, orange: split"
    sheet = _Sheet(len(samples), 4, (wide_in + 0.15, high_in + 2.9 * _LINE_IN), title, subtitle, key)
    for one, (left, top) in zip(samples, sheet.places, strict=True):
        past, horizon = one.unsplit.past, len(one.unsplit.future)
        past = past[-4 * horizon :]
        lines = [(one.unsplit.future, UNSPLIT), (one.split.future, SPLIT)]
        if one.truth is not None:
            lines.insert(0, (one.truth.future, style.INK))
        values = np.concatenate([past, *(future for future, _ in lines)])
        low, high = float(values.min()), float(values.max())
        steps = np.arange(len(past) + horizon) / (len(past) + horizon - 1)
        x = left + wide_in * steps
        for series, ink in [(past, style.FAINT), *((np.append(past[-1], future), ink) for future, ink in lines)]:
            first = 0 if series is past else len(past) - 1
            y = top + high_in * (1 - (series - low) / ((high - low) or 1.0))
            sheet.ax.plot(x[first : first + len(series)], y, color=ink, linewidth=1.5)
        sheet.frame(left, top, wide_in, high_in)
        sheet.line(left, top + high_in + 0.1, f"sample {one.number}", wide_in, style.MUTED)
        sheet.line(left, top + high_in + 0.1 + _LINE_IN, f"{low:.3g} … {high:.3g} {unit}", wide_in, style.MUTED)
    return sheet.figure


def bars(samples: Sequence[Shown[NDArray[np.floating]]], title: str, subtitle: str) -> Figure:
    """The first values of both outputs as bars."""
    wide_in, high_in = 2.3, 1.1
    num = min(max(len(one.unsplit) for one in samples), _MOST_VALUES)
    some = "" if num == max(len(one.unsplit) for one in samples) else f" · the first {num} values"
    sheet = _Sheet(
        *(len(samples), 4, (wide_in + 0.15, high_in + 2.9 * _LINE_IN), title),
        *(subtitle, f"blue: unsplit, orange: split{some}"),
    )
    for one, (left, top) in zip(samples, sheet.places, strict=True):
        pairs = np.stack([one.unsplit[:num], one.split[:num]])
        low, high = min(0.0, float(pairs.min())), max(0.0, float(pairs.max()))
        scale, width_in = high_in / ((high - low) or 1.0), wide_in / (3 * num)
        zero = top + high * scale
        for row, ink, shift in ((pairs[0], UNSPLIT, 0.5), (pairs[1], SPLIT, 1.5)):
            patches = [
                Rectangle((left + (3 * i + shift) * width_in, zero), width_in, -value * scale)
                for i, value in enumerate(row)
            ]
            sheet.ax.add_collection(PatchCollection(patches, facecolor=ink, linewidth=0))
        sheet.ax.plot([left, left + wide_in], [zero, zero], color=style.FAINT, linewidth=0.8)
        sheet.line(left, top + high_in + 0.1, f"sample {one.number}", wide_in, style.MUTED)
        sheet.line(left, top + high_in + 0.1 + _LINE_IN, f"{low:.3g} … {high:.3g}", wide_in, style.MUTED)
    return sheet.figure


class _Sheet:
    """A figure with a place for each sample, row by row.

    Args:
        num: of samples.
        columns: places in a row.
        cell_in: width and height of a place.
        title: of the figure.
        subtitle: of the figure.
        key: what its colours mean: after the subtitle, or at the lower edge in a style without a header.
        below_in: height of what stands below all places.
    """

    def __init__(
        self,
        num: int,
        columns: int,
        cell_in: tuple[float, float],
        title: str,
        subtitle: str,
        key: str,
        below_in: float = 0.0,
    ) -> None:
        columns = self._columns(num, columns, cell_in[0])
        width_in = self.width_in(num, columns, cell_in[0])
        has_header = chosen().style.has_header
        subtitle = f"{subtitle} · {key}" if key and has_header else subtitle
        lines = [] if has_header else textwrap.wrap(key, int((width_in - 2 * _MARGIN_IN) * 72 / (_EM * _TEXT_PT)))
        below_in += _LINE_IN * len(lines)
        high_in = ceil(num / columns) * cell_in[1] + below_in
        self.figure = style.new_figure(width_in, high_in, fit(title, width_in - 0.3, 13.5), subtitle, kept="size")
        self.figure.set_layout_engine("none")
        width_in, height_in = self.figure.get_size_inches()
        self.ax = self.figure.add_axes((0, 0, 1, 1))
        self.ax.set_xlim(0, width_in)
        self.ax.set_ylim(height_in, 0)
        self.ax.axis("off")
        self.ax.set_autoscale_on(False)
        top = height_in - high_in
        self.bottom = height_in - below_in
        for i, line in enumerate(reversed(lines)):
            self.ax.text(
                _MARGIN_IN, height_in - (i + 0.6) * _LINE_IN, line, size=_TEXT_PT, color=style.MUTED, va="center"
            )
        self.places = [
            (_MARGIN_IN + i % columns * cell_in[0], top + i // columns * cell_in[1] + 0.02) for i in range(num)
        ]

    @staticmethod
    def _columns(num: int, columns: int, cell_in: float) -> int:
        """How many places in a row the samples need and the style has room for."""
        columns = min(columns, num)
        if widths_in := chosen().style.widths_in:
            columns = max(1, min(columns, int((widths_in[1] - 2 * _MARGIN_IN) / cell_in)))
        return columns

    @classmethod
    def width_in(cls, num: int, columns: int, cell_in: float) -> float:
        """Width of the figure."""
        return max(cls._columns(num, columns, cell_in) * cell_in + 2 * _MARGIN_IN, 6.4)

    def picture(self, image: NDArray, left: float, top: float, side_in: float) -> float:
        """Draw a picture whose longer side has this length; returns the inches of a pixel."""
        height, width = image.shape[:2]
        scale = side_in / max(height, width)
        self.ax.imshow(
            image,
            extent=(left, left + width * scale, top + height * scale, top),
            aspect="auto",
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest" if max(height, width) < _PIXELATED_BELOW else "auto",
        )
        return scale

    def line(self, left: float, y: float, text: str, width_in: float, color: str, end: str = "") -> None:
        """One line of text, cut with an ellipsis before its ``end``."""
        text = fit(text, width_in - len(end) * _EM * _TEXT_PT / 72, _TEXT_PT) + end
        self.ax.text(left, y, text, size=_TEXT_PT, color=color, va="center")

    def paragraph(self, left: float, top: float, text: str, width_in: float, most: int) -> None:
        """Text in at most ``most`` lines."""
        letters = int(width_in * 72 / (_EM * _TEXT_PT))
        lines = textwrap.wrap(text, letters, max_lines=most, placeholder=" …")
        self.ax.text(left, top, "\n".join(lines), size=_TEXT_PT, color=style.INK, va="top")

    def frame(self, left: float, top: float, width_in: float, high_in: float) -> None:
        """A thin frame."""
        self.ax.add_patch(Rectangle((left, top), width_in, high_in, fill=False, edgecolor=style.GRID, linewidth=0.8))


def fit(text: str, width_in: float, size_pt: float) -> str:
    """The text, or its beginning with an ellipsis, as wide as there is room.

    >>> fit("building_total_destruction", 1.0, 8.5)
    'building_total…'
    """
    most = max(2, int(width_in * 72 / (_EM * size_pt)) + 1)
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _colours(palette: NDArray[np.uint8] | None, num: int) -> NDArray[np.uint8]:
    """RGB of each class, ``(at least num, 3)``."""
    if palette is not None and len(palette) >= num:
        return palette
    ramp = mpl.colormaps["tab20"]
    return np.array([[round(255 * part) for part in ramp(i % 20)[:3]] for i in range(num)], np.uint8)


def _marked(picture: NDArray | None, differs: NDArray[np.bool_]) -> NDArray[np.floating]:
    """The picture in pale grey, and in the split network's colour where the two differ."""
    grey = np.full(differs.shape, 0.5) if picture is None else picture.reshape(*picture.shape[:2], -1).mean(-1)
    if grey.shape != differs.shape:  # a network may answer at another scale
        grey = np.full(differs.shape, 0.5)
    shown = np.repeat((0.55 + 0.45 * grey)[..., None], 3, axis=2)
    shown[differs] = mpl.colors.to_rgb(SPLIT)
    return shown


def _draw_boxes(sheet: _Sheet, found: Found, origin: tuple[float, float], scale: float, right: float) -> None:
    """Boxes, and names at their upper or else lower edge, inside the picture.

    A name that would hide another is left out. What only one network finds is drawn on top and named first.
    """
    left, top = origin
    written: list[tuple[float, float, float]] = []
    for i in np.argsort(found.is_matched, kind="stable"):
        (x1, y1, x2, y2), name, is_matched = found.corners[i], found.names[i], found.is_matched[i]
        ink, over = (UNSPLIT, 1) if is_matched else (SPLIT, 2)
        x, y, high_in = left + x1 * scale, top + y1 * scale, (y2 - y1) * scale
        sheet.ax.add_patch(
            Rectangle((x, y), (x2 - x1) * scale, high_in, fill=False, edgecolor=ink, linewidth=1.2, zorder=over)
        )
        width_in = len(name) * _EM * 8 / 72
        at = max(left, min(x, right - width_in))
        for line in (max(top + 0.07, y - 0.06), y + high_in - 0.07):
            if any(abs(line - y0) < _NAME_IN and at < x0 + w and x0 < at + width_in for x0, y0, w in written):
                continue
            written.append((at, line, width_in))
            back = {"facecolor": ink, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
            sheet.ax.text(at, line, name, size=8, color=style.PAPER, va="center", bbox=back, zorder=over + 2)
            break
