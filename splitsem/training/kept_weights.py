"""Trained weights on disk are found by a key of all that determines them, so that nothing is trained twice."""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from splitsem.errors import ConfigError

log = logging.getLogger(__name__)


class Trained(NamedTuple):
    """How the weights in a network came to be.

    Attributes:
        path: the .safetensors file that holds them.
        history: metrics of each epoch of the training.
        train_s: seconds that the training took, in this run or in the earlier one that wrote the file.
        from_cache: whether the weights were read from disk and not trained in this run.
    """

    path: Path
    history: list[dict[str, float]]
    train_s: float
    from_cache: bool


def fit_or_load(network: nn.Module, key: str, folder: Path, fit: Callable[[], list[dict[str, float]]]) -> Trained:
    """Give ``network`` the weights filed under ``key``; ``fit`` trains the weights when there is no such file.

    Several processes may ask at one time: the first one trains, the rest wait and read. A damaged file is replaced.
    """
    path = folder / f"{key}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if path.exists():
            try:
                return load(network, path)
            except ConfigError as exc:
                log.warning("Training again: %s", exc)
        began = time.perf_counter()
        history = fit()
        save(network, path, history, time.perf_counter() - began)
    return Trained(path, history, time.perf_counter() - began, from_cache=False)


def save(network: nn.Module, path: Path, history: list[dict[str, float]], train_s: float) -> None:
    """Write the weights and a checksum of them, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    facts = {"history": json.dumps(history), "train_s": str(train_s)}
    facts["sha256"] = _checksum(state, facts)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        safetensors.torch.save_file(state, temporary, metadata=facts)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def load(network: nn.Module, path: Path) -> Trained:
    """Read weights of ``save`` into ``network``. Raises ConfigError when the file is damaged or of another network."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as exc:
        raise ConfigError(f"no weights file at {path}") from exc
    except (safetensors.SafetensorError, OSError) as exc:
        raise ConfigError(f"weights file {path} is damaged ({exc}); delete it") from exc
    if facts.pop("sha256", None) != _checksum(state, facts):
        raise ConfigError(f"weights file {path} is damaged or not written by splitsem (checksum); delete it")
    try:
        network.load_state_dict(state)
    except RuntimeError as exc:
        raise ConfigError(f"weights file {path} is of another network: {str(exc).splitlines()[1].strip()}") from exc
    return Trained(path, json.loads(facts["history"]), float(facts["train_s"]), from_cache=True)


def num_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksum(state: dict[str, Tensor], facts: dict[str, str]) -> str:
    total = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(state):
        total.update(name.encode())
        total.update(state[name].reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
