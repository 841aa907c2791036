"""RecordedLink: a link as an earlier measurement found it, and the JSON file that holds the measurement.

    {"schema": "splitsem.link/2", "date": "2026-11-22T06:00:00+00:00", "target": "192.168.1.20:50051",
     "transport": "grpc", "rtt_s": {"median": 0.004, "p95": 0.009}, "loss": null, "up_bps": 2.1e7, "down_bps": 9.0e7,
     "edge_work": {"fixed_s": 3.0e-4, "s_per_byte": 5.0e-10}, "server_work": {"fixed_s": 3.0e-4, "s_per_byte": 6.0e-10},
     "num_rtts": 100, "num_packets": 0, "versions": {"splitsem": "0.1.0", ...}}

`transport=recorded transport.path=FILE` and the rate controller's `link` read the file.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path

import msgspec

from splitsem.errors import ConfigError
from splitsem.json_files import JsonFile, parse, read_text, write_text
from splitsem.links.link import NO_WORK, FrameWork
from splitsem.links.simulated import SimulatedLink

SCHEMA = "splitsem.link/2"


@dataclass(frozen=True)
class LinkMetrics:
    """A link to one server, as measured from the edge.

    Attributes:
        target: the server's ``host:port``.
        transport: what the measuring frames travelled by: ``grpc`` or ``udp``.
        date: when the link was measured, in UTC (ISO 8601).
        rtt_s: median round-trip time of an empty message, both ends' software included.
        rtt_p95_s: 95th percentile of the round-trip time.
        up_bps: goodput from the edge to the server, bits per second.
        down_bps: goodput from the server to the edge, bits per second.
        edge_work: of the transport's software for a frame, on the edge that measured.
        server_work: the same on the server.
        loss: share of datagrams that did not arrive, 0…1; None where TCP hides it.
        num_rtts: round trips behind ``rtt_s``.
        num_packets: datagrams behind ``loss``.
        versions: versions of the packages on the edge.
    """

    target: str
    transport: str
    date: str
    rtt_s: float
    rtt_p95_s: float
    up_bps: float
    down_bps: float
    edge_work: FrameWork = NO_WORK
    server_work: FrameWork = NO_WORK
    loss: float | None = None
    num_rtts: int = 0
    num_packets: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("rtt_s", "rtt_p95_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        for name in ("up_bps", "down_bps"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if self.loss is not None and not 0 <= self.loss <= 1:
            raise ValueError(f"loss must be 0…1, or null, got {self.loss}")


class RecordedLink(SimulatedLink):
    """A simulated link with the round-trip time and the goodput both ways that ``workflow=measure_link`` found.

    The measured round trip holds what a frame waits for both ends' software. What this software keeps the ends busy
    with, which bounds the pace, is theirs (``edge_work``, ``server_work``).

    Args:
        path: the file that ``workflow=measure_link`` wrote.
        energy_j_per_bit: joules the sender spends on each payload bit; not measured.

    Raises:
        ConfigError: the file is missing or incomplete.
    """

    def __init__(self, path: str, energy_j_per_bit: float = 0.0) -> None:
        self.metrics = read_link_metrics(path)
        super().__init__(
            self.metrics.up_bps,
            self.metrics.rtt_s,
            energy_j_per_bit,
            down_bandwidth_bps=self.metrics.down_bps,
        )
        self.edge_work, self.server_work = self.metrics.edge_work, self.metrics.server_work


def write_link_metrics(link: LinkMetrics, path: str | Path) -> None:
    """Write ``link`` as JSON, whole or not at all."""
    facts = asdict(link)
    facts["rtt_s"] = {"median": facts.pop("rtt_s"), "p95": facts.pop("rtt_p95_s")}
    write_text(json.dumps({"schema": SCHEMA} | facts, indent=1, allow_nan=False) + "\n", path)


def read_link_metrics(path: str | Path) -> LinkMetrics:
    """Read what ``write_link_metrics`` wrote and check all of it.

    Raises:
        ConfigError: the file is missing, is not JSON, or has a wrong schema or value.
    """
    try:
        text = read_text(path, "link's file")
    except ConfigError as exc:
        raise ConfigError(f"{exc}; workflow=measure_link writes one") from exc
    try:
        return parse(text, str(path), "file", SCHEMA, _File, _metrics)
    except ConfigError as exc:
        raise ConfigError(f"{exc}; measure the link anew by workflow=measure_link") from exc


class _RoundTrip(msgspec.Struct):
    median: float
    p95: float


class _Work(msgspec.Struct):
    fixed_s: float
    s_per_byte: float


class _File(JsonFile, kw_only=True):
    date: str
    target: str
    transport: str
    rtt_s: _RoundTrip
    loss: float | None
    up_bps: float
    down_bps: float
    edge_work: _Work
    server_work: _Work
    num_rtts: int
    num_packets: int
    versions: dict[str, str]


def _metrics(file: _File) -> LinkMetrics:
    facts = msgspec.structs.asdict(file)
    del facts["schema"], facts["unit"]
    rtt_s = facts.pop("rtt_s")
    facts |= {name: FrameWork(**msgspec.structs.asdict(facts[name])) for name in ("edge_work", "server_work")}
    return LinkMetrics(rtt_s=rtt_s.median, rtt_p95_s=rtt_s.p95, **facts)
