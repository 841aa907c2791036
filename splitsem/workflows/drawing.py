"""Drawing: a figure that is not drawn yet, since to draw takes longer than to score; the process aside draws it."""

from collections.abc import Mapping
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from splitsem import extras
from splitsem.report import figure_choice
from splitsem.report.figure_choice import Format, StyleName
from splitsem.workflows import aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNDRAWN = "undrawn.txt"
"""In a job's folder: that its figures are still to be drawn, or why they could not be."""


class Drawing(NamedTuple):
    """A figure as the call that makes it. What draws need not be imported here.

    Attributes:
        function: name of the function, with its module.
        arguments: what it takes; anything that can be pickled.
    """

    function: str
    arguments: tuple[Any, ...]

    def figure(self) -> "Figure":
        """The figure, drawn here and now."""
        module, _, name = self.function.rpartition(".")
        drawn: Figure = getattr(import_module(module), name)(*self.arguments)
        return drawn


def get_ready() -> None:
    """Have the process aside import what draws, while this one computes."""
    if extras.has("plots"):
        aside.prepare(_import_what_draws)


def _import_what_draws() -> None:
    import_module("splitsem.report.run_figures")


def save_aside(
    figures: "Mapping[str, Figure | Drawing]", folder: Path, style: StyleName, formats: list[Format]
) -> "Future[None] | None":
    """Draw the figures, and leave their files: drawings in the process aside, after the calls that it has.

    What is a figure already is saved here. While drawings are in work, the folder says so, see ``UNDRAWN``.

    Args:
        figures: by file name, without a suffix.
        folder: gets the files.
        style: see ``figure_choice.using``.
        formats: see ``figure_choice.using``.

    Returns:
        Raises what the drawing raised; None where there is none.
    """
    drawings = {name: one for name, one in figures.items() if isinstance(one, Drawing)}
    drawn = {name: one for name, one in figures.items() if not isinstance(one, Drawing)}
    if drawn:
        save(drawn, folder, style, formats)
    if not drawings:
        return None
    (folder / UNDRAWN).write_text("its figures are being drawn\n")
    return aside.call(save, drawings, folder, style, formats)


def save(figures: "Mapping[str, Figure | Drawing]", folder: Path, style: StyleName, formats: list[Format]) -> None:
    """Draw what is not drawn yet, and leave all as files; arguments as in ``save_aside``."""
    from splitsem.report.style import save

    try:
        with figure_choice.using(style, formats):
            for name, one in figures.items():
                save(one.figure() if isinstance(one, Drawing) else one, folder / name)
    except Exception as exc:
        if (folder / UNDRAWN).exists():
            (folder / UNDRAWN).write_text(f"{type(exc).__name__}: {exc}\n")
        raise
    (folder / UNDRAWN).unlink(missing_ok=True)
