"""Read the weights in a checkpoint, as trainers write it, without running its code, and load them into a network."""

import json
import logging
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from splitsem.errors import CheckpointError
from splitsem_device.peer_text import shown

log = logging.getLogger(__name__)

# Where trainers put weights. Averaged weights go first: they are what such a trainer scores its network with.
AVERAGED_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "params_ema", "ema")
NESTING_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "params",
    "network",
    "net",
    "weights",
    "module",
)
# Compiling and parallel training put these into names, at any place.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
# Only training uses the auxiliary classifiers, and the networks are built without them.
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")
MAX_LISTED = 5
_MOST_CHARS = 1000  # of a name
MAX_CLASSES = 256  # of Python in one file
_MOST_NESTED = 4
# What torch's readers raise on damaged bytes: they take most of them at their word.
_DAMAGE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, ImportError),
    *(ArithmeticError, AssertionError, MemoryError, OSError, SafetensorError),
    *(zipfile.BadZipFile, struct.error),
)
_BLOCKED_CLASS = re.compile(r"GLOBAL (\S+) whose module \S+ is blocked")
_REFUSED_CLASS = re.compile(r"GLOBAL (\S+) was not an allowed global")


class _Inert:
    """Stands in for whatever a file names that is no part of weights. It takes everything and does nothing."""

    name = ""

    def __new__(cls, *args: object, **options: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)

    def append(self, item: object) -> None:
        """Take an item."""

    def extend(self, items: object) -> None:
        """Take items."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a ``.safetensors`` file or in a file of ``torch.save``, whatever its name ends in.

    The state dict may be an entry of a checkpoint, beside an optimiser's state, settings and the like. Where there are
    averaged weights (EMA), these are taken. No code of the file runs: what is no tensor, number, text or container is
    replaced by an object that does nothing.

    Raises:
        CheckpointError: the file is missing, damaged or holds something other than named tensors.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"weights file {path} does not exist; give a local .safetensors or .pth file")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise CheckpointError(f"weights file {path} is {what}; give a .safetensors or .pth file")
    try:
        content = _content(path)
    except _DAMAGE as exc:
        raise CheckpointError(f"weights file {path} cannot be read: {_said(exc)}") from exc
    found = _state_dict(content, path)
    return {_text(name): value for name, value in found.items() if isinstance(value, Tensor)}


def _said(exc: BaseException) -> str:
    """What torch's reader found, without its advice to run the file's code."""
    if blocked := _BLOCKED_CLASS.search(str(exc)):
        return f"it names {blocked[1]}, which runs code; take a file of weights alone: torch.save(net.state_dict(), …)"
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Weights only load failed"):
        del lines[0]
    return shown(lines[0].partition(" Please use `torch")[0], 300) if lines else type(exc).__name__


def _content(path: Path) -> Any:
    """What the file holds. Raises any of _DAMAGE."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(16)
    if not size:
        raise ValueError("it is empty")
    if start[8:9] == b"{":
        return _checked_safetensors(path, start, size)
    if start[:2] not in (b"PK", b"\x80\x02"):
        raise ValueError("it is neither a .safetensors file nor one that torch.save wrote")
    if is_zip := start[:2] == b"PK":
        _check_archive(path, size)
    stand_ins: dict[str, type] = {}
    while True:
        try:
            with torch.serialization.safe_globals([(made, name) for name, made in stand_ins.items()]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except pickle.UnpicklingError as exc:
            refused = _REFUSED_CLASS.search(str(exc))
            if refused is None or len(stand_ins) == MAX_CLASSES or refused[1] in stand_ins:
                raise
            stand_ins[refused[1]] = type("_Inert", (_Inert,), {"name": refused[1]})


def _checked_safetensors(path: Path, start: bytes, size: int) -> dict[str, Tensor]:
    header_bytes = int.from_bytes(start[:8], "little")
    if header_bytes > size - 8:
        raise ValueError(f"its header claims {header_bytes} bytes, the file has {size}")
    with open(path, "rb") as file:
        file.seek(8)
        json.loads(file.read(header_bytes))
    return load_file(path)


def _check_archive(path: Path, size: int) -> None:
    """Compare an archive's contents with its checksums, which torch does not do. Raises any of _DAMAGE."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any(name.endswith("/constants.pkl") or "/code/" in name or name.startswith("models/") for name in names):
            raise ValueError("it holds a program (TorchScript or torch.export); save the state_dict() instead")
        if not any(name.endswith("data.pkl") for name in names):
            raise ValueError("it is an archive of something else than weights")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("it is compressed, or claims more than it holds; torch.save does neither")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"it is damaged: the checksum of {damaged} is wrong")


def _state_dict(content: Any, path: Path) -> Mapping[Any, Any]:
    """The state dict in what a file holds. Raises CheckpointError."""
    found = list(_candidates(content, "", _MOST_NESTED))
    if not found:
        if whole := next((thing for thing in _outer(content) if isinstance(thing, _Inert)), None):
            raise CheckpointError(
                f"weights file {path} holds a whole {shown(whole.name)}, and to read it would run code; if you trust "
                "the file, load it with torch.load(..., weights_only=False) and save its state_dict()"
            )
        raise CheckpointError(f"weights file {path} must hold a state dict of tensors, got {type(content).__name__}")
    chosen, state = found[0]
    if (others := [name for name, _ in found[1:]]) and chosen.rpartition(".")[2] in AVERAGED_KEYS:
        log.info("%s: taking the averaged weights %s, not %s", path, chosen, _listed(others))
    elif chosen.rpartition(".")[2] not in NESTING_KEYS and others:
        raise CheckpointError(
            f"weights file {path} holds several networks ({_listed([chosen, *others])}); save one alone"
        )
    return state


def _outer(content: Any) -> list[Any]:
    return [content, *content.values()] if isinstance(content, Mapping) else [content]


def _candidates(content: Any, name: str, depth: int) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The state dicts in a container, by dotted names: the known entries first, in order, then all others."""
    if not isinstance(content, Mapping) or not depth:
        return
    inner = {_text(key): value for key, value in content.items() if isinstance(value, Mapping) and value}
    known = [key for key in (*AVERAGED_KEYS, *NESTING_KEYS) if key in inner]
    for key in known:
        yield from _candidates(inner[key], f"{name}.{key}".lstrip("."), depth - 1)
    if known:
        return
    if any(isinstance(value, Tensor) and isinstance(key, str | bytes) for key, value in content.items()):
        yield name, content
        return
    for key, value in inner.items():
        if "optim" not in key and "sched" not in key:
            yield from _candidates(value, f"{name}.{key}".lstrip("."), depth - 1)


def _text(key: object) -> str:
    """A name in the file, in one line: of a damaged file it may hold any character."""
    return shown(key.decode(errors="replace") if isinstance(key, bytes) else key, _MOST_CHARS)


def fitted(weights: Mapping[str, Tensor], names: Mapping[str, object], source: str) -> dict[str, Tensor]:
    """The weights under a network's own names: what wrappers put into or before the names is taken away.

    Wrappers are parallel training (``module.``), compiling (``_orig_mod.``) and whatever held the network as a part,
    e.g. ``net.`` or ``model.backbone.``; the network, too, may hold as a part what the file has alone. Of all prefixes,
    that one counts which fits the most names; tensors without the prefix are left out, which is said.

    Args:
        weights: as read.
        names: the network's state dict, or another mapping with its names.
        source: where the weights come from, for messages.
    """
    if not WRAPPERS.isdisjoint(part for key in weights for part in key.split(".")):
        own = {part for name in names for part in name.split(".")}
        plain = {".".join(p for p in key.split(".") if p not in WRAPPERS - own): key for key in weights}
        if len(plain) == len(weights):
            weights = {name: weights[key] for name, key in plain.items()}
    votes: dict[tuple[str, str], int] = {("", ""): sum(key in names for key in weights)}
    for key in weights:
        for inner in _inner(key):
            if inner in names:
                prefix = (key[: len(key) - len(inner)], "")
                votes[prefix] = votes.get(prefix, 0) + 1
    for name in names:
        for inner in _inner(name):
            if inner in weights:
                prefix = ("", name[: len(name) - len(inner)])
                votes[prefix] = votes.get(prefix, 0) + 1
    most = max(votes.values())
    if 2 * most < min(len(weights), len(names)):  # it is of another network: its names are told as they are
        return dict(weights)
    best = [prefix for prefix, count in votes.items() if count == most]
    averaged = [prefix for prefix in best if "ema" in re.split(r"[._]", prefix[0])]
    if len(best) > 1 and ("", "") not in best and len(averaged) != 1:
        prefixes = _listed([outer or inner for outer, inner in best])
        raise CheckpointError(f"weights from {source} hold or fit several networks ({prefixes}); save one alone")
    outer, inner = ("", "") if ("", "") in best else (averaged or best)[0]
    left_out = [key for key in weights if not key.startswith(outer)]
    if left_out:
        log.warning("%s: taking %s*, leaving out %s", source, outer, _listed(left_out))
    return {inner + key.removeprefix(outer): value for key, value in weights.items() if key.startswith(outer)}


def _inner(key: str) -> Iterator[str]:
    """``b.c`` and ``c`` of ``a.b.c``."""
    while "." in key:
        key = key.partition(".")[2]
        yield key


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], num_outputs: int | None, source: str) -> list[str]:
    """Load ``weights`` into ``network``, strictly, except for a classifier that was made for other classes.

    A tensor of the network whose first size is ``num_outputs`` and whose other sizes agree with the file's belongs to
    such a classifier; it keeps its fresh initialisation. Names may have prefixes, see ``fitted``. Numbers of another
    floating type become those of the network.

    Args:
        network: built with the task's number of classes.
        weights: state dict in the network's original key names.
        num_outputs: the task's number of classes; None: the classifier must fit, too.
        source: where the weights come from, for messages.

    Returns:
        Names of the tensors that kept their fresh initialisation.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape, not of plain numbers, or not finite.
    """
    own = network.state_dict()
    metadata = getattr(weights, "_metadata", own._metadata)  # type: ignore[attr-defined]
    weights = fitted(weights, own, source)
    given = {key: value for key, value in weights.items() if not key.startswith(AUXILIARY_PREFIXES)}
    # Files from before PyTorch 0.4.1 lack these counters, which nothing here reads.
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unknown = [key for key in given if key not in own]
    different = [key for key in own if key in given and own[key].shape != given[key].shape]
    fresh = [
        key for key in different if own[key].shape[:1] == (num_outputs,) and own[key].shape[1:] == given[key].shape[1:]
    ]
    shapes = [f"{key} {tuple(given[key].shape)}≠{tuple(own[key].shape)}" for key in different if key not in fresh]
    if missing or unknown or shapes:
        faults = {"missing": _shaped(own, missing), "unknown": _shaped(given, unknown)}
        faults["other shape (file≠network)"] = shapes
        text = "; ".join(f"{fault}: {_listed(keys)}" for fault, keys in faults.items() if keys)
        if not own.keys() & given.keys():
            text = f"no name agrees; {text}"
        raise CheckpointError(f"weights from {source} do not fit {type(network).__name__}: {text}")
    _check_numbers(given, own, source)
    # Modules look for their format version in the metadata (mnasnet refuses without), which safetensors does not carry.
    state = OrderedDict(own | {key: value for key, value in given.items() if key not in fresh})
    state._metadata = metadata  # type: ignore[attr-defined]
    network.load_state_dict(state)
    if fresh:
        sizes = [f"{key} {tuple(given[key].shape)}≠{tuple(own[key].shape)}" for key in fresh]
        log.warning("%s: %s were made for other classes (file≠network) and start afresh", source, _listed(sizes))
    return fresh


def _check_numbers(given: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    cast = set()
    for key, value in given.items():
        is_plain = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
        if not is_plain or value.is_floating_point() != own[key].is_floating_point() or value.is_complex():
            raise CheckpointError(
                f"weights from {source}: {key} must hold plain {own[key].dtype} numbers, got {value.dtype}"
            )
        if value.is_floating_point() and not torch.isfinite(value.float() if value.itemsize == 1 else value).all():
            raise CheckpointError(
                f"weights from {source}: {key} holds NaN or infinite numbers; take an earlier checkpoint"
            )
        if value.dtype != own[key].dtype and value.is_floating_point():
            cast.add(f"{value.dtype}".removeprefix("torch."))
    if cast:
        log.info("%s: %s becomes float32", source, ", ".join(sorted(cast)))


def _shaped(state: Mapping[str, Tensor], keys: list[str]) -> list[str]:
    return [f"{key} {tuple(state[key].shape)}" for key in keys[:MAX_LISTED]] + keys[MAX_LISTED:]


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - MAX_LISTED} more" if len(keys) > MAX_LISTED else ""
    return ", ".join(keys[:MAX_LISTED]) + more
