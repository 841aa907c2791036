"""Workflow measure_link: round trip, loss and goodput to a running server, as a file for other workflows."""

import logging
import platform
from datetime import UTC, datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.links.link import FrameWork
from splitsem.links.recorded import LinkMetrics, write_link_metrics
from splitsem.remote.link_probe import (
    ProbeSettings,
    measure_down,
    measure_loss,
    measure_rtt,
    measure_up,
    measure_work,
    work_sizes,
)
from splitsem.remote.transports import RemoteTransport
from splitsem.remote.udp.transport import UdpTransport
from splitsem.workflows import pasted
from splitsem.workflows.result import Result
from splitsem.workflows.serve import remote_transport
from splitsem.workflows.tracking import versions
from splitsem_device.plan import Plan

log = logging.getLogger(__name__)
_PROBING = (
    "num_rtts",
    "pause_s",
    "enough_s",
    "most_bytes",
    "num_transfers",
    "num_frames",
    "num_loss_packets",
    "loss_rate_share",
)


def run(cfg: DictConfig, folder: Path) -> Result:
    """Measure the link to ``transport.target``; leaves ``link.json`` in the run's folder. No network is needed here."""
    transport = remote_transport(cfg)
    if transport.start.how is not None:
        raise ConfigError("transport.start is for workflow=offload; measure the link to a server that runs already")
    settings = ProbeSettings(**{name: cfg.workflow[name] for name in _PROBING})
    link = measure(transport, HydraConfig.get().runtime.choices["transport"], settings)
    path = (folder / "link.json").absolute()
    write_link_metrics(link, path)
    metrics = {"rtt_s": link.rtt_s, "rtt_p95_s": link.rtt_p95_s, "up_bps": link.up_bps, "down_bps": link.down_bps}
    metrics["edge_transport_s"], metrics["server_transport_s"] = link.edge_work.fixed_s, link.server_work.fixed_s
    loss = "not visible over TCP (transport=udp shows it)"
    if link.loss is not None:
        metrics["loss"] = link.loss
        loss = f"{100 * link.loss:.2f} % of {link.num_packets} datagrams"
    headline = (
        f"{link.target}: round trip {1e3 * link.rtt_s:.3g} ms (95th percentile {1e3 * link.rtt_p95_s:.3g}), "
        f"{1e-6 * link.up_bps:.4g} Mbit/s up, {1e-6 * link.down_bps:.4g} down, loss {loss}, "
        f"a frame keeps the edge's processor busy for {_said(link.edge_work)}, the server's for "
        f"{_said(link.server_work)}; "
        f"use it as {pasted.words(['transport=recorded', pasted.setting('transport.path', str(path))])}"
    )
    return Result({**metrics, "target": link.target}, {}, [], headline)


def measure(transport: RemoteTransport, name: str, settings: ProbeSettings) -> LinkMetrics:
    """The metrics of the link between ``transport`` and its server. Raises LinkError and ConfigError."""
    remote = transport.edge_end()
    try:
        remote.open(Plan.of_probes(0))
        log.info("Measuring the link to %s", transport.target)
        rtt_s, rtt_p95_s = measure_rtt(remote, settings)
        up_bps = measure_up(remote, settings, rtt_s)
        down_bps = measure_down(remote, settings, rtt_s)
        remote.open(Plan.of_probes(0))
        works = measure_work(remote, work_sizes(up_bps), settings.num_frames)
    finally:
        remote.close()
    loss, num_packets = None, 0
    if isinstance(transport, UdpTransport):
        loss, num_packets = measure_loss(transport, settings, up_bps)
    return LinkMetrics(
        transport.target,
        name,
        datetime.now(UTC).isoformat(timespec="seconds"),
        rtt_s=rtt_s,
        rtt_p95_s=rtt_p95_s,
        up_bps=up_bps,
        down_bps=down_bps,
        edge_work=works[0],
        server_work=works[1],
        loss=loss,
        num_rtts=settings.num_rtts,
        num_packets=num_packets,
        versions=versions() | {"python": platform.python_version()},
    )


def _said(work: FrameWork) -> str:
    return f"{1e3 * work.fixed_s:.2g} ms + {1e9 * work.s_per_byte:.2g} ms/MB"
