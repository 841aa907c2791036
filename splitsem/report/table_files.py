"""Tables of the terminal as files: LaTeX (booktabs) for a paper, Markdown for a page."""

import re
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from splitsem.json_files import write_text
from splitsem.report.terminal import is_empty

_MATHS = {
    "±": r"\pm", "Δ": r"\Delta", "★": r"\star", "▼": r"\bigtriangledown", "−": "-", "×": r"\times", "·": r"\cdot",
    "λ": r"\lambda", "µ": r"\mu", "∞": r"\infty", "→": r"\rightarrow", "γ": r"\gamma", "ε": r"\epsilon", "ξ": r"\xi",
    "≤": r"\leq", "≥": r"\geq",
}  # fmt: skip
_LATEX = {sign: f"${command}$" for sign, command in _MATHS.items()} | {
    "\\": r"\textbackslash{}", "–": "--", "…": r"\ldots{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def write(table: Table, path: Path) -> None:
    """Leave the table as LaTeX and as Markdown.

    Args:
        table: as it is printed.
        path: of the files, without a suffix.
    """
    for suffix, text in ((".tex", latex(table)), (".md", markdown(table))):
        write_text(text, path.with_name(path.name + suffix))


def latex(table: Table) -> str:
    """The table for ``\\input{}``: a ``tabular`` with the rules of booktabs, which needs ``\\usepackage{booktabs}``.

    What stands below the table on the terminal is a comment above it, for the caption.
    """
    headers, rows = _texts(table)
    kinds = "".join("r" if column.justify == "right" else "l" for column in _columns(table))
    notes = [line for text in (table.title, table.caption) for line in _plain(text).splitlines()]
    lines = [*(f"% {line}" for line in notes), rf"\begin{{tabular}}{{@{{}}{kinds}@{{}}}}", r"\toprule"]
    num_lines = max((header.count("\n") for header in headers), default=0) + 1
    for i in range(num_lines):  # the unit stands below its title
        parts = [(header.split("\n") + [""] * num_lines)[i] for header in headers]
        lines.append(" & ".join(map(_escaped, parts)) + r" \\")
    lines.append(r"\midrule")
    for is_bold, cells in rows:
        texts = [_escaped(cell) for cell in cells]
        lines.append(" & ".join(rf"\textbf{{{t}}}" if is_bold and t else t for t in texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def markdown(table: Table) -> str:
    """The table for a page, with its title above and its notes below."""
    headers, rows = _texts(table)
    lines = ["| " + " | ".join(header.replace("\n", " ").replace("|", r"\|") for header in headers) + " |"]
    lines.append("|" + "|".join("---:" if column.justify == "right" else "---" for column in _columns(table)) + "|")
    for is_bold, cells in rows:
        texts = [cell.replace("|", r"\|") for cell in cells]
        lines.append("| " + " | ".join(f"**{t}**" if is_bold and t else t for t in texts) + " |")
    title, notes = ("  \n".join(_plain(text).splitlines()) for text in (table.title, table.caption))
    return "\n\n".join(part for part in (title, "\n".join(lines), notes) if part) + "\n"


def _columns(table: Table) -> list[Column]:
    return [column for column in table.columns if not is_empty(column)]


def _texts(table: Table) -> tuple[list[str], list[tuple[bool, list[str]]]]:
    """Headers, and rows of texts with whether they are bold."""
    rows = list(zip(*([_plain(cell).strip() for cell in column.cells] for column in _columns(table)), strict=True))
    bold = ["bold" in str(row.style) for row in table.rows]
    return [_plain(column.header) for column in _columns(table)], [
        (is_bold, list(row)) for is_bold, row in zip(bold, rows, strict=True)
    ]


def _plain(text: object) -> str:
    """What is read: without the terminal's markup."""
    return "" if text is None else text.plain if isinstance(text, Text) else Text.from_markup(str(text)).plain


def _escaped(text: str) -> str:
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)
