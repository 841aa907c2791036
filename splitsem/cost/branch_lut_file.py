"""The JSON file of a BranchLut, written and read: machine, versions, and the time of each unit and γ.

{"schema": "splitsem.branch_lut/1", "unit": "s", "packages": {"torch": "2.14.1", ...}, "machine": {...},
 "model": {"name": "repvgg_a0", "input_bytes": 602112},
 "rates": {"peak_flops_per_s": 1e11, "memory_bytes_per_s": 2e10, "knee": 5.0},
 "units": [{"name": "stem", "input_shape": [3, 224, 224], "output_shape": [...], "output_bytes": ...,
            "origin": "measured", "ways": {"4": {"label": "D+K", "time_s": {"median": ..., "p10": ..., "p90": ...},
                                                 "repeats": 100, "flops": ..., "bytes": ...}}}],
 "calibration": {"factor": 1.04, "worst_error": 0.01, "chains": [{"gammas": [...], "time_s": {...}}]}}
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from splitsem.cost.branch_lut import BranchLut, UnitLut
from splitsem.cost.measure import Calibration, MachineRates
from splitsem.json_files import Count, JsonFile, parse, read_text, write_text

SCHEMA = "splitsem.branch_lut/1"
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
        ConfigError: the file is missing, is not JSON, has another schema or unit, or has an impossible value.
    """
    return parse_branch_lut(read_text(path, _WHAT), str(path))


def branch_lut_json(lut: BranchLut) -> str:
    """``lut`` as the text of its file."""
    return json.dumps(branch_lut_object(lut), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def parse_branch_lut(text: str, source: str) -> BranchLut:
    """A table from the text of its file, all of it checked; ``source`` names it in messages. Raises ConfigError."""

    def lut(file: _File) -> BranchLut:
        model, facts = file.model, (file.machine, file.packages, file.rates, file.calibration)
        return BranchLut(model.name, model.input_bytes, file.units, *facts, source)

    return parse(text, source, _WHAT, SCHEMA, _File, lut)


def branch_lut_object(lut: BranchLut) -> dict[str, Any]:
    """``lut`` as the JSON object of its file; knee, labels, factor and error are there for human readers only."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
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
