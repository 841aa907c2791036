"""Lut is a latency table: the measured time of each half of a model on one machine, in a JSON file.

    {"schema": "splitsem.lut/1", "unit": "s", "fingerprint": "...", "torch": "2.14.1", "machine": {"processor": ...},
     "points": {"stage1": {"head_s": {"median": 0.001, "p10": 0.0009, "p90": 0.002}, "tail_s": {...}}, ...}}

`workflow=profile` writes a file; `hardware.edge.lut=FILE` and `hardware.server.lut=FILE` read a file.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from splitsem.cost.measure import Timing, measure
from splitsem.errors import MachineError
from splitsem.json_files import JsonFile, parse, read_text, write_text
from splitsem.placement import describe_run
from splitsem.splitting.half import Half

SCHEMA = "splitsem.lut/1"
Side = Literal["head", "tail"]


class _Sides(msgspec.Struct, forbid_unknown_fields=True):
    head_s: Timing | msgspec.UnsetType = msgspec.UNSET
    tail_s: Timing | msgspec.UnsetType = msgspec.UNSET


class _File(JsonFile, kw_only=True):
    unit: str
    fingerprint: str
    torch: str
    machine: dict[str, str]
    points: dict[str, _Sides]


@dataclass(frozen=True)
class Lut:
    """Measured times of one model's halves on one machine.

    Attributes:
        fingerprint: of the measured model; ``time_s`` refuses halves of another model.
        times: split point → side → time.
        machine: the measured machine, in words.
        torch_version: version of torch in the measurement.
        source: the file that the table was read from, for messages.
    """

    fingerprint: str
    times: Mapping[str, Mapping[Side, Timing]]
    machine: Mapping[str, str]
    torch_version: str
    source: str = "this LUT"

    def time_s(self, half: Half) -> float:
        """Median seconds of a half. Raises MachineError for another model, or a point or side that was not measured."""
        remake = "make one for this model: python run.py workflow=profile"
        if half.fingerprint != self.fingerprint:
            raise MachineError(
                f"{self.source} belongs to another model: its fingerprint is {self.fingerprint!r}, "
                f"this model's {half.fingerprint!r}; {remake}"
            )
        sides = self.times.get(half.point, {})
        if half.side not in sides:
            known = ", ".join(point for point, measured in self.times.items() if half.side in measured)
            raise MachineError(
                f"{self.source} has no {half.side} time for the split point {half.point!r}, only for: {known}; {remake}"
            )
        return sides[half.side].median_s


def measure_lut(
    halves: Iterable[Half], repeats: int = 50, warmup: int = 3, budget_s: float = 0.5, pause_s: float = 0.0
) -> Lut:
    """Measure every half on this machine, see ``measure``; wrap ``halves`` in a progress bar to watch.

    Raises:
        MachineError: there are no halves, or they belong to different models.
    """
    times: dict[str, dict[Side, Timing]] = {}
    fingerprint: str | None = None
    accelerator = "cpu"
    for half in halves:
        if fingerprint not in (None, half.fingerprint):
            raise MachineError(f"one LUT holds one model, got {fingerprint!r} and {half.fingerprint!r}")
        fingerprint = half.fingerprint
        accelerator = half.example[0].device.type if half.example else accelerator
        times.setdefault(half.point, {})[half.side] = measure(half, repeats, warmup, budget_s, pause_s)
    if fingerprint is None:
        raise MachineError("nothing to measure: the model has no split points")
    machine = describe_run(accelerator)
    version = machine.pop("torch")
    return Lut(fingerprint, times, machine, version)


def lut_json(lut: Lut) -> str:
    """``lut`` as the text of its file."""
    points = {
        point: {f"{side}_s": msgspec.to_builtins(timing) for side, timing in sides.items()}
        for point, sides in lut.times.items()
    }
    document = {
        "schema": SCHEMA,
        "unit": "s",
        "fingerprint": lut.fingerprint,
        "torch": lut.torch_version,
        "machine": dict(lut.machine),
        "points": points,
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def write_lut(lut: Lut, path: str | Path) -> None:
    """Write ``lut`` as JSON, whole or not at all; missing folders are made."""
    write_text(lut_json(lut), path)


def read_lut(path: str | Path) -> Lut:
    """Read a LUT and check all of it.

    Raises:
        MachineError: the file is missing, is not JSON, has another schema, or has an impossible time.
    """
    return parse_lut(read_text(path, "LUT"), str(path))


def parse_lut(text: str, source: str) -> Lut:
    """A LUT from the text of its file, all of it checked; ``source`` names it in messages. Raises MachineError."""

    def lut(file: _File) -> Lut:
        times: dict[str, dict[Side, Timing]] = {
            point: {side: timing for side in get_args(Side) if (timing := getattr(sides, f"{side}_s"))}
            for point, sides in file.points.items()
        }
        return Lut(file.fingerprint, times, file.machine, file.torch, source)

    return parse(text, source, "LUT", SCHEMA, _File, lut)


def slowed_halves(lut: Lut, factor: float) -> Lut:
    """A table of heads and tails for a machine that takes ``factor`` times as long, see ``slowed``.

    Raises:
        ValueError: the factor is not positive and finite.
    """
    check_factor(factor)
    if factor == 1:
        return lut
    times = {point: {side: longer(time, factor) for side, time in sides.items()} for point, sides in lut.times.items()}
    return replace(lut, times=times, machine=assumed(lut.machine, factor))


def check_factor(factor: float) -> None:
    """Raise ValueError unless the factor is positive and finite."""
    if not (isfinite(factor) and factor > 0):
        raise ValueError(f"factor must be positive and finite, got {factor}")


def assumed(machine: Mapping[str, str], factor: float) -> dict[str, str]:
    """The words of a machine that is this one, slowed."""
    return dict(machine) | {"assumed": f"the times of this machine × {factor:g}"}


def longer(time: Timing, factor: float) -> Timing:
    """A time on a machine that takes ``factor`` times as long."""
    seconds: dict[str, Any] = msgspec.structs.asdict(time)
    return msgspec.structs.replace(
        time, **{name: value_s * factor for name, value_s in seconds.items() if value_s is not None}
    )
