"""The JSON file of a BranchLut: seconds, versions, machine, and for each unit and γ what it takes.

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

from splitsem.cost.branch_lut import BranchLut, UnitLut, Way
from splitsem.cost.lut_file import (
    as_amount,
    as_count,
    as_object,
    as_shape,
    as_text,
    as_texts,
    as_timing,
    parse_document,
    read_text,
    timing_object,
    write_text,
)
from splitsem.cost.measure import Calibration, ChainTime, MachineRates
from splitsem.models.branches import GAMMAS

SCHEMA = "splitsem.branch_lut/1"
_WHAT = "branch LUT"


def write_branch_lut(lut: BranchLut, path: str | Path) -> None:
    """Write ``lut`` as JSON, whole or not at all; missing folders are made."""
    write_text(branch_lut_json(lut), path)


def read_branch_lut(path: str | Path) -> BranchLut:
    """Read a table and check all of it; whether it is that of a certain model says ``BranchLut.check_fits``.

    Raises:
        ConfigError: the file is missing, is not JSON, has another schema or unit, or a value that cannot be, and where.
    """
    return parse_branch_lut(read_text(path, _WHAT), str(path))


def branch_lut_json(lut: BranchLut) -> str:
    """``lut`` as the text of its file."""
    return json.dumps(branch_lut_object(lut), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def parse_branch_lut(text: str, source: str) -> BranchLut:
    """A table from the text of its file, all of it checked; ``source`` names it in messages. Raises ConfigError."""
    return parse_document(text, source, _WHAT, SCHEMA, lambda document: branch_lut_of(document, source))


def branch_lut_object(lut: BranchLut) -> dict[str, Any]:
    """``lut`` as the JSON object of its file; knee, labels, factor and error follow from the rest, for readers."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "unit": "s",
        "packages": dict(lut.packages),
        "machine": dict(lut.machine),
        "model": {"name": lut.model, "input_bytes": lut.input_bytes},
    }
    if lut.rates is not None:
        rates = {name: getattr(lut.rates, name) for name in ("peak_flops_per_s", "memory_bytes_per_s", "knee")}
        document["rates"] = rates
    document["units"] = [_unit_object(unit) for unit in lut.units]
    if lut.calibration is not None:
        document["calibration"] = {
            "factor": lut.calibration.factor,
            "worst_error": lut.calibration.worst_error,
            "chains": [
                {"gammas": list(chain.gammas), "time_s": timing_object(chain.time), "sum_s": chain.sum_s}
                for chain in lut.calibration.chains
            ],
        }
    return document


def branch_lut_of(document: dict[str, Any], source: str) -> BranchLut:
    """The table in a JSON object. Raises KeyError, TypeError and ValueError, as ``lut_file.parse_document`` expects."""
    model = as_object(document["model"], "model", "name", "input_bytes")
    units = document["units"]
    if not isinstance(units, list):
        raise TypeError(f"units must be a list, got {type(units).__name__}")
    rates, calibration = document.get("rates"), document.get("calibration")
    return BranchLut(
        model=as_text(model["name"], "model, name"),
        input_bytes=as_count(model["input_bytes"], "model, input_bytes"),
        units=[_unit(unit, f"unit {row}") for row, unit in enumerate(units)],
        machine=as_texts(document["machine"], "machine"),
        packages=as_texts(document["packages"], "packages"),
        rates=None if rates is None else _rates(rates),
        calibration=None if calibration is None else _calibration(calibration),
        source=source,
    )


def _unit_object(unit: UnitLut) -> dict[str, Any]:
    return {
        "name": unit.name,
        "input_shape": list(unit.input_shape),
        "output_shape": list(unit.output_shape),
        "output_bytes": unit.output_bytes,
        "origin": unit.origin,
        "ways": {
            str(gamma): {
                "label": unit.label(gamma),
                "time_s": timing_object(way.time),
                "repeats": way.repeats,
                "flops": way.flops,
                "bytes": way.bytes,
            }
            for gamma, way in sorted(unit.ways.items())
        },
    }


def _unit(value: Any, where: str) -> UnitLut:
    unit = as_object(value, where, "name", "input_shape", "output_shape", "output_bytes", "origin", "ways")
    where = f"unit {as_text(unit['name'], f'{where}, name')!r}"
    return UnitLut(
        name=unit["name"],
        input_shape=as_shape(unit["input_shape"], f"{where}, input_shape"),
        output_shape=as_shape(unit["output_shape"], f"{where}, output_shape"),
        output_bytes=as_count(unit["output_bytes"], f"{where}, output_bytes"),
        ways={
            _gamma(gamma, where): _way(way, f"{where}, γ {gamma}")
            for gamma, way in as_object(unit["ways"], f"{where}, ways").items()
        },
        origin=unit["origin"],
    )


def _gamma(text: str, where: str) -> int:
    if text not in map(str, range(len(GAMMAS))):
        raise ValueError(f"{where}: γ must be 0…{len(GAMMAS) - 1}, got {text!r}")
    return int(text)


def _way(value: Any, where: str) -> Way:
    way = as_object(value, where, "time_s", "repeats", "flops", "bytes")
    return Way(
        time=as_timing(way["time_s"], f"{where}, time_s"),
        repeats=as_count(way["repeats"], f"{where}, repeats"),
        flops=as_amount(way["flops"], f"{where}, flops"),
        bytes=as_amount(way["bytes"], f"{where}, bytes"),
    )


def _rates(value: Any) -> MachineRates:
    rates = as_object(value, "rates", "peak_flops_per_s", "memory_bytes_per_s")
    return MachineRates(
        as_amount(rates["peak_flops_per_s"], "rates, peak_flops_per_s"),
        as_amount(rates["memory_bytes_per_s"], "rates, memory_bytes_per_s"),
    )


def _calibration(value: Any) -> Calibration:
    chains = as_object(value, "calibration", "chains")["chains"]
    if not isinstance(chains, list):
        raise TypeError(f"calibration, chains must be a list, got {type(chains).__name__}")
    return Calibration([_chain(chain, f"calibration, chain {number}") for number, chain in enumerate(chains)])


def _chain(value: Any, where: str) -> ChainTime:
    chain = as_object(value, where, "gammas", "time_s", "sum_s")
    if not isinstance(chain["gammas"], list):
        raise TypeError(f"{where}, gammas must be a list, got {type(chain['gammas']).__name__}")
    return ChainTime(
        gammas=tuple(as_count(gamma, f"{where}, gammas") for gamma in chain["gammas"]),
        time=as_timing(chain["time_s"], f"{where}, time_s"),
        sum_s=as_amount(chain["sum_s"], f"{where}, sum_s"),
    )
