"""Result: what a workflow returns to the job that runs it."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Metrics = dict[str, Any]


class Result(NamedTuple):
    """What a workflow returns.

    Attributes:
        metrics: flat, SI units in the names; numbers, and text for labels.
        figures: by file name without suffix.
        history: metrics of each epoch, if this run trained.
        headline: one line for the terminal.
    """

    metrics: Metrics
    figures: dict[str, "Figure"]
    history: list[dict[str, float]]
    headline: str
