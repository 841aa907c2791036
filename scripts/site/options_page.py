"""A page for each group of ``conf/``: its options, and each setting with type, default, unit and meaning."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from scripts.site.option_files import OptionFile, Setting, read
from splitsem.workflows.settings import RULES, _checkable, _hints, in_words

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
LEFT_OUT = (
    "hydra",
    "task/settings",
    "codec/stage",
)  # Hydra's own; what a task sets for a model; shown where it is used
UNITS = {
    "_bytes_per_s": "bytes/s",
    "_flops_per_s": "FLOP/s",
    "_j_per_bit": "J/bit",
    "_per_s": "1/s",
    "_bps": "bit/s",
    "_bytes": "bytes",
    "_hz": "Hz",
    "_db": "dB",
    "_j": "J",
    "_w": "W",
    "_s": "s",
    "rtt": "s",
}
PLACES = {"config": "", "hardware/machine": "hardware.edge", "partition": "federated.partition"}
"""Where the settings of a group stand on the command line, if not under the group's own name."""


@dataclass
class Row:
    """A setting as the reference shows it."""

    name: str
    kind: str
    default: str
    unit: str
    meaning: str


@cache
def options() -> dict[str, list[OptionFile]]:
    """The option files by group, ``hardware/machine`` for a group in a group; the parents' settings included."""
    groups: dict[str, list[OptionFile]] = {}
    for path in sorted(CONF.rglob("*.yaml"), key=lambda path: (path.parent, _natural(path.stem))):
        group = str(path.parent.relative_to(CONF)).replace(".", "config")
        if not group.startswith(LEFT_OUT):
            groups.setdefault(group, []).append(read(path))
    for found in groups.values():
        by_name = {option.path.stem: option for option in found}
        for option in found:
            _inherit(option, by_name)
    return groups


def _natural(name: str) -> list[Any]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _inherit(option: OptionFile, by_name: dict[str, OptionFile]) -> None:
    for place, name, _ in option.choices:
        group = place.partition("@")[0].removeprefix("override ").strip()
        file = (CONF if group.startswith("/") else option.path.parent) / group.lstrip("/") / f"{name}.yaml"
        if "@" in place and file.exists():
            beneath = {f"{_mounted(place)}.{setting.name}": setting for setting in read(file).settings}
            for setting in option.settings:
                if setting.name in beneath:
                    setting.comment = setting.comment or beneath[setting.name].comment
                    setting.target = setting.target or beneath[setting.name].target
    for name in option.parents:
        parent = by_name.get(name)
        if parent is None:
            continue
        _inherit(parent, by_name)
        option.target = option.target or parent.target
        own = {setting.name: setting for setting in option.settings}
        merged = [
            Setting(s.name, own[s.name].value, own[s.name].comment or s.comment, s.target, own[s.name].note or s.note)
            if s.name in own
            else s
            for s in parent.settings
        ]
        known = {setting.name for setting in merged}
        option.settings = merged + [setting for name, setting in own.items() if name not in known]


def row(group: str, option: OptionFile, setting: Setting) -> Row:
    """What is known of a setting from its file, from the constructor it goes to, and from the workflows' rules."""
    full = full_name(group, option, setting)
    last = setting.name.rpartition(".")[2]
    kind = meaning = ""
    if setting.target:
        made = get_object(setting.target)
        hints = _hints(made)
        if last in hints:
            kind = _type(hints[last])
        meaning = described(made).get(last, "")
    if full in RULES:
        kind = in_words(RULES[full])
    meaning = _both(setting.comment, meaning) or setting.note
    unit = next((unit for ending, unit in UNITS.items() if last.endswith(ending)), "")
    meaning = meaning or next((said for place, _, said in option.choices if _mounted(place) == setting.name), "")
    return Row(full, kind or _guess(setting.value), setting.value, unit, meaning)


def full_name(group: str, option: OptionFile, setting: Setting) -> str:
    """The setting's name on the command line."""
    place = "" if option.is_global else PLACES.get(group, group.replace("/", "."))
    return f"{place}.{setting.name}".lstrip(".")


def _mounted(choice: str) -> str:
    """Where a choice of the defaults list puts the option: ``/codec@downlink_codec`` at ``downlink_codec``."""
    return choice.rpartition("@")[2].lstrip("/")


def _both(comment: str, described_as: str) -> str:
    """The docstring's words, then what the file adds: a docstring may say no more than where to look."""
    if described_as.startswith("see ") and comment:
        return comment
    if not comment or not described_as or comment.rstrip(".") in described_as:
        return described_as or comment
    return f"{described_as.rstrip('.')}. {comment[0].upper()}{comment[1:]}"


def _type(hint: Any) -> str:
    words = in_words(_checkable(hint))
    return "an object" if words == "something else" else words


def _guess(value: str) -> str:
    """The type of a value where nothing else says it."""
    if value in ("true", "false"):
        return "true or false"
    if re.fullmatch(r"[-+]?\d+", value):
        return "a whole number"
    if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value):
        return "a number"
    if value.startswith(("[", "a list")):
        return "a list"
    return "names with values" if value.startswith(("{", "…")) else "text, or null" if value == "null" else "text"


def described(made: Callable[..., Any]) -> dict[str, str]:
    """What docstrings say of each argument: the constructor's, its class's, and those of the classes above."""
    sources = [made.__init__, *made.__mro__] if inspect.isclass(made) else [made]
    found: dict[str, str] = {}
    for source in sources:
        for name, text in _arguments(inspect.cleandoc(source.__doc__ or "")):
            found.setdefault(name, text)
    return found


def _arguments(doc: str) -> Iterator[tuple[str, str]]:
    """Names and texts of a docstring's Google-style sections ``Args`` and ``Attributes``."""
    for section in re.findall(r"^(?:Args|Attributes|Arguments|Parameters):\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE):
        for entry in re.split(r"^ {4}(?=\*{0,2}[\w`])", section, flags=re.MULTILINE):
            names, colon, text = entry.partition(":")
            names = re.sub(r"\(.*?\)|`", "", names)
            if colon and re.fullmatch(r"[\w*, ]+", names.strip()):
                for name in names.split(","):
                    yield name.strip(), " ".join(text.split())


def rows(group: str, option: OptionFile) -> list[Row]:
    """The settings of an option, in the file's order; what is explained in another file only is taken from there."""
    found = [row(group, option, setting) for setting in option.settings]
    for each in found:
        each.meaning = each.meaning or elsewhere().get(each.name, "")
    return found


@cache
def elsewhere() -> dict[str, str]:
    """What any option file says of a setting, by its full name."""
    return {
        full_name(group, option, setting): setting.comment
        for group, found in reversed(options().items())
        for option in found
        for setting in option.settings
        if setting.comment
    }


def pages() -> dict[str, str]:
    """The Markdown of each page by its name: ``codec.md`` for the group and all groups inside it."""
    groups = options()
    texts: dict[str, str] = {}
    for top in dict.fromkeys(group.partition("/")[0] for group in groups):
        inner = {group: found for group, found in groups.items() if group.partition("/")[0] == top}
        texts[f"{top}.md"] = _page(top, inner)
    return texts


def _page(top: str, groups: dict[str, list[OptionFile]]) -> str:
    title = "General settings" if top == "config" else f"`{top}`"
    lines = [f"# {title}", "", f"*Made of `conf/` and of the constructors' docstrings.* {_how(top)}", ""]
    for group, found in groups.items():
        if group != top:
            lines += [f"## `{group}`", ""]
        if top != "config":
            lines += ["| option | what it is |", "|---|---|"]
            lines += [f"| `{option.path.stem}` | {cell(option.summary)} |" for option in found] + [""]
        if top == "experiment":
            continue
        for options_ in _of_one_class(found):
            lines += _section(group, options_, "##" if group == top else "###")
    return "\n".join(lines)


def _how(top: str) -> str:
    if top == "config":
        return "Give each by its name: `python run.py seed=1`."
    return f"Choose an option by `{top}=NAME`, change a setting by its full name, list values with `-m` to sweep it."


def _of_one_class(found: list[OptionFile]) -> list[list[OptionFile]]:
    """Options with settings, together where the same class takes them."""
    together: dict[str, list[OptionFile]] = {}
    for option in found:
        if option.settings or option.choices:
            names = ",".join(setting.name for setting in option.settings)
            together.setdefault(f"{option.target} {names}" if option.target else str(option.path), []).append(option)
    return list(together.values())


def _section(group: str, found: list[OptionFile], level: str) -> list[str]:
    first = min(found, key=lambda option: len(option.parents))
    names = ", ".join(f"`{option.path.stem}`" for option in found)
    lines = [f"{level} {names}" if group != "config" else "## Settings", ""]
    if first.target:
        lines += [f"Class: `{first.target}`", ""]
    if first.choices:
        lines += ["| group choice | meaning | default |", "|---|---|---|"]
        lines += [f"| `{choice}` | {cell(comment)} | `{option}` |" for choice, option, comment in first.choices] + [""]
    table = rows(group, first)
    if table:
        lines += ["| setting | meaning | type | default | unit |", "|---|---|---|---|---|"]
        lines += [
            f"| `{each.name}` | {cell(each.meaning)} | {cell(each.kind)} | `{cell(each.default)}` "
            f"| {each.unit or '–'} |"
            for each in table
        ] + [""]
    if len(found) > 1 and any(setting.note for setting in first.settings):
        lines += ["The first lines of each option's file say where its values come from.", ""]
    return lines + _values(found)


def _values(found: list[OptionFile]) -> list[str]:
    """A table of what differs between options of one class."""
    by_option = [{setting.name: setting.value for setting in option.settings} for option in found]
    names = [name for name in by_option[0] if len({values.get(name) for values in by_option}) > 1]
    if len(found) < 2 or not names:
        return []
    lines = [
        "| option | " + " | ".join(f"`{name}`" for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for option, values in zip(found, by_option, strict=True):
        shown = " | ".join(f"`{cell(values.get(name, '–'))}`" for name in names)
        lines.append(f"| `{option.path.stem}` | {shown} |")
    return [*lines, ""]


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").strip()


def without_meaning() -> list[str]:
    """The settings that neither their file nor a docstring explains, as ``group: option: setting``."""
    missing: dict[str, None] = {}
    for group, found in options().items():
        if group == "experiment":
            continue
        for option in found:
            for each in rows(group, option):
                if not each.meaning:
                    target = next(s.target for s in option.settings if each.name.endswith(s.name))
                    missing[f"{group}: {target or option.path.stem}: {each.name}"] = None
    return list(missing)
