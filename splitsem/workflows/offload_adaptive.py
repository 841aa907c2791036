"""Workflow offload with a controller: each frame's cut and codec follow the link and the loads of both ends."""

import copy
import statistics
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from splitsem import extras
from splitsem.codecs.tensorwise import Identity
from splitsem.cost.setting_table import SettingTable
from splitsem.errors import ConfigError
from splitsem.files import write_csv
from splitsem.remote.grpc.transport import Grpc
from splitsem.remote.labels import codec_label
from splitsem.remote.ssh_inventory import Host
from splitsem.remote.switching import Outcome, SwitchingLine
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.transports import RemoteTransport
from splitsem.scoring import score_samples
from splitsem.search.adaptive.controller import Adaptive
from splitsem.workflows import assemble, evaluation, setting_tables, split, ssh_start
from splitsem.workflows.assemble import Network
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.serve import answer_coders, engine_for
from splitsem_device.plan import Plan

FRAMES = "frames.csv"
_ANY_TABLE = SettingTable(["far", "here"], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0])


class _Frame(NamedTuple):
    """A row of ``frames.csv``."""

    taken_s: float
    setting: str
    latency_s: float
    payload_bytes: int
    is_lost: bool
    bandwidth_bps: float
    bandwidth_low_bps: float
    bandwidth_high_bps: float
    rtt_s: float
    edge_factor: float
    server_factor: float


def check(cfg: DictConfig, transport: RemoteTransport) -> Grpc:
    """The transport. Raises ConfigError where a run cannot adapt, before a network is trained."""
    if not isinstance(transport, Grpc):
        raise ConfigError(
            "controller=adaptive needs a transport whose stream carries frames of several plans: transport=grpc; "
            "transport=udp has one plan"
        )
    if cfg.answer.at != "edge":
        raise ConfigError("controller=adaptive answers where the edge is: answer.at=edge")
    if cfg.workflow.answers is not None:
        raise ConfigError("workflow.answers keeps the answers of one plan: not with controller=adaptive")
    try:
        instantiate(cfg.controller, table=_ANY_TABLE, least_score=None)
    except InstantiationException as exc:
        raise ConfigError(f"controller: {exc.__cause__ or exc}") from exc
    for entry in (given.lstrip("+~") for given in HydraConfig.get().overrides.task):
        if entry.startswith(("codec=", "codec.", "split.point=", "split.index=")):
            raise ConfigError(
                f"controller=adaptive chooses cut and codec itself, from workflow.points and workflow.codecs: leave "
                f"out {entry}"
            )
    return transport


def run(cfg: DictConfig, folder: Path, transport: Grpc, host: Host | None) -> Result:
    """Make the tables, then let each frame have the setting that suits."""
    network = assemble.network(cfg)
    coder = assemble.answering(cfg, network.task, network.graph).coder
    engine = engine_for(cfg, network, coders=answer_coders(cfg, network.task))
    with ssh_start.server_for(cfg, transport, host, network) as started:
        remote = transport.edge_end()
        try:
            remote.open(any_plan(network, engine))  # before what takes a while, so that a wrong server is told first
            settings = setting_tables.measured(cfg, network, coder, engine, remote)
        finally:
            remote.close()
        controller: Adaptive = instantiate(cfg.controller, table=settings.table)
        line = SwitchingLine(transport.edge_end, settings.offers, network.run, engine, controller, controller.window)
        line.connect()
        result = _frames(cfg, network, line, controller, folder)
    return result._replace(metrics=result.metrics | started)


def any_plan(network: Network, engine: TailEngine) -> Plan:
    """A plan that the server takes if it has the same network."""
    return replace(engine.offer, point=network.graph.points[0].name, codec=codec_label(Identity()))


def _frames(cfg: DictConfig, network: Network, line: SwitchingLine, controller: Adaptive, folder: Path) -> Result:
    rows: list[_Frame] = []
    samples = (x for x, _ in chain.from_iterable(_samples(cfg, network) for _ in repeat(None)))
    num_samples = sum(1 for _ in _samples(cfg, network))
    num_frames = cfg.workflow.num_adaptive or num_samples
    outcomes = line.frames(islice(samples, num_frames), cfg.workflow.period_s)
    results = kept(outcomes, controller, rows)
    scored = score_samples(lambda _: next(results), network.task, islice(_samples(cfg, network), num_frames))
    for _ in results:  # frames beyond the first pass are timed only
        pass
    frames = pd.DataFrame(rows)
    frames["taken_s"] -= frames["taken_s"].iloc[0]
    write_csv(frames, folder / FRAMES)
    metrics = _metrics(frames, line, controller) | scored.metrics | split.labels(cfg)
    same = copy.deepcopy(cfg)
    same.workflow.num_samples = scored.num_samples  # frames may be fewer than samples
    metrics |= evaluation.compared(scored, evaluation.score_unsplit(same, network, "test"))
    metrics |= {"score_name": network.task.score_name, "num_samples": scored.num_samples}
    interval = f" ± {metrics['score_ci95']:.4f}" if "score_ci95" in metrics else ""
    headline = (
        f"{metrics['num_settings']} settings, {metrics['num_switches']} switches over {num_frames} frames: "
        f"measured latency {1e3 * metrics['measured_latency_s']:.2f} ms (mean), "
        f"{1e3 * metrics['measured_latency_p95_s']:.2f} ms (95th percentile); "
        f"{metrics['score_name']} {metrics['score']:.4f}{interval} (unsplit {metrics['score_unsplit']:.4f})\n"
        f"most frames by: {metrics['settings']}; {metrics['num_probes']} probes of the link, "
        f"{metrics['fallback_frames']} frames finished on the edge for want of an answer"
    )
    figures = {}
    if extras.has("plots"):
        from splitsem.report.adaptive_figures import adaptation

        figures["adaptation"] = adaptation(frames, f"{cfg.controller.policy}, {network.task.score_name}")
    draws = {"test": scored.draws} if scored.draws is not None else {}
    return Result(metrics, figures, [], headline, draws)


def kept(outcomes: Iterator[Outcome], controller: Adaptive, rows: list[_Frame]) -> Iterator[Any]:
    """The results; a row of each frame goes to ``rows``."""
    names = controller.table.names
    for outcome in outcomes:
        now, interval = controller.conditions, controller.link.bandwidth_interval
        facts = outcome.latency_s, outcome.payload_bytes, outcome.is_lost
        believed = now.bandwidth_bps, *interval, now.rtt_s, now.edge_factor, now.server_factor
        rows.append(_Frame(outcome.taken_s, names[outcome.setting], *facts, *believed))
        yield outcome.result


def _metrics(frames: pd.DataFrame, line: SwitchingLine, controller: Adaptive) -> Metrics:
    latency_s, settings, table = frames["latency_s"], frames["setting"], controller.table
    passed_s = float(frames["taken_s"].iloc[-1] + latency_s.iloc[-1])
    return {
        "policy": controller.policy,
        "score_val": float(settings.map(dict(zip(table.names, table.score, strict=True))).mean()),
        "measured_latency_s": float(latency_s.mean()),
        **{f"measured_latency_p{percent}_s": float(latency_s.quantile(percent / 100)) for percent in (50, 95, 99)},
        "measured_throughput_hz": len(frames) / passed_s,
        "payload_bytes": float(frames["payload_bytes"].mean()),
        "num_frames": len(frames),
        "num_settings": len(table),
        "num_switches": int((settings != settings.shift()).sum()) - 1,
        "num_changes": controller.num_changes,
        "num_probes": line.num_probes,
        "share_on_edge": float((settings == setting_tables.HOME).mean()),
        "settings": ", ".join(f"{name} ({count})" for name, count in settings.value_counts().head(3).items()),
        "bandwidth_bps": statistics.median(frames["bandwidth_bps"]),
        "rtt_s": statistics.median(frames["rtt_s"]),
        **vars(line.counters),
    }


def _samples(cfg: DictConfig, network: Network) -> Iterator[tuple[Any, Any]]:
    return assemble.test_batches(network.task, network.placement, 1, cfg.workflow.num_samples)
