"""A machine's table, slowed by a stated factor: an assumed machine in place of one that nobody measured."""

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite

from splitsem.cost.branch_lut import BranchLut, Way
from splitsem.cost.calibration import Calibration
from splitsem.cost.lut import Lut
from splitsem.cost.machine_rates import MachineRates
from splitsem.cost.measure import Timing


def slowed(lut: BranchLut, factor: float) -> BranchLut:
    """``lut`` of a machine that takes ``factor`` times as long for everything; all of it is called assumed.

    With a factor of 1 it is the same machine, and stays measured.

    Raises:
        ValueError: the factor is not positive and finite.
    """
    check_factor(factor)
    if factor == 1:
        return lut
    rates, calibration = lut.rates, lut.calibration
    if rates is not None:
        rates = MachineRates(rates.peak_flops_per_s / factor, rates.memory_bytes_per_s / factor)
    if calibration is not None:
        chains = [
            replace(chain, time=_longer(chain.time, factor), sum_s=chain.sum_s * factor) for chain in calibration.chains
        ]
        calibration = Calibration(chains)
    units = [replace(unit, ways=_slower(unit.ways, factor), origin="assumed") for unit in lut.units]
    return replace(lut, units=units, machine=_assumed(lut.machine, factor), rates=rates, calibration=calibration)


def slowed_halves(lut: Lut, factor: float) -> Lut:
    """The same for a table of heads and tails.

    Raises:
        ValueError: the factor is not positive and finite.
    """
    check_factor(factor)
    if factor == 1:
        return lut
    times = {point: {side: _longer(time, factor) for side, time in sides.items()} for point, sides in lut.times.items()}
    return replace(lut, times=times, machine=_assumed(lut.machine, factor))


def check_factor(factor: float) -> None:
    """Raise ValueError unless the factor is positive and finite."""
    if not (isfinite(factor) and factor > 0):
        raise ValueError(f"factor must be positive and finite, got {factor}")


def _assumed(machine: Mapping[str, str], factor: float) -> dict[str, str]:
    return dict(machine) | {"assumed": f"the times of this machine × {factor:g}"}


def _slower(ways: Mapping[int, Way], factor: float) -> dict[int, Way]:
    return {gamma: replace(way, time=_longer(way.time, factor)) for gamma, way in ways.items()}


def _longer(time: Timing, factor: float) -> Timing:
    return Timing(*(value_s * factor for value_s in (time.median_s, time.p10_s, time.p90_s)))
