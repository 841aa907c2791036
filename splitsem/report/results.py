"""A sweep's results made ready to draw: columns completed, series named, seeds averaged, the Pareto front marked.

Every figure and table starts from `prepare`, so that figures and tables agree.
"""

import re

import pandas as pd

from splitsem.report.columns import METRICS
from splitsem.report.pareto import pareto_front

# Columns that say where and how a job ran; a column that varies makes several series of a sweep.
LABELS = ("codec", "transport", "edge", "server", "model", "task", "device")
GROUPS = (*LABELS, "hardware", "workflow", "trainer", "federated", "optimise", "experiment")
SCORE_MARGIN = 0.01  # "no worse than unsplit" allows one point


def prepare(results: pd.DataFrame) -> pd.DataFrame:
    """Complete and annotate a sweep's results; the input is not changed and may lack any column.

    Rows that differ in nothing but the seed are averaged, because the best of several seeds is luck.

    Args:
        results: one row a job, as in results.csv.

    Returns:
        One row a configuration, in network order, failed jobs last. Beside the columns of results.csv:
        ``series`` (label of what varies besides the split point), ``family`` (that label without the codec's
        bit width or keep ratio), ``is_ok``, ``is_reference``, ``is_bottleneck``, ``pareto``, ``num_runs``
        and ``score_std`` (0 for a single run).
    """
    frame = _average_seeds(with_series(results))
    frame["is_bottleneck"] = _bottlenecks(frame)
    frame["pareto"] = False
    split = frame["is_ok"] & ~frame["is_reference"]
    frame.loc[split, "pareto"] = pareto_front(frame.loc[split, ["score", "throughput_hz"]].to_numpy())
    order = frame.assign(failed=~frame["is_ok"], own=~frame["is_reference"])
    return frame.loc[order.sort_values(["failed", "own", "split_index"], kind="stable").index].reset_index(drop=True)


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
    """Whether a column of results.csv is a setting that the user swept, not a metric.

    >>> [is_override(c) for c in ("codec.bit_width", "transport", "score", "iou_road")]
    [True, True, False, False]
    """
    return column in GROUPS or column == "seed" or "." in column or "@" in column


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
    for name in (*LABELS, "split_point", "status", "error", "reference"):
        values = frame[name].astype(object) if name in frame else pd.Series(None, index=frame.index, dtype=object)
        frame[name] = values.where(values.notna() & (values.astype(str) != ""), None)
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
    known = own["codec"].dropna().unique()
    plain = frame["codec"].fillna(known[0] if len(known) == 1 else "unknown codec")
    family = [field for field in fields if field not in knobs]
    for name, of, stems in (("family", family, codec_families(own["codec"])), ("series", fields, {})):
        labels = [_label(row, of, stems) for _, row in frame.iterrows()]
        frame[name] = pd.Series(labels, index=frame.index, dtype=object).replace("", None).fillna(plain)
    _name_references(frame)
    return frame


def _name_references(frame: pd.DataFrame) -> None:
    """Name the references: ``JPEG``, with the quality where several qualities were tried."""
    names = frame["reference"].map({"jpeg": "JPEG", "webp": "WebP"}).fillna(frame["reference"]).astype(object)
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
    return " · ".join(stems.get(str(row[f]), _field(f, row[f])) for f in fields if pd.notna(row[f]))


def _field(name: str, value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if name in LABELS:
        return text
    if name.endswith("bit_width"):
        return f"{text} bit"
    return f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {text}"


def _is_seed(column: str) -> bool:
    return column == "seed" or column.endswith(".seed")


def _average_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    frame["num_runs"], frame["score_std"] = 1, 0.0
    if not any(_is_seed(c) and frame[c].nunique() > 1 for c in frame.columns):
        return frame
    failed = frame[~frame["is_ok"]]
    settings = [c for c in frame.columns if is_override(c) and not _is_seed(c)]
    keys = list(dict.fromkeys(["series", "split_point", "reference", *LABELS, *settings]))
    rows = []
    for _, group in frame[frame["is_ok"]].groupby(keys, dropna=False, sort=False):
        row = group.iloc[0].copy()
        numeric = [c for c in group.columns if pd.api.types.is_float_dtype(group[c])]
        row[numeric] = group[numeric].mean()
        row["num_runs"], row["score_std"] = len(group), group["score"].std(ddof=1) if len(group) > 1 else 0.0
        rows.append(row)
    return pd.concat([pd.DataFrame(rows, columns=frame.columns).astype(frame.dtypes), failed], ignore_index=True)


def _bottlenecks(frame: pd.DataFrame) -> pd.Series:
    """Points whose raw tensors are smaller than the network's input (as float32 where that cut was run)."""
    at_input = frame.loc[frame["split_point"].eq("input"), "raw_bytes"].max()
    limit = frame["input_bytes"] if pd.isna(at_input) else at_input
    return frame["raw_bytes"] < limit
