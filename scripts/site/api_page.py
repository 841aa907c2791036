"""The page of what `import splitsem` offers, for mkdocstrings, from the source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
STUB = ROOT / "splitsem" / "__init__.pyi"
PURPOSES = {  # the parts of the page, with the names that stand there; a name of none of them stands in the first
    "Cut and encode": ("split", "codec"),
    "Run what the command runs": ("run", "sweep", "results"),
    "Serve and call": ("serve", "connect", "connect_async"),
    "What these take": ("Backoff", "Fixed", "NoRetry", "Limits", "Security"),
}
PARTS = {  # what one subclasses or meets, by the heading it stands below
    "Parts of your own": (
        "splitsem.codecs.codec.Codec",
        "splitsem.tasks.task.Task",
        "splitsem.links.link.Link",
        "splitsem.links.link.LinkReport",
        "splitsem.cost.machines.Machine",
        "splitsem.splitting.graph.SplitGraph",
        "splitsem.splitting.cut.Cut",
    ),
}


def offered() -> dict[str, str]:
    """The functions and classes that `import splitsem` offers, each with the dotted name of what it is."""
    tree = ast.parse(STUB.read_text())
    return {
        alias.name: f"splitsem.{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module  # modules have pages of their own
        for alias in node.names
    }


def api_page() -> str:
    """Markdown with a directive of mkdocstrings for each name."""
    names = offered()
    lines = ["# The API", "", "*Made of the docstrings.* `import splitsem` offers these names.", ""]
    placed = {name for names_ in PURPOSES.values() for name in names_}
    for number, (purpose, chosen) in enumerate(PURPOSES.items()):
        new = [name for name in names if name not in placed] if number == 0 else []
        lines += [f"## {purpose}", ""]
        for name in [*(name for name in chosen if name in names), *new]:
            lines += [f"### `splitsem.{name}`", "", f"::: {names[name]}", ""]
    for heading, parts in PARTS.items():
        lines += [f"## {heading}", ""]
        for part in parts:
            lines += [f"### `{part}`", "", f"::: {part}", ""]
    return "\n".join(lines)
