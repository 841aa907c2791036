"""Mistakes of users, told in one line: what was wrong, what is allowed, what to do.

The line ends with a code, which the page of error messages explains. Hydra tells mistakes in several lines, the
helpful one first. ``report`` takes the place of Python's hook for exceptions that end a program; what is no user's
mistake keeps its traceback. Imported by every run, so it imports nothing heavy.
"""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from splitsem import extras, files
from splitsem.errors import ExtraError, RenamedError, SettingError, SplitSemError, coded
from splitsem.likeness import likeness
from splitsem.workflows.renamed import new_option

OPTION = "E-OPTION"
"""A group of the configuration has no such option."""

SYNTAX = "E-SYNTAX"
"""The command line cannot be read."""

FILE = "E-FILE"
"""A file cannot be read or written."""

_MOST = 200
"""Characters of a foreign message that are repeated."""


def wants_traceback() -> bool:
    """Whether the user asks for all of it."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def report(kind: type[BaseException], exc: BaseException, traceback: TracebackType | None) -> None:
    """See ``sys.excepthook``: one line for a user's mistake, else the traceback."""
    line = None if wants_traceback() else told(exc)
    if line is None:
        sys.__excepthook__(kind, exc, traceback)
    else:
        sys.stderr.write(f"{line}\n")


def told(exc: BaseException) -> str | None:
    """What a user is told of this exception, with its code; None when it is no mistake of theirs.

    >>> told(SplitPointError("no such point"))
    'no such point [E-SPLIT-POINT]'
    """
    if isinstance(exc, SplitSemError):
        return coded(exc, exc.code)
    if isinstance(exc, InstantiationException):
        return _not_made(exc)
    if (line := extras.line_of(exc)) is not None:
        return coded(line, ExtraError.code)
    if type(exc).__name__ == "TerminatedWorkerError":  # joblib's, which this does not import
        return coded(
            "a worker of the sweep was killed, perhaps for want of memory: give fewer (hydra.launcher.n_jobs); the "
            "same command goes on",
            SettingError.code,
        )
    if isinstance(exc, MissingConfigException) and exc.missing_cfg_file:
        return _no_option(str(exc.missing_cfg_file), exc.options or ())
    if isinstance(exc, OverrideParseException):
        said = str(exc).splitlines()
        what = exc.override if getattr(exc, "override", None) else "a setting of the command line"
        rule = "settings are NAME=VALUE without spaces, and lists and braces need quotes: 'NAME=[1,2]'"
        why = "" if said[0].startswith("Error parsing override") else f"{said[0]}; "
        return coded(f"cannot read {what}: {why}{rule}", SYNTAX)
    if isinstance(exc, OmegaConfBaseException):
        return _no_setting(exc)
    if isinstance(exc, HydraException):
        if isinstance(exc.__cause__, OmegaConfBaseException):
            return _no_setting(exc.__cause__)
        if (several := re.match(r"Ambiguous value for argument '([^=']+)=([^']*)'", str(exc))) is not None:
            name, values = several.groups()
            return coded(
                f"{name}={values} are several values: add -m to run each, or give one list: '{name}=[{values}]'", SYNTAX
            )
        return coded("; ".join(line for line in str(exc).splitlines() if line), OPTION)
    if isinstance(exc, ValueError) and "/hydra/_internal/" in _raised_in(exc):
        return coded(f"{short(exc)}: choose an option by GROUP=OPTION; GROUP=list names them", OPTION)
    return None


def _raised_in(exc: BaseException) -> str:
    """The file whose code raised it."""
    traceback = exc.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return Path(traceback.tb_frame.f_code.co_filename).as_posix() if traceback else ""


def short(said: object) -> str:
    """A foreign message on one line, of bounded length."""
    line = " ".join(str(said).split())
    return line if len(line) <= _MOST else f"{line[:_MOST]}…"


def no_such(group: str, name: str) -> str:
    """The options of a group of the composed configuration, the nearest one first."""
    return likeness(name, GlobalHydra.instance().config_loader().get_group_options(group))


def _no_option(file: str, options: Iterable[str]) -> str:
    """An option that its group lacks."""
    file = file.removeprefix("hydra/config/")
    group, _, option = file.rpartition("/")
    if (line := extras.line_of_option(file)) is not None:
        return coded(line, ExtraError.code)
    if new := new_option(group, option):
        return coded(f"{group}={option} is no more: give {new}", RenamedError.code)
    if option == "list":  # asked for by --help
        return f"{group}: {', '.join(map(str, options))}"
    return coded(f"{group or 'configuration'} has no option {option}: {likeness(option, options)}", OPTION)


def _no_setting(exc: OmegaConfBaseException) -> str:
    """A setting that its node lacks, has no value, or cannot be computed."""
    return coded(_setting_line(exc), SettingError.code)


def _setting_line(exc: OmegaConfBaseException) -> str:
    where = str(exc.full_key or exc.key or "")
    if isinstance(exc, MissingMandatoryValue):
        name = where or str(exc).rpartition(": ")[2]
        return must_be_given(name)
    said = short(exc.msg or str(exc)).split(" full_key:")[0]
    if "is not in struct" not in said and "not in '" not in said:
        return f"{where}: {said}" if where and where not in said else said
    parent, _, name = where.rpartition(".")
    siblings = exc.parent_node.keys() if isinstance(exc.parent_node, DictConfig) else ()
    whose = f"{parent} has" if parent else "there is"
    having = _options_with(parent, name)
    others = f"; it is a setting of {', '.join(having[:3])}{' and others' * (len(having) > 3)}" if having else ""
    if not siblings and (files.CONF / parent).is_dir():
        return f"{where} is no setting of the {parent} that is chosen{others}"
    if not siblings:
        return f"{where} is no setting: {parent} is a value" if parent else f"{where} is no setting"
    return f"{whose} no setting {name}: {likeness(name, (str(each) for each in siblings))}{others}"


def must_be_given(name: str) -> str:
    """The line for a setting without a value: with an example, or its meaning, from the file of the option chosen."""
    group = name.rpartition(".")[0].replace(".", "/") or "workflow"
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    option = next((str(choices[each]) for each in choices if each.partition("@")[0] == group), "")
    file = files.CONF / group / f"{option}.yaml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if (example := re.search(rf"(?<!\S){re.escape(name)}=[^\s,;`]+", text)) is not None:
        return f"{name} must be given: {name}=…, e.g. {example[0]}"
    if (meaning := re.search(rf"^{re.escape(name.rpartition('.')[2])}: \?\?\? # (.*)", text, re.MULTILINE)) is not None:
        return f"{name} must be given: {name}=…, {meaning[1]}"
    where = f"conf/{group}/{option}.yaml" if text else "its file below conf/"
    return f"{name} must be given: {name}=…; {where} says what it is"


def _options_with(group: str, name: str) -> list[str]:
    """The options of a group that have a setting of this name, as a command chooses them: ``exit=confidence``.

    Of a setting that such an option puts beside its group, they say so: ``workflow=report, as folders=…``.
    """
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((files.CONF / group).glob("*.yaml"))}
    if name in ("defaults", "hydra", group):  # of files, not of options
        return []
    found = {stem: text for stem, text in texts.items() if re.search(rf"^{re.escape(name)}:", text, re.MULTILINE)}
    return [f"{group}={stem}{f', as {name}=…' * ('@package _global_' in text)}" for stem, text in found.items()]


def _not_made(exc: InstantiationException) -> str | None:
    """An object that could not be made of its settings; None where its constructor has a fault of its own."""
    match = re.search(r"full_key: (\S+)", str(exc))
    where = match[1] if match else ""
    cause: BaseException = exc
    while cause.__cause__ is not None and isinstance(cause, HydraException):
        cause = cause.__cause__
    if isinstance(cause, SplitSemError):
        return coded(cause, cause.code)
    if (line := extras.line_of(cause, where or "this")) is not None:
        return coded(line, ExtraError.code)
    if isinstance(cause, OmegaConfBaseException):
        return _no_setting(cause)
    line = None
    if isinstance(cause, ValueError):
        line = f"{where}: {cause}" if where else str(cause)
    elif isinstance(cause, TypeError | ImportError | AttributeError | OSError | HydraException):
        line = f"{where}: {short(str(cause).splitlines()[0])}"
    elif isinstance(cause, MemoryError | OverflowError) or "allocate memory" in str(cause):
        line = f"{where}: with these sizes there is not memory enough ({short(cause)})"
    return None if line is None else coded(line, SettingError.code)
