"""An HTML page of results: one self-contained file that needs no network, no script and no other file."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from splitsem.report import results as rs
from splitsem.report.columns import Column
from splitsem.report.style import content as file_of
from splitsem.report.units import MISSING


class Cell(NamedTuple):
    """One table cell: the text, and the number that sorts the cell (empty for words)."""

    text: str
    sort: str = ""


class Header(NamedTuple):
    """The header of one column."""

    title: str
    unit: str = ""
    is_number: bool = False


class PageTable(NamedTuple):
    """A table; a row is a look (``pareto``, ``reference`` or nothing) and the row's cells."""

    headers: Sequence[Header]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str = ""
    is_sortable: bool = False


class Section(NamedTuple):
    """Tables under one heading; if no table has a row, the page shows ``instead``, or leaves the section out."""

    heading: str
    tables: Sequence[PageTable]
    anchor: str = ""
    instead: str = ""


class Card(NamedTuple):
    """An answer in large letters; the page marks an answer that is not good."""

    title: str
    value: str
    where: str
    detail: str
    is_good: bool = True


class Picture(NamedTuple):
    """A figure's name, caption and PNG as base64."""

    name: str
    caption: str
    png: str

    @classmethod
    def of(cls, name: str, caption: str, content: Figure | bytes) -> "Picture":
        """The picture of a figure, in 256 colours, or of the bytes of a PNG file."""
        if isinstance(content, Figure):
            content = small_png(file_of(content, sharper=1.25))
        return cls(name, caption, base64.b64encode(content).decode("ascii"))


def small_png(content: bytes, most_bytes: float = math.inf) -> bytes:
    """A PNG file in 256 colours, a third of the bytes; in fewer pixels where that is still too much.

    Args:
        content: a PNG file.
        most_bytes: what the result may have, far more than a picture of a few pixels.
    """
    picture = smaller = Image.open(io.BytesIO(content)).convert("RGB")
    scale = 1.0
    while True:
        buffer = io.BytesIO()
        smaller.quantize(256).save(buffer, "png", optimize=True)
        if len(buffer.getvalue()) <= most_bytes:
            return buffer.getvalue()
        scale *= 0.8
        smaller = picture.resize((round(scale * picture.width), round(scale * picture.height)))


class Failures(NamedTuple):
    """The failed jobs, one row a job; the last column is the error."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Page:
    """What stands on a page, from the top down.

    Attributes:
        title: the heading.
        subtitle: what was run, in words.
        summary: how much was run.
        command: the command line that made the results.
        cards: the answers.
        pictures: the figures.
        sections: the tables.
        failures: the jobs that have no result.
        facts: name and value: what was run, and where the numbers come from.
        words: what the words mean.
        glossary: title, unit and meaning of each column.
    """

    title: str
    subtitle: str
    summary: str
    command: str
    cards: Sequence[Card]
    pictures: Sequence[Picture]
    sections: Sequence[Section]
    failures: Failures
    facts: Sequence[tuple[str, str]]
    words: Mapping[str, str] = field(default_factory=dict)
    glossary: Sequence[tuple[str, str, str]] = ()


def render(page: Page) -> str:
    """The complete HTML; every value in it is escaped."""
    environment = Environment(
        loader=PackageLoader("splitsem.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page=page)


_SORT = "A click on a header sorts."


def jobs_table(
    rows: pd.DataFrame, labels: Sequence[str], columns: Mapping[str, Column | str], marked: Sequence[bool], note: str
) -> PageTable:
    """The table of one row a job, without columns that have no value in any job.

    Args:
        rows: the jobs that succeeded.
        labels: for each job, what tells the job from the other jobs.
        columns: for each column of ``rows``, how to show its numbers; for a column of words, the title.
        marked: which jobs are set off by colour.
        note: text below the table.
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
    """The failed jobs, each with its settings and the first line of its error."""
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
    """Pictures of PNG files by label (empty for the whole sweep) and name; a job's caption begins with its label."""
    return [
        Picture.of(
            f"{name}_{label}" if label else name, f"Run {label}: {captions[name]}" if label else captions[name], png
        )
        for (label, name), png in pictures.items()
    ]


def whole(value: float) -> str:
    """A count as text."""
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
