"""Tables of units and γ as DataFrames: for CSV files and plots."""

import pandas as pd

from splitsem.cost.branch_lut import BranchLut
from splitsem.models.branches import GAMMAS


def branch_frame(lut: BranchLut) -> pd.DataFrame:
    """A row for each unit and offered γ.

    Columns: ``unit``, ``unit_index``, ``gamma``, ``label``, ``origin``, ``median_s``, ``p10_s``, ``p90_s``,
    ``repeats``, ``flops``, ``bytes``, ``flop_per_byte``, ``flops_per_s`` (achieved) and ``output_bytes``.
    """
    rows = [
        {
            "unit": unit.name,
            "unit_index": index,
            "gamma": gamma,
            "label": GAMMAS[gamma].label,
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
