"""HardwareLut joins two machines' tables of one model and the link between them: ``hardware_lut_complete.json``."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from splitsem.cost.branch_lut import BranchLut, UnitLut
from splitsem.cost.branch_lut_file import branch_lut_object
from splitsem.cost.fits import FrameFit, LinkFit
from splitsem.errors import ConfigError
from splitsem.json_files import write_text

SCHEMA = "splitsem.hardware_lut/1"


@dataclass(frozen=True)
class HardwareLut:
    """Two machines' tables of one model; ``merge`` makes one and checks that both tables are of the same model.

    Attributes:
        edge: table of the machine that has the sensor and runs the first λ units.
        server: table of the machine that runs the further units.
        link: fitted to measured transfers between the machines; None where no link was measured.
        frames: fitted to frames of whole networks between the machines: what each end takes beyond its table; None
            where no frames were run.
    """

    edge: BranchLut
    server: BranchLut
    link: LinkFit | None = None
    frames: FrameFit | None = None


def merge(edge: BranchLut, server: BranchLut, link: LinkFit | None = None) -> HardwareLut:
    """Put two machines' tables of the same model together.

    A unit needs times on at least one of the machines; a machine without times never runs the unit.

    Raises:
        ConfigError: the tables are of different models, units, crossing bytes or γ sets; says which and where.
    """
    pair = f"{edge.source} and {server.source}"
    if edge.model != server.model:
        raise ConfigError(f"{pair} are LUTs of two models, {edge.model!r} and {server.model!r}")
    names = [[unit.name for unit in lut.units] for lut in (edge, server)]
    if names[0] != names[1]:
        differing = sorted(set(names[0]) ^ set(names[1])) or ["in another order"]
        raise ConfigError(f"{pair} have different units: {', '.join(differing)}")
    if edge.input_bytes != server.input_bytes:
        raise ConfigError(f"{pair} have inputs of {edge.input_bytes} and {server.input_bytes} bytes")
    for ours, theirs in zip(edge.units, server.units, strict=True):
        where = f"unit {ours.name!r} of {pair}"
        if _facts(ours) != _facts(theirs):
            raise ConfigError(f"{where}: its shapes or crossing bytes differ, {_facts(ours)} and {_facts(theirs)}")
        if not ours.ways and not theirs.ways:
            raise ConfigError(f"{where} has no time on either machine")
        if ours.ways and theirs.ways and ours.ways.keys() != theirs.ways.keys():
            raise ConfigError(f"{where}: the γ sets differ, {sorted(ours.ways)} and {sorted(theirs.ways)}")
    return HardwareLut(edge, server, link)


def write_hardware_lut(lut: HardwareLut, path: str | Path) -> None:
    """Write ``lut`` as JSON, whole or not at all; missing folders are made."""
    write_text(hardware_lut_json(lut), path)


def hardware_lut_json(lut: HardwareLut) -> str:
    """``lut`` as the text of its file."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "unit": "s",
        "edge": branch_lut_object(lut.edge),
        "server": branch_lut_object(lut.server),
    }
    if lut.link is not None:
        document["link"] = asdict(lut.link)
    if lut.frames is not None:
        document["frames"] = asdict(lut.frames)
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _facts(unit: UnitLut) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    return unit.input_shape, unit.output_shape, unit.output_bytes
