"""The checkpoint of a round: one safetensors file, replaced at once, from which a killed server can resume."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from splitsem.errors import CheckpointError
from splitsem.federated.coded_grid import CodedGrid
from splitsem.federated.flower import Array, ArrayRecord, Context, MetricRecord, Strategy
from splitsem.federated.round_report import Row
from splitsem.federated.state import State, from_record, to_record
from splitsem.files import reason, write_whole

log = logging.getLogger(__name__)
FILE = "federated.safetensors"


@dataclass
class Progress:
    """Where a run stands after a round.

    Attributes:
        server_round: number of the last finished round; 0 before the first.
        arrays: the global network as the strategy gave it.
        rows: the history, one row for each finished round.
    """

    server_round: int
    arrays: ArrayRecord
    rows: list[Row]


def save(
    folder: Path, progress: Progress, strategy: Strategy, grid: CodedGrid, contexts: Mapping[int, Context]
) -> None:
    """Write everything that the next round depends on; the file is replaced as a whole or not at all.

    Args:
        folder: folder of the run.
        progress: where the run stands.
        strategy: the strategy whose tensors, e.g. momentum, are kept.
        grid: the grid whose held-back tensors and clients' versions are kept.
        contexts: contexts of the clients in this process; clients in other processes keep their own.
    """
    tensors = _prefixed("global", from_record(progress.arrays)) | _prefixed("held", grid.held)
    tensors |= _strategy_tensors(strategy)
    down = grid.downlink
    if down.codec is not None and down.reference is not None:
        tensors |= _prefixed("reference", down.reference)
    versions = {}
    for node, context in contexts.items():
        for key, record in context.state.array_records.items():
            tensors |= _prefixed(f"client/{node}/{key}", from_record(record))
        versions[node] = {key: dict(record) for key, record in context.state.metric_records.items()}
    facts = {
        "fingerprint": grid.layout.fingerprint,
        "round": progress.server_round,
        "rows": progress.rows,
        "version": down.version,
        "holders": down.holders,
        "clients": versions,
        "order": list(progress.arrays),
        "guard": grid.guard.facts(),
    }
    whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    try:
        write_whole(safetensors.torch.save(whole, {"facts": json.dumps(facts)}), folder / FILE)
    except OSError as exc:
        log.warning("Round %d has no checkpoint (%s); the run goes on", progress.server_round, reason(exc))


def load(folder: Path, strategy: Strategy, grid: CodedGrid, contexts: Mapping[int, Context]) -> Progress:
    """Restore what ``save`` wrote.

    Raises CheckpointError for a file that is missing, damaged, of another network, or ruined: with values that are no
    numbers, which an update of a faulty client may have left.
    """
    path = folder / FILE
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as exc:
        raise CheckpointError(
            f"federated.resume={folder}: there is no {FILE}; name the folder of a federated run"
        ) from exc
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as exc:
        raise CheckpointError(f"federated.resume={folder}: {FILE} is damaged ({exc})") from exc
    if ruined := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(
            f"federated.resume={folder} is ruined: {ruined[0]} holds NaN or infinity; begin anew, without "
            "federated.resume"
        )
    if facts["fingerprint"] != grid.layout.fingerprint:
        raise CheckpointError(
            f"federated.resume={folder} is of network {facts['fingerprint']}, this is {grid.layout.fingerprint}: "
            "give the same model, and federated.statistics as then"
        )
    if contexts and (known := len(facts["clients"])) != len(contexts):
        raise CheckpointError(
            f"federated.resume={folder} has {known} clients, federated.num_clients={len(contexts)}: give the command "
            "of that run again, with federated.resume added"
        )
    grid.held = _below(tensors, "held")
    if "guard" in facts:  # not in files of versions that let every update in
        grid.guard.restore(facts["guard"])
    _restore_strategy(strategy, tensors)
    down = grid.downlink
    if down.codec is not None:
        down.version = facts["version"]
        down.reference = _below(tensors, "reference") or None
        down.holders = {int(node): version for node, version in facts["holders"].items()} if contexts else {}
    for node, context in contexts.items():
        prefix = f"client/{node}/"
        for key in {name.split("/", 3)[2] for name in tensors if name.startswith(prefix)}:
            context.state[key] = to_record(_below(tensors, prefix + key))
        for key, record in facts["clients"][str(node)].items():
            context.state[key] = MetricRecord(record)
    state = _below(tensors, "global")
    return Progress(facts["round"], to_record({name: state[name] for name in facts["order"]}), facts["rows"])


def _strategy_tensors(strategy: Strategy) -> State:
    """What a strategy remembers from round to round: its attributes that are arrays, or lists or dicts of arrays."""
    tensors = {}
    for attribute, value in vars(strategy).items():
        for kind, pairs in _arrays(value).items():
            for number, (name, array) in enumerate(pairs):
                tensors[f"strategy/{attribute}/{kind}/{number:06}/{name}"] = torch.from_numpy(np.array(array))
    return tensors


def _arrays(value: Any) -> dict[str, list[tuple[str, Any]]]:
    if isinstance(value, ArrayRecord):
        return {"record": [(name, array.numpy()) for name, array in value.items()]}
    if isinstance(value, dict) and value and all(isinstance(v, np.ndarray | np.generic) for v in value.values()):
        return {"dict": list(value.items())}
    if isinstance(value, list) and value and all(isinstance(v, np.ndarray | np.generic) for v in value):
        return {"list": [("", array) for array in value]}
    return {}


def _restore_strategy(strategy: Strategy, tensors: State) -> None:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name in sorted(_below(tensors, "strategy")):
        attribute, kind, number, key = name.split("/", 3)
        pairs = found.setdefault((attribute, kind), {})
        pairs[key if kind != "list" else number] = tensors[f"strategy/{name}"].numpy()
    for (attribute, kind), pairs in found.items():
        if not hasattr(strategy, attribute):
            raise CheckpointError(
                f"federated.resume: the run's strategy had {attribute}, {type(strategy).__name__} has not"
            )
        record = ArrayRecord({name: Array(array) for name, array in pairs.items()}) if kind == "record" else pairs
        setattr(strategy, attribute, list(pairs.values()) if kind == "list" else record)


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {f"{prefix}/{name}": tensor for name, tensor in state.items()}


def _below(tensors: State, prefix: str) -> State:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + "/")}
