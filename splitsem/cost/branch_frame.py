"""Tables of units and γ as DataFrames: for CSV files and plots."""

from collections.abc import Sequence

import pandas as pd

from splitsem.cost.branch_lut import BranchLut


def branch_frame(lut: BranchLut) -> pd.DataFrame:
    """A row for each unit and offered γ.

    Columns: ``unit``, ``unit_index``, ``branches`` (of the unit, as letters), ``gamma``, ``label``, ``origin``,
    ``median_s``, ``p10_s``, ``p90_s``, ``repeats``, ``flops``, ``bytes``, ``flop_per_byte``, ``flops_per_s`` (achieved)
    and ``output_bytes``.
    """
    rows = [
        {
            "unit": unit.name,
            "unit_index": index,
            "branches": unit.branches,
            "gamma": gamma,
            "label": unit.label(gamma),
            "origin": unit.origin,
            "median_s": way.time.median_s,
            "p10_s": way.time.p10_s,
            "p90_s": way.time.p90_s,
            "repeats": way.repeats,
            "flops": way.flops,
            "bytes": way.bytes,
            "flop_per_byte": way.flops / way.bytes if way.bytes else float("nan"),
            "flops_per_s": way.flops / way.time.median_s if way.time.median_s else float("nan"),
            "output_bytes": unit.output_bytes,
        }
        for index, unit in enumerate(lut.units)
        for gamma, way in sorted(unit.ways.items())
    ]
    return pd.DataFrame(rows)


def choice_frame(lut: BranchLut, gammas: Sequence[int], num_on_edge: int) -> pd.DataFrame:
    """A row for each unit of one solution, for the γ map: ``unit``, ``gamma``, ``tier`` and ``branches``.

    Args:
        lut: a table that has times for every unit.
        gammas: γ of each unit.
        num_on_edge: λ.
    """
    tiers = ["edge"] * num_on_edge + ["server"] * (len(lut.units) - num_on_edge)
    rows = zip(lut.units, gammas, tiers, strict=True)
    return pd.DataFrame([{"unit": u.name, "gamma": g, "tier": t, "branches": u.branches} for u, g, t in rows])
