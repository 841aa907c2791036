"""RecordedLink: a link as an earlier measurement found it, kept as a JSON file.

    {"schema": "splitsem.link/1", "date": "2026-11-22T06:00:00+00:00", "target": "192.168.1.20:50051",
     "transport": "grpc", "rtt_s": {"median": 0.004, "p95": 0.009}, "loss": null, "up_bps": 2.1e7, "down_bps": 9.0e7,
     "num_rtts": 100, "num_packets": 0, "versions": {"splitsem": "0.1.0", ...}}

`workflow=measure_link` writes one; `transport=recorded transport.path=FILE` and the rate controller's `link` read it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from splitsem.errors import ConfigError
from splitsem.links.simulated import SimulatedLink

SCHEMA = "splitsem.link/1"


@dataclass(frozen=True)
class LinkMetrics:
    """A link to one server, as measured from the device.

    Attributes:
        target: the server's ``host:port``.
        transport: what the measuring frames travelled by: ``grpc`` or ``udp``.
        date: when, in UTC (ISO 8601).
        rtt_s: median round-trip time of an empty message, both ends' software included.
        rtt_p95_s: its 95th percentile.
        up_bps: goodput from the device to the server, bits per second.
        down_bps: goodput back.
        loss: share of datagrams that did not arrive, 0…1; None where TCP hides it.
        num_rtts: round trips behind ``rtt_s``.
        num_packets: datagrams behind ``loss``.
        versions: of the packages at the device's end.
    """

    target: str
    transport: str
    date: str
    rtt_s: float
    rtt_p95_s: float
    up_bps: float
    down_bps: float
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
    """The simulated link with the round-trip time and the goodput up that ``workflow=measure_link`` found.

    Args:
        path: the file.
        energy_j_per_bit: joules the sender spends on each payload bit; not measured.

    Raises:
        ConfigError: the file is missing or is not a whole one.
    """

    def __init__(self, path: str, energy_j_per_bit: float = 0.0) -> None:
        self.metrics = read_link_metrics(path)
        super().__init__(self.metrics.up_bps, self.metrics.rtt_s, energy_j_per_bit)


def write_link_metrics(link: LinkMetrics, path: str | Path) -> None:
    """Write ``link`` as JSON, whole or not at all."""
    facts = asdict(link)
    facts["rtt_s"] = {"median": facts.pop("rtt_s"), "p95": facts.pop("rtt_p95_s")}
    path = Path(path)
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(json.dumps({"schema": SCHEMA} | facts, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    scratch.replace(path)


def read_link_metrics(path: str | Path) -> LinkMetrics:
    """Read what ``write_link_metrics`` wrote and check all of it.

    Raises:
        ConfigError: the file is missing, is not JSON, has another schema or a value that cannot be.
    """
    try:
        document = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(
            f"cannot read the link's file {str(path)!r}: {exc}; workflow=measure_link writes one"
        ) from exc
    try:
        return _parse(document)
    except (KeyError, TypeError, ValueError) as exc:
        what = f"{exc.args[0]!r} is missing" if isinstance(exc, KeyError) else str(exc)
        raise ConfigError(f"{path} is not a whole file of schema {SCHEMA!r}: {what}") from exc


def _parse(document: Any) -> LinkMetrics:
    if not isinstance(document, dict):
        raise TypeError(f"the file must be a JSON object, got {type(document).__name__}")
    if document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {document['schema']!r}")
    rtt_s, versions = document["rtt_s"], document["versions"]
    if not isinstance(rtt_s, dict) or not isinstance(versions, dict):
        raise TypeError("rtt_s and versions must be JSON objects")
    return LinkMetrics(
        target=str(document["target"]),
        transport=str(document["transport"]),
        date=str(document["date"]),
        rtt_s=_number(rtt_s["median"], "rtt_s.median"),
        rtt_p95_s=_number(rtt_s["p95"], "rtt_s.p95"),
        up_bps=_number(document["up_bps"], "up_bps"),
        down_bps=_number(document["down_bps"], "down_bps"),
        loss=None if document["loss"] is None else _number(document["loss"], "loss"),
        num_rtts=int(_number(document["num_rtts"], "num_rtts")),
        num_packets=int(_number(document["num_packets"], "num_packets")),
        versions={str(name): str(number) for name, number in versions.items()},
    )


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)
