"""A sweep's results made ready to draw: columns completed, series named, seeds averaged, the front marked.

Every figure and table starts from `prepare`, so that figures and tables agree.
"""

import re

import numpy as np
import pandas as pd

from splitsem.intervals import ci95
from splitsem.report.columns import METRICS
from splitsem.report.fronts import TOLERANCE, Draws, Front, front, gaps
from splitsem.report.units import apart, setting_in_words, worded

# Columns that say where and how a job ran; a column that varies makes several series of a sweep.
LABELS = ("codec", "transport", "edge", "server", "model", "task", "device")
GROUPS = (*LABELS, "exit", "hardware", "workflow", "trainer", "federated", "optimise", "experiment")
_WITHOUT_EFFECT = (  # beginnings of settings on which no result depends
    *("plots.", "tracking.", "hydra."),
    *(f"workflow.{name}" for name in ("sensitivity", "features_mb", "keep_references", "gallery")),
)
SCORE_MARGIN = 0.01  # "no worse than unsplit" allows one point
DRAWS = "draws_val"  # a column: the validation score of a job on bootstrap draws, arrays that results.csv has not
REFERENCES = {
    "all_on_edge": "all on the edge",
    "input_as_it_is": "sample as it is",
    "pixels": "uint8",
    "png": "PNG",
    "webp_lossless": "WebP lossless",
    "jpeg": "JPEG",
    "webp": "WebP",
}
_PARTS = ("encode_s", "decode_s", "answer_encode_s", "answer_s", "answer_decode_s")
_WITH_INTERVAL = {"score": "score_ci95", "score_delta": "score_delta_ci95", "score_val": "score_val_ci95",
                  "score_val_delta": "score_val_delta_ci95", "latency_s": "latency_s_ci95",
                  "throughput_hz": "throughput_hz_ci95", "energy_j": "energy_j_ci95"}  # fmt: skip


def prepare(results: pd.DataFrame) -> pd.DataFrame:
    """Complete and annotate a sweep's results; the input is not changed and may lack any column.

    Rows that differ in nothing but the seed are averaged, because the best of several seeds is luck; their 95 %
    intervals are then those over the seeds (Student's t).

    Args:
        results: one row a job, as in results.csv; with the column ``DRAWS``, the front is told by paired intervals.

    Returns:
        One row a configuration, in network order, failed jobs last. What sends nothing has one row, whatever codecs
        were swept: none of them is used, and the reference of its name is left out. Beside the columns of results.csv:
        ``series`` (label of what varies besides the split point), ``family`` (that label without the codec's
        bit width or keep ratio), ``is_ok``, ``is_reference``, ``is_bottleneck``, ``num_runs``, ``interval_over``
        (``samples``, ``seeds``), and what ``fronts.front`` finds on the scores by which configurations are chosen,
        see ``choice``: ``front`` and ``tie_group``.
    """
    frame = _without_repeats(_average_seeds(_once(with_series(results))))
    frame = frame.copy()  # in one piece: columns were put in singly
    frame["is_bottleneck"] = _bottlenecks(frame)
    frame["front"], frame["tie_group"] = "", float("nan")
    split = splits(frame)
    found = front_of(split, split["throughput_hz"], split["throughput_hz_ci95"])
    frame.loc[split.index, "front"], frame.loc[split.index, "tie_group"] = found.kind, found.group
    order = frame.assign(failed=~frame["is_ok"], own=~frame["is_reference"])
    return frame.loc[order.sort_values(["failed", "own", "split_index"], kind="stable").index].reset_index(drop=True)


def front_of(split: pd.DataFrame, speed: pd.Series, ci95_of_speed: pd.Series) -> Front:
    """``fronts.front`` of configurations: ``speed``, of which more is better, against the score that chooses."""
    score = choice(split)
    return front(speed, *gaps(split[score], split[DRAWS].tolist(), split[_WITH_INTERVAL[score]]), ci95_of_speed)


def choice(frame: pd.DataFrame) -> str:
    """The score by which configurations are chosen: ``score_val``, or ``score`` where a row that ran lacks that."""
    return "score_val" if frame.loc[frame["is_ok"].astype(bool), "score_val"].notna().all() else "score"


def score_name(frame: pd.DataFrame) -> str:
    """What people read for ``score``: ``agreement`` where all that was scored had no labels, else ``score``."""
    names = set(frame["score_name"].dropna()) if "score_name" in frame else set()
    return names.pop() if len(names) == 1 else "score"


def about(frame: pd.DataFrame) -> str:
    """``describe``, what the scores' intervals are over, and whether choices were made on the scores shown."""
    chosen = (
        ""
        if splits(frame).empty or choice(frame) == "score_val"
        else worded(" · chosen on the scores shown", score_name(frame))
    )
    return f"{describe(frame)} · {about_interval(frame)}{chosen}" if len(frame) else describe(frame)


def stage_times(frame: pd.DataFrame) -> pd.DataFrame:
    """Seconds of the stages that ``style.STAGES`` names; they add up to the latency.

    Results without the parts of ``edge_s``, ``link_s`` and ``server_s`` have each whole as head, busy link and tail.
    Silence after the last byte, which some rules ask for, keeps the link busy and delays nobody: it is left out.
    """
    is_split = frame["head_s"].notna()  # older results have coding's wall time beside an edge_s without it
    coding = {name: frame[name].where(is_split, 0.0).fillna(0.0) for name in _PARTS}
    busy_s = frame["link_busy_s"].fillna(frame["link_s"]).clip(upper=frame["link_s"])
    return pd.DataFrame(
        {
            "head_s": frame["head_s"].where(is_split, frame["edge_s"]),
            "encode_s": coding["encode_s"],
            "link_busy_s": busy_s,
            "link_delay_s": frame["link_s"] - busy_s,
            "decode_s": coding["decode_s"],
            "tail_s": frame["tail_s"].where(is_split, frame["server_s"]),
            "answer": coding["answer_encode_s"] + coding["answer_s"] + coding["answer_decode_s"],
        }
    )


def keeps_score(frame: pd.DataFrame) -> pd.Series:
    """Which rows are not worse than unsplit by more than ``SCORE_MARGIN``, as far as the paired interval can tell."""
    delta = f"{choice(frame)}_delta"
    return frame[delta] + frame[_WITH_INTERVAL[delta]].fillna(0.0) >= -SCORE_MARGIN - 1e-9


def is_shown_worse(frame: pd.DataFrame) -> pd.Series:
    """Which rows lost more than ``SCORE_MARGIN`` on the scores shown, beyond the paired interval."""
    return frame["score_delta"] + frame["score_delta_ci95"].fillna(0.0) < -SCORE_MARGIN - 1e-9


def about_interval(frame: pd.DataFrame) -> str:
    """What the scores' intervals are over: ``95 % interval over 96 samples``; of a single sample there is none."""
    own = splits(frame) if len(splits(frame)) else frame
    if own["score_ci95"].isna().all():
        return "no interval: one sample" if (own["num_samples"] == 1).all() else "no interval"
    over = own.loc[own["score_ci95"].notna(), "interval_over"].dropna().unique()
    counted = {"seeds": own["num_runs"], "samples": own["num_samples"], "channel seeds": own["channel_seeds"]}
    texts = []
    for name in over:
        numbers = counted[name].dropna()[lambda n: n > 1] if name in counted else pd.Series(dtype=float)
        low, high = (numbers.min(), numbers.max()) if len(numbers) else (float("nan"), float("nan"))
        count = "" if not len(numbers) else f"{low:.0f} " if low == high else f"{low:.0f} to {high:.0f} "
        texts.append(f"{count}{name}")
    return "95 % interval" + (f" over {', '.join(texts)}" if texts else "")


def with_series(results: pd.DataFrame) -> pd.DataFrame:
    """The jobs completed as by ``prepare``, with ``series`` and ``family``, still one row a job."""
    return _add_series(_complete(results))


def splits(frame: pd.DataFrame) -> pd.DataFrame:
    """The configurations that ran and use a codec, without failures and references."""
    return frame[frame["is_ok"] & ~frame["is_reference"]]


def references(frame: pd.DataFrame) -> pd.DataFrame:
    """The "just send the picture" rows that ran."""
    return frame[frame["is_ok"] & frame["is_reference"]]


def references_for(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The references that ran over the same link, on the same machines and with the same model as some of ``rows``."""
    found = references(frame)
    for label in ("transport", "edge", "server", "model"):
        found = found[found[label].isin(rows[label]) | found[label].isna()]
    return found


def has_encoders(frame: pd.DataFrame) -> bool:
    """Whether any configuration has a learned codec, whose encoder takes memory on the edge."""
    return bool((splits(frame)["encoder_bytes"] > 0).any())


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """The jobs that failed."""
    return frame[~frame["is_ok"]]


def is_override(column: str) -> bool:
    """Whether a column of results.csv is a setting that the user gave and that results depend on.

    >>> [is_override(c) for c in ("codec.bit_width", "transport", "score", "plots.style")]
    [True, True, False, False]
    """
    is_setting = column in GROUPS or column == "seed" or "." in column or "@" in column
    return is_setting and not column.startswith(_WITHOUT_EFFECT)


def one_line(error: object) -> str:
    """An error as one line, for a table row.

    >>> one_line("ValueError: bad\\n  bit width")
    'ValueError: bad bit width'
    """
    return " ".join(str(error).split()) if isinstance(error, str) else ""


def describe(frame: pd.DataFrame) -> str:
    """One line about the sweep: task · model · codec · link · machines; many values are counted, not listed."""
    split = frame[~frame["is_reference"]] if not frame["is_reference"].all() else frame
    parts = [_values(split[column], column) for column in ("task", "model", "codec", "transport")]
    machines = [_values(split[column], f"{column} machine") for column in ("edge", "server")]
    return " · ".join(part for part in [*parts, " → ".join(m for m in machines if m)] if part)


def _values(column: pd.Series, name: str) -> str:
    unique = [str(v) for v in column.dropna().unique()]
    return ", ".join(unique) if len(unique) <= 3 else f"{len(unique)} {name}s"


def _complete(results: pd.DataFrame) -> pd.DataFrame:
    frame = results.copy().reset_index(drop=True)
    for name in METRICS:
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float) if name in frame else float("nan")
    for name in (*LABELS, "split_point", "status", "error", "reference", "interval_over", "score_name"):
        values = frame[name].astype(object) if name in frame else pd.Series(None, index=frame.index, dtype=object)
        frame[name] = values.where(values.notna() & (values.astype(str) != ""), None)
    for suffix in ("", "_val"):
        known = frame[f"score{suffix}"] - frame[f"score{suffix}_unsplit"]
        frame[f"score{suffix}_delta"] = frame[f"score{suffix}_delta"].fillna(known)
    given = frame[DRAWS].tolist() if DRAWS in frame else [None] * len(frame)
    draws = [Draws(values) if isinstance(values, np.ndarray) else None for values in given]
    frame[DRAWS] = pd.Series(draws, frame.index, dtype=object)
    if "split.point" in frame:
        frame["split_point"] = frame["split_point"].combine_first(frame["split.point"].astype(object))
    frame["split_point"] = frame["split_point"].fillna("?").astype(str)
    order = {point: i for i, point in enumerate(frame["split_point"].unique())}
    frame["split_index"] = frame["split_index"].fillna(frame["split_point"].map(order).astype(float))
    frame["is_ok"] = frame["status"].ne("failed") & frame["score"].notna()
    frame["is_reference"] = frame["reference"].notna()
    return frame


def _add_series(frame: pd.DataFrame) -> pd.DataFrame:
    """Label what varies besides the split point, with as few fields as tell the configurations apart."""
    own = splits(frame)  # a failed job may lack labels, and a missing label is no series
    own = own if len(own) else frame[~frame["is_reference"]]
    swept = [c for c in frame.columns if is_override(c) and not c.startswith("split.") and not _is_seed(c)]
    knobs = [c for c in swept if c.startswith("codec.")]
    others = [c for c in swept if c not in knobs and c not in LABELS]
    fields: list[str] = []
    num_seen = 1
    for field in ["codec", *knobs, *LABELS[1:], *others]:
        num_distinct = len(own[[*fields, field]].astype(str).drop_duplicates())
        if num_distinct > num_seen:
            fields, num_seen = [*fields, field], num_distinct
    told = frame.assign(sweep=_sweeps(frame, own, fields) if "sweep" in own else None)
    known = own["codec"].dropna().unique()
    plain = frame["codec"].fillna(known[0] if len(known) == 1 else "unknown codec")
    family = [field for field in fields if field not in knobs]
    for name, of, stems in (("family", family, codec_families(own["codec"])), ("series", fields, {})):
        labels = [_label(row, [*of, "sweep"], stems) for _, row in told.iterrows()]
        frame[name] = pd.Series(labels, index=frame.index, dtype=object).replace("", None).fillna(plain)
    _name_references(frame)
    return frame


def _sweeps(frame: pd.DataFrame, own: pd.DataFrame, fields: list[str]) -> pd.Series:
    """In short, of which of the joined sweeps the rows are; None but for a series that two sweeps have alike."""
    series = ["codec", *fields]
    known = ["split_point", *(name for name in map(str, own) if is_override(name)), "sweep"]
    runs = own[list(dict.fromkeys([*series, *known]))].astype(str).drop_duplicates()
    alike = runs[runs.drop(columns="sweep").duplicated(keep=False)]
    is_alike = pd.MultiIndex.from_frame(frame[series].astype(str)).isin(pd.MultiIndex.from_frame(alike[series]))
    return frame["sweep"].map(apart(list(map(str, own["sweep"].unique())))).where(is_alike, None)


def _name_references(frame: pd.DataFrame) -> None:
    """Name the references: ``JPEG``, with the quality where several qualities were tried."""
    names = frame["reference"].map(REFERENCES).fillna(frame["reference"]).astype(object)
    longer = names
    if "codec.quality" in frame and frame.loc[frame["is_reference"], "codec.quality"].nunique() > 1:
        longer = names + " q" + frame["codec.quality"].astype(str).str.removesuffix(".0")
        longer = longer.where(frame["codec.quality"].notna(), names)
    for column, values in (("family", names), ("series", longer)):
        frame[column] = frame[column].astype(object).where(~frame["is_reference"], values)


def codec_families(codecs: pd.Series) -> dict[str, str]:
    """Codecs that differ in a trailing number, or in _low and _high, are one family.

    >>> codec_families(pd.Series(["quant2", "quant4", "student_low", "student_high", "deepcod_noise"]))
    {'quant2': 'quant', 'quant4': 'quant', 'student_low': 'student', 'student_high': 'student'}
    """
    matches = {str(c): re.fullmatch(r"(\D*?[a-z]+?)(\d+|_low|_high)", str(c)) for c in codecs.dropna().unique()}
    stems = {c: m.group(1) for c, m in matches.items() if m}
    return {c: stem for c, stem in stems.items() if list(stems.values()).count(stem) > 1}


def _label(row: pd.Series, fields: list[str], stems: dict[str, str]) -> str:
    return " · ".join(stems.get(str(row[f]), setting_in_words(f, row[f])) for f in fields if pd.notna(row[f]))


def _is_seed(column: str) -> bool:
    return column == "seed" or column.endswith(".seed")


def _once(frame: pd.DataFrame) -> pd.DataFrame:
    """Without jobs of the same settings and seeds as one before: a search may draw a configuration again.

    References stay. Each is evaluated once, and those of several seeds carry no seed that tells them apart.
    """
    settings = [c for c in map(str, frame) if is_override(c)]
    keys = [c for c in dict.fromkeys(["series", "split_point", "reference", *LABELS, *settings, "sweep"]) if c in frame]
    again = frame["is_ok"] & ~frame["is_reference"] & frame[keys].astype(str).duplicated()
    return frame[~again].reset_index(drop=True)


def _average_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    frame["num_runs"] = 1
    seeds = [c for c in frame.columns if _is_seed(c) and frame[c].nunique() > 1]
    if not seeds:
        return frame
    failed = frame[~frame["is_ok"]]
    settings = [c for c in frame.columns if is_override(c) and not _is_seed(c)]
    keys = list(dict.fromkeys(["series", "split_point", "reference", *LABELS, *settings]))
    rows = []
    for _, group in frame[frame["is_ok"]].groupby(keys, dropna=False, sort=False):
        group = group.sort_values(seeds, kind="stable")
        row = group.iloc[0].copy()
        numeric = [c for c in group.columns if pd.api.types.is_float_dtype(group[c])]
        row[numeric] = group[numeric].mean()
        row["num_runs"] = len(group)
        if len(group) > 1:
            row["interval_over"] = "seeds"
            for name, interval in _WITH_INTERVAL.items():
                found = ci95(group[name].tolist()) if group[name].notna().all() else float("nan")
                least = 0.0 if name.startswith("score") else TOLERANCE / 2**0.5 * row[name]  # as of one run
                row[interval] = found if found is None else max(found, least)
            labels = tuple(group[seeds].astype(str).itertuples(index=False, name=None))
            row[DRAWS] = Draws(group[choice(frame)].to_numpy(), labels)
        rows.append(row)
    return pd.concat([pd.DataFrame(rows, columns=frame.columns).astype(frame.dtypes), failed], ignore_index=True)


def sends_nothing(frame: pd.DataFrame) -> pd.Series:
    """Which configurations run all on the edge, so that their codec has no work."""
    is_silent = frame["payload_bytes"].eq(0) & frame["exit_share"].isna()  # an early exit may let no sample go on
    return frame["is_ok"] & ~frame["is_reference"] & is_silent


def is_silent(row: pd.Series) -> bool:
    """``sends_nothing`` of one configuration."""
    return bool(row["payload_bytes"] == 0 and pd.isna(row["exit_share"]) and not row["is_reference"])


def named(row: pd.Series, *, several: bool = True) -> str:
    """A configuration in short: ``enc2 · quant8``; by the point alone where the codec is no part of it."""
    return f"{row['split_point']} · {row['series']}" if several and not is_silent(row) else str(row["split_point"])


def _without_repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop all rows but one of those that send nothing and differ in codec or exit; and the reference that is it."""
    places = ["transport", "edge", "server", "model", "task", "device"]
    idle = ("codec", "exit")  # at output, neither does anything
    settings = [c for c in map(str, frame) if is_override(c) and not c.startswith(idle) and c not in places]
    silent = sends_nothing(frame)
    again = silent & frame[silent].duplicated(["split_point", *places, *settings]).reindex(
        frame.index, fill_value=False
    )
    own = set(frame.loc[silent & frame["split_point"].eq("output"), places[:4]].itertuples(index=False, name=None))
    is_there = np.array([place in own for place in frame[places[:4]].itertuples(index=False, name=None)], dtype=bool)
    return frame[~again & ~(frame["reference"].eq("all_on_edge") & is_there)].reset_index(drop=True)


def _bottlenecks(frame: pd.DataFrame) -> pd.Series:
    """Points whose raw tensors are smaller than the network's input (as float32 where that cut was run)."""
    at_input = frame.loc[frame["split_point"].eq("input"), "raw_bytes"].max()
    limit = frame["input_bytes"] if pd.isna(at_input) else at_input
    return frame["raw_bytes"] < limit
