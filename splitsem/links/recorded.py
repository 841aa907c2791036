"""RecordedLink: a link as an earlier measurement found it, and the JSON file that holds the measurement.

    {"schema": "splitsem.link/1", "date": "2026-11-22T06:00:00+00:00", "target": "192.168.1.20:50051",
     "transport": "grpc", "rtt_s": {"median": 0.004, "p95": 0.009}, "loss": null, "up_bps": 2.1e7, "down_bps": 9.0e7,
     "frame_s": 3.0e-4, "num_rtts": 100, "num_packets": 0, "versions": {"splitsem": "0.1.0", ...}}

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
from splitsem.links.simulated import SimulatedLink

SCHEMA = "splitsem.link/1"


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
        frame_s: processor seconds that the transport's software takes at each end for a frame and its answer.
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
    frame_s: float = 0.0
    loss: float | None = None
    num_rtts: int = 0
    num_packets: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("rtt_s", "rtt_p95_s", "frame_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        for name in ("up_bps", "down_bps"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if self.loss is not None and not 0 <= self.loss <= 1:
            raise ValueError(f"loss must be 0…1, or null, got {self.loss}")


class RecordedLink(SimulatedLink):
    """A simulated link with the round-trip time and the goodput both ways that ``workflow=measure_link`` found.

    Both ends' software is part of the measured round trip. It is work of the ends (``frame_s``), so the link delays by
    what is left.

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
            max(0.0, self.metrics.rtt_s - 2 * self.metrics.frame_s),
            energy_j_per_bit,
            down_bandwidth_bps=self.metrics.down_bps,
        )
        self.frame_s = self.metrics.frame_s


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
    return parse(text, str(path), "file", SCHEMA, _File, _metrics)


class _RoundTrip(msgspec.Struct):
    median: float
    p95: float


class _File(JsonFile, kw_only=True):
    date: str
    target: str
    transport: str
    rtt_s: _RoundTrip
    loss: float | None
    up_bps: float
    down_bps: float
    frame_s: float
    num_rtts: int
    num_packets: int
    versions: dict[str, str]


def _metrics(file: _File) -> LinkMetrics:
    facts = msgspec.structs.asdict(file)
    del facts["schema"], facts["unit"]
    rtt_s = facts.pop("rtt_s")
    return LinkMetrics(rtt_s=rtt_s.median, rtt_p95_s=rtt_s.p95, **facts)
