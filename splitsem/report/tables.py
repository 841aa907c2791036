"""Tables of results for the terminal: a sweep's, and a comparison of codecs."""

import pandas as pd
from rich.table import Table

from splitsem.report import columns
from splitsem.report import results as rs
from splitsem.report.columns import METRICS
from splitsem.report.terminal import WIDTH, grid_of, plain
from splitsem.report.time_intervals import drift
from splitsem.report.units import (
    MISSING,
    format_bytes,
    format_number,
    format_ratio,
    format_score,
    format_seconds,
    worded,
)

_SHOWN = ("score", "score_delta", "payload_bytes", "edge_s", "link_s", "server_s", "answer_s", "latency_s",
          "throughput_hz", "energy_j")  # fmt: skip
_TITLES = {"throughput_hz": "rate", "score_delta": "Δ", "payload_bytes": "sent", "answer_s": "back", "latency_s": "sum"}
_LEAST = (("edge ms", "link ms", "server ms", "back ms", "edge s", "link s", "server s", "back s"), ("Δ points",))
_LONG_S = 10.0  # a column with such a time is in seconds, else in milliseconds
PREDICTED = {
    "latency_s": "latency",
    "measured_latency_s": "measured",
    "prediction_error": "off by",
    "throughput_hz": "rate",
    "measured_throughput_hz": "measured",
    "throughput_prediction_error": "off by",
}
"""The metrics of a table of predictions beside what was measured, with the titles of its columns."""
OWN_TABLE = "measured.md"
"""The file, beside the table's own, of what frames took."""
_HALVES = {"score": "score_ci95", "score_delta": "score_delta_ci95"}


def table(results: pd.DataFrame) -> Table:
    """A sweep's results, at most 100 characters wide: one line a configuration, then the errors of failed jobs.

    Args:
        results: one row a job, as in results.csv. Rows that differ in the seed only are averaged.
    """
    frame = rs.prepare(results)
    several = frame.loc[~frame["is_reference"], "series"].nunique() > 1
    named = columns.metrics(rs.score_name(frame))
    grid = grid_of(f"{rs.describe(frame)}\n{machines(frame)}".strip(), _LEAST, "results.csv")
    grid.add_column("split point", overflow="fold", min_width=8)
    if several:
        grid.add_column(_series(frame), overflow="fold", min_width=8)
    shown = list(_SHOWN)
    if rs.has_encoders(frame):  # there is no room for both
        shown[shown.index("answer_s")] = "encoder_bytes"
    elif len(_ways_back_s(frame)) < 2:  # the caption tells it
        shown.remove("answer_s")
    if frame["exit_share"].notna().any():
        at = shown.index("payload_bytes")
        shown[at:at] = ["exit_share", "exit_threshold"]
    in_seconds = {name for name in shown if name.endswith("_s") and frame[name].max() >= _LONG_S}
    for name in shown:
        unit = "points" if name == "score_delta" else "s" if name in in_seconds else named[name].unit
        header = f"{_TITLES.get(name, named[name].title)}\n{unit}".strip()
        grid.add_column(header, justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for _, row in frame[frame["is_ok"]].iterrows():
        marks = f"{MARKS[row['front']]:1}" + ("▼" if row["is_bottleneck"] and not row["is_reference"] else "")
        point = f"{row['split_point']} ({row['series']})" if row["is_reference"] and not several else row["split_point"]
        cells = [format_number(row[name]) if name in in_seconds else _cell(row, name) for name in shown]
        label = [MISSING if rs.is_silent(row) else row["series"]] if several else []
        look = "dim" if row["is_reference"] else "bold" if row["front"] == "best" else ""
        grid.add_row(plain(point), *map(plain, label), *cells, marks, style=look)
    grid.caption = _caption(frame)
    return grid


def measured_table(results: pd.DataFrame) -> Table | None:
    """What frames took over a real link, beside what was predicted of them; None where none were sent.

    Args:
        results: as of ``table``.
    """
    sent = over_link(rs.prepare(results))
    if sent.empty:
        return None
    several = sent["series"].nunique() > 1
    least = (("off by %",), ("measured Hz", "rate Hz"))
    grid = grid_of("predicted, and measured of frames over the link", least, "results.csv")
    for title in ["split point", *([_series(sent)] if several else [])]:
        grid.add_column(title, overflow="fold", min_width=8)
    for name, title in PREDICTED.items():
        grid.add_column(f"{title}\n{METRICS[name].unit}", justify="right", no_wrap=True)
    for _, row in sent.iterrows():
        label = [row["series"]] if several else []
        grid.add_row(plain(row["split_point"]), *map(plain, label), *(_cell(row, name) for name in PREDICTED))
    return grid


def over_link(frame: pd.DataFrame) -> pd.DataFrame:
    """The configurations of a prepared frame whose frames travelled over a real link, with what was predicted."""
    is_timed = frame[["measured_latency_s", "prediction_error"]].notna().all(axis=1)
    return frame[frame["is_ok"] & is_timed & ~rs.sends_nothing(frame)]


def _series(frame: pd.DataFrame) -> str:
    """What a column of series is called."""
    return "codec" if rs.splits(frame)["codec"].nunique() > 1 else "setting"


MARKS = {"best": "★", "tie": "=", "": ""}


def machines(frame: pd.DataFrame) -> str:
    """The machines with the source of their times: ``edge raspberry_pi_4 (roofline, estimated) · server …``."""
    parts = []
    for side, label in (("edge", "edge"), ("link", "transport"), ("server", "server")):
        names, timing = frame[label].dropna().unique(), f"{side}_timing"
        origins = [str(origin) for origin in frame[timing].dropna().unique()] if timing in frame else []
        if len(names) and origins:
            marks = ", ".join(f"{o}, estimated" if o in ("roofline", "lut", "predicted") else o for o in origins)
            parts.append(f"{side} {names[0] if len(names) == 1 else f'{len(names)} of them'} ({marks})")
    return " · ".join(parts)


def _ways_back_s(frame: pd.DataFrame) -> list[float]:
    """The least and the longest time that answers take on their way back, alike ones once; none where none travels."""
    back_s = frame["answer_s"][frame["answer_s"] > 0]
    ends = [float(back_s.min()), float(back_s.max())] if len(back_s) else []
    return ends[:1] if ends and format_seconds(ends[0]) == format_seconds(ends[1]) else ends


def _cell(row: pd.Series, metric: str) -> str:
    """A metric's text; a score with half its interval; the difference of scores in points, of which one is 0.01."""
    half = row[_HALVES[metric]] if metric in _HALVES else float("nan")
    if metric == "score_delta":
        points, margin = 100 * row[metric], "" if pd.isna(half) else f"±{100 * half:.1f}"
        sign = "" if abs(points) < 0.005 else "−" if points < 0 else "+"
        return MISSING if pd.isna(points) else f"{sign}{abs(points):.{1 if abs(points) >= 10 else 2}f}{margin}"
    return METRICS[metric].show(row[metric]) + ("" if pd.isna(half) else f"±{half:.3f}".replace("0.", ".", 1))


def _caption(frame: pd.DataFrame) -> str:
    word = rs.score_name(frame)
    back_s = " to ".join(format_seconds(t) for t in _ways_back_s(frame))
    back = f", {back_s} of it the answer's way back" if back_s else ""
    notes = [*_signs(frame), f"sum: latency of one sample{back} · rate: samples/s", *_sources(frame)]
    chosen = (
        ""
        if rs.splits(frame).empty
        else f"★ and = chosen on {_validation(frame)}; scores are test's"
        if rs.choice(frame) == "score_val"
        else "★ and = chosen on the scores shown"
    )
    interval = rs.about_interval(frame)
    notes.append(" · ".join(text for text in (f"±: {interval}" if "over" in interval else interval, chosen) if text))
    notes += _alike(frame)
    unsplit = frame["score_unsplit"].dropna().unique()
    if len(unsplit) == 1:
        notes.append(f"score of the unsplit network: {format_score(unsplit[0])}")
    if (frame["num_runs"] > 1).any():
        notes.append(f"each line is the mean of up to {frame['num_runs'].max()} seeds")
    notes = [worded(note, word) for note in notes]
    for _, row in rs.failures(frame).iterrows():
        place = " · ".join(dict.fromkeys([row["split_point"], *([row["series"]] if row["series"] else [])]))
        line = f"failed at {place}: {rs.one_line(row['error']) or 'no reason given'}"
        notes.append(f"[red not italic]{plain(line if len(line) <= WIDTH else line[: WIDTH - 1] + '…')}[/]")
    return "\n".join(notes)


def _alike(frame: pd.DataFrame) -> list[str]:
    """What an interval of no width leaves open, where a lossy codec changed the score of no sample.

    Of ``n`` samples without a difference, fewer than ``3 / n`` of all differ, 95 % (Hanley and Lippman-Hand, JAMA
    249(13), 1983).
    """
    own = rs.splits(frame)
    own = own[own["interval_over"].eq("samples") & own["distortion_mse"].gt(0) & own["num_samples"].gt(0)]
    own = own[own["score_delta"].eq(0) & own["score_delta_ci95"].eq(0)]
    if own.empty:
        return []
    num = own["num_samples"].min()
    most = format_number(min(100.0, 300 / num), 2)
    return [f"0.00±0.0: none of {num:.0f} samples differed; of all, up to {most} % may (rule of three)"]


def _signs(frame: pd.DataFrame) -> list[str]:
    """What the signs mean, of those that the table has."""
    split = rs.splits(frame)
    kinds, signs = set(split["front"]), []
    if "best" in kinds:
        signs.append("★ best: a higher score, beyond the interval, than every faster ★")
    ties = ["= tie: not surely slower or worse than its ★"] * ("tie" in kinds)
    signs.append(" · ".join([*ties, *["no sign: a ★ is faster or better"] * ("" in kinds)]))
    bottleneck = ["▼ bottleneck: fewer values cross than at the input"] * bool(split["is_bottleneck"].any())
    delta = ["Δ: to unsplit, 1 point = 0.01"] * bool(frame["score_delta"].notna().any())
    signs.append(" · ".join([*bottleneck, *delta]))
    return [sign for sign in signs if sign]


def _sources(frame: pd.DataFrame) -> list[str]:
    """Which times were measured in these runs, and how exactly, and which are estimates; nothing where none says."""
    halves = {str(one) for side in ("edge", "server") for one in frame.get(f"{side}_timing", pd.Series()).dropna()}
    coding = set(frame.get("coding_timing", pd.Series()).dropna())
    if not halves or not coding:
        return []
    off = drift(frame)
    exactly = "" if pd.isna(off) else f" (±{format_number(100 * off, 2)} %)"
    scaled = ", scaled" if "scaled" in coding else ""
    if not over_link(frame).empty:
        return [f"all times are predictions; coding was measured{exactly}{scaled} · {OWN_TABLE} has what frames took"]
    if halves == {"measured"}:
        return [f"measured here{exactly}: head, tail, coding · estimated: energy"]
    also = " (in part)" if "measured" in halves else ""
    return [f"measured here: coding{exactly}{scaled} · estimated: head, tail{also}, energy"]


def _validation(frame: pd.DataFrame) -> str:
    """What the best were chosen on: few samples tell little apart."""
    nums = set(frame["num_val_samples"].dropna()) if "num_val_samples" in frame else set()
    return f"{int(nums.pop())} validation samples" if len(nums) == 1 else "validation"


def codec_table(three_way: pd.DataFrame, title: str) -> Table:
    """One line a codec setting, smallest payload first.

    Args:
        three_way: the result of ``codec_figures.three_way``.
        title: what was run.
    """
    grid = grid_of(title, least=(("feature / payload",), ("sample / payload",), ("±",)), rest="results.csv")
    word = rs.score_name(three_way)
    has_intervals = bool((three_way["num_trainings"] > 1).any())
    has_link = bool(three_way["score_over_link"].notna().any())
    grid.add_column("codec", overflow="fold", min_width=17)
    grid.add_column("cut", overflow="fold", min_width=5)
    for header in ("encoder", "payload", "feature /\npayload", "sample /\npayload", "clean\nscore"):
        grid.add_column(worded(header, word), justify="right", no_wrap=True)
    if has_intervals:
        grid.add_column("±", justify="right", no_wrap=True)
    grid.add_column("points to\nunsplit", justify="right", no_wrap=True)
    if has_link:
        grid.add_column("over the\nlink", justify="right", no_wrap=True)
    for _, row in three_way.sort_values(["payload_bytes", "score"], ascending=[True, False]).iterrows():
        cells = [
            format_bytes(row["encoder_bytes"]) if row["encoder_bytes"] else "none",
            format_bytes(row["payload_bytes"]),
            format_ratio(row["raw_ratio"]),
            format_ratio(row["input_ratio"]),
            format_score(row["score"]),
        ]
        cells += [format_number(row["score_ci95"], 2)] * has_intervals
        cells.append(f"{100 * (row['score'] - row['score_unsplit']):+.2f}")
        over = row["score_over_link"]
        cells += [MISSING if pd.isna(over) else format_score(over)] * has_link
        look = "dim" if row["is_reference"] else "bold" if row["pareto"] else ""
        codec = ("★ " if row["pareto"] else "  ") + str(row["codec"]).replace("[", r"\[")
        grid.add_row(codec, row["split_point"], *cells, style=look)
    notes = ["★ no other is at least as good in all three: encoder bytes, payload bytes, clean score"]
    if has_intervals:
        notes.append(f"±: half the 95 % interval over {three_way['num_trainings'].max()} trainings")
    if has_link:
        notes.append("over the link: area under score against the swept setting / its range")
    grid.caption = worded("\n".join(notes), word)
    return grid
