"""Imports tables of other projects: ``{"blocks": {"stage1.0@CLIENT": {"0": 2.5, "2": null, ...}}}``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, prod
from pathlib import Path
from typing import Literal

import msgspec

from splitsem.cost.branch_lut import BranchLut, UnitLut, UnitSpec, Way
from splitsem.cost.fits import LinkFit
from splitsem.cost.hardware_lut import HardwareLut, merge
from splitsem.cost.measure import Timing
from splitsem.errors import ConfigError
from splitsem.json_files import Amount, decode, read_text
from splitsem.models.branches import GAMMAS

TimeUnit = Literal["s", "ms", "us"]
_SECONDS: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_FLOAT32_BYTES = 4
Column = Mapping[str, Amount | None]


class _Table(msgspec.Struct):
    blocks: dict[str, Column]


def import_table(
    path: str | Path, model: str, specs: Sequence[UnitSpec], unit: TimeUnit, tier: str, about: str = "published table"
) -> BranchLut:
    """One machine's table from a file with one time for each block and γ: no spread, an unknown number of repeats.

    Args:
        path: the file; a ``null`` says that the block cannot run with that γ.
        model: name of the network.
        specs: the network's units of interest, named as in the file; a unit that the file lacks gets no times.
        unit: unit of the times, which the file does not say itself.
        tier: what stands behind the ``@``.
        about: the machine, in words.

    Raises:
        ConfigError: the file has another form, a time cannot be, or a block has other γ than the model.
    """
    if unit not in _SECONDS:
        raise ValueError(f"unit must be one of {', '.join(_SECONDS)}, got {unit!r}")
    blocks = _read_blocks(path)
    tiers = sorted({name.rpartition("@")[2] for name in blocks})
    if tier not in tiers:
        raise ConfigError(f"{str(path)!r} has no block of the tier {tier!r}, only of: {', '.join(tiers)}")
    strange = sorted({name.rpartition("@")[0] for name in blocks} - {spec.name for spec in specs})
    if strange:
        raise ConfigError(f"{str(path)!r} has blocks that {model} has not, or that were not asked for: {strange[0]}")
    units = [_unit(spec, blocks.get(f"{spec.name}@{tier}"), _SECONDS[unit], str(path)) for spec in specs]
    input_bytes = prod(specs[0].input_shape) * _FLOAT32_BYTES
    machine = {"processor": about, "tier": tier, "precision": "float32"}
    return BranchLut(model, input_bytes, units, machine, packages={}, source=str(path))


def assume_server(edge: BranchLut, server: BranchLut, speedup: float) -> BranchLut:
    """``server`` with each missing unit taken from ``edge``, ``speedup`` times as fast and called assumed.

    Raises:
        ValueError: the factor is not positive and finite.
    """
    if not (isfinite(speedup) and speedup > 0):
        raise ValueError(f"speedup must be positive and finite, got {speedup}")
    units = [
        theirs if theirs.ways else replace(ours, ways=_faster(ours.ways, speedup), origin="assumed")
        for ours, theirs in zip(edge.units, server.units, strict=True)
    ]
    machine = dict(server.machine) | {"assumed": f"units without a time of their own: the edge's, divided by {speedup}"}
    return replace(server, units=units, machine=machine, calibration=None)


def import_pair(
    path: str | Path,
    model: str,
    specs: Sequence[UnitSpec],
    unit: TimeUnit,
    server_speedup: float | None = None,
    link: LinkFit | None = None,
) -> HardwareLut:
    """Both machines' tables from a file whose tiers are ``CLIENT`` and ``SERVER``.

    A unit without a time on the server never runs there, unless ``server_speedup`` is given: see ``assume_server``.
    A unit without a time on the edge never runs there. Raises as ``import_table`` and ``merge``.
    """
    edge = import_table(path, model, specs, unit, "CLIENT")
    server = import_table(path, model, specs, unit, "SERVER")
    return merge(edge, server if server_speedup is None else assume_server(edge, server, server_speedup), link)


def _read_blocks(path: str | Path) -> dict[str, Column]:
    text = read_text(path, "table")
    try:
        blocks = decode(text, _Table).blocks
        for name in blocks:
            if not all(name.rpartition("@")):
                raise ValueError(f"expected blocks named BLOCK@TIER, got {name!r}")
        if not blocks:
            raise ValueError("it has no blocks")
    except ValueError as exc:
        raise ConfigError(f"{str(path)!r} is not a table of block@tier → γ → time: {exc}") from exc
    return blocks


def _unit(spec: UnitSpec, column: Column | None, seconds: float, source: str) -> UnitLut:
    ways = {} if column is None else _ways(spec, column, seconds, source)
    output_bytes = prod(spec.output_shape) * _FLOAT32_BYTES
    return UnitLut(spec.name, tuple(spec.input_shape), tuple(spec.output_shape), output_bytes, ways, "published")


def _ways(spec: UnitSpec, column: Column, seconds: float, source: str) -> dict[int, Way]:
    where = f"{source}, block {spec.name!r}"
    times = {gamma: time for gamma, time in column.items() if time is not None}
    unknown = times.keys() - set(map(str, range(len(GAMMAS))))
    if unknown:
        raise ConfigError(f"{where}: γ must be 0…{len(GAMMAS) - 1}, got {sorted(unknown)[0]!r}")
    found = {int(gamma): time * seconds for gamma, time in times.items()}
    if found.keys() != set(spec.gammas):
        raise ConfigError(f"{where} has times for γ {sorted(found)}, the model's block offers {sorted(spec.gammas)}")
    return {gamma: Way(Timing(t, t, t), 0, spec.flops[gamma], spec.bytes[gamma]) for gamma, t in sorted(found.items())}


def _faster(ways: Mapping[int, Way], speedup: float) -> dict[int, Way]:
    faster = {}
    for gamma, way in ways.items():
        time = Timing(way.time.median_s / speedup, way.time.p10_s / speedup, way.time.p90_s / speedup)
        faster[gamma] = msgspec.structs.replace(way, time=time)
    return faster
