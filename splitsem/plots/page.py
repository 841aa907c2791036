"""An HTML page of results: one self-contained file that needs no network, no script and no other file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from splitsem.plots.style import DPI


class Cell(NamedTuple):
    """One table cell: its text, and the number it is sorted by (empty for words)."""

    text: str
    sort: str = ""


class Header(NamedTuple):
    """Of one column."""

    title: str
    unit: str = ""
    is_number: bool = False


class PageTable(NamedTuple):
    """A table; a row is its look (``pareto``, ``reference`` or nothing) and its cells."""

    headers: Sequence[Header]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str = ""
    is_sortable: bool = False


class Section(NamedTuple):
    """Tables under one heading; ``instead`` stands there when they have no row, else the section is left out."""

    heading: str
    tables: Sequence[PageTable]
    anchor: str = ""
    instead: str = ""


class Card(NamedTuple):
    """An answer in large letters; one that is no good is marked."""

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
        """From a figure, or from the bytes of a PNG file."""
        if isinstance(content, Figure):
            buffer = io.BytesIO()
            content.savefig(buffer, format="png", dpi=1.25 * DPI)
            content = buffer.getvalue()
        return cls(name, caption, base64.b64encode(content).decode("ascii"))


class Failures(NamedTuple):
    """What went wrong, a row a job; the last column is the error."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Page:
    """What stands on a page, from the top down.

    Attributes:
        title: the heading.
        subtitle: what was run, in words.
        summary: how much of it.
        command: the command line that made the results.
        cards: the answers.
        pictures: the figures.
        sections: the tables.
        failures: of the jobs that have no result.
        facts: name and value: what was run, and where the numbers come from.
        words: what the words mean.
        glossary: of each column its title, unit and meaning.
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
        loader=PackageLoader("splitsem.plots"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page=page)
