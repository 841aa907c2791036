"""The code blocks of README, CONTRIBUTING and docs/: where they stand, how each is run, and the commands in them.

A block in ``sh``, ``python`` or ``yaml`` is run, or checked, by ``tests/unit/test_page_commands.py`` and
``tests/system/test_page_runs.py``. A comment in the line above says otherwise::

    <!-- not run here: REASON -->        nothing runs it
    <!-- run by tests/system/FILE.py --> that test runs it, and names the page or its folder
    <!-- blocks run by tests/system/FILE.py --> below the title: the same of all blocks of the page
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")})
SHOWN = ("text", "mermaid", "json", "csv", "tex")
"""What a block of output, a figure or a file is called: nothing to run."""
RUN = ("sh", "python", "yaml")
_BLOCK = re.compile(
    r"(?:^(?P<indent>[ ]*)<!-- (?P<how>not run here:|run by) (?P<what>.+?) -->\n)?"
    r"^[ ]*```(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^[ ]*```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its file, from the repository's root.
        line: where its fence stands.
        language: behind the fence; empty where there is none.
        body: its text.
        reason: why nothing runs it here; empty where something does.
        test: the test that runs it, from the repository's root; empty where the tests of all pages do.
    """

    page: str
    line: int
    language: str
    body: str
    reason: str
    test: str

    def __str__(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"


def blocks(path: Path, root: Path = ROOT) -> list[Block]:
    """The blocks of a page, in order."""
    text = path.read_text()
    found = []
    whole = re.search(r"^<!-- blocks run by (.+?) -->$", text, re.MULTILINE)
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1 + bool(match["how"])
        reason, test = (match["what"], "") if match["how"] == "not run here:" else ("", match["what"] or "")
        test = test or (whole[1] if whole and not reason else "")
        page = path.relative_to(root).as_posix()
        found.append(Block(page, line, match["language"], match["body"], reason, test))
    return found


def commands(body: str) -> Iterator[list[str]]:
    """The words of each command of a block; a backslash joins lines, ``#`` begins a comment."""
    known: dict[str, str] = {}  # what the block exported
    for line in body.replace("\\\n", " ").splitlines():
        for name, value in known.items():
            line = line.replace(f"${name}", value)
        words = [word for word in shlex.split(line, comments=True) if word != "&"]
        if words[:1] == ["export"]:
            known |= dict([words[1].split("=", 1)])
        if words:
            yield words


def without_environment(words: list[str]) -> list[str]:
    """A command without the variables that stand before it."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words
