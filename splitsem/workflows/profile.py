"""Workflow profile: measure this machine on layers and halves of a network, for tables, LUTs and machine files.

Over a real transport, the workflow also asks the server (workflow=serve) for the server's table of the network.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from splitsem import extras
from splitsem.codecs.tensorwise import Identity
from splitsem.cost.coding_rate import coding_rate_here
from splitsem.cost.layer_profile import LayerProfile, parse_layers, profile_layers
from splitsem.cost.layers import measure_layers
from splitsem.cost.lut import Lut, measure_lut, parse_lut, write_lut
from splitsem.cost.machine_file import (
    MachineFile,
    MeasuredNetwork,
    check_same,
    read_machine_file,
    write_machine_file,
)
from splitsem.cost.measure import measure_rates
from splitsem.cost.probes import probe_networks
from splitsem.cost.sensors import Watched
from splitsem.errors import ConfigError
from splitsem.files import inventory_folder
from splitsem.json_files import write_text
from splitsem.placement import Placement, describe_run
from splitsem.remote.labels import codec_label, weights_digest
from splitsem.remote.transports import RemoteTransport
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.half import Half
from splitsem.workflows import assemble, pasted
from splitsem.workflows.assemble import Network
from splitsem.workflows.result import Metrics, Result
from splitsem_device.answers import ToMeasure
from splitsem_device.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_PROBES = 50
log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> Result:
    """Time layers, heads and tails on this machine; tables, figures and the LUTs land in the run's folder."""
    placement: Placement = instantiate(cfg.device)
    placement.set_threads()
    words = describe_run(placement.torch_device.type)
    path = _check_name(cfg)
    if path is not None and path.exists():
        check_same(read_machine_file(path), words)
    network = assemble.network(cfg)
    graph = network.graph
    if path is not None and not isinstance(graph, SplitGraph):
        raise ConfigError(
            "hardware.save keeps the times of layers, which an ONNX file does not show: take another model="
        )
    transport = instantiate(cfg.transport)
    server, layers_json = None, ""
    if isinstance(transport, RemoteTransport):
        server, layers_json = _ask_server(cfg, network, transport)
    bar = tqdm(_halves(graph), desc="Measuring heads and tails", total=2 * len(graph.points), unit="half", disable=None)
    lut = measure_lut(bar, budget_s=cfg.workflow.budget_s, pause_s=cfg.workflow.pause_s)
    lut_path = _write(lut, folder / ("lut.json" if server is None else "edge_lut.json"))
    metrics: Metrics = {"num_points": len(graph.points), "whole_s": lut.times["output"]["head"].median_s}
    lut_of_edge = pasted.setting("hardware.edge.lut", str(lut_path))
    headline = f"LUT of {len(graph.points)} points: {lut_path}; use it as {pasted.words([lut_of_edge])}"
    if server is not None:
        metrics["server_whole_s"] = server.times["input"]["tail"].median_s
        lut_of_server = pasted.setting("hardware.server.lut", str(_write(server, folder / "server_lut.json")))
        headline = (
            f"LUTs of {len(graph.points)} points, of this machine and of {server.machine['processor']} "
            f"at {cfg.transport.target}; use them as\n  {pasted.command('hardware=local', lut_of_edge, lut_of_server)}"
        )
    if not isinstance(graph, SplitGraph):
        return Result(metrics, {}, [], f"{headline}\nlayers are measured of networks of torch")
    power = cfg.hardware.edge.active_w, "hardware.edge.active_w"
    found = {"": _Machine(profile_layers(graph, cfg.workflow.layers_s, *power), lut)}
    lines = [headline]
    if server is not None and layers_json:
        told = f"the layers of {cfg.transport.target}"
        of_server = parse_layers(layers_json, told, graph, cfg.hardware.server.active_w, "hardware.server.active_w")
        found["server_"] = _Machine(of_server, server)
    elif server is not None:
        lines.append(f"the server at {cfg.transport.target} is of an older version, which tells no layers: update it")
    for prefix, (layers, _) in found.items():
        metrics |= {f"{prefix}{name}": value for name, value in _layer_metrics(layers).items()}
        where = "of the server " if prefix else ""
        lines += [f"energy {where}is {layers.watched.source}: {layers.watched.said}", *layers.refused]
    figures: dict[str, Figure] = {}
    if extras.has("plots"):
        figures, written = _tables(cfg, network, found, folder)
        lines.append(f"tables: {', '.join(written)}")
    else:
        log.info("No tables of layers: they need pandas: pip install 'splitsem[plots]'")
    if path is not None:
        measured = MeasuredNetwork.of(_family(cfg), graph.fingerprint, found[""].layers.times, lut)
        lines.append(_save(cfg, path, measured, found[""].layers.watched, words))
    return Result(metrics, figures, [], "\n".join(lines))


class _Machine(NamedTuple):
    """What was measured of a machine."""

    layers: LayerProfile
    lut: Lut


def _tables(
    cfg: DictConfig, network: Network, found: Mapping[str, _Machine], folder: Path
) -> tuple[dict[str, "Figure"], list[str]]:
    """The figures, and the names of the tables that were written, of each machine by its prefix."""
    from splitsem.workflows import layer_tables

    graph, tables, figures = network.graph, {}, {}
    assert isinstance(graph, SplitGraph)
    for prefix, (layers, lut) in found.items():
        tables[f"{prefix}layers"] = layer_tables.layer_table(graph, layers)
        tables[f"{prefix}points"] = layer_tables.point_table(graph, lut, layers)
        subtitle = f"{_label(cfg)} · {lut.machine['processor']} · {lut.machine['num_threads']} threads"
        figures[f"{prefix}layers"] = layer_tables.layer_bars(tables[f"{prefix}layers"], subtitle)
        if not prefix:
            rates = measure_rates(network.placement, cfg.workflow.rates_s)
            figures["roofline"] = layer_tables.draw_roofline(tables["layers"], rates, subtitle)
    return figures, layer_tables.write_tables(tables, folder)


def _layer_metrics(found: LayerProfile) -> Metrics:
    return {
        "num_layers": len(found.times.costs),
        "sum_ratio": found.times.sum_ratio,
        "peak_bytes": max(found.times.peak_bytes),
        "active_w": found.watched.watts,
        "energy_source": found.watched.source,
        "energy_from": found.watched.said,
        "cpu_share": found.watched.cpu_share,
        "rss_bytes": found.watched.rss_bytes,
        "gpu_bytes": found.watched.gpu_bytes,
    }


def _check_name(cfg: DictConfig) -> Path | None:
    """The file of the machine to be saved. Raises ConfigError for a name that splitsem's own machines have."""
    name = cfg.hardware.save
    if name is None:
        return None
    own = Path(__file__).parents[1] / "conf" / "hardware" / "machine" / f"{name}.yaml"
    if own.exists():
        raise ConfigError(f"hardware.save={name} is a machine of splitsem: give yours another name")
    return inventory_folder() / f"{name}.json"


def _save(cfg: DictConfig, path: Path, network: MeasuredNetwork, watched: Watched, words: dict[str, str]) -> str:
    """Add the network to the machine's file and write its option; what to do with it, in a line."""
    name = cfg.hardware.save
    if path.exists():
        machine = read_machine_file(path)
    else:
        version = words.pop("torch")
        machine = MachineFile(words, version)
        if cfg.workflow.probe_s:
            machine = replace(machine, networks=_probes(cfg.workflow.probe_s))
    machine = machine.with_network(_label(cfg), network)
    write_machine_file(machine, path)
    idle_w = min(cfg.hardware.edge.idle_w, watched.watts)
    option = (
        f"# {machine.machine['processor']}, saved by workflow=profile hardware.save={name}.\n"
        f"# active_w: {watched.source}, {watched.said}. idle_w: assumed.\n"
        f"# coding_bytes_per_s: measured, one thread.\n"
        "_target_: splitsem.cost.profiled.Profiled\n"
        f"file: {json.dumps(str(path))}\nactive_w: {watched.watts:.4g}\nidle_w: {idle_w:.4g}\n"
        f"coding_bytes_per_s: {coding_rate_here():.4g}\n"
    )
    write_text(option, path.parent / "hardware" / "machine" / f"{name}.yaml")
    known = machine.errors.get("all")
    error = (
        f"predicted times of other networks: median error {known.median:.0%}, 90 % within {known.p90:.0%}"
        if known
        else "no error of predicted times is known before networks of two families are in it"
    )
    num = len(machine.networks)
    return f"machine {name}, {num} networks: hardware/machine@hardware.edge={name}; {error} ({path})"


def _probes(budget_s: float) -> dict[str, MeasuredNetwork]:
    """The networks that every machine file starts from."""
    found, probes = {}, probe_networks(num=NUM_PROBES)
    for name, module, shape in tqdm(probes, "Measuring probes", NUM_PROBES, unit="network", disable=None):
        graph = SplitGraph(module, shape)
        layers = measure_layers(graph, budget_s=budget_s)
        found[name] = MeasuredNetwork.of(f"probe {name.partition('(')[2].strip(')')}", graph.fingerprint, layers)
    return found


def _label(cfg: DictConfig) -> str:
    """The network's name in tables and files."""
    choice = HydraConfig.get().runtime.choices
    name = cfg.model.get("name") if "name" in cfg.model else None
    return f"{name or choice['model']} of {choice['task']}"


def _family(cfg: DictConfig) -> str:
    """The letters that a network's name begins with: resnet of resnet18."""
    name = _label(cfg).partition(" ")[0].lower()
    return re.split(r"[^a-z]", name, maxsplit=1)[0] or name


def _ask_server(cfg: DictConfig, network: Network, transport: RemoteTransport) -> tuple[Lut, str]:
    """The server's table and its layers as JSON, made first, since server and edge may be one machine."""
    weights, label = weights_digest(network.model), codec_label(Identity())
    plan = Plan(network.graph.fingerprint, weights, "output", cfg.split.granularity, network.placement.precision, label)
    remote = transport.edge_end()
    layers_s = cfg.workflow.layers_s if isinstance(network.graph, SplitGraph) else 0.0
    log.info("The server at %s measures its tails and layers", cfg.transport.target)
    try:
        remote.open(plan)
        asked = ToMeasure(budget_s=cfg.workflow.budget_s, pause_s=cfg.workflow.pause_s, layers_s=layers_s)
        found = remote.profile(asked)
        return parse_lut(found.lut_json, f"the table of {cfg.transport.target}"), found.layers_json
    finally:
        remote.close()


def _halves(graph: CutGraph) -> Iterator[Half]:
    return (half for point in graph.points for half in graph.cut(point).halves())


def _write(lut: Lut, path: Path) -> Path:
    write_lut(lut, path.absolute())
    return path.absolute()
