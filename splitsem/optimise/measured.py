"""A Problem out of the measured tables of two machines and a link."""

import numpy as np

from splitsem.cost.branch_lut import BranchArrays, BranchLut
from splitsem.cost.hardware_lut import HardwareLut
from splitsem.optimise.problem import LinkCost, Mask, Problem
from splitsem.optimise.roofline import TierWork


def measured_problem(lut: HardwareLut, calibrated: bool = True, undisturbed: bool = False) -> Problem:
    """What a solver sees of ``lut``.

    Where frames were fitted, units take the tables' times by that fit's factors, each end has its share of a frame's
    other work, the link is the wire alone, and what keeps nobody busy is a delay.

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
    units = tuple(unit.name for unit in lut.edge.units)
    works = _work(lut.edge, edge), _work(lut.server, server)
    frames = lut.frames
    if frames is None:
        link = LinkCost(fixed_s=lut.link.base_s, s_per_byte=lut.link.s_per_byte)
        return Problem(units, edge.time_s, server.time_s, edge.link_bytes, link, *works)
    return Problem(
        units=units,
        edge_s=frames.edge_factor * edge.time_s,
        server_s=frames.server_factor * server.time_s,
        link_bytes=edge.link_bytes,
        link=LinkCost(fixed_s=0.0, s_per_byte=frames.s_per_byte, delay_s=frames.delay_s, free_bytes=frames.free_bytes),
        edge_work=works[0],
        server_work=works[1],
        edge_base_s=frames.edge_base_s,
        server_base_s=frames.server_base_s,
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
