"""The best configuration for throughput, latency and energy, in one honest sentence each."""

from dataclasses import dataclass

import pandas as pd

from splitsem.report import results as rs
from splitsem.report.units import format_hz, format_joules, format_ratio, format_seconds


@dataclass(frozen=True)
class Goal:
    """A quantity to be best at, among the configurations that keep the score."""

    column: str
    title: str
    maximise: bool
    better: str
    worse: str

    def show(self, value: float) -> str:
        """The value with its unit."""
        forms = {"throughput_hz": format_hz, "latency_s": format_seconds, "energy_j": format_joules}
        return forms[self.column](value)

    def compare(self, mine: float, other: float) -> str:
        """How ``mine`` relates to ``other``, ready to be followed by the other's name."""
        gain = mine / other if self.maximise else other / mine
        if 0.995 < gain < 1.005:
            return "the same as"
        return f"{format_ratio(gain)} {self.better}" if gain > 1 else f"{format_ratio(1 / gain)} {self.worse}"


GOALS = (
    Goal("throughput_hz", "Highest throughput", True, "as many samples a second as", "fewer samples a second than"),
    Goal("latency_s", "Lowest latency", False, "faster than", "slower than"),
    Goal("energy_j", "Lowest energy on the edge (estimated)", False, "less energy than", "the energy of"),
)


@dataclass(frozen=True)
class Best:
    """The answer for one goal.

    Attributes:
        goal: the goal in question.
        row: the configuration that wins, or that comes closest when none keeps the score; None when no job succeeded.
        qualifies: whether the row's score is within 0.01 of the unsplit score.
        sentence: the answer in words.
    """

    goal: Goal
    row: pd.Series | None
    qualifies: bool
    sentence: str

    @property
    def detail(self) -> str:
        """The sentence without the goal, for a place whose heading is the goal."""
        text = self.sentence.removeprefix(f"{self.goal.title}: ")
        return text[:1].upper() + text[1:]


def best(results: pd.DataFrame) -> list[Best]:
    """For each goal, the best configuration whose score is at most one point (0.01) below the unsplit score.

    Args:
        results: one row a job, as in results.csv. "Just send the picture" rows are compared, never chosen.

    Returns:
        One answer each for throughput, latency and energy.
    """
    frame = rs.prepare(results)
    return [_answer(goal, frame) for goal in GOALS]


def _answer(goal: Goal, frame: pd.DataFrame) -> Best:
    split = rs.splits(frame)
    split = split[split[goal.column].notna() & (split[goal.column] > 0)]
    if split.empty:
        return Best(goal, None, False, f"{goal.title}: no job that succeeded has a figure for it.")
    kept = split[split["score"] >= split["score_unsplit"] - rs.SCORE_MARGIN - 1e-9]
    if kept.empty:
        return _closest(goal, split)
    row = kept.sort_values([goal.column, "score"], ascending=[not goal.maximise, False], kind="stable").iloc[0]
    sentence = (
        f"{goal.title}: {_name(row)} reaches {goal.show(row[goal.column])} at score {row['score']:.3f}"
        f" (unsplit {row['score_unsplit']:.3f}){_comparison(goal, row, frame)}."
    )
    return Best(goal, row, True, sentence)


def _closest(goal: Goal, split: pd.DataFrame) -> Best:
    if split["score_unsplit"].isna().all():
        return Best(goal, None, False, f"{goal.title}: the unsplit score is not known, so nothing can be chosen.")
    short = split["score_unsplit"] - split["score"]
    row = split.loc[short.sort_values(kind="stable").index[0]]
    sentence = (
        f"{goal.title}: no configuration keeps the score within {rs.SCORE_MARGIN} of the unsplit "
        f"{row['score_unsplit']:.3f}; the closest, {_name(row)}, is {row['score_unsplit'] - row['score']:.3f} "
        f"below it at {row['score']:.3f} and reaches {goal.show(row[goal.column])}."
    )
    return Best(goal, row, False, sentence)


def _name(row: pd.Series) -> str:
    codec = f" with {row['series']}" if row["series"] else ""
    ends = {"input": "everything on the server (cut at input)", "output": "everything on the edge (cut at output)"}
    return ends.get(row["split_point"], f"the cut at {row['split_point']}") + codec


def _comparison(goal: Goal, row: pd.Series, frame: pd.DataFrame) -> str:
    """Compares ``row`` with the two ends of the network at the same settings, and with sending the picture."""
    parts = []
    mine = float(row[goal.column])
    split = rs.splits(frame)
    same = split[split["series"].eq(row["series"])]
    for end in ("input", "output"):
        others = same[same["split_point"].eq(end) & same[goal.column].notna()]
        if len(others) and row["split_point"] != end:
            other = others.iloc[0]
            parts.append(f"{goal.compare(mine, other[goal.column])} the {end} cut{_lost(other)}")
    for _, rows in rs.references_for(frame, row.to_frame().T).groupby("family", sort=False):
        rows = rows[rows[goal.column].notna()]
        if len(rows):
            other = _fairest(goal, rows)
            parts.append(f"{goal.compare(mine, other[goal.column])} sending a {other['series']} ({_score(other)})")
    return f"; {', '.join(parts)}" if parts else ""


def _fairest(goal: Goal, rows: pd.DataFrame) -> pd.Series:
    """The best picture quality that keeps the score, else the quality with the highest score."""
    kept = rows[rows["score"] >= rows["score_unsplit"] - rs.SCORE_MARGIN - 1e-9]
    if kept.empty:
        return rows.sort_values("score", ascending=False, kind="stable").iloc[0]
    return kept.sort_values(goal.column, ascending=not goal.maximise, kind="stable").iloc[0]


def _score(row: pd.Series) -> str:
    return f"score {row['score']:.3f}"


def _lost(other: pd.Series) -> str:
    """The score of ``other``, where that score does not qualify."""
    return f" ({_score(other)})" if other["score"] < other["score_unsplit"] - rs.SCORE_MARGIN - 1e-9 else ""
