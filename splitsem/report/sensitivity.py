"""How sure the winners are: how far each assumption of a sweep may be off until another configuration is better.

No model runs. The times and energies of the sweep are scaled, see ``scaled_costs``. Scores do not depend on what
is scaled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splitsem.report import results as rs
from splitsem.report.best import GOALS, Best, Goal, candidates
from splitsem.report.fronts import TOLERANCE
from splitsem.report.scaled_costs import NEEDED, Costs, powers
from splitsem.report.units import format_number, format_ratio, format_seconds, format_si, worded

_FRAGILE = 1.1  # a choice that errors of so small a factor change
MOST = 100.0  # factors from 1 / MOST to MOST are tried
_STEPS = np.geomspace(1.0, MOST, 241)
_NUM_HALVINGS = 30
_SAME = ("transport", "edge", "server", "model", "task")


class Knob(NamedTuple):
    """An assumption of a sweep.

    Attributes:
        title: its name.
        column: the column of results.csv that has its value; empty where only factors can be told.
        show: how to show that value.
    """

    title: str
    column: str
    show: Callable[[float], str]

    def value(self, row: pd.Series, factor: float) -> str:
        """The knob at ``factor`` times what ``row`` assumed, in its own unit where that is known."""
        now = row[self.column] if self.column else float("nan")
        return self.show(factor * now) if now > 0 else format_factor(factor)


def _format_bps(value: float) -> str:
    return format_si(value, "bit/s", smallest=0)


ASSUMPTIONS = "bandwidth, round trip, speeds of edge and server, coding rate, radio power"
KNOBS = (
    Knob("bandwidth", "link_bandwidth_bps", _format_bps),
    Knob("round trip", "link_rtt_s", format_seconds),
    Knob("edge speed", "", format_ratio),
    Knob("server speed", "", format_ratio),
    Knob("coding rate", "", format_ratio),
    Knob("radio power", "", format_ratio),
)


@dataclass(frozen=True)
class Reach:
    """How far one knob may be turned.

    Attributes:
        low: the smallest factor at which the winner stays the best; 1 / MOST where no smaller one was tried.
        high: the largest one, up to MOST.
        below: what takes over below ``low``; empty where nothing does.
        above: what takes over above ``high``; empty where nothing does.
    """

    low: float
    high: float
    below: str
    above: str


@dataclass(frozen=True)
class Sensitivity:
    """What the winner of a goal rests on.

    Attributes:
        goal: the goal in question.
        row: the winner.
        name: its label.
        num_rivals: how many other configurations keep the score over the same link, on the same machines.
        reaches: of each of ``KNOBS``, the others unchanged.
        corner: the largest factor by which all knobs may be off at a time, in the worst directions.
        corner_rival: what takes over there; empty where nothing does.
    """

    goal: Goal
    row: pd.Series
    name: str
    num_rivals: int
    reaches: Sequence[Reach]
    corner: float
    corner_rival: str

    @property
    def sentence(self) -> str:
        """``Highest throughput: dec2 stays best from 3 to 41 Mbit/s (assumed: 19 Mbit/s, above it input)``, and more.

        The bandwidth, then of the other knobs the one that may be off least, then all at a time.
        """
        if not self.num_rivals:
            alone = worded(
                "has no rival among the cuts that keeps the score over this link", self.row["score_name"] or "score"
            )
            return f"{self.goal.title}: {self.name} {alone}."
        others = zip(KNOBS[1:], self.reaches[1:], strict=True)
        knob, reach = min(others, key=lambda pair: min(pair[1].high, 1 / pair[1].low))
        told = [self._told(KNOBS[0], self.reaches[0])]
        if reach.below or reach.above:
            told.append(f"{knob.title} {self._told(knob, reach)}")
        return f"{self.goal.title}: {self.name} stays best {'; with '.join(told)}. {self._together}."

    @property
    def _together(self) -> str:
        """What becomes of the winner where all assumptions are off at a time."""
        if not self.corner_rival:
            return f"All six may be off by {format_factor(self.corner)} at a time"
        if self.corner < _FRAGILE:
            off = f"{format_number(100 * (self.corner - 1), 2)} %"
            return f"Fragile: if all six are off by {off} at a time, in the worst directions, {self.corner_rival} wins"
        off = f"more than {format_factor(self.corner)}"
        return f"If all six are off by {off} at a time, in the worst directions, {self.corner_rival} wins"

    def _told(self, knob: Knob, reach: Reach) -> str:
        low, high = knob.value(self.row, reach.low), knob.value(self.row, reach.high)
        name = f" the {knob.title}" if low.endswith("×") and knob is KNOBS[0] else ""
        if not reach.below and not reach.above:
            return f"from {low} to {high}{name}, and maybe beyond"
        if not reach.above:
            span = f"from {low}{name} on"
        elif not reach.below:
            span = f"up to {high}{name}"
        else:
            number, _, unit = low.rpartition(" ")
            span = f"from {number if unit and high.endswith(f' {unit}') else low} to {high}{name}"
        known = knob.value(self.row, 1.0)
        notes = [] if known.endswith("×") else [f"assumed: {known}"]
        notes += [f"{side} it {who}" for side, who in (("below", reach.below), ("above", reach.above)) if who]
        return f"{span} ({', '.join(notes)})"


def format_factor(factor: float) -> str:
    """A factor that may be close to 1.

    >>> format_factor(1.04), format_factor(0.514), format_factor(55.2)
    ('1.04×', '0.51×', '55×')
    """
    return f"{factor:.2f}×" if 0.9 < factor < 2 else format_ratio(factor)


def sensitivity(results: pd.DataFrame) -> list[Sensitivity]:
    """For each goal's winner, how far each assumption may be off until a rival is better by more than 2 %.

    The winner is compared with the configurations that keep the score, over its own link and on its own machines, by
    the algebra of ``scaled_costs``. The first factor from 1 on at which a rival is better is looked for on a grid of
    240 steps, then by bisection. The powers are those of all rows with this edge; where none has it wait, the energy
    has no answer.

    Args:
        results: one row a job, as in results.csv.

    Returns:
        One answer a goal that has a winner; none for results without the parts of the times, or for a goal whose
        quantity the columns do not give back.
    """
    frame = rs.prepare(results)
    found = []
    for goal in GOALS:
        kept = candidates(goal, frame)
        if kept.empty or kept.iloc[0][list(NEEDED)].isna().any():
            continue
        same = (kept[list(_SAME)].fillna("") == kept.iloc[0][list(_SAME)].fillna("")).all(axis=1)
        rows = kept[same & kept[list(NEEDED)].notna().all(axis=1)]
        costs = Costs.of(rows, *powers(frame[frame["is_ok"] & frame["edge"].eq(kept.iloc[0]["edge"])]))
        room = 1e-3 if (rows["num_runs"] == 1).all() else 0.1  # over seeds, a mean rate is not one over a mean time
        if np.allclose(costs.minimised(goal, np.ones((len(KNOBS), 1)))[:, 0], _given(goal, rows), rtol=room):
            found.append(_answer(goal, rows, costs, several=rs.splits(frame)["series"].nunique() > 1))
    return found


def how_sure(answers: Sequence[Best], sure: Sequence[Sensitivity]) -> list[str]:
    """The sentences of ``sensitivity``, and one about the goals that it has no answer for; none where it has none."""
    known = [one.goal for one in sure]
    untold = [answer.goal.title for answer in answers if answer.qualifies and answer.goal not in known]
    why = "not told; its parts in results.csv do not give it back, as where no edge ever waits: idle power is not known"
    return [one.sentence for one in sure] + ([f"{', '.join(untold)}: {why}."] if known and untold else [])


def _given(goal: Goal, rows: pd.DataFrame) -> NDArray[np.float64]:
    values = rows[goal.column].to_numpy(float)
    return 1 / values if goal.maximise else values


def _answer(goal: Goal, rows: pd.DataFrame, costs: Costs, *, several: bool) -> Sensitivity:
    names = [rs.named(row, several=several) for _, row in rows.iterrows()]

    def limit(turned: Sequence[NDArray[np.float64]]) -> tuple[float, str]:
        """The largest factor at which nothing overtakes in any of the directions, exponents ``(6,)`` of it."""
        factor, rival = min((_limit(costs, goal, exponents) for exponents in turned), key=lambda found: found[0])
        return factor, names[rival] if rival is not None else ""

    reaches = []
    for axis in np.eye(len(KNOBS)):
        (low, below), (high, above) = limit([-axis]), limit([axis])
        reaches.append(Reach(1 / low, high, below, above))
    corner = limit([np.array(signs) for signs in product((-1.0, 1.0), repeat=len(KNOBS))])
    return Sensitivity(goal, rows.iloc[0], names[0], len(rows) - 1, reaches, *corner)


def _limit(costs: Costs, goal: Goal, exponents: NDArray[np.float64]) -> tuple[float, int | None]:
    """How far the first row stays the best along a direction, and the row that takes over; none up to ``MOST``."""

    def overtaking(factors: NDArray[np.float64]) -> NDArray[np.bool_]:
        cost = costs.minimised(goal, factors[None, :] ** exponents[:, None])
        return cost * (1 + TOLERANCE) < cost[:1]

    beaten = overtaking(_STEPS).any(axis=0)
    if not beaten.any():
        return MOST, None
    last = int(beaten.argmax())
    low, high = _STEPS[max(last - 1, 0)], _STEPS[last]
    for _ in range(_NUM_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if overtaking(np.array([middle])).any() else (middle, high)
    cost = costs.minimised(goal, np.array([high])[None, :] ** exponents[:, None])[:, 0]
    return float(high), int(cost.argmin())
