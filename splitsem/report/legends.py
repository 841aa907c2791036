"""Legends that never cover the data: beside the axes, above or below them."""

from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.legend import Legend

from splitsem.report.figure_choice import chosen
from splitsem.report.style import INK, TICKS_IN, Chart, share_of

Place = Literal["outside upper center", "outside lower center"]
_LOOK: dict[str, Any] = {"labelcolor": INK, "frameon": False, "alignment": "left"}
_IN_COLUMNS: dict[str, Any] = {
    "labelspacing": 0.3,
    "handletextpad": 0.5,
    "handlelength": 1.7,
    "columnspacing": 1.0,
    "borderpad": 0.1,
}


def outside(ax: Axes, handles: Sequence[Any], title: str | None = None) -> Legend:
    """The legend to the right of the axes, or above them by the chosen style."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Chart)
    if chosen().style.has_legend_above:
        return _above(figure, handles, title)
    legend = ax.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0.0,
        fontsize=8.5,
        title=title,
        title_fontproperties={"size": 8.5, "weight": "bold"},
        labelspacing=0.6,
        handletextpad=0.6,
        **_LOOK,
    )
    if ax.get_subplotspec() is not None:
        _make_room(figure, share_of(ax), legend)
    return legend


def below(figure: Chart, handles: Sequence[Any]) -> Legend:
    """A legend of the whole figure below its axes, in as many columns as fit; the figure grows by its height."""
    legend = _in_columns(figure, handles, "outside lower center", min(8.5, chosen().style.most_pt))
    figure.set_height(figure.get_size_inches()[1] + legend.get_window_extent().height / figure.dpi)
    return legend


def _make_room(figure: Chart, share: float, legend: Legend) -> None:
    """Make the figure as high as the legend beside the axes needs: else the layout takes the room from the axes."""
    height_in = figure.get_size_inches()[1]
    lacking_in = legend.get_window_extent().height / figure.dpi - share * (height_in - figure.header_in - TICKS_IN)
    if lacking_in > 0:
        figure.set_height(height_in + lacking_in / share)


def _above(figure: Chart, handles: Sequence[Any], title: str | None) -> Legend:
    """One legend for the figure, with the handles of further axes; the figure grows by its height."""
    known = {handle.get_label() for handle in figure.entries}
    figure.entries = (*figure.entries, *(handle for handle in handles if handle.get_label() not in known))
    width_in, height_in = figure.get_size_inches()
    for old in list(figure.legends):
        height_in -= old.get_window_extent().height / figure.dpi
        old.remove()
    legend = _in_columns(figure, figure.entries, "outside upper center", 7.5, title)
    figure.set_size_inches(width_in, height_in + legend.get_window_extent().height / figure.dpi)
    return legend


def _in_columns(
    figure: Chart, handles: Sequence[Any], place: Place, size_pt: float, title: str | None = None
) -> Legend:
    """A legend of the figure in as many columns as fit."""
    for columns in range(min(len(handles), 8), 0, -1):
        legend = figure.legend(
            handles=list(handles),
            labels=[str(handle.get_label()).replace("\n", " ") for handle in handles],
            title=title.replace("\n", " ") if title else None,
            loc=place,
            ncols=columns,
            fontsize=size_pt,
            title_fontproperties={"size": size_pt},
            **_LOOK,
            **_IN_COLUMNS,
        )
        if columns == 1 or legend.get_window_extent().width <= figure.get_size_inches()[0] * figure.dpi:
            break
        legend.remove()
    return legend
