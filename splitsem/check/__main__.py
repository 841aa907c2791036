"""python -m splitsem.check: try the contract of a class, a function or an option, and say which promises are broken."""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from splitsem import extras, files
from splitsem.errors import ConfigError, ContractError, SettingError, SplitSemError, coded
from splitsem.likeness import likeness, nearest

_GROUPS = ("codec", "task", "model", "transport", "hardware/machine")
_FACTS: dict[str, Any] = {
    "input_shape": [3, 32, 32],
    "output_shape": [10],
    "tensor_shape": [3, 16, 16],
    "num_classes": 10,
}
_ABOUT_TASK = ("task=", "task.", "task@", "task/", "+task.", "++task.")
_HELP = f"""\
Try the contract of a codec, task, link, machine or model, and print each promise that is broken.

  python -m splitsem.check my_package.MyCodec level=9        a class, and arguments of its constructor
  python -m splitsem.check my_package.MyNet input_shape=[1,28,28] output_shape=[10]
  python -m splitsem.check my_package.make_net               a function that makes one
  python -m splitsem.check codec=quant8 codec.bit_width=3    an option of a group, and settings of it
  python -m splitsem.check hardware/machine=laptop_cpu hardware.machine.overhead_s=1e-5    as their group is named
  python -m splitsem.check task=mine --config-dir=my_conf +task.size=30    of yours; + adds what its file lacks
  python -m splitsem.check model=tiny_bert task=texts task.root=texts.csv    a model, with a task's inputs

The kind shows in the class: a subclass of Codec, Task, Link or Machine; any other nn.Module is a model. Groups of
options: {", ".join(_GROUPS)}. Values are YAML: 3, 1.0e-3, true, null, [1, 8, 8].
A constructor that names one of these facts gets an example of it, where you give none:
{", ".join(f"{name}={value}" for name, value in _FACTS.items())}.
A model with other inputs than one tensor needs a task, which shows them, gives the facts, and is not checked itself.
"""
_EPILOG = (
    "Exit status: 0 where every promise is kept, else 1. In a test of yours: from splitsem.check import check_codec"
)


class _Part(NamedTuple):
    """What is to be checked: what makes one, the class or function behind it, and the facts given or assumed.

    Attributes:
        task: whose inputs a model gets; None: one tensor of ``input_shape``.
    """

    make: Callable[[], Any]
    target: Any
    facts: dict[str, Any]
    task: Any


def main(arguments: list[str] | None = None) -> int:
    """Check what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m splitsem.check",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", help="package.module.Class, or group=option")
    parser.add_argument(
        "settings", nargs="*", metavar="name=value", help="arguments of the constructor, or settings of the option"
    )
    parser.add_argument("--config-dir", metavar="FOLDER", help="your own options, as run.py's --config-dir")
    parser.add_argument("-v", "--verbose", action="store_true", help="also list the promises that are kept")
    asked = parser.parse_intermixed_args(arguments)
    try:
        kind, kept = _check(part := _asked(asked.part, asked.settings, asked.config_dir))
    except (SplitSemError, ValueError) as exc:
        code = exc.code if isinstance(exc, SplitSemError) else SettingError.code
        sys.stdout.write(f"{coded(exc, code)}\n")
        if asked.verbose and isinstance(exc, ContractError):
            sys.stdout.writelines(["kept:\n", *(f"  {promise}\n" for promise in exc.kept)])
        return 1
    sys.stdout.write(f"ok: {part.make.__name__} keeps the contract of a {kind} ({len(kept)} promises)\n")
    if asked.verbose:
        sys.stdout.writelines(f"  {promise}\n" for promise in kept)
    return 0


def _asked(name: str, settings: list[str], config_dir: str | None) -> _Part:
    """The part that a class, or an option of a group, stands for; where a task is given for it, with its facts."""
    of_task = [] if name.startswith("task=") else [one for one in settings if one.startswith(_ABOUT_TASK)]
    choice = next((one for one in of_task if one.startswith("task=")), None)
    settings = [one for one in settings if one not in of_task]
    task, known = None, _FACTS
    if choice is not None:
        task = _made(_option(choice, [one for one in of_task if one != choice], [], config_dir, {}), "a task")
        known = task.model_facts()
    elif of_task:
        raise ConfigError(f"{of_task[0]} is a setting of a task: add task=NAME")
    if "=" in name:
        return _option(name, settings, of_task, config_dir, known)._replace(task=task)
    return _part({"_target_": name}, _values(settings), name.rpartition(".")[2], known)._replace(task=task)


def _values(settings: list[str]) -> dict[str, Any]:
    import yaml

    values = {}
    for setting in settings:
        name, is_given, text = setting.partition("=")
        if not is_given or not name:
            raise ConfigError(f"settings are name=value, e.g. level=9, got {setting!r}")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as exc:
            raise ConfigError(f"the value of {name} must be YAML, e.g. 3 or [1,8,8], got {text!r}") from exc
    return values


def _option(
    choice: str, settings: list[str], beside: list[str], config_dir: str | None, known: dict[str, Any]
) -> _Part:
    """An option of a group of the configuration, as run.py would compose it with these others beside it."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    group, _, option = choice.partition("=")
    if group not in _GROUPS:
        near = nearest(group, _GROUPS)
        hint = f" (did you mean {near}?)" if near else ""
        raise ConfigError(
            f"a group of options is one of {', '.join(_GROUPS)}, got {group!r}{hint}; or give package.module.Class"
        )
    facts = [setting for setting in settings if setting.partition("=")[0] in known]
    for setting in settings:
        if setting not in facts:
            _check_place(setting, group, choice)
    search = [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"]
    chosen = [*search, *(setting for setting in settings if setting not in facts)]
    try:
        with initialize_config_dir(str(files.CONF), version_base="1.3"):
            if group == "task" or beside:  # its file may choose a model, which only the whole configuration has
                whole = compose("config", [*beside, f"{group}={option}", *chosen])
            else:
                whole = compose(overrides=[f"+{group}={option}", *chosen])
            cfg = OmegaConf.select(whole, group.replace("/", "."))
            plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as exc:
        if isinstance(exc, MissingMandatoryValue):
            raise ConfigError(f"{choice}: {exc.full_key} is required; give {exc.full_key}=VALUE") from exc
        if isinstance(exc, MissingConfigException) and exc.options:
            own = files.own_option(group, option)
            where = f"; {own} is found by --config-dir={own.parts[0]}" if own else ""
            raise ConfigError(f"{group} has no option {option}: {likeness(option, exc.options)}{where}") from exc
        if (unlisted := re.match(r"Could not override '([^'@/]+)'", str(exc))) is not None:
            part = _option(choice, [], [], config_dir, known)
            raise ConfigError(_not_listed(unlisted[1], choice, inspect.signature(part.target).parameters)) from exc
        why = " ".join(str(exc).partition("Config search path")[0].split()).removeprefix("In '_dummy_empty_config_': ")
        raise ConfigError(f"{choice}: {why}") from exc
    if not isinstance(plain, dict) or "_target_" not in plain:
        has = f", and has {', '.join(map(str, plain))}" if isinstance(plain, dict) and plain else ""
        raise ConfigError(f"{choice}: the option's file must name a class as _target_:{has}")
    return _part({str(key): value for key, value in plain.items()}, _values(facts), choice, known)


def _check_place(setting: str, group: str, choice: str) -> None:
    """Raise ConfigError for a setting outside of the option's group, which nothing would read."""
    place, name = group.replace("/", "."), setting.lstrip("+~")
    if name.startswith((f"{place}.", f"{group}/", f"{group}@")):
        return
    rule = f"give {place}.{name}, with + in front where the option's file does not list it"
    outside = f"those begin with {place}., as in {place}.NAME=VALUE"
    raise ConfigError(f"{setting} is no setting of {choice}: {outside if '.' in name.partition('=')[0] else rule}")


def _not_listed(setting: str, choice: str, taken: Iterable[str]) -> str:
    """The line for a setting that the file of the option lacks; the constructor may take it."""
    name = setting.rpartition(".")[2]
    if name in taken:
        return f"{choice}: its file does not list {name}, but its class takes it: +{setting}=VALUE adds it"
    return f"{choice} has no setting {setting}: {likeness(name, taken)}"


def _part(settings: dict[str, Any], given: dict[str, Any], name: str, known: dict[str, Any]) -> _Part:
    """What makes the object of these settings, and the facts that its constructor names."""
    from pkgutil import resolve_name

    from hydra.utils import instantiate

    path = settings["_target_"]
    try:
        target = resolve_name(path)
        named = inspect.signature(target).parameters
    except (Exception, SystemExit) as exc:  # a plug-in's module may raise anything
        if (line := extras.line_of(exc, path)) is not None:
            raise ConfigError(line) from exc
        kind = "" if isinstance(exc, ImportError | AttributeError | ValueError) else f"{type(exc).__name__}: "
        why = " ".join(f"{kind}{exc}".split())
        near = nearest(path.rpartition(".")[2], [one for one in dir(getattr(exc, "obj", None)) if one[0] != "_"])
        why += f"; did you mean {near}?" if isinstance(exc, AttributeError) and near else ""
        raise ConfigError(
            f"{path}: no such class or function ({why}); give package.module.Class, from its folder"
        ) from exc
    takes_any = any(one.kind is one.VAR_KEYWORD for one in named.values())
    if unknown := [one for one in given if one not in named and one not in known and not takes_any]:
        raise ConfigError(f"{path} has no argument {unknown[0]!r}; it has {', '.join(named) or 'none'}")
    facts = _FACTS | known | {one: value for one, value in given.items() if one in known}
    arguments = {one: value for one, value in (known | given).items() if one in named or (takes_any and one in given)}
    for_hydra = (
        {key: value for key, value in settings.items() if key not in arguments} | arguments | {"_convert_": "all"}
    )

    def make() -> Any:
        from hydra.errors import InstantiationException

        try:
            return instantiate(for_hydra)
        except InstantiationException as exc:
            raise (exc.__cause__ or exc) from None  # what the constructor itself raised

    if "output_shape" not in named and "output_shape" not in given:
        facts["output_shape"] = None
    make.__name__ = name
    return _Part(make, target, facts, task=None)


def _check(part: _Part) -> tuple[str, tuple[str, ...]]:
    """Check one part by the function for its kind; returns the kind and the promises that were kept."""
    from torch import nn

    from splitsem import check
    from splitsem.codecs.codec import Codec
    from splitsem.cost.machines import Machine
    from splitsem.links.link import Link
    from splitsem.tasks.task import Task

    kind = part.target if inspect.isclass(part.target) else type(_made(part, "a function that makes a part"))
    is_model = issubclass(kind, nn.Module) and not issubclass(kind, Codec)
    if part.task is not None and not is_model:
        raise ConfigError(f"{part.make.__name__} is no model, and needs no task")
    if issubclass(kind, Codec):
        return "codec", check.check_codec(part.make, part.facts["tensor_shape"])
    if is_model:
        example, shape = part.facts["input_shape"], part.facts["output_shape"]
        if part.task is not None:
            example, shape = part.task.example(), part.task.output_shape
        return "model", check.check_model(part.make, example, shape)
    for base, word, function in (
        (Task, "task", check.check_task),
        (Link, "link", check.check_link),
        (Machine, "machine", check.check_machine),
    ):
        if issubclass(kind, base):
            return word, function(part.make)
    raise ConfigError(
        f"{part.make.__name__}: a Codec, Task, Link, Machine or nn.Module has a contract to check, got {kind.__name__}"
    )


def _made(part: _Part, what: str) -> Any:
    """What a constructor or function makes. Raises ContractError where it makes nothing."""
    from splitsem.check.promises import Promises

    made: list[Any] = []
    promises = Promises(what)
    promises.name = part.make.__name__
    promises.hold_once("it can be called", lambda: made.append(part.make()))
    promises.finish()
    return made[0]


if __name__ == "__main__":
    sys.exit(main())
