"""Mistakes of users, told in one line: what was wrong, what is allowed, what to do.

The line ends with a code, which the page of error messages explains. Hydra tells mistakes in several lines, the
helpful one first. ``report`` takes the place of Python's hook for exceptions that end a program; what is no user's
mistake keeps its traceback. Imported by every run, so it imports nothing heavy.
"""

import inspect
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
from splitsem.likeness import likeness, nearest
from splitsem.workflows.renamed import new_option

OPTION = "E-OPTION"
"""A group of the configuration has no such option."""

SYNTAX = "E-SYNTAX"
"""The command line cannot be read."""

FILE = "E-FILE"
"""A file cannot be read or written."""

_AS_JOBS = (
    "; a sweep without an exit and with it lists its jobs: experiment=early_exit "
    '\'hydra.sweeper.jobs=["exit=none","exit.max_loss=0.03"]\' -m'
)

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

    >>> told(SettingError("no such setting"))
    'no such setting [E-SETTING]'
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
            return _no_setting(exc.__cause__, str(exc))
        if (several := re.match(r"Ambiguous value for argument '([^=']+)=([^']*)'", str(exc))) is not None:
            name, values = several.groups()
            return coded(
                f"{name}={values} are several values: add -m to run each, or give one list: '{name}=[{values}]'", SYNTAX
            )
        return coded(_not_composed(str(exc)), OPTION)
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


def _not_composed(said: str) -> str:
    """What Hydra says of settings that do not go together, without advice that would be followed in vain."""
    if (there := re.match(r"Could not append to config\. An item is already at '(.+)'", said)) is not None:
        return f"{there[1]} is there already: give {there[1]}=VALUE, without +"
    if (several := re.match(r"Multiple values for (.+?)\. .*: (.*)'", said)) is not None:
        return f"an option of {several[1]} is chosen already: give {several[1]}={several[2]}, without +"
    unused = re.match(r"Could not override '([^']+)'\.(?s:.*)\+[^=\s]+=(.*)$", said)
    if unused is not None and (files.CONF / (group := unused[1].partition("@")[0])).is_dir():
        meant = re.search(r"Did you mean to override (?:one of )?(.*)\?", said)
        others = meant[1].split(", ") if meant else []
        return f"nothing reads {unused[1]}={unused[2]}: {elsewhere(group, unused[1], unused[2], others)}"
    return "; ".join(line for line in said.splitlines() if line)


def elsewhere(group: str, name: str, option: str, others: Iterable[str]) -> str:
    """Where an option of a group is read, for one that is given where nothing reads it.

    Args:
        group: of the configuration.
        name: where it was given, as ``group`` or ``group@place``.
        option: its name.
        others: the names by which options of the group are chosen in this configuration.

    >>> elsewhere("codec", "codec@trainer.gradient", "quant4", ["codec", "codec@trainer.gradient_codec", "codec@a.b"])
    'did you mean codec@trainer.gradient_codec=quant4? There are codec, codec@a.b, codec@trainer.gradient_codec'
    """
    place = name.partition("@")[2]
    known = sorted(others, key=lambda one: (one.rpartition(".")[2] != place.rpartition(".")[2], one))
    if not known:
        users = _users(group)
        return f"{group} is for {' and '.join(users)}" if users else f"{group} is for no place of this configuration"
    if len(known) <= 2:
        return f"give {' or '.join(f'{one}={option}' for one in known)}"
    if near := nearest(name, known):
        return f"did you mean {near}={option}? There are {', '.join(known)}"
    return f"there are {', '.join(known)}; where a class takes an option as its argument, + adds it: +{name}={option}"


def _users(group: str) -> list[str]:
    """The options whose defaults choose one of a group, as a command chooses them: ``workflow=joint``."""
    above, _, last = group.rpartition("/")
    always, found = (files.CONF / "config.yaml").read_text(encoding="utf-8"), []
    for path in sorted(files.CONF.glob("*/**/*.yaml")):
        own = path.parent.relative_to(files.CONF).as_posix()
        name = f"(?:/{re.escape(group)}{f'|{re.escape(last)}' * (own == above)})"
        if own != group and re.search(rf"^ *- {name}(?:@[\w.]+)?:", path.read_text(encoding="utf-8"), re.MULTILINE):
            found += [f"{own}={path.stem}"] if f"\n  - {own}: " in always else _users(own)
    return list(dict.fromkeys(found))


def no_such(group: str, name: str) -> str:
    """The options of a group of the composed configuration, the nearest one first."""
    return _options(group, name, GlobalHydra.instance().config_loader().get_group_options(group))


def _options(group: str, name: str, options: Iterable[str]) -> str:
    """The options, the nearest one first, and the folder here that has the one that was meant."""
    own = files.own_option(group, name)
    return likeness(name, options) + (f"; {own} is found by --config-dir={own.parts[0]}" if own else "")


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
    return coded(f"{group or 'configuration'} has no option {option}: {_options(group, option, options)}", OPTION)


def _no_setting(exc: OmegaConfBaseException, said: str = "") -> str:
    """A setting that its node lacks, has no value, or cannot be computed; ``said`` is what Hydra says of it."""
    return coded(_setting_line(exc, said), SettingError.code)


def _setting_line(exc: OmegaConfBaseException, by_hydra: str = "") -> str:
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
        jobs = _AS_JOBS if parent == "exit" and {"-m", "--multirun"} & {*sys.argv} else ""
        return f"{where} is no setting of the {parent} that is chosen{others}{jobs}"
    if not siblings:
        return f"{where} is no setting: {parent} is a value" if parent else f"{where} is no setting"
    taken = [] if parent == "workflow" else _taken(exc.parent_node)  # a workflow's function takes no settings
    if name in taken and name not in siblings:
        added = re.search(r"use (\+\S+=.*)$", by_hydra)
        adding = added[1] if added else f"+{where}=VALUE"
        return f"{where} is not in the file of the option, but its class takes it: {adding} adds it"
    return f"{whose} no setting {name}: {likeness(name, dict.fromkeys([*map(str, siblings), *taken]))}{others}"


def _taken(node: object) -> list[str]:
    """What the constructor takes that a node's ``_target_`` names; nothing where it names none that can be loaded."""
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if not isinstance(target, str):
        return []
    from splitsem.workflows.own_model import find  # loads torch

    try:
        parameters = inspect.signature(find(target, "it")).parameters.values()
    except (SplitSemError, TypeError, ValueError):  # told when it is made; or written in C
        return []
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]


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
    if (lacking := re.search(r"missing \d+ required .*arguments?: (.*)", str(cause))) and where:
        names = re.findall(r"'(\w+)'", lacking[1])
        line = f"{where} needs {' and '.join(names)}: give {' '.join(f'+{where}.{name}=VALUE' for name in names)}"
    elif isinstance(cause, ValueError):
        line = f"{where}: {cause}" if where else str(cause)
    elif isinstance(cause, TypeError | ImportError | AttributeError | OSError | HydraException):
        line = f"{where}: {short(str(cause).splitlines()[0])}"
    elif isinstance(cause, MemoryError | OverflowError) or "allocate memory" in str(cause):
        line = f"{where}: with these sizes there is not memory enough ({short(cause)})"
    return None if line is None else coded(line, SettingError.code)
