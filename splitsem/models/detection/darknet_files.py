"""read_cfg, read_weights_file: a network as darknet writes it, a text of sections and a file of bare numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splitsem.errors import CheckpointError

# Options of each section: those that say what the network computes, then those of training, which nothing here reads.
_COMPUTED = {
    "convolutional": "batch_normalize filters size stride pad padding groups activation",
    "maxpool": "size stride padding",
    "upsample": "stride",
    "route": "layers",
    "shortcut": "from activation",
    "yolo": "mask anchors classes num",
}
_TRAINED = {
    "convolutional": "stopbackward",
    "yolo": "jitter ignore_thresh truth_thresh random",
}
_NEEDED = {
    "convolutional": "filters size",
    "maxpool": "size stride",
    "upsample": "stride",
    "route": "layers",
    "shortcut": "from",
    "yolo": "mask anchors classes",
}
_LEAST = {"filters": 1, "size": 1, "stride": 1, "groups": 1, "classes": 1, "pad": 0, "padding": 0}


@dataclass(frozen=True)
class Section:
    """One layer of a cfg: its kind, what is set, and where it stands.

    Attributes:
        kind: ``convolutional``, ``maxpool`` …
        options: as written.
        where: file and line, for messages.
    """

    kind: str
    options: Mapping[str, str]
    where: str

    def number(self, name: str, default: int | None = None) -> int:
        """An option that is one whole number. Raises CheckpointError."""
        return self.numbers(name)[0] if name in self.options or default is None else default

    def numbers(self, name: str) -> tuple[int, ...]:
        """An option that is a list of whole numbers. Raises CheckpointError."""
        text = self.options[name]
        try:
            return tuple(int(part) for part in text.strip(", ").split(","))
        except ValueError as exc:
            raise self.fault(f"{name} must be whole numbers, got {text!r}") from exc

    def fault(self, what: str) -> CheckpointError:
        """The error that says what is wrong with this section."""
        return CheckpointError(f"{self.where}: [{self.kind}] {what}")


def read_cfg(path: str | Path) -> list[Section]:
    """The layers of a darknet cfg in order, without ``[net]``.

    Raises:
        CheckpointError: the file is missing, or a line, a kind of layer or an option is none that is known here.
    """
    path = Path(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise CheckpointError(
            f"the darknet cfg {path} cannot be read: {exc}; give the .cfg of a YOLOv3 network"
        ) from exc
    found: list[Section] = []
    options: dict[str, str] = {}
    for number, line in enumerate((raw.partition("#")[0].strip() for raw in lines), 1):
        if line.startswith("["):
            options = {}
            found.append(Section(line.strip("[] "), options, f"{path}:{number}"))
        elif line and not line.startswith(";"):
            name, equals, value = line.partition("=")
            if not equals or not found:
                raise CheckpointError(f"{path}:{number}: expected [section] or name=value, got {line[:60]!r}")
            options[name.strip()] = value.strip()
    if not found or found[0].kind not in ("net", "network"):
        raise CheckpointError(f"the darknet cfg {path} must begin with [net]")
    for section in found[1:]:
        _check(section)
    return found[1:]


def _check(section: Section) -> None:
    kind = section.kind
    if kind not in _COMPUTED:
        raise section.fault(f"is no layer that is known here: {', '.join(_COMPUTED)}")
    known = {*_COMPUTED[kind].split(), *_TRAINED.get(kind, "").split()}
    if unknown := [name for name in section.options if name not in known]:
        raise section.fault(f"sets {unknown[0]}, which is not known here; known: {_COMPUTED[kind]}")
    if missing := [name for name in _NEEDED[kind].split() if name not in section.options]:
        raise section.fault(f"needs {missing[0]}")
    for name, least in _LEAST.items():
        if name in section.options and section.number(name) < least:
            raise section.fault(f"{name} must be at least {least}, got {section.options[name]}")


def read_weights_file(path: str | Path, shapes: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    """The tensors of a darknet ``.weights`` file: little-endian float32, one tensor after the other.

    A header stands before them: major, minor and revision number (int32) and the pictures seen in training (int64,
    before version 0.2 int32).

    Args:
        path: the file.
        shapes: names and shapes of the tensors, in the file's order.

    Raises:
        CheckpointError: the file is missing, has more or fewer numbers than the network, or holds NaN or infinite ones.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise CheckpointError(f"the darknet weights {path} cannot be read: {exc}") from exc
    major, minor = np.frombuffer(content[:8].ljust(8, b"\0"), "<i4")
    header_bytes = 20 if 1000 > int(major) * 10 + int(minor) >= 2 else 16
    sizes = [int(np.prod(shape)) for _, shape in shapes]
    if len(content) != header_bytes + 4 * sum(sizes):
        raise CheckpointError(
            f"the darknet weights {path} have {(len(content) - header_bytes) / 4:,.10g} numbers, the network has "
            f"{sum(sizes):,}: the file is damaged or of another cfg; fetch it again"
        )
    numbers = np.frombuffer(content, "<f4", offset=header_bytes).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise CheckpointError(f"the darknet weights {path} hold NaN or infinite numbers: the file is damaged")
    parts = torch.from_numpy(numbers).split(sizes)
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes, parts, strict=True)}
