"""What codecs look like in figures that compare them: learned ones in colours, plain ones in greys and dashed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from splitsem.plots import style

_GREYS = ("#1b1f24", "#59636e", "#8a949e", "#b4bcc4")
_DASHES = ((0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)), (0, (1, 1)))


class Look(NamedTuple):
    """Colour, marker and line style of one codec."""

    color: Any
    marker: str
    linestyle: Any


def looks(learned: Mapping[str, bool]) -> dict[str, Look]:
    """A look for each codec, by name; ``learned`` says which have weights.

    Where all are of one kind, they all get colours.
    """
    colourful = [name for name, has_weights in learned.items() if has_weights] or list(learned)
    colors = dict(zip(colourful, style.palette(len(colourful)), strict=True))
    grey = [name for name in learned if name not in colors]
    markers = {name: style.MARKERS[i % len(style.MARKERS)] for i, name in enumerate(colourful)}
    made = {name: Look(colors[name], markers[name], "-") for name in colourful}
    for i, name in enumerate(grey):
        made[name] = Look(_GREYS[i % len(_GREYS)], style.MARKERS[i % len(style.MARKERS)], _DASHES[i % len(_DASHES)])
    return {name: made[name] for name in learned}
