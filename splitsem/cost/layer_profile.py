"""LayerProfile: times and memory of a network's layers with power and load meanwhile, here or told by a server as JSON.

{"schema": "splitsem.layers/1", "unit": "s", "fingerprint": "...", "machine": {"processor": ...}, "num_rounds": 100,
 "whole_s": {"median": ...}, "layers": {"conv2d": {"time_s": {"median": ...}, "peak_bytes": 4096}, ...},
 "power_w": null, "power_from": "", "refused": [], "seconds": 5.0, "cpu_share": 1.0, "rss_bytes": ..., "gpu_bytes": 0}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import torch

from splitsem.cost.layers import LayerTimes, measure_layers
from splitsem.cost.measure import Timing
from splitsem.cost.sensors import Watch, Watched, find_sensors
from splitsem.errors import MachineError
from splitsem.json_files import Amount, Count, JsonFile, parse
from splitsem.placement import describe_machine
from splitsem.splitting.graph import SplitGraph

SCHEMA = "splitsem.layers/1"


class _Layer(msgspec.Struct, forbid_unknown_fields=True):
    time_s: Timing
    peak_bytes: Count


class _File(JsonFile, kw_only=True):
    fingerprint: str
    machine: dict[str, str]
    num_rounds: Count
    whole_s: Timing
    layers: dict[str, _Layer]
    power_w: Amount | None
    power_from: str
    refused: list[str]
    seconds: Amount
    cpu_share: Amount
    rss_bytes: Count
    gpu_bytes: Count


@dataclass(frozen=True)
class LayerProfile:
    """What a machine measured of a network, layer by layer.

    Attributes:
        times: of the layers, with their peak memory.
        watched: power and load meanwhile.
        refused: a line for each sensor that is there and could not be read.
        machine: in words.
    """

    times: LayerTimes
    watched: Watched
    refused: tuple[str, ...]
    machine: Mapping[str, str]


def profile_layers(graph: SplitGraph, budget_s: float, active_w: float, assumed_from: str) -> LayerProfile:
    """Measure this machine.

    Args:
        graph: the network.
        budget_s: see ``measure_layers``.
        active_w: power while computing that is assumed where no sensor can be read.
        assumed_from: where that figure stands, for readers.
    """
    on_gpu = graph.device.type == "cuda"
    sensors, refused = find_sensors(gpu=on_gpu)
    if not on_gpu:
        sensors = [sensor for sensor in sensors if not sensor.name.startswith("NVML")]
    with Watch(sensors, active_w, assumed_from) as watch:
        times = measure_layers(graph, budget_s=budget_s)
    machine = describe_machine() | {"num_threads": str(torch.get_num_threads()), "accelerator": graph.device.type}
    return LayerProfile(times, watch.seen, tuple(refused), machine)


def layers_json(found: LayerProfile, fingerprint: str) -> str:
    """A profile as text that travels; power that was not measured is left to the reader."""
    times, seen = found.times, found.watched
    is_measured = seen.source == "measured"
    layers = {
        cost.name: _Layer(timing, peak_bytes)
        for cost, timing, peak_bytes in zip(times.costs, times.times, times.peak_bytes, strict=True)
    }
    document = {
        "schema": SCHEMA,
        "unit": "s",
        "fingerprint": fingerprint,
        "machine": dict(found.machine),
        "num_rounds": times.num_rounds,
        "whole_s": msgspec.to_builtins(times.whole),
        "layers": msgspec.to_builtins(layers),
        "power_w": seen.watts if is_measured else None,
        "power_from": seen.said if is_measured else "",
        "refused": list(found.refused),
        "seconds": seen.seconds,
        "cpu_share": seen.cpu_share,
        "rss_bytes": seen.rss_bytes,
        "gpu_bytes": seen.gpu_bytes,
    }
    return json.dumps(document, allow_nan=False) + "\n"


def parse_layers(text: str, source: str, graph: SplitGraph, active_w: float, assumed_from: str) -> LayerProfile:
    """Undo ``layers_json``, all of it checked; what operations compute and move is read off the graph here.

    Args:
        text: JSON.
        source: names the text in messages.
        graph: the same network.
        active_w: power of that machine while computing, assumed where it measured none.
        assumed_from: where that figure stands.

    Raises:
        MachineError: it is no such text, of another network, or lacks an operation.
    """

    def made(file: _File) -> LayerProfile:
        if file.fingerprint != graph.fingerprint:
            raise MachineError(f"{source} is of another network: {file.fingerprint!r}, not {graph.fingerprint!r}")
        known = {cost.name: cost for part in graph.parts() for cost in part.costs}
        if unknown := sorted(file.layers.keys() - known.keys()):
            raise MachineError(f"{source} has {unknown[0]!r}, which is no operation of this network")
        costs = tuple(cost for name, cost in known.items() if name in file.layers)
        rows = [file.layers[cost.name] for cost in costs]
        if not rows:
            raise MachineError(f"{source} has no operations")
        peaks = tuple(row.peak_bytes for row in rows)
        times = LayerTimes(costs, tuple(row.time_s for row in rows), file.whole_s, file.num_rounds, peaks)
        is_measured = file.power_w is not None
        watched = Watched(
            file.seconds,
            active_w if file.power_w is None else file.power_w,
            "measured" if is_measured else "estimated",
            file.power_from if is_measured else f"time × {active_w:g} W of {assumed_from}",
            file.cpu_share,
            file.rss_bytes,
            file.gpu_bytes,
        )
        return LayerProfile(times, watched, tuple(file.refused), file.machine)

    return parse(text, source, "profile of layers", SCHEMA, _File, made)
