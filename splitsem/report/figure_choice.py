"""What figures are for, and in which formats they are left: chosen once a job, for all figures. Needs no matplotlib.

``style`` draws and saves by it.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

StyleName = Literal["screen", "paper", "talk"]
Format = Literal["png", "pdf", "svg"]


@dataclass(frozen=True)
class Style:
    """How figures are laid out for one purpose.

    Attributes:
        widths_in: of one and of two columns, in inches; none: each figure has its own width.
        most_pt: no text is larger.
        dpi: pixels an inch of PNG files, and of pictures inside other files.
        has_header: title and subtitle stand above the axes; a paper has captions, a slide has its own title.
        has_legend_above: the legend takes height in place of width.
        marks: sizes of markers and lines, as a share of a screen's.
        has_hatches: bars differ in their hatching too, so that they can be told apart in grey.
    """

    widths_in: tuple[float, float] | None = None
    most_pt: float = 99.0
    dpi: int = 150
    has_header: bool = True
    has_legend_above: bool = False
    marks: float = 1.0
    has_hatches: bool = False


STYLES: dict[StyleName, Style] = {
    "screen": Style(),
    # the columns of most proceedings (IEEE 3.5 in, ACM 3.33 in), and both with the gap between them
    "paper": Style((3.4, 7.0), 8.0, 300, has_header=False, has_legend_above=True, marks=0.7, has_hatches=True),
    # over the 13.3 in of a slide, the text of 8.5 pt becomes 20 pt, in a figure of two columns 15 pt
    "talk": Style((5.6, 7.4), 99.0, 300, has_header=False),
}


@dataclass(frozen=True)
class Choice:
    """A style, and the formats that figures are left in beside PNG, which pages show."""

    style: Style = STYLES["screen"]
    formats: tuple[Format, ...] = ("png",)


_chosen: ContextVar[Choice] = ContextVar("chosen", default=Choice())  # noqa: B039 (frozen)


def chosen() -> Choice:
    """What holds here."""
    return _chosen.get()


@contextlib.contextmanager
def using(style: StyleName = "screen", formats: Sequence[Format] = ("png",)) -> Iterator[None]:
    """Draw and save all figures inside in this style and these formats; PNG is always one of them."""
    token = _chosen.set(Choice(STYLES[style], tuple(dict.fromkeys(("png", *formats)))))
    try:
        yield
    finally:
        _chosen.reset(token)
