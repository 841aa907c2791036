"""zoo_list: the networks of workflow=zoo, as a YAML file lists them, with inputs of the shapes and types they take."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn

from splitsem.errors import ConfigError
from splitsem.network import reason
from splitsem.trees import mapped
from splitsem.workflows.own_model import find

COMMITTED = Path(__file__).parents[2] / "experiments" / "zoo" / "networks.yaml"
_OWN = {"network", "family", "source", "input"}  # what else an entry holds is its constructor's


class Entry(NamedTuple):
    """One network of the list.

    Attributes:
        name: unique.
        family: networks of one design, a row of the figure.
        source: the package that it comes from.
        target: ``_target_`` and that constructor's arguments, which may be made alike.
        input: the shape of one float tensor without the batch, ``[3, 64, 64]``; or ``{shape: [16], below: 1000}`` for
            whole numbers from 0; or a list of these for several inputs by position, or a mapping by name.
    """

    name: str
    family: str
    source: str
    target: dict[str, Any]
    input: Any

    def make(self) -> nn.Module:
        """The network with random weights, the same each time, in eval mode.

        Raises:
            ConfigError: its class cannot be imported or made.
        """
        find(str(self.target["_target_"]), self.name)
        torch.manual_seed(0)
        try:
            network = instantiate(self.target, _convert_="all")
        except InstantiationException as exc:
            why = exc.__cause__ or exc
            raise ConfigError(str(why) if isinstance(why, ConfigError) else f"cannot be made: {reason(why)}") from exc
        if not isinstance(network, nn.Module):
            raise ConfigError(f"cannot be made: {self.target['_target_']} gives a {type(network).__name__}")
        return network.eval()

    def example(self, batch: int, seed: int = 0) -> tuple[list[Any], dict[str, Any]]:
        """Random inputs by position and by name: floats from 0 to 1, whole numbers below what the entry says."""
        draw = torch.Generator().manual_seed(seed)
        drawn = _drawn(self.input, batch, draw)
        if isinstance(drawn, Tensor):
            return [drawn], {}
        return ([], drawn) if isinstance(drawn, dict) else (drawn, {})


def in_channels_last(tree: Any) -> Any:
    """The same inputs, pictures (four dimensions, floats) with the channels innermost in memory."""
    return mapped(lambda x: x.to(memory_format=torch.channels_last) if _is_picture(x) else x, tree)


def has_pictures(tree: Any) -> bool:
    """Whether ``in_channels_last`` changes anything."""
    seen: list[bool] = []
    mapped(lambda x: seen.append(_is_picture(x)), tree)
    return any(seen)


def read(path: Path) -> list[Entry]:
    """The entries of a YAML file, in its order.

    Raises:
        ConfigError: the file cannot be read, or an entry is not as ``Entry`` says.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"cannot read the list of networks {path}: {exc.strerror}") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"the list of networks {path} is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(found, list) or not found:
        raise ConfigError(f"{path} must hold a list of networks, each {{network: NAME, _target_: …, input: …}}")
    entries = [_entry(each, f"{path}, network {number}") for number, each in enumerate(found, 1)]
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path} names {', '.join(twice)} more than once: each network needs a name of its own")
    return entries


def chosen(entries: Sequence[Entry], patterns: Sequence[str] | None) -> list[Entry]:
    """The entries whose name, or family, one of the regular expressions matches whole; all without any.

    Raises:
        ConfigError: a pattern is none, or fits no network.
    """
    if patterns is None:
        return list(entries)
    for pattern in patterns:
        try:
            fits = [entry for entry in entries if _fits(entry, pattern)]
        except re.error as exc:
            raise ConfigError(f"workflow.networks: {pattern!r} is no regular expression: {exc}") from exc
        if not fits:
            raise ConfigError(f"workflow.networks: {pattern!r} fits none of the {len(entries)} networks of the list")
    return [entry for entry in entries if any(_fits(entry, pattern) for pattern in patterns)]


def _fits(entry: Entry, pattern: str) -> bool:
    return bool(re.fullmatch(pattern, entry.name) or re.fullmatch(pattern, entry.family))


def _entry(given: Any, where: str) -> Entry:
    if not isinstance(given, Mapping) or not {"network", "_target_", "input"} <= given.keys():
        raise ConfigError(f"{where} must have network (a name), _target_ and input, got {given!r:.120}")
    _check_input(given["input"], f"{where} ({given['network']})")
    target = {str(key): value for key, value in given.items() if key not in _OWN}
    source = given.get("source", str(given["_target_"]).partition(".")[0])
    name = str(given["network"])
    return Entry(name, str(given.get("family", name)), str(source), target, given["input"])


def _check_input(given: Any, where: str) -> None:
    parts = [given] if _is_leaf(given) else list(given.values() if isinstance(given, Mapping) else given or [None])
    for part in parts:
        if not _is_leaf(part):
            raise ConfigError(
                f"{where}: input must be a shape [3, 64, 64], {{shape: [16], below: 1000}}, or several of these in a "
                f"list or by name, got {given!r:.80}"
            )


def _is_leaf(given: Any) -> bool:
    if isinstance(given, Mapping):
        below = given.get("below")
        return set(given) == {"shape", "below"} and isinstance(below, int) and below > 0 and _is_leaf(given["shape"])
    return isinstance(given, list) and bool(given) and all(type(size) is int and size > 0 for size in given)


def _drawn(given: Any, batch: int, draw: torch.Generator) -> Any:
    if isinstance(given, Mapping) and not _is_leaf(given):
        return {str(name): _drawn(part, batch, draw) for name, part in given.items()}
    if isinstance(given, Mapping):
        return torch.randint(0, given["below"], (batch, *given["shape"]), generator=draw)
    if _is_leaf(given):
        return torch.rand(batch, *given, generator=draw)
    return [_drawn(part, batch, draw) for part in given]


def _is_picture(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_floating_point()
