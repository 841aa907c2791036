"""Commands for a user to paste: words that a shell takes as they are, settings that Hydra reads back."""

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from splitsem import redaction

CHECKOUT = Path(__file__).parents[2]
"""The folder of the project; of an installation, that of its packages."""

PROGRAM = "python run.py" if (CHECKOUT / "run.py").is_file() else "splitsem"
"""What starts a workflow: of a checkout, or of an installation."""

_BARE = re.compile(r"\.{0,2}[A-Za-z_/][\w./:+-]*", re.ASCII)
_OTHERWISE_READ = ("null", "true", "false", "nan", "inf")


def setting(key: str, value: Any) -> str:
    """``key=value`` as Hydra reads it back.

    >>> setting("folder", "/a b/c"), setting("workflow.onward", [["stage2", "topk keep_ratio=0.1"]])
    ("folder='/a b/c'", "workflow.onward=[[stage2,'topk keep_ratio=0.1']]")
    """
    return f"{key}={_value(value)}"


def words(arguments: Iterable[str]) -> str:
    """Arguments of a command without the secrets in them, each as one word of a POSIX shell.

    >>> print(words(["codec=quant4,quant8", "workflow.steps=[lut]", "folder='a b'"]))
    codec=quant4,quant8 'workflow.steps=[lut]' "folder='a b'"
    """
    return " ".join(_word(redaction.text(one)) for one in arguments)


def command(*arguments: str) -> str:
    """The command with these arguments."""
    return f"{PROGRAM} {words(arguments)}".rstrip()


def anywhere(cwd: Path | None, *arguments: str) -> str:
    """The command as it works from any folder, as long as the same Python is active.

    Args:
        cwd: where it ran, which relative paths in its arguments start from; None where that is not known.
        arguments: of the command.
    """
    given = os.environ.get("PYTHONPATH")
    parts = [part or "." for part in given.split(os.pathsep)] if given else []  # an empty part is where it ran
    others = [part for part in parts if Path(part) != CHECKOUT]
    program = PROGRAM if cwd == CHECKOUT else PROGRAM.replace("run.py", words([str(CHECKOUT / "run.py")]))
    return " ".join(
        [
            *([f"cd {words([str(cwd)])} &&"] if cwd else []),
            *([f"PYTHONPATH={words([os.pathsep.join(others)])}"] if others else []),
            program,
            words(arguments),
        ]
    ).rstrip()


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, int | float) or (_BARE.fullmatch(value) and value.lower() not in _OTHERWISE_READ):
        return str(value)
    return str(QuotedString(value.replace("${", r"\${"), Quote.single).with_quotes())


def _word(argument: str) -> str:
    """The word; double quotes stand around single ones, which inside single quotes are hard to read."""
    is_plain_inside = "'" in argument and not re.search(r'["$`\\!]', argument)
    return f'"{argument}"' if is_plain_inside else shlex.quote(argument)
