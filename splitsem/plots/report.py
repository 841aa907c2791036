"""The HTML report of a sweep: one self-contained page that needs no network, no script and no other file."""

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from splitsem.plots import results as rs
from splitsem.plots.best import best
from splitsem.plots.columns import METRICS, WORDS
from splitsem.plots.rates import delta_rates, equal_score
from splitsem.plots.style import DPI
from splitsem.plots.units import format_number, format_ratio, format_score

_PARETO = ("score", "payload_bytes", "compression_ratio", "latency_s", "throughput_hz", "energy_j")
_HIDDEN = ("split_index", "score_unsplit", "input_bytes", "cycle_s")
_TIMINGS = {
    "roofline": "estimated (roofline)",
    "lut": "measured layer by layer before (LUT)",
    "measured": "measured in this run",
    "simulated": "simulated",
}
_CAPTIONS = {
    "accuracy_throughput": "Up and to the right is better. Ringed configurations are on the Pareto front: no other "
    "cut in this sweep is both more accurate and faster.",
    "latency_breakdown": "Edge, link and server time of one sample, from the first split point to the last.",
    "rate_accuracy": "Up and to the left is better. The dotted line is the sample as it is; the small ticks are the "
    "raw float32 features.",
    "three_way": "Left: up and to the left is better. The same codecs on the right by what they need on the device.",
    "score_snr": "How the score falls as the signal weakens, every payload sent through the channel.",
    "score_ber": "The same over the share of wrong bits.",
    "score_channel": "How the score falls as bits go wrong. Bands are 95 % intervals over the channel's seeds.",
}


class Cell(NamedTuple):
    """One table cell: its text, and the number it is sorted by (empty for words)."""

    text: str
    sort: str = ""


def report(
    results: pd.DataFrame,
    figures: Mapping[str, Figure],
    title: str,
    command: str,
    details: Mapping[str, str],
) -> str:
    """Write the report of a sweep.

    Args:
        results: one row a job, as in results.csv.
        figures: the sweep's figures by name (``accuracy_throughput``, ``latency_breakdown``, ``rate_accuracy``).
        title: heading of the page.
        command: the command line that made the results.
        details: what else should be known, shown as it is: date, versions, commit, machines. The keys
            ``edge_timing``, ``server_timing`` and ``link_timing`` with ``roofline``, ``lut``, ``measured`` or
            ``simulated`` are spelt out; they may be columns of the results instead.

    Returns:
        A complete HTML page; every value in it is escaped.
    """
    frame = rs.prepare(results)
    environment = Environment(
        loader=PackageLoader("splitsem.plots"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    split = rs.splits(frame)
    several = split["series"].nunique() > 1
    best_shown = [*_PARETO[:2], "encoder_bytes", *_PARETO[2:]] if rs.has_encoders(frame) else list(_PARETO)
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=rs.describe(frame),
        command=command,
        facts=_facts(results, frame, details),
        counts={"ok": int(frame["is_ok"].sum()), "failed": len(rs.failures(frame)), "seeds": frame["num_runs"].max()},
        unsplit=", ".join(dict.fromkeys(format_score(score) for score in frame["score_unsplit"].dropna().unique())),
        answers=best(results),
        figures=[(name, _CAPTIONS.get(name, ""), _png(figure)) for name, figure in figures.items()],
        pareto=_table(
            split[split["pareto"]].sort_values("throughput_hz", ascending=False), best_shown, several=several
        ),
        everything=_table(frame[frame["is_ok"]], _wide(frame), several=several or bool(frame["is_reference"].any())),
        rates=_rates(frame),
        delta_rates=delta_rates(frame),
        failures=[(r["split_point"], r["series"], rs.one_line(r["error"])) for _, r in rs.failures(frame).iterrows()],
        glossary=[(c.title, c.unit, c.meaning) for c in METRICS.values()],
        words=WORDS,
    )


def _facts(results: pd.DataFrame, frame: pd.DataFrame, details: Mapping[str, str]) -> list[tuple[str, str]]:
    """What was run, where every number comes from, and the settings that all jobs share."""
    rows = [(name, str(value)) for name, value in details.items() if not name.endswith("_timing")]
    for name, machine in (("edge", "edge"), ("server", "server"), ("link", "transport")):
        origins = {details[f"{name}_timing"]} if f"{name}_timing" in details else set()
        if not origins and f"{name}_timing" in results:
            origins = set(results[f"{name}_timing"].dropna().astype(str))
        origin = ", ".join(sorted(_TIMINGS.get(o, o) for o in origins)) or "origin not stated"
        label = ", ".join(dict.fromkeys(str(v) for v in frame[machine].dropna())) or "not stated"
        rows.append((name, f"{label} · times {origin}"))
    rows.append(("energy", "estimated from the power of the machine profile and the energy per bit of the link"))
    for column in sorted(c for c in results.columns if rs.is_override(c) and c not in ("codec", "edge", "server")):
        values = results[column].dropna().unique()
        if len(values) == 1 and column not in rs.LABELS:
            rows.append((column, str(values[0])))
    return rows


def _wide(frame: pd.DataFrame) -> list[str]:
    """The columns of the complete table: the known metrics that have values, then the task's own."""
    hidden = _HIDDEN if rs.has_encoders(frame) else (*_HIDDEN, "encoder_bytes")
    known = [name for name in METRICS if name not in hidden and frame[name].notna().any()]
    added = ("is_ok", "is_reference", "is_bottleneck", "pareto", "num_runs", "score_std")
    own = [
        c
        for c in frame.columns
        if c not in METRICS and c not in added and not rs.is_override(c) and pd.api.types.is_float_dtype(frame[c])
    ]
    return known + [c for c in own if frame[c].notna().any()]


def _table(rows: pd.DataFrame, columns: list[str] | tuple[str, ...], *, several: bool) -> dict[str, list]:
    """Headers ``(title, unit, is a number)`` and rows of cells."""
    headers = [("split point", "", False), *([("setting", "", False)] if several else []), ("", "", False)]
    for name in columns:
        headers.append((METRICS[name].title, METRICS[name].unit, True) if name in METRICS else (name, "", True))
    body = []
    for _, row in rows.iterrows():
        marks = ("★" if row["pareto"] else "") + ("▼" if row["is_bottleneck"] else "")
        cells = [Cell(row["split_point"], str(row["split_index"])), *([Cell(row["series"])] if several else [])]
        cells.append(Cell(marks))
        for name in columns:
            text = METRICS[name].show(row[name]) if name in METRICS else f"{row[name]:.4g}"
            cells.append(Cell(text, repr(float(row[name]))))
        kind = "reference" if row["is_reference"] else "pareto" if row["pareto"] else ""
        body.append((kind, cells))
    return {"headers": headers, "rows": body}


def _rates(frame: pd.DataFrame) -> dict[str, list]:
    """What each payload is a fraction of, at the same score; as a table like those of ``_table``."""
    rows = equal_score(frame)
    ratios = list(rows.columns[4:])
    titles = [name if name in ("float32", "uint8") else f"{name} at this score" for name in ratios]
    headers = [("split point", "", False), ("setting", "", False), ("score", "", True), ("payload", "kB", True)]
    body = []
    for _, row in rows.iterrows():
        cells = [Cell(row["split_point"]), Cell(row["series"]), Cell(format_score(row["score"]), repr(row["score"]))]
        cells.append(Cell(format_number(row["payload_bytes"] / 1e3), repr(row["payload_bytes"])))
        body.append(("", cells + [Cell(format_ratio(row[name]), repr(row[name])) for name in ratios]))
    return {"headers": headers + [(title, "/ payload", True) for title in titles], "rows": body}


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=1.25 * DPI)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
