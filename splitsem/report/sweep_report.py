"""The HTML report of a sweep over cuts, codecs and links."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from splitsem.report import columns
from splitsem.report import results as rs
from splitsem.report.bd_rate import delta_rates, equal_score
from splitsem.report.best import Best, baseline, best
from splitsem.report.columns import METRICS, WORDS
from splitsem.report.page import (
    Card,
    Cell,
    Failures,
    Header,
    Page,
    PageTable,
    Picture,
    Section,
    glossary,
    render,
)
from splitsem.report.tables import MARKS, PREDICTED, over_link
from splitsem.report.units import MISSING, format_number, format_ratio, format_score, worded

_FRONT = ("score", "score_ci95", "score_delta", "score_delta_ci95", "payload_bytes", "edge_s", "link_s", "server_s",
          "answer_s", "latency_s", "throughput_hz", "energy_j")  # fmt: skip
_HIDDEN = ("split_index", "score_unsplit", "score_val_unsplit", "input_bytes", "cycle_s", "num_samples",
           "num_val_samples", "channel_seeds", "link_bandwidth_bps", "link_rtt_s",
           "encode_s_ci95", "decode_s_ci95", "coding_drift")  # fmt: skip
_TIMINGS = {
    "roofline": "estimated (roofline)",
    "lut": "estimated from layers that were measured before (LUT)",
    "measured": "measured in this run",
    "predicted": "predicted from operations that were measured there (machine file)",
    "simulated": "simulated",
}
_CAPTIONS = {
    "accuracy_throughput": "Up and to the right is better. ★: a score that is better, beyond the paired 95 % "
    "interval, than that of every ★ that is faster, on the validation split. Shaded: not surely slower or worse "
    "than its ★. Arrows at the lower edge: scores below it.",
    "latency_breakdown": "The stages of one sample: head and encode on the edge; the link, busy and delayed; decode "
    "and tail on the server; the answer: coded, sent back, read.",
    "rate_accuracy": "Up and to the left is better. ◆: of the fewest bytes, a score that is better, beyond the paired "
    "interval, than that of every ◆ with fewer; ★: the table's, which goes by throughput, not by bytes. The "
    "dotted line is the sample as it is; the small ticks are the raw float32 features.",
    "sensitivity": "How far each assumption may be off, the others as they are, until another configuration that keeps "
    "the score is better by more than 2 %; the last bar is for all of them at a time. Nothing was run again.",
    "three_way": "Left: up and to the left is better. The same codecs on the right by what they need on the device.",
    "score_snr": "How the score falls as the signal weakens, every payload sent through the channel.",
    "score_ber": "The same over the share of wrong bits.",
    "score_channel": "How the score falls as bits go wrong. Bands are 95 % intervals over the channel's seeds.",
}
_MARKS = (
    "★ best · = not surely slower or worse than its ★ · ▼ fewer values cross than at the input · in italics: no split, "
    "all on the edge or the picture itself is sent. A click on a header sorts."
)
_FRONT_NOTE = "Each ★ is followed by its ties (=), which are not surely slower or worse."
_RATIOS = (
    "How many times larger the float32 features, the sample as it is (uint8 or its file), and a picture of the same "
    "score are than the payload. – : the picture was not sent at qualities around this score; "
    "references.jpeg.quality=[5,10,30,90] sends it at several."
)
_BD_RATE = (
    "BD-rate (Bjøntegaard, VCEG-M33): mean difference in bytes over the scores that both reach; negative is fewer "
    "bytes."
)


def report(
    results: pd.DataFrame,
    figures: Mapping[str, Figure | bytes],
    title: str,
    command: str,
    details: Mapping[str, str],
    remarks: Mapping[str, str] | None = None,
    answers: Sequence[Best] | None = None,
) -> str:
    """Write the report of a sweep.

    Args:
        results: one row a job, as in results.csv.
        figures: the sweep's figures by name (``accuracy_throughput``, ``latency_breakdown``, ``rate_accuracy``), or
            PNG files.
        title: heading of the page.
        command: the command line that made the results.
        details: what else a reader should know, shown unchanged: date, versions, commit, machines. The keys
            ``edge_timing``, ``server_timing`` and ``link_timing`` with ``roofline``, ``lut``, ``measured`` or
            ``simulated`` are spelt out; these keys may be columns of the results instead.
        remarks: what else to say of a figure, by the figure's name.
        answers: ``best`` of the results; found here if None.

    Returns:
        A complete HTML page; every value in it is escaped.
    """
    frame = rs.prepare(results)
    split = rs.splits(frame)
    several = split["series"].nunique() > 1
    best_shown = [*_FRONT[:5], "encoder_bytes", *_FRONT[5:]] if rs.has_encoders(frame) else list(_FRONT)
    best_shown = [name for name in best_shown if frame[name].notna().any()]
    front = split[split["front"] != ""].sort_values(
        ["tie_group", "front", "throughput_hz"], ascending=[True, True, False]
    )
    word = rs.score_name(frame)
    sent, told = over_link(frame), {*best_shown, *_wide(frame)}
    all_several = several or bool(frame["is_reference"].any())
    return render(
        Page(
            title=title,
            subtitle=rs.about(frame),
            summary=_summary(frame),
            command=command,
            cards=[_card(answer, word) for answer in (best(results) if answers is None else answers)],
            pictures=[
                Picture.of(
                    name, f"{worded(_CAPTIONS.get(name, ''), word)}\n{(remarks or {}).get(name, '')}".strip(), figure
                )
                for name, figure in figures.items()
            ],
            sections=[
                Section(
                    worded("Front: score against throughput", word),
                    [_table(front, best_shown, several=several, note=_FRONT_NOTE)],
                    instead="No job succeeded, so there is no front.",
                ),
                *(
                    [Section("Predicted and measured", [_table(sent, list(PREDICTED), several=several)])]
                    if len(sent)
                    else []
                ),
                Section(
                    "All configurations",
                    [_table(frame[frame["is_ok"]], _wide(frame), several=all_several, note=_MARKS, is_sortable=True)],
                    instead="No job succeeded.",
                ),
                Section(worded("Rates at equal score", word), [_rates(frame), _delta_rates(frame)], anchor="rates"),
            ],
            failures=Failures(
                ("split point", "setting", "error"),
                [
                    (r["split_point"], r["series"], rs.one_line(r["error"]) or "no reason given")
                    for _, r in rs.failures(frame).iterrows()
                ],
            ),
            facts=_facts(results, frame, details),
            words={term: worded(meaning, word) for term, meaning in WORDS.items()},
            glossary=glossary({n: c for n, c in columns.metrics(word).items() if n in told}, frame),
        )
    )


def _summary(frame: pd.DataFrame) -> str:
    num_ok, num_seeds = int(frame["is_ok"].sum()), frame["num_runs"].max()
    unsplit = ", ".join(dict.fromkeys(format_score(score) for score in frame["score_unsplit"].dropna().unique()))
    seeds = f", each the mean of up to {num_seeds} seeds" if num_seeds > 1 else ""
    score = f", unsplit score {unsplit}" if unsplit else ""
    return f"{num_ok} configuration{'' if num_ok == 1 else 's'}{seeds}{worded(score, rs.score_name(frame))}"


def _card(answer: Best, word: str) -> Card:
    if answer.row is None:
        return Card(answer.goal.title, "none", "no job has a figure for it", answer.detail, is_good=answer.qualifies)
    if not answer.qualifies:
        return Card(
            answer.goal.title,
            "none",
            worded("nothing stays within one point of the unsplit score", word),
            answer.detail,
            False,
        )
    first = answer.row if answer.beating is None else answer.beating
    label = rs.named(first) if answer.beating is None else baseline(first)
    return Card(answer.goal.title, answer.goal.show(first[answer.goal.column]), label, answer.detail)


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
    """The columns of the complete table: the known metrics that have values, then the task's own metrics."""
    hidden = _HIDDEN if rs.has_encoders(frame) else (*_HIDDEN, "encoder_bytes")
    known = [name for name in METRICS if name not in hidden and frame[name].notna().any()]
    added = ("is_ok", "is_reference", "is_bottleneck", "front", "tie_group", "num_runs")
    own = [
        c
        for c in frame.columns
        if c not in METRICS and c not in added and not rs.is_override(c) and pd.api.types.is_float_dtype(frame[c])
    ]
    return known + [c for c in own if frame[c].notna().any()]


def _table(
    rows: pd.DataFrame, names: list[str], *, several: bool, note: str = "", is_sortable: bool = False
) -> PageTable:
    named = columns.metrics(rs.score_name(rows))
    headers = [Header("split point"), *([Header("setting")] if several else []), Header("")]
    for name in names:
        known = named.get(name)
        headers.append(Header(known.title, known.unit, is_number=True) if known else Header(name, is_number=True))
    body = []
    for _, row in rows.iterrows():
        marks = MARKS[row["front"]] + ("▼" if row["is_bottleneck"] else "")
        cells = [Cell(row["split_point"], str(row["split_index"])), *([Cell(_setting(row))] if several else [])]
        cells.append(Cell(marks))
        for name in names:
            plain = MISSING if pd.isna(row[name]) else f"{row[name]:.4g}"
            text = METRICS[name].show(row[name]) if name in METRICS else plain
            cells.append(Cell(text, repr(float(row[name]))))
        kind = "reference" if row["is_reference"] else "pareto" if row["front"] == "best" else ""
        body.append((kind, cells))
    return PageTable(headers, body, note, is_sortable)


def _setting(row: pd.Series) -> str:
    return MISSING if rs.is_silent(row) else str(row["series"])


def _rates(frame: pd.DataFrame) -> PageTable:
    """The table of ``equal_score``: how many times larger the raw features, the sample and pictures are."""
    rows, word = equal_score(frame), rs.score_name(frame)
    ratios = list(rows.columns[4:])
    titles = [name if name in ("float32", "uint8") else worded(f"{name} at this score", word) for name in ratios]
    headers = [Header("split point"), Header("setting"), Header(word, "", True), Header("payload", "kB", True)]
    body = []
    for _, row in rows.iterrows():
        cells = [Cell(row["split_point"]), Cell(row["series"]), Cell(format_score(row["score"]), repr(row["score"]))]
        cells.append(Cell(format_number(row["payload_bytes"] / 1e3), repr(row["payload_bytes"])))
        body.append(("", cells + [Cell(format_ratio(row[name]), repr(row[name])) for name in ratios]))
    headers += [Header(title, "/ payload", is_number=True) for title in titles]
    return PageTable(headers, body, worded(_RATIOS, word), is_sortable=True)


def _delta_rates(frame: pd.DataFrame) -> PageTable:
    headers = [Header("codec"), Header("against"), Header("BD-rate", is_number=True), Header("")]
    rows = [
        ("", [Cell(one.codec), Cell(one.reference), Cell(one.text), Cell(one.trouble)]) for one in delta_rates(frame)
    ]
    return PageTable(headers, rows, worded(_BD_RATE, rs.score_name(frame)))
