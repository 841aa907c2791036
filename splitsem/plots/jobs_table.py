"""A sweep's jobs as one sortable table of a page, and those that failed."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from splitsem.plots import results as rs
from splitsem.plots.columns import Column
from splitsem.plots.page import Cell, Failures, Header, PageTable, Picture
from splitsem.plots.units import MISSING

_SORT = "A click on a header sorts."


def jobs_table(
    rows: pd.DataFrame, labels: Sequence[str], columns: Mapping[str, Column | str], marked: Sequence[bool], note: str
) -> PageTable:
    """A row a job; a column that has no value in any of them is left out.

    Args:
        rows: the jobs that succeeded.
        labels: what tells each from the others.
        columns: of each column of ``rows`` how to show its numbers; or, for words, its title.
        marked: which jobs are set off by colour.
        note: below the table.
    """
    shown = {n: c for n, c in columns.items() if n in rows and rows[n].notna().any()}
    headers = [Header("run")]
    headers += [Header(c) if isinstance(c, str) else Header(c.title, c.unit, True) for c in shown.values()]
    body = []
    for (_, row), label, is_marked in zip(rows.iterrows(), labels, marked, strict=True):
        cells = [Cell(str(label))]
        for name, column in shown.items():
            if isinstance(column, str):
                cells.append(Cell("" if pd.isna(row[name]) else str(row[name])))
            else:
                cells.append(Cell(column.show(row[name]), repr(float(row[name]))))
        body.append(("pareto" if is_marked else "", cells))
    return PageTable(headers, body, f"{note} {_SORT}".strip(), is_sortable=True)


def jobs_failed(results: pd.DataFrame) -> Failures:
    """The jobs that did not end well, by what they ran under, each with the first line of its error."""
    rows = []
    overrides = [str(c) for c in results if rs.is_override(str(c)) and results[c].nunique(dropna=False) > 1]
    for _, row in results[results["status"] != "ok"].iterrows():
        given = [f"{name}={row[name]}" for name in overrides if pd.notna(row[name])]
        error = str(row["error"]) if "error" in row and pd.notna(row["error"]) else ""
        rows.append((f"{row['job']:.0f}", " ".join(given), rs.one_line(error) or "no reason given"))
    return Failures(("job", "setting", "error"), rows)


def glossary(columns: Mapping[str, Column | str], rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Title, unit and meaning of each column of numbers that has a value."""
    known = [c for n, c in columns.items() if isinstance(c, Column) and n in rows and rows[n].notna().any()]
    return [(c.title, c.unit, c.meaning) for c in known]


def jobs_pictures(pictures: Mapping[tuple[str, str], bytes], captions: Mapping[str, str]) -> list[Picture]:
    """PNG files by label (empty for the whole sweep's) and name; a job's caption begins with its label."""
    return [
        Picture.of(
            f"{name}_{label}" if label else name, f"Run {label}: {captions[name]}" if label else captions[name], png
        )
        for (label, name), png in pictures.items()
    ]


def whole(value: float) -> str:
    """A count."""
    return MISSING if math.isnan(value) else f"{value:.0f}"


def percent(value: float) -> str:
    """A relative gain in per cent, without the sign for it: ``+18.8``."""
    return MISSING if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")


def span(gains: pd.Series) -> str:
    """The range of relative gains.

    >>> span(pd.Series([0.188, -0.01]))
    '−1.0 % … +18.8 %'
    """
    low, high = (f"{percent(gain)} %" for gain in (gains.min(), gains.max()))
    return low if low == high else f"{low} … {high}"
