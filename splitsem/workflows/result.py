"""Result: what a workflow returns to the job that runs it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from splitsem.workflows.drawing import Drawing

Metrics = dict[str, Any]

DRAWS = "score_draws.npz"
SCORES = "link_scores.csv"


def write_draws(draws: Mapping[str, "NDArray[np.float32]"], path: Path) -> None:
    """Keep scores on bootstrap draws, for the intervals of a sweep; nothing where there are none."""
    if draws:
        import numpy as np

        arrays: dict[str, Any] = dict(draws)
        np.savez(path, **arrays)


class Result(NamedTuple):
    """What a workflow returns.

    Attributes:
        metrics: flat, SI units in the names; numbers, and text for labels.
        figures: by file name without suffix.
        history: metrics of each epoch, if this run is a training.
        headline: one line for the terminal.
        training: metrics of each epoch of a network that had to be trained first, for this run and those that follow.
        draws: scores on bootstrap draws of the samples, by split, see ``scoring.Scored``; for the sweep's intervals.
    """

    metrics: Metrics
    figures: "Mapping[str, Figure | Drawing]"
    history: list[dict[str, float]]
    headline: str
    draws: Mapping[str, "NDArray[np.float32]"] = {}
    training: Sequence[Mapping[str, float]] = ()
