"""The best configuration for throughput, latency and energy, in one honest sentence each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from splitsem.report import results as rs
from splitsem.report.fronts import equally_fast
from splitsem.report.units import format_hz, format_joules, format_number, format_ratio, format_seconds, worded

_LOSSY = ("JPEG", "WebP")
_MOST_NAMED = 3  # of those that tie
_VAGUE = 0.5  # an interval above this share of the value


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

    def told(self, row: pd.Series) -> str:
        """The row's value, its interval in per cent, and whether it was measured: ``11 ms ± 2 % (estimated)``.

        Where frames went over a real link, too, what they took: ``11 ms ± 2 % (estimated; measured 12 ms)``.
        """
        value, half, source = row[self.column], row[f"{self.column}_ci95"], self.source(row)
        seen = row.get(f"measured_{self.column}")
        source += f"; measured {self.show(seen)}" if source and pd.notna(seen) else ""
        interval = f" ± {format_number(100 * half / value, 1)} %" if half > 0 else ""
        return f"{self.show(value)}{interval}{source and f' ({source})'}"

    def compare(self, mine: pd.Series, other: pd.Series) -> str:
        """How ``mine`` relates to ``other``, ready to be followed by the other's name."""
        if self.is_tie(mine, other):
            return "a tie with"
        gain = mine[self.column] / other[self.column]
        gain = gain if self.maximise else 1 / gain
        return f"{_factor(max(gain, 1 / gain))} {self.better if gain > 1 else self.worse}"

    def sort(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows, best first; of equal ones the one whose score, of those that choose, is higher."""
        return rows.sort_values([self.column, rs.choice(rows)], ascending=[not self.maximise, False], kind="stable")

    def ties(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The other rows that cannot be told from the first in this quantity: they differ by less than the interval."""
        values, ci95 = (rows[name].to_numpy(float) for name in (self.column, f"{self.column}_ci95"))
        return rows.iloc[1:][equally_fast(values, ci95)[0, 1:]]

    def is_tie(self, one: pd.Series, other: pd.Series) -> bool:
        """Whether two rows cannot be told apart in this quantity."""
        return not self.ties(pd.DataFrame([one, other]).infer_objects()).empty

    def source(self, row: pd.Series) -> str:
        """Whether the value was ``measured`` or ``estimated``; nothing where the results do not say."""
        if self.column == "energy_j":
            return "measured" if row.get("energy_source") == "measured" else "estimated"
        origins = {row[name] for name in _TIMINGS if isinstance(row.get(name), str)}
        return "" if not origins else "measured" if origins == {"measured"} else "estimated"


_TIMINGS = ("edge_timing", "link_timing", "server_timing", "coding_timing")
GOALS = (
    Goal("throughput_hz", "Highest throughput", True, "as fast as", "slower than"),
    Goal("latency_s", "Lowest latency", False, "faster than", "slower than"),
    Goal("energy_j", "Lowest energy on the edge", False, "less energy than", "the energy of"),
)


@dataclass(frozen=True)
class Best:
    """The answer for one goal.

    Attributes:
        goal: the goal in question.
        row: the configuration that wins, or that comes closest when none keeps the score; None when no job succeeded.
        qualifies: whether the row's score keeps the unsplit score, see ``results.keeps_score``.
        sentence: the answer in words.
        ties: the other configurations that keep the score and cannot be told from the row in the goal's quantity.
        beating: the baseline that keeps the score and beats every configuration, where one does.
    """

    goal: Goal
    row: pd.Series | None
    qualifies: bool
    sentence: str
    ties: pd.DataFrame = field(default_factory=pd.DataFrame)
    beating: pd.Series | None = None

    @property
    def detail(self) -> str:
        """The sentence without the goal, for a place whose heading is the goal."""
        text = self.sentence.removeprefix(f"{self.goal.title}: ")
        return text[:1].upper() + text[1:]


def best(results: pd.DataFrame) -> list[Best]:
    """For each goal, the best configuration whose score keeps the unsplit score; the sentence has the test score.

    A configuration keeps the score unless its validation score is more than one point (0.01) below the unsplit one,
    beyond the paired 95 % interval. Of those, the best of a goal is that of the best value; all that differ from it by
    less than the interval of the difference (``fronts.equally_fast``) tie with it, and are named. So are those that
    nothing can be said of, since their own interval is above half their value: something disturbed their coding.

    Args:
        results: one row a job, as in results.csv. Where a baseline that keeps the score beats every cut, the sentence
            says so first.

    Returns:
        One answer each for throughput, latency and energy.
    """
    frame = rs.prepare(results)
    return [_answer(goal, frame) for goal in GOALS]


def as_metrics(answers: Sequence[Best]) -> dict[str, float | str]:
    """The answers for a list of sweeps: of each goal that a configuration meets, its value, its score and its name.

    Beside them stand the names of those that tie with it, and the baseline that beats it, where there are such.
    """
    found: dict[str, float | str] = {}
    for answer in answers:
        if answer.row is not None and answer.qualifies:
            found[f"best_{answer.goal.column}"] = float(answer.row[answer.goal.column])
            found[f"best_{answer.goal.column}_score"] = float(answer.row["score"])
            found[f"winner_{answer.goal.column}"] = rs.named(answer.row)
            if len(answer.ties):
                found[f"tied_{answer.goal.column}"] = ", ".join(rs.named(row) for _, row in answer.ties.iterrows())
            if answer.beating is not None:
                found[f"beaten_{answer.goal.column}"] = baseline(answer.beating)
    return found


def candidates(goal: Goal, frame: pd.DataFrame) -> pd.DataFrame:
    """The configurations of a prepared frame that keep the score and have a figure for the goal, best first."""
    split = rs.splits(frame)
    split = split[np.isfinite(split[goal.column]) & (split[goal.column] > 0)]
    return goal.sort(split[rs.keeps_score(split)]) if len(split) else split


def name(row: pd.Series) -> str:
    """A configuration in words."""
    codec = f" with {row['series']}" if row["series"] and not rs.is_silent(row) else ""
    ends = {"input": "everything on the server (cut at input)", "output": "everything on the edge (cut at output)"}
    cut = f"the cut at {row['split_point']}"
    has_exit = pd.notna(row["exit_share"])  # an exit is computed on the edge, also where nothing else is
    return (cut if has_exit else ends.get(row["split_point"], cut)) + codec


def _answer(goal: Goal, frame: pd.DataFrame) -> Best:
    split = rs.splits(frame)
    split = split[np.isfinite(split[goal.column]) & (split[goal.column] > 0)]
    if split.empty:
        return Best(goal, None, False, f"{goal.title}: no job that succeeded has a figure for it.")
    kept = candidates(goal, frame)
    if kept.empty:
        return _closest(goal, split)
    row, ties = kept.iloc[0], goal.ties(kept)
    is_vague = ties[f"{goal.column}_ci95"] > _VAGUE * ties[goal.column]
    ties, vague = ties[~is_vague], ties[is_vague]
    several = split["series"].nunique() > 1
    beating = _beating(goal, row, frame)
    said_first = "" if beating is None else f"{_told(goal, beating)}; of the cuts, "
    parts = [
        f"{said_first}{name(row)} reaches {goal.told(row)}"
        f" at {_score(row)}" + worded(f" (unsplit {row['score_unsplit']:.3f})", rs.score_name(frame)),
        _lost(row),
        f"a tie with {_listed(ties, several=several)}" if len(ties) else "",
        f"{_listed(vague, several=several)} was timed too badly to tell" if len(vague) else "",
        _measured_first(goal, row, kept),
        ", ".join(_comparisons(goal, row, frame, beating)),
    ]
    sentence = f"{goal.title}: {'; '.join(part for part in parts if part)}."
    return Best(goal, row, True, sentence, ties, beating)


def _listed(rows: pd.DataFrame, *, several: bool) -> str:
    """``enc1 and enc2``; of many, the first ones and how many more."""
    names = [rs.named(row, several=several) for _, row in rows.iterrows()]
    rest = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED + 1 else names[_MOST_NAMED:]
    *first, last = names[:_MOST_NAMED] + rest
    return f"{', '.join(first)} and {last}" if first else last


def _lost(row: pd.Series) -> str:
    """What a configuration loses on the test split, where validation did not tell it."""
    if not rs.is_shown_worse(row.to_frame().T.infer_objects()).all():
        return ""
    lost, half = -100 * row["score_delta"], 100 * np.nan_to_num(row["score_delta_ci95"])
    return f"on the test split it loses {lost:.1f} ± {half:.1f} points"


def _measured_first(goal: Goal, row: pd.Series, kept: pd.DataFrame) -> str:
    """Which configuration was first by what frames took over the real link, where that is another one."""
    column = f"measured_{goal.column}"
    timed = kept[kept[column].notna()] if column in kept else kept.iloc[:0]
    if row.name not in timed.index:
        return ""
    first = timed.sort_values(column, ascending=not goal.maximise, kind="stable").iloc[0]
    if first[column] == row[column]:
        return ""
    return f"measured, {name(first)} is first with {goal.show(first[column])}"


def _closest(goal: Goal, split: pd.DataFrame) -> Best:
    delta = split[f"{rs.choice(split)}_delta"]
    if delta.isna().all():
        return Best(goal, None, False, f"{goal.title}: the unsplit score is not known, so nothing can be chosen.")
    told, row = rs.score_name(split), split.loc[delta.sort_values(ascending=False, kind="stable").index[0]]
    sentence = (
        f"{goal.title}: no configuration keeps "
        + worded(f"the score within {rs.SCORE_MARGIN} of the unsplit {row['score_unsplit']:.3f}", told)
        + f"; the closest, {name(row)}, is {-row['score_delta']:.3f} "
        f"below it at {_score(row)} and reaches {goal.show(row[goal.column])}."
    )
    return Best(goal, row, False, sentence)


def _comparisons(goal: Goal, row: pd.Series, frame: pd.DataFrame, said: pd.Series | None) -> list[str]:
    """How ``row`` compares with all on the edge, and with all on the server: the sample as it is and as a picture.

    The baseline ``said``, which was told already, is left out.
    """
    own = rs.splits(frame)
    own = own[own["series"].eq(row["series"]) | rs.sends_nothing(own)]
    baselines = rs.references_for(frame, row.to_frame().T)
    on_edge, sent = (baselines[baselines["split_point"].eq("output") == at_output] for at_output in (True, False))
    lossy = sent["family"].isin(_LOSSY)
    others = [
        ("all on the edge", on_edge if len(on_edge) else own[own["split_point"].eq("output")], "output"),
        *(("sending the {}", rows, "") for rows in (sent[~lossy], sent[lossy])),
    ]
    if sent.empty:
        others.append(("all on the server (cut at input)", own[own["split_point"].eq("input")], "input"))
    parts = []
    for text, rows, point in others:
        rows = rows[np.isfinite(rows[goal.column]) & (rows[goal.column] > 0)]
        if len(rows) and row["split_point"] != point:
            other = _fairest(goal, rows)
            if said is not None and other.name == said.name:
                continue
            lost = "" if _keeps(other.to_frame().T.infer_objects()).all() else f" ({_score(other)})"
            parts.append(f"{goal.compare(row, other)} {text.format(_sent(other))}{lost}")
    return parts


def _beating(goal: Goal, row: pd.Series, frame: pd.DataFrame) -> pd.Series | None:
    """The baseline that keeps the score and beats ``row`` beyond a tie, if one does."""
    baselines = rs.references_for(frame, row.to_frame().T)
    baselines = baselines[np.isfinite(baselines[goal.column]) & (baselines[goal.column] > 0)]
    kept = goal.sort(baselines[_keeps(baselines)]) if len(baselines) else baselines
    if kept.empty:
        return None
    first = kept.iloc[0]
    is_better = first[goal.column] > row[goal.column] if goal.maximise else first[goal.column] < row[goal.column]
    return first if is_better and not goal.is_tie(row, first) else None


def _keeps(baselines: pd.DataFrame) -> pd.Series:
    """Which baselines keep the score by validation, and do not surely lose it on the scores shown either.

    A baseline is not chosen but told, so that all that is known of it counts.
    """
    return rs.keeps_score(baselines) & ~rs.is_shown_worse(baselines)


def _told(goal: Goal, beating: pd.Series) -> str:
    return f"{baseline(beating)} beats every cut with {goal.told(beating)} at {_score(beating)}"


def baseline(row: pd.Series) -> str:
    """A baseline in words: ``sending the picture as PNG``."""
    return "all on the edge" if row["split_point"] == "output" else f"sending the {_sent(row)}"


def _sent(reference: pd.Series) -> str:
    as_it_is = reference["reference"] == "input_as_it_is"
    return str(reference["series"]) if as_it_is else f"picture as {reference['series']}"


def _fairest(goal: Goal, rows: pd.DataFrame) -> pd.Series:
    """The best one that keeps the score, else the one with the highest score."""
    kept = rows[_keeps(rows)]
    return rows.sort_values("score", ascending=False, kind="stable").iloc[0] if kept.empty else goal.sort(kept).iloc[0]


def _factor(factor: float) -> str:
    """A factor of two that are told apart, which is above 1: ``1.04×``, ``3.5×``."""
    return f"{factor:.2f}×" if factor < 1.05 else format_ratio(factor)


def _score(row: pd.Series) -> str:
    return f"{row['score_name'] or 'score'} {row['score']:.3f}" + (
        "" if pd.isna(row["score_ci95"]) else f" ± {row['score_ci95']:.3f}"
    )
