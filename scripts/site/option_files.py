"""Option files of ``conf/`` with their comments: each setting's value, and what the file says about it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

HYDRAS = ("defaults", "hydra", "_target_", "_args_", "_convert_", "_partial_", "_recursive_")
_COMMAND = re.compile(r"(python run\.py(?: -m| [\w@/.+~-]+=[^\s;]*[^\s;.,:)])+)")
ABOUT = re.compile(r"(?P<names>[a-z]\w*(?:\.\w+)*(?:, \w+(?:\.\w+)*)*): (?P<text>.+)")


@dataclass
class Setting:
    """One value of an option file.

    Attributes:
        name: dotted, as it stands behind the group's name on the command line.
        value: as the file writes it.
        comment: what the file says beside, above or below it; empty where it says nothing.
        target: the dotted name of what it is given to; empty where a workflow reads it itself.
        note: what the file's first lines say of this value, mostly where it comes from.
    """

    name: str
    value: str
    comment: str
    target: str
    note: str = ""


@dataclass
class OptionFile:
    """An option: what it is, its settings, and the options of the same group that it builds upon."""

    path: Path
    summary: str
    target: str
    is_global: bool = False  # its settings have full names, whatever its group is called
    settings: list[Setting] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    choices: list[tuple[str, str, str]] = field(default_factory=list)  # group@place, option, comment


def read(path: Path) -> OptionFile:
    """The file's settings in order, with the comments beside, below or above each, or in the file's first lines."""
    text = path.read_text()
    lines = text.splitlines()
    header, about = _header(lines)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    option = OptionFile(path, header, "", "# @package _global_" in lines[:1])
    if isinstance(root, yaml.MappingNode):
        option.target = _target(root)
        _walk(root, "", option, lines, text, option.target)
        _defaults(root, option, lines)
    for setting in option.settings:
        setting.note = about.get(setting.name, "")
    return option


def _header(lines: list[str]) -> tuple[str, dict[str, str]]:
    """The first comment lines: the sentence of the whole file, and what they say of settings by name."""
    entries: list[list[str]] = [[]]
    for line in lines:
        if not line.startswith("#"):
            break
        if line.startswith("# @package"):
            continue
        said = line.lstrip("#").strip()
        if ABOUT.fullmatch(said) and not line.startswith("#  "):
            entries.append([])
        entries[-1].append(said)
    about: dict[str, str] = {}
    for entry in entries[1:]:
        found = ABOUT.fullmatch(" ".join(entry))
        assert found is not None
        about |= dict.fromkeys(found["names"].split(", "), found["text"])
    return _COMMAND.sub(r"`\1`", " ".join(entries[0])), about


def _target(node: yaml.MappingNode) -> str:
    name = next((value.value for key, value in node.value if key.value == "_target_"), "")
    return "" if name == "???" else name


def _walk(node: yaml.MappingNode, where: str, option: OptionFile, lines: list[str], text: str, target: str) -> None:
    for key, value in node.value:
        if key.value in HYDRAS:
            continue
        name = f"{where}.{key.value}".lstrip(".")
        comment = _comment(key, value, lines)
        is_block = isinstance(value, yaml.MappingNode) and not value.flow_style
        if is_block and value.value:
            inner = _target(value)
            if comment:
                option.settings.append(Setting(name, inner.rpartition(".")[2] or "…", comment, target))
            _walk(value, name, option, lines, text, inner)
            continue
        written = text[value.start_mark.index : value.end_mark.index].strip()
        if isinstance(value, yaml.SequenceNode) and not value.flow_style:
            written = f"a list of {len(value.value)}"
        option.settings.append(Setting(name, written or "null", comment, target))


def _comment(key: yaml.Node, value: yaml.Node, lines: list[str]) -> str:
    """The comment behind a setting and its further lines, else the comment lines right above it."""
    number, column = key.start_mark.line, key.start_mark.column
    is_scalar = not isinstance(value, yaml.CollectionNode) or value.flow_style
    end = value.end_mark.line if is_scalar and value.value not in ("", []) else number
    behind = lines[end][value.end_mark.column if end == value.end_mark.line else key.end_mark.column :]
    said = [behind.partition("#")[2].strip()] if "#" in behind else []
    if said:
        for line in lines[end + 1 :]:
            if not re.match(rf" {{{column + 1},}}#", line):
                break
            said.append(line.strip().lstrip("#").strip())
        return " ".join(said)
    above: list[str] = []
    while number and re.match(rf" {{{column}}}#", lines[number - 1]) and _is_inside(lines, number - 1):
        number -= 1
        above.insert(0, lines[number].strip().lstrip("#").strip())
    return " ".join(above)


def _is_inside(lines: list[str], number: int) -> bool:
    """Whether a comment line is not one of the file's first ones."""
    return any(line and not line.startswith("#") for line in lines[:number])


def _defaults(root: yaml.MappingNode, option: OptionFile, lines: list[str]) -> None:
    for key, value in root.value:
        if key.value != "defaults":
            continue
        for entry in value.value:
            line = lines[entry.start_mark.line]
            comment = line.partition("#")[2].strip()
            if isinstance(entry, yaml.ScalarNode):
                if entry.value != "_self_":
                    option.parents.append(entry.value)
                continue
            ((group, chosen),) = [(k.value, v.value) for k, v in entry.value]
            option.choices.append((group, chosen, comment))
