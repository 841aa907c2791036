"""Weights: read a local file safely and load it into a network whose classifier may have other classes."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from splitsem.errors import ConfigError

log = logging.getLogger(__name__)

NESTING_KEYS = ("state_dict", "model")
# Only training uses the auxiliary classifiers, and the networks are built without them.
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")
MAX_LISTED = 5


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file, or a state dict saved by torch (read with ``weights_only=True``: no code can run).

    Raises:
        ConfigError: the file is missing, damaged or holds something other than named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"weights file {path} does not exist; give a local .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as exc:
        reason = str(exc).partition("\n")[0]
        raise ConfigError(f"weights file {path} cannot be read: {reason}") from exc
    for key in NESTING_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(f"weights file {path} must hold a state dict of tensors, got {type(content).__name__}")
    return dict(content)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], num_outputs: int, source: str) -> list[str]:
    """Load ``weights`` into ``network``, strictly, except for a classifier that was made for other classes.

    A tensor of the network whose first size is ``num_outputs`` and whose other sizes agree with the file's belongs to
    such a classifier; it keeps its fresh initialisation.

    Args:
        network: built with the task's number of classes.
        weights: state dict in the network's original key names.
        num_outputs: the task's number of classes.
        source: where the weights come from, for messages.

    Returns:
        Names of the tensors that kept their fresh initialisation.

    Raises:
        ConfigError: a tensor is missing, unknown or of another shape.
    """
    own = network.state_dict()
    given = {key: value for key, value in weights.items() if not key.startswith(AUXILIARY_PREFIXES)}
    # Files from before PyTorch 0.4.1 lack these counters, which nothing here reads.
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unknown = [key for key in given if key not in own]
    different = [key for key in own if key in given and own[key].shape != given[key].shape]
    fresh = [
        key for key in different if own[key].shape[:1] == (num_outputs,) and own[key].shape[1:] == given[key].shape[1:]
    ]
    shapes = [f"{key} {tuple(given[key].shape)}≠{tuple(own[key].shape)}" for key in different if key not in fresh]
    faults = {"missing": missing, "unknown": unknown, "other shape (file≠network)": shapes}
    if any(faults.values()):
        text = "; ".join(f"{fault}: {_listed(keys)}" for fault, keys in faults.items() if keys)
        raise ConfigError(f"weights from {source} do not fit {type(network).__name__}: {text}")
    # Modules look for their format version in the metadata (mnasnet refuses without), which safetensors does not carry.
    state = OrderedDict(own | {key: value for key, value in given.items() if key not in fresh})
    state._metadata = getattr(weights, "_metadata", own._metadata)  # type: ignore[attr-defined]
    network.load_state_dict(state)
    if fresh:
        log.warning("%s: %s were made for other classes and start afresh", source, _listed(fresh))
    return fresh


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - MAX_LISTED} more" if len(keys) > MAX_LISTED else ""
    return ", ".join(keys[:MAX_LISTED]) + more
