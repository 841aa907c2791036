"""The page of what `import splitsem` offers, for mkdocstrings, and the page of error messages, both from the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from scripts.site.options_page import cell

ROOT = Path(__file__).parents[2]
STUB = ROOT / "splitsem" / "__init__.pyi"
SOURCES = (ROOT / "splitsem", ROOT / "device" / "splitsem_device")
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
    """The names that `import splitsem` offers, each with the dotted name of what it is."""
    tree = ast.parse(STUB.read_text())
    return {
        alias.name: f"splitsem.{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
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


def messages() -> Iterator[tuple[str, str, str]]:
    """Each message that a user can meet: the exception's name, the text with ``…`` for what varies, the file."""
    known = exceptions()
    for root in SOURCES:
        for path in sorted(root.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                    continue
                name = ast.unparse(node.exc.func).rpartition(".")[2]
                if not node.exc.args or name not in known:
                    continue
                text = _text(node.exc.args[0])
                if re.search(r"[a-z]{3} ", text):
                    yield name, text, str(path.relative_to(ROOT))


ERRORS = {
    "ConfigError": "A setting, a file or a folder is missing or makes no sense. Do what the line says.",
    "SplitPointError": "There is no such split point. Take one of those that the line lists, or `workflow=points`.",
    "ValueError": "A constructor refuses an argument. The line has name, rule and value: change the value.",
    "PayloadError": "Bytes are no whole, undamaged payload of the expected codec. Start both ends with the same "
    "release, codec and split point.",
    "LinkError": "The other end cannot be reached. See that the server runs, that the address is right, and that the "
    "firewall lets the port pass; then start again.",
    "SessionError": "The server was restarted, or made room, and does not know the session. An edge opens the plan "
    "again by itself; in your own code, connect again.",
    "BusyError": "The server has no room, or measures itself. Ask again later, or raise `transport.limits`.",
    "FunctionError": "A function that a server offers raised an exception. Mend it; the call is not repeated.",
    "ContractError": "A part of your own breaks its contract. There is a line for each broken promise.",
}
"""What to do about each exception; one that is not here says what it means in its docstring."""
TREE = (ROOT / "splitsem" / "errors.py", ROOT / "device" / "splitsem_device" / "errors.py")


def exceptions() -> dict[str, str]:
    """The exceptions, each with what it means and what to do."""
    found = {
        node.name: " ".join((ast.get_docstring(node) or "").split())
        for path in TREE
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name != "SplitSemError"
    }
    return ERRORS | {name: said for name, said in found.items() if name not in ERRORS}


def _text(node: ast.expr) -> str:
    """A string of the source as a user may see it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"


def errors_page() -> str:
    """The exceptions with their remedies, and all messages."""
    found: dict[str, dict[tuple[str, str], None]] = {}
    for name, text, path in messages():
        found.setdefault(name, {})[text, path] = None
    lines = [
        "# Error messages",
        "",
        "*Made of the source.* A mistake ends a run with one line: what was wrong, what is allowed, what to do. `…` "
        "stands for what varies. `HYDRA_FULL_ERROR=1` shows where the line was raised.",
        "",
        "| exception | what it means, and what to do |",
        "|---|---|",
        *(f"| `{name}` | {remedy} |" for name, remedy in exceptions().items()),
        "",
    ]
    for name in exceptions():
        if name in found:
            lines += [f"## `{name}`", "", "| message | raised in |", "|---|---|"]
            lines += [f"| {cell(_plain(text))} | `{path}` |" for text, path in sorted(found[name])] + [""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text in which Markdown sees no markup."""
    return re.sub(r"([*_`\[\]{}\\])", r"\\\1", text)
