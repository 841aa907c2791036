"""Trained weights on disk are found by a key of all that determines them, so that nothing is trained twice."""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from splitsem.errors import CheckpointError
from splitsem.files import read_or_make, reason, write_whole
from splitsem.models.checkpoints import load_weights, read_weights

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


def fit_or_load(
    network: nn.Module, key: str, folder: Path, fit: Callable[[], list[dict[str, float]]], spare: Path | None = None
) -> Trained:
    """Give ``network`` the weights filed under ``key``; ``fit`` trains the weights when there is no such file.

    Several processes may ask at one time: the first one trains, the rest wait and read. A damaged file is replaced.

    Args:
        network: gets the weights.
        key: names everything that determines the weights.
        folder: where weights are kept; it may be read-only.
        fit: trains the network and returns the metrics of each epoch.
        spare: folder that keeps what ``folder`` cannot; None: a new temporary folder.

    Raises:
        CheckpointError: ``folder`` cannot be a folder, or the trained weights could be written nowhere.
    """
    name = f"{key}.safetensors"
    trained = partial(_train, network, fit)
    places = [folder / name, *([spare / name] if spare else [])]
    found, path = read_or_make(places, partial(load, network), trained, partial(_write, network))
    if path is None:  # a temporary folder is better than to train in vain
        path = Path(tempfile.mkdtemp(prefix="splitsem-")) / name
        try:
            _write(network, found, path)
        except OSError as exc:
            raise CheckpointError(f"the trained weights can be written nowhere ({reason(exc)}): make room") from exc
        log.warning("Kept in %s instead", path)
    return found._replace(path=path)


def _train(network: nn.Module, fit: Callable[[], list[dict[str, float]]]) -> Trained:
    began = time.perf_counter()
    history = fit()
    return Trained(Path(), history, time.perf_counter() - began, from_cache=False)


def _write(network: nn.Module, trained: Trained, path: Path) -> None:
    save(network, path, trained.history, trained.train_s)


def save(network: nn.Module, path: Path, history: list[dict[str, float]], train_s: float) -> None:
    """Write the weights and a checksum of them, whole or not at all. Raises OSError."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    facts = {"history": json.dumps(history), "train_s": str(train_s)}
    facts["sha256"] = _checksum(state, facts)
    write_whole(safetensors.torch.save(state, metadata=facts), path)


def load(network: nn.Module, path: Path) -> Trained:
    """Read weights of ``save`` into ``network``.

    Raises:
        CheckpointError: the file is damaged, not one of ``save`` or of another network, which then is as it was.
    """
    facts, state = _read(path)
    if facts.pop("sha256", None) != _checksum(state, facts):
        raise CheckpointError(f"weights file {path} is damaged or not written by splitsem (checksum)")
    own = network.state_dict()
    if differing := [name for name in own.keys() | state.keys() if _shape(own, name) != _shape(state, name)]:
        name = min(differing)
        raise CheckpointError(
            f"weights file {path} is of another network: {name} is {_shape(state, name)} there and "
            f"{_shape(own, name)} here"
        )
    network.load_state_dict(state)
    return Trained(path, json.loads(facts["history"]), float(facts["train_s"]), from_cache=True)


def load_any(network: nn.Module, path: Path) -> Trained:
    """Read ready weights into ``network``: those of ``save``, or a checkpoint from elsewhere, for the same classes.

    Raises:
        CheckpointError: the file cannot be read, or is of another network.
    """
    if _is_own(path):
        return load(network, path)
    load_weights(network, read_weights(path), None, str(path))
    return Trained(path, [], 0.0, from_cache=True)


def _is_own(path: Path) -> bool:
    """Whether ``save`` wrote the file: then its checksum must fit."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return "sha256" in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as exc:
        raise CheckpointError(f"no weights file at {path}") from exc
    except (safetensors.SafetensorError, OSError) as exc:
        raise CheckpointError(f"weights file {path} is damaged ({exc})") from exc


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "missing"


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
