"""Files of measured tables: of one machine (BranchLut), and of two with the link between them (HardwareLut).

{"schema": "splitsem.branch_lut/1", "unit": "s", "packages": {"torch": "2.14.1", ...}, "machine": {...},
 "model": {"name": "repvgg_a0", "input_bytes": 602112},
 "rates": {"peak_flops_per_s": 1e11, "memory_bytes_per_s": 2e10, "knee": 5.0},
 "units": [{"name": "stem", "input_shape": [3, 224, 224], "output_shape": [...], "output_bytes": ...,
            "origin": "measured", "ways": {"4": {"label": "D+K", "time_s": {"median": ..., "p10": ..., "p90": ...},
                                                 "repeats": 100, "flops": ..., "bytes": ...}}}],
 "calibration": {"factor": 1.04, "worst_error": 0.01, "chains": [{"gammas": [...], "time_s": {...}}]}}

``hardware_lut_complete.json`` holds two such tables as ``edge`` and ``server``, the fits ``link`` and ``frames``, and
the ``answer``.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from splitsem.cost.branch_lut import BranchLut, UnitLut
from splitsem.cost.fits import AnswerWay, FrameFit, LinkFit
from splitsem.cost.measure import Calibration, MachineRates
from splitsem.errors import MachineError
from splitsem.json_files import Count, JsonFile, parse, read_text, write_text

SCHEMA, TABLE_SCHEMA = "splitsem.hardware_lut/1", "splitsem.branch_lut/1"
_WHAT = "branch LUT"


class _Model(msgspec.Struct):
    name: str
    input_bytes: Count


class _File(JsonFile, kw_only=True):
    unit: str
    packages: dict[str, str]
    machine: dict[str, str]
    model: _Model
    units: list[UnitLut]
    rates: MachineRates | None = None
    calibration: Calibration | None = None


def write_branch_lut(lut: BranchLut, path: str | Path) -> None:
    """Write ``lut`` as JSON, whole or not at all; missing folders are made."""
    write_text(branch_lut_json(lut), path)


def read_branch_lut(path: str | Path) -> BranchLut:
    """Read a table and check all of its values; ``BranchLut.check_fits`` checks that the table is of a certain model.

    Raises:
        MachineError: the file is missing, is not JSON, has another schema or unit, or has an impossible value.
    """
    return parse_branch_lut(read_text(path, _WHAT), str(path))


def branch_lut_json(lut: BranchLut) -> str:
    """``lut`` as the text of its file."""
    return json.dumps(branch_lut_object(lut), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def parse_branch_lut(text: str, source: str) -> BranchLut:
    """A table from the text of its file, all of it checked; ``source`` names it in messages. Raises MachineError."""

    def lut(file: _File) -> BranchLut:
        model, facts = file.model, (file.machine, file.packages, file.rates, file.calibration)
        return BranchLut(model.name, model.input_bytes, file.units, *facts, source)

    return parse(text, source, _WHAT, TABLE_SCHEMA, _File, lut)


def branch_lut_object(lut: BranchLut) -> dict[str, Any]:
    """``lut`` as the JSON object of its file; knee, labels, factor and error are there for human readers only."""
    document: dict[str, Any] = {
        "schema": TABLE_SCHEMA,
        "unit": "s",
        "packages": dict(lut.packages),
        "machine": dict(lut.machine),
        "model": {"name": lut.model, "input_bytes": lut.input_bytes},
    }
    if lut.rates is not None:
        document["rates"] = msgspec.to_builtins(lut.rates) | {"knee": lut.rates.knee}
    document["units"] = [_unit_object(unit) for unit in lut.units]
    if lut.calibration is not None:
        followed = {"factor": lut.calibration.factor, "worst_error": lut.calibration.worst_error}
        document["calibration"] = followed | msgspec.to_builtins(lut.calibration)
    return document


def _unit_object(unit: UnitLut) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(unit)
    ways = document.pop("ways")
    return document | {"ways": {str(gamma): {"label": unit.label(gamma)} | ways[gamma] for gamma in sorted(ways)}}


@dataclass(frozen=True)
class HardwareLut:
    """Two machines' tables of one model; ``merge`` makes one and checks that both tables are of the same model.

    Attributes:
        edge: table of the machine that has the sensor and runs the first λ units.
        server: table of the machine that runs the further units.
        link: fitted to measured transfers between the machines; None where no link was measured.
        answer: where the answer is needed, and its way there; None where nothing is known of it.
        frames: fitted to frames of whole networks between the machines: what each end takes beyond its table; None
            where no frames were run.
    """

    edge: BranchLut
    server: BranchLut
    link: LinkFit | None = None
    answer: AnswerWay | None = None
    frames: FrameFit | None = None

    @property
    def link_bytes(self) -> NDArray[np.float64]:
        """Bytes that cross, by λ, ``(units + 1,)``: the input first, last what the server needs of a whole network."""
        sizes = [self.edge.input_bytes, *(unit.output_bytes for unit in self.edge.units)]
        return np.array(sizes if self.answer is None else [*sizes[:-1], self.answer.up_bytes], dtype=float)


def merge(edge: BranchLut, server: BranchLut, link: LinkFit | None = None) -> HardwareLut:
    """Put two machines' tables of the same model together.

    A unit needs times on at least one of the machines; a machine without times never runs the unit.

    Raises:
        MachineError: the tables are of different models, units, crossing bytes or γ sets; says which and where.
    """
    pair = f"{edge.source} and {server.source}"
    if edge.model != server.model:
        raise MachineError(f"{pair} are LUTs of two models, {edge.model!r} and {server.model!r}")
    names = [[unit.name for unit in lut.units] for lut in (edge, server)]
    if names[0] != names[1]:
        differing = sorted(set(names[0]) ^ set(names[1])) or ["in another order"]
        raise MachineError(f"{pair} have different units: {', '.join(differing)}")
    if edge.input_bytes != server.input_bytes:
        raise MachineError(f"{pair} have inputs of {edge.input_bytes} and {server.input_bytes} bytes")
    for ours, theirs in zip(edge.units, server.units, strict=True):
        where = f"unit {ours.name!r} of {pair}"
        if _facts(ours) != _facts(theirs):
            raise MachineError(f"{where}: its shapes or crossing bytes differ, {_facts(ours)} and {_facts(theirs)}")
        if not ours.ways and not theirs.ways:
            raise MachineError(f"{where} has no time on either machine")
        if ours.ways and theirs.ways and ours.ways.keys() != theirs.ways.keys():
            raise MachineError(f"{where}: the γ sets differ, {sorted(ours.ways)} and {sorted(theirs.ways)}")
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
    if lut.answer is not None:
        document["answer"] = asdict(lut.answer)
    if lut.frames is not None:
        document["frames"] = asdict(lut.frames)
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _facts(unit: UnitLut) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    return unit.input_shape, unit.output_shape, unit.output_bytes
