"""Workflow profile: measure this machine on every half of a network and write the LUT that `hardware.*.lut=` takes.

Over a real transport, the workflow also asks the server (workflow=serve) for the server's table of the network.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from splitsem.codecs.tensorwise import Identity
from splitsem.cost.lut import Lut, measure_lut, parse_lut, write_lut
from splitsem.remote.labels import codec_label, weights_digest
from splitsem.remote.transports import RemoteTransport
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.half import Half
from splitsem.workflows import assemble
from splitsem.workflows.assemble import Network
from splitsem.workflows.result import Result
from splitsem_device.plan import Plan

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> Result:
    """Time head and tail at every offered point on this machine; the LUTs land in the run's folder."""
    network = assemble.network(cfg)
    graph = network.graph
    transport = instantiate(cfg.transport)
    server = _ask_server(cfg, network, transport) if isinstance(transport, RemoteTransport) else None
    bar = tqdm(_halves(graph), desc="Measuring heads and tails", total=2 * len(graph.points), unit="half")
    lut = measure_lut(bar, budget_s=cfg.workflow.budget_s, pause_s=cfg.workflow.pause_s)
    path = _write(lut, folder / ("lut.json" if server is None else "edge_lut.json"))
    metrics = {"num_points": len(graph.points), "whole_s": lut.times["output"]["head"].median_s}
    headline = f"LUT of {len(graph.points)} points: {path}; use it as hardware.edge.lut={path}"
    if server is not None:
        metrics["server_whole_s"] = server.times["input"]["tail"].median_s
        headline = (
            f"LUTs of {len(graph.points)} points, of this machine and of {server.machine['processor']} "
            f"at {cfg.transport.target}; use them as\n  python run.py hardware=local hardware.edge.lut={path} "
            f"hardware.server.lut={_write(server, folder / 'server_lut.json')}"
        )
    return Result(metrics, {}, [], headline)


def _ask_server(cfg: DictConfig, network: Network, transport: RemoteTransport) -> Lut:
    """The server's table, made before this machine works, since server and edge may be one machine."""
    weights, label = weights_digest(network.model), codec_label(Identity())
    plan = Plan(network.graph.fingerprint, weights, "output", cfg.split.granularity, network.placement.precision, label)
    remote = transport.edge_end()
    log.info("The server at %s measures its tails", cfg.transport.target)
    try:
        remote.open(plan)
        found = remote.profile(budget_s=cfg.workflow.budget_s, pause_s=cfg.workflow.pause_s)
        return parse_lut(found.lut_json, f"the table of {cfg.transport.target}")
    finally:
        remote.close()


def _halves(graph: CutGraph) -> Iterator[Half]:
    return (half for point in graph.points for half in graph.cut(point).halves())


def _write(lut: Lut, path: Path) -> Path:
    write_lut(lut, path.absolute())
    return path.absolute()
