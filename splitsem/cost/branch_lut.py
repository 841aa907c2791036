"""BranchLut holds what one machine needs for each unit of a network, in each of the 14 branch configurations γ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import nn

from splitsem.cost.lut import assumed, check_factor, longer
from splitsem.cost.measure import Calibration, ChainTime, MachineRates, Timing
from splitsem.errors import MachineError
from splitsem.json_files import Amount, Count, Size
from splitsem.models.branches import GAMMAS, Branch

if TYPE_CHECKING:
    import pandas as pd


class UnitSpec(Protocol):
    """One unit of a network: the stem, a block, or what comes after the blocks; figures are for one sample."""

    @property
    def name(self) -> str:
        """The unit's name, unique in its network."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input, without the batch."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output, without the batch: the crossing tensor of a cut behind the unit."""

    @property
    def gammas(self) -> Sequence[int]:
        """Every γ that is offered; 0 alone for a unit without branches."""

    @property
    def flops(self) -> Mapping[int, float]:
        """γ → floating-point operations, a multiply-add counting two."""

    @property
    def bytes(self) -> Mapping[int, float]:
        """γ → bytes read and written in float32, weights included."""


class Chain(Protocol):
    """A network as a row of units."""

    def facts(self) -> Sequence[UnitSpec]:
        """The network's units, in the order in which they run."""

    def unit(self, index: int, gamma: int) -> nn.Module:
        """A new module of unit ``index`` as deployed with this γ, in evaluation mode."""


ORIGINS = ("measured", "published", "assumed")


class Way(msgspec.Struct, frozen=True):
    """What one sample takes in a unit that runs with one γ.

    Attributes:
        time: median and spread, in seconds.
        repeats: number of timed runs; 0 where the number is not known (a published figure).
        flops: floating-point operations, a multiply-add counting two.
        bytes: bytes read and written: inputs, outputs and weights.
    """

    time: Timing = msgspec.field(name="time_s")
    repeats: Count
    flops: Amount
    bytes: Amount


@dataclass(frozen=True)
class UnitLut:
    """One unit's part of a table.

    Attributes:
        name: as in the network.
        input_shape: of one sample.
        output_shape: of one sample.
        output_bytes: of the crossing tensor of a cut behind the unit.
        ways: γ → what the unit takes with this γ; empty where this machine has no time for the unit.
        origin: ``measured`` by splitsem, ``published`` by others, or ``assumed`` from a stated model.
    """

    name: str
    input_shape: tuple[Size, ...]
    output_shape: tuple[Size, ...]
    output_bytes: Count
    ways: Mapping[int, Way]
    origin: str = "measured"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.ways) - set(range(len(GAMMAS))))
        if unknown:
            raise ValueError(f"unit {self.name!r}: γ must be 0…{len(GAMMAS) - 1}, got {unknown[0]}")
        if self.origin not in ORIGINS:
            raise ValueError(f"unit {self.name!r}: origin must be one of {', '.join(ORIGINS)}, got {self.origin!r}")

    @property
    def branches(self) -> str:
        """The letters of the unit's branches, such as ``DKI``; empty for a unit without branches, whose γ is 0."""
        if set(self.ways) <= {0}:
            return ""
        return "".join(branch for branch in Branch if any(branch in GAMMAS[gamma].branches for gamma in self.ways))

    def label(self, gamma: int) -> str:
        """γ in words; empty for a unit without branches."""
        return GAMMAS[gamma].label if self.branches else ""


class BranchArrays(NamedTuple):
    """A table as arrays of shape ``(U, 14)``: U units × 14 γ, ``inf`` where a way is not offered.

    Attributes:
        time_s: seconds, medians unless ``to_arrays`` is asked for percentiles.
        flops: floating-point operations.
        bytes: memory traffic, weights included.
        link_bytes: of the crossing tensor at λ = 0…U, ``(U + 1,)``; at λ = U, of the output.
    """

    time_s: NDArray[np.float64]
    flops: NDArray[np.float64]
    bytes: NDArray[np.float64]
    link_bytes: NDArray[np.float64]


@dataclass(frozen=True)
class BranchLut:
    """A machine's table of one network.

    Attributes:
        model: the network's name.
        input_bytes: of one sample, as the first unit takes the sample.
        units: in the order in which the units run, at least one.
        machine: the measured machine, in words.
        packages: package → version.
        rates: the machine's measured roofline; None where no roofline was measured.
        calibration: isolated units against whole networks; None where no whole network was measured.
        source: the file that the table was read from, for messages.
    """

    model: str
    input_bytes: int
    units: Sequence[UnitLut]
    machine: Mapping[str, str]
    packages: Mapping[str, str]
    rates: MachineRates | None = None
    calibration: Calibration | None = None
    source: str = "this LUT"

    def __post_init__(self) -> None:
        names = [unit.name for unit in self.units]
        if not names:
            raise ValueError("units must hold at least one unit, got none")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"units must have names of their own, got {twice[0]!r} twice")
        if self.calibration is not None:
            for chain in self.calibration.chains:
                self.sum_s(chain.gammas)

    def sum_s(self, gammas: Sequence[int]) -> float:
        """Sum of the units' median times with these γ. Raises ValueError for a γ that is not offered."""
        if len(gammas) != len(self.units):
            raise ValueError(f"gammas must be {len(self.units)}, one a unit, got {len(gammas)}")
        for unit, gamma in zip(self.units, gammas, strict=True):
            if gamma not in unit.ways:
                raise ValueError(f"unit {unit.name!r} has no time for γ {gamma}, only for: {_listed(unit.ways)}")
        return sum(unit.ways[gamma].time.median_s for unit, gamma in zip(self.units, gammas, strict=True))

    def to_arrays(self, calibrated: bool = False, undisturbed: bool = False) -> BranchArrays:
        """The table as arrays.

        Ways that leave the same convolutions (D, D+K, D+I and D+K+I are one convolution of 3 × 3) take the same time,
        the median of their measured times. Else a solver would drop branches for the noise between these times.

        Args:
            calibrated: multiply times by the calibration's factor, if the table has one.
            undisturbed: take 10th percentiles instead of medians: what units take where nothing else runs. On a busy
                machine the medians hold waiting for the processor, which can turn the order of the ways around.

        Raises:
            ValueError: ``calibrated`` and ``undisturbed`` are both set; the factor belongs to medians.
        """
        if calibrated and undisturbed:
            raise ValueError("calibrated and undisturbed exclude each other: the factor belongs to medians")
        shape = (len(self.units), len(GAMMAS))
        time_s, flops, num_bytes = (np.full(shape, np.inf) for _ in range(3))
        for row, unit in enumerate(self.units):
            for gamma, way in unit.ways.items():
                time_s[row, gamma] = way.time.p10_s if undisturbed else way.time.median_s
                flops[row, gamma], num_bytes[row, gamma] = way.flops, way.bytes
            for alike in _alike(unit.ways):
                time_s[row, alike] = np.median(time_s[row, alike])
        if calibrated and self.calibration is not None:
            time_s *= self.calibration.factor
        link_bytes = np.array([self.input_bytes, *(unit.output_bytes for unit in self.units)], dtype=np.float64)
        return BranchArrays(time_s, flops, num_bytes, link_bytes)

    def with_calibration(self, calibration: Calibration) -> "BranchLut":
        """This table with another calibration. Raises ValueError when the calibration has a γ that the table lacks."""
        return replace(self, calibration=calibration)

    def select(self, names: Iterable[str]) -> "BranchLut":
        """The table of these units alone, as a network. Raises MachineError unless the units follow each other."""
        wanted = set(names)
        rows = [row for row, unit in enumerate(self.units) if unit.name in wanted]
        if len(rows) != len(wanted) or rows != list(range(rows[0], rows[-1] + 1)):
            raise MachineError(
                f"{self.source}: select units that follow each other, of: {', '.join(u.name for u in self.units)}"
            )
        input_bytes = self.units[rows[0] - 1].output_bytes if rows[0] else self.input_bytes
        units = [self.units[row] for row in rows]
        return replace(self, units=units, input_bytes=input_bytes, calibration=None)

    def check_fits(self, model: str, units: Sequence[UnitSpec]) -> None:
        """Raise MachineError, saying what differs, unless this is a table of all units and ways of that model.

        A table may have more ways than the model offers, since a pruned model offers fewer.
        """
        remake = f"measure this model: python run.py workflow=joint model={model} 'workflow.steps=[lut]'"
        if self.model != model:
            raise MachineError(f"{self.source} is a LUT of the model {self.model!r}, not of {model!r}; {remake}")
        names, own = [unit.name for unit in units], [unit.name for unit in self.units]
        if names != own:
            missing = [name for name in names if name not in own]
            strange = [name for name in own if name not in names]
            what = f"it lacks {', '.join(missing)}" if missing else f"it has {', '.join(strange) or 'another order'}"
            raise MachineError(f"{self.source} has other units than {model}: {what}; {remake}")
        for unit, mine in zip(units, self.units, strict=True):
            shapes = tuple(unit.input_shape), tuple(unit.output_shape)
            if shapes != (mine.input_shape, mine.output_shape):
                raise MachineError(
                    f"{self.source}: unit {unit.name!r} takes {list(mine.input_shape)} and makes "
                    f"{list(mine.output_shape)}, that of {model} {list(shapes[0])} and {list(shapes[1])}; {remake}"
                )
            if not set(unit.gammas) <= mine.ways.keys():
                raise MachineError(
                    f"{self.source} has another γ set: unit {unit.name!r} was measured with γ {_listed(mine.ways)}, "
                    f"that of {model} offers {_listed(unit.gammas)}; {remake}"
                )
            for gamma in unit.gammas:
                if abs(unit.flops[gamma] - mine.ways[gamma].flops) > 1e-6 * unit.flops[gamma]:
                    raise MachineError(
                        f"{self.source}: unit {unit.name!r} with γ {gamma} has {mine.ways[gamma].flops:.0f} FLOPs, "
                        f"that of {model} {unit.flops[gamma]:.0f}; {remake}"
                    )


def _listed(gammas: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(gammas))) or "none"


def _alike(ways: Mapping[int, Way]) -> list[list[int]]:
    """Groups of γ that leave the same convolutions, as FLOPs and bytes tell; published figures are in no group."""
    groups: dict[tuple[float, float], list[int]] = {}
    for gamma, way in ways.items():
        if way.repeats:
            groups.setdefault((way.flops, way.bytes), []).append(gamma)
    return list(groups.values())


def branch_frame(lut: BranchLut) -> "pd.DataFrame":
    """A DataFrame with a row for each unit and offered γ.

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
    import pandas as pd

    return pd.DataFrame(rows)


def choice_frame(lut: BranchLut, gammas: Sequence[int], num_on_edge: int) -> "pd.DataFrame":
    """A DataFrame for the γ map, with a row for each unit: ``unit``, ``gamma``, ``tier`` and ``branches``.

    Args:
        lut: a table that has times for every unit.
        gammas: γ of each unit.
        num_on_edge: λ, the number of units on the edge.
    """
    import pandas as pd

    tiers = ["edge"] * num_on_edge + ["server"] * (len(lut.units) - num_on_edge)
    rows = zip(lut.units, gammas, tiers, strict=True)
    return pd.DataFrame([{"unit": u.name, "gamma": g, "tier": t, "branches": u.branches} for u, g, t in rows])


def slowed(lut: BranchLut, factor: float) -> BranchLut:
    """``lut`` of a machine that takes ``factor`` times as long for everything, with every unit's origin ``assumed``.

    A factor of 1 returns ``lut`` as it is, with its origins.

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
            ChainTime(chain.gammas, longer(chain.time, factor), chain.sum_s * factor) for chain in calibration.chains
        ]
        calibration = Calibration(chains)
    units = [replace(unit, ways=_slower(unit.ways, factor), origin="assumed") for unit in lut.units]
    return replace(lut, units=units, machine=assumed(lut.machine, factor), rates=rates, calibration=calibration)


def _slower(ways: Mapping[int, Way], factor: float) -> dict[int, Way]:
    return {gamma: msgspec.structs.replace(way, time=longer(way.time, factor)) for gamma, way in ways.items()}
