"""A Problem out of the measured tables of two machines and a link."""

import numpy as np

from splitsem.cost.branch_lut import BranchArrays, BranchLut
from splitsem.cost.hardware_lut import HardwareLut
from splitsem.optimise.problem import LinkCost, Mask, Problem
from splitsem.optimise.roofline import TierWork


def measured_problem(lut: HardwareLut, calibrated: bool = True, undisturbed: bool = False) -> Problem:
    """What a solver sees of ``lut``.

    Args:
        lut: both machines and the link.
        calibrated: multiply each machine's times by its calibration's factor, where it has one.
        undisturbed: take 10th percentiles instead of medians; not together with ``calibrated``.

    Raises:
        ValueError: the link was not measured, or both ways to read the times are asked for.
    """
    if lut.link is None:
        raise ValueError("lut must have a link, got none")
    edge, server = (table.to_arrays(calibrated, undisturbed) for table in (lut.edge, lut.server))
    return Problem(
        units=tuple(unit.name for unit in lut.edge.units),
        edge_s=edge.time_s,
        server_s=server.time_s,
        link_bytes=edge.link_bytes,
        link=LinkCost(fixed_s=lut.link.base_s, s_per_byte=lut.link.s_per_byte),
        edge_work=_work(lut.edge, edge),
        server_work=_work(lut.server, server),
    )


def offered_by(gammas: list[tuple[int, ...]]) -> Mask:
    """A mask, ``(U, 14)``, of the γ that each unit of a network offers: fewer than a table has where it was pruned."""
    mask = np.zeros((len(gammas), 14), dtype=bool)
    for unit, offered in enumerate(gammas):
        mask[unit, list(offered)] = True
    return mask


def _work(lut: BranchLut, arrays: BranchArrays) -> TierWork | None:
    if lut.rates is None:
        return None
    return TierWork(arrays.flops, arrays.bytes, lut.rates.peak_flops_per_s, lut.rates.memory_bytes_per_s)
