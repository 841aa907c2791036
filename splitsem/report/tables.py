"""Tables for the terminal: a sweep's results, a model's split points, and a comparison of codecs."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from splitsem.report import columns
from splitsem.report import results as rs
from splitsem.report.columns import METRICS
from splitsem.report.units import (
    MISSING,
    format_bytes,
    format_number,
    format_ratio,
    format_score,
    format_seconds,
    worded,
)

if TYPE_CHECKING:
    from splitsem.split.point import SplitPoint, TensorSpec


WIDTH = 100
_SHOWN = ("score", "score_delta", "payload_bytes", "edge_s", "link_s", "server_s", "answer_s", "latency_s",
          "throughput_hz", "energy_j")  # fmt: skip
_TITLES = {"throughput_hz": "rate", "score_delta": "Δ", "payload_bytes": "sent", "answer_s": "back", "latency_s": "sum"}
_LONG_S = 10.0  # a column with such a time is in seconds, else in milliseconds
_HALVES = {"score": "score_ci95", "score_delta": "score_delta_ci95"}


def table(results: pd.DataFrame) -> Table:
    """A sweep's results, at most 100 columns wide: one line a configuration, then the errors of failed jobs.

    Args:
        results: one row a job, as in results.csv. Rows that differ in the seed only are averaged.
    """
    frame = rs.prepare(results)
    several = frame.loc[~frame["is_reference"], "series"].nunique() > 1
    named = columns.metrics(rs.score_name(frame))
    grid = grid_of(f"{rs.describe(frame)}\n{machines(frame)}".strip())
    grid.add_column("split point", overflow="fold", min_width=8)
    if several:
        header = "codec" if frame["codec"].nunique() > 1 else "setting"
        grid.add_column(header, overflow="fold", min_width=8)
    shown = list(_SHOWN)
    if rs.has_encoders(frame):  # there is no room for both
        shown[shown.index("answer_s")] = "encoder_bytes"
    elif len(_ways_back_s(frame)) < 2:  # the caption tells it
        shown.remove("answer_s")
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
        label = [row["series"]] if several else []
        look = "dim" if row["is_reference"] else "bold" if row["front"] == "best" else ""
        grid.add_row(_plain(point), *map(_plain, label), *cells, marks, style=look)
    grid.caption = _caption(frame)
    return grid


MARKS = {"best": "★", "tie": "=", "": ""}


def machines(frame: pd.DataFrame) -> str:
    """The machines with the source of their times: ``edge raspberry_pi_4 (roofline, estimated) · server …``."""
    parts = []
    for side, label in (("edge", "edge"), ("link", "transport"), ("server", "server")):
        names, timing = frame[label].dropna().unique(), f"{side}_timing"
        origins = [str(origin) for origin in frame[timing].dropna().unique()] if timing in frame else []
        if len(names) and origins:
            marks = ", ".join(f"{o}, estimated" if o in ("roofline", "lut") else o for o in origins)
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


def points_table(points: Sequence["SplitPoint"], input_bytes: int) -> Table:
    """A model's split points: the crossing tensors at each, and what either side computes and keeps.

    Args:
        points: in network order.
        input_bytes: size of one sample as uint8 or in its file format, for comparison with the raw size.
    """
    grid = grid_of(f"{len(points)} split points; the sample itself has {format_number(input_bytes / 1e3)} kB")
    grid.add_column("λ", justify="right", no_wrap=True)
    grid.add_column("split point", overflow="fold", min_width=10)
    grid.add_column("crossing tensors", overflow="fold", min_width=12)
    has_hooks = any(point.hook_bytes != point.raw_bytes for point in points)
    for header in (
        "raw\nkB",
        *["hooks\nkB"] * has_hooks,
        "raw /\ninput",
        "head\nMFLOP",
        "tail\nMFLOP",
        "head\nkB",
        "tail\nkB",
    ):
        grid.add_column(header, justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for point in points:
        grid.add_row(
            str(point.index),
            _plain(point.name),
            _shapes(point.tensors, batched=point.is_batched),
            format_number(point.raw_bytes / 1e3),
            *[format_number(point.hook_bytes / 1e3) if point.hook_bytes != point.raw_bytes else ""] * has_hooks,
            format_ratio(point.raw_bytes / input_bytes) if input_bytes else MISSING,
            format_number(point.head_flops / 1e6),
            format_number(point.tail_flops / 1e6),
            format_number(point.head_param_bytes / 1e3),
            format_number(point.tail_param_bytes / 1e3),
            "▼" if point.is_bottleneck else "",
            style="bold" if point.is_bottleneck else "",
        )
    grid.caption = (
        "▼ bottleneck: less crosses than at the input, both as float32 · raw / input: to the sample as it is\n"
        "head, tail kB: parameters and buffers that each side needs"
    )
    if has_hooks:
        grid.caption += "\nhooks kB: what a splitter by module hooks would send there, where it is not what crosses"
    return grid


def terminal() -> Console:
    """The console that prints tables: a terminal has its own width, a file or a pipe the tables' width."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def grid_of(title: str) -> Table:
    """An empty table in the style of all our tables, no wider than a terminal."""
    return Table(
        title=_plain(title),
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        width=WIDTH,
        pad_edge=False,
    )


def _caption(frame: pd.DataFrame) -> str:
    word = rs.score_name(frame)
    notes = [
        "★ best: higher score, beyond the interval, than every faster ★ · = not faster, perhaps higher\n"
        "▼ bottleneck · Δ: to the unsplit network, 1 point = 0.01 · times and energy of one sample"
    ]
    chosen = (
        ""
        if rs.splits(frame).empty
        else f"★ chosen on {_validation(frame)}; scores are test's"
        if rs.choice(frame) == "score_val"
        else "★ chosen on the scores shown"
    )
    interval = rs.about_interval(frame)
    notes.append(" · ".join(text for text in (f"±: {interval}" if "over" in interval else interval, chosen) if text))
    if len(back_s := _ways_back_s(frame)):
        notes.append(f"the sum includes the answer's way back, {' to '.join(format_seconds(t) for t in back_s)}")
    unsplit = frame["score_unsplit"].dropna().unique()
    if len(unsplit) == 1:
        notes.append(f"score of the unsplit network: {format_score(unsplit[0])}")
    if (frame["num_runs"] > 1).any():
        notes.append(f"each line is the mean of up to {frame['num_runs'].max()} seeds")
    notes = [worded(note, word) for note in notes]
    for _, row in rs.failures(frame).iterrows():
        place = " · ".join(dict.fromkeys([row["split_point"], *([row["series"]] if row["series"] else [])]))
        line = f"failed at {place}: {rs.one_line(row['error']) or 'no reason given'}"
        notes.append(f"[red not italic]{_plain(line if len(line) <= WIDTH else line[: WIDTH - 1] + '…')}[/]")
    return "\n".join(notes)


def _validation(frame: pd.DataFrame) -> str:
    """What the best were chosen on: few samples tell little apart."""
    nums = frame["num_val_samples"].dropna().unique() if "num_val_samples" in frame else []
    return f"{int(nums[0])} validation samples" if len(nums) == 1 else "validation"


def _shapes(tensors: "Sequence[TensorSpec]", *, batched: bool) -> str:
    """Shapes as ``2: 16×32×32, 32×16×16``; the count is given only for several tensors."""
    shapes = ["×".join(map(str, t.shape[1:] if batched else t.shape)) or "1" for t in tensors]
    return f"{len(shapes)}: {', '.join(shapes)}" if len(shapes) > 1 else "".join(shapes)


def _plain(text: object) -> str:
    """The text with its square brackets escaped, so that they are not markup."""
    return str(text).replace("[", r"\[")


def codec_table(three_way: pd.DataFrame, title: str) -> Table:
    """One line a codec setting, smallest payload first.

    Args:
        three_way: the result of ``codec_figures.three_way``.
        title: what was run.
    """
    grid, word = grid_of(title), rs.score_name(three_way)
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
