"""The page of error messages: each code with what it means and what to do, and the messages that the source has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.site.options_page import cell

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "splitsem", ROOT / "device" / "splitsem_device")
TREE = (ROOT / "splitsem" / "errors.py", ROOT / "device" / "splitsem_device" / "errors.py")


class Entry(NamedTuple):
    """What a code means, and what to do."""

    meaning: str
    remedy: str


ENTRIES = {
    "E-SETTING": Entry(
        "There is no such setting, it must be given, or it does not take this value.",
        "The line has the setting's name, the value and the rule. Change the value. "
        "[Options](choices.md) leads to all settings; `python run.py … --cfg job` prints those of a run.",
    ),
    "E-OPTION": Entry(
        "A group of the configuration has no such option.",
        "Take one that the line lists. An option of your own needs `--config-dir FOLDER`.",
    ),
    "E-SYNTAX": Entry(
        "The command line cannot be read.",
        "Settings are `NAME=VALUE`. The shell takes brackets and braces for itself, so quote them: `'NAME=[1,2]'`.",
    ),
    "E-RENAMED": Entry(
        "A setting or an option has another name now.", "The line gives the new name. The changelog has them all."
    ),
    "E-EXTRA": Entry(
        "A package is not installed.",
        "Run the command that the line ends with, in the environment that runs splitsem. "
        "[Installing](../installing.md) says what each extra brings.",
    ),
    "E-SPLIT-POINT": Entry(
        "The network has no such split point, or the codec cannot code what crosses there.",
        "Take one of those that the line lists. `workflow=points` lists all, with shapes and bytes.",
    ),
    "E-MODEL": Entry(
        "A network cannot be made or used: its file, its name or its settings.",
        "The line names the file or the setting. [Your own network](../how-to/add-a-model.md) says what is read.",
    ),
    "E-CHECKPOINT": Entry(
        "A file of weights is missing, damaged, or of another network.",
        "Give the weights of this network, with its settings. [Your checkpoint](../how-to/your-checkpoint.md) "
        "lists the formats.",
    ),
    "E-DATA": Entry(
        "A data set's files are missing, damaged, or laid out otherwise.",
        "The line names the file and the layout that is read. `make data` brings what the examples use. "
        "[Your data set](../how-to/your-dataset.md) has the layouts.",
    ),
    "E-MACHINE": Entry(
        "A table or a model of a machine is missing, damaged, or does not fit the network.",
        "Measure the machine again on this network: `workflow=profile`. [Machines](../machines.md) says how.",
    ),
    "E-FOLDER": Entry(
        "A folder of results cannot be used: it holds another run, or it cannot be written.",
        "Name another folder, or remove the old one. A run never overwrites results.",
    ),
    "E-FILE": Entry(
        "A file cannot be read or written: the disk is full, or a right is missing.",
        "Make room, or name another place. What was trained is kept, so the next run goes on from there.",
    ),
    "E-SECURITY": Entry(
        "TLS is not set up: a certificate, key or token is missing, or data would travel in the clear.",
        "Give the certificates ([how](../how-to/certificates.md)), or `transport.security.insecure=true` in a "
        "network that you trust.",
    ),
    "E-BUNDLE": Entry(
        "A bundle for a board is missing, damaged, or of another version.",
        "Copy it again. If that does not help, make it again: `workflow=bundle` ([boards](../device.md)).",
    ),
    "E-LINK": Entry(
        "The other end cannot be reached.",
        "See that the server runs, that the address is right, and that the firewall lets the port pass. "
        "Then start again.",
    ),
    "E-SESSION": Entry(
        "The server was restarted, or made room, and does not know the session.",
        "An edge opens the plan again by itself. In your own code, connect again.",
    ),
    "E-TOKEN": Entry(
        "The server asks for a token, and this end shows none, or another.",
        "Give both ends the same file: `transport.security.token_file`.",
    ),
    "E-BUSY": Entry(
        "The server has no room, or it measures itself.", "Ask again later, or raise `transport.limits` on the server."
    ),
    "E-PAYLOAD": Entry(
        "Bytes are no whole, undamaged payload of the expected codec.",
        "Start both ends with the same release, codec and split point.",
    ),
    "E-FUNCTION": Entry(
        "A function that a server offers raised an exception.",
        "Mend the function: the line has its exception. The call is not repeated.",
    ),
    "E-CONTRACT": Entry(
        "A part of your own breaks its contract.",
        "Keep each promise that a line names. `python -m splitsem.check` checks the part alone "
        "([how](../how-to/check-a-part.md)).",
    ),
    "E-CONFIG": Entry(
        "Settings do not go together, or something else that you gave makes no sense.", "Do what the line says."
    ),
    "E-SPLITSEM": Entry("Something else that splitsem cannot do.", "Do what the line says."),
}
"""The codes, in the order in which a beginner meets them."""


def codes() -> dict[str, str]:
    """The exceptions, each with its code; an argument that a constructor refuses is a setting for whoever gave it."""
    found = {
        node.name: str(value.value)
        for path in TREE
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
        for line in node.body
        if isinstance(line, ast.Assign | ast.AnnAssign) and isinstance(value := line.value, ast.Constant)
    }
    return found | {"ValueError": "E-SETTING"}


def messages() -> Iterator[tuple[str, str, str]]:
    """Each message that a user can meet: its code, the text with ``…`` for what varies, the file."""
    known = codes()
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
                    yield known[name], text, str(path.relative_to(ROOT))


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
    """The codes with their remedies, and all messages."""
    names: dict[str, list[str]] = {}
    for name, code in codes().items():
        names.setdefault(code, []).append(f"`{name}`")
    found: dict[str, dict[tuple[str, str], None]] = {}
    for code, text, path in messages():
        found.setdefault(code, {})[text, path] = None
    lines = [
        "# Error messages",
        "",
        "*Made of the source.* A mistake ends a run with one line: what was wrong, what is allowed, what to do. A code "
        "ends the line, and this page has a part for each code. `HYDRA_FULL_ERROR=1` shows where the line was raised.",
        "",
        "| code | what it means |",
        "|---|---|",
        *(f"| [`{code}`](#{code.lower()}) | {entry.meaning} |" for code, entry in ENTRIES.items()),
        "",
    ]
    for code, entry in ENTRIES.items():
        in_python = f" In Python: {', '.join(names[code])}." if code in names else ""
        lines += [f"## {code}", "", f"{entry.meaning}{in_python}", "", f"**What to do.** {entry.remedy}", ""]
        if code in found:
            lines += ["Messages, with `…` for what varies:", "", "| message | raised in |", "|---|---|"]
            lines += [f"| {cell(_plain(text))} | `{path}` |" for text, path in sorted(found[code])] + [""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text in which Markdown sees no markup."""
    return re.sub(r"([*_`\[\]{}\\])", r"\\\1", text)
