"""BranchMeter measures a network's units in every way γ, and whole networks of these units, all in turns."""

import logging
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import isfinite, prod

import psutil
import torch
from torch import Tensor, nn
from tqdm import tqdm

from splitsem.cost.branch_lut import BranchLut, Chain, UnitLut, UnitSpec, Way
from splitsem.cost.measure import Calibration, ChainTime, MachineRates, Timing, timed_s
from splitsem.errors import ConfigError
from splitsem.models.branches import whole_gamma
from splitsem.placement import Placement, describe_machine

log = logging.getLogger(__name__)
_FLOAT32_BYTES = 4
_MIN_ROUNDS = 3  # a median of fewer rounds says nothing
Gammas = tuple[int, ...]


class BranchMeter:
    """Measures tables of units.

    The units run one after the other, as in the network, so that each unit meets the caches as its neighbours leave
    them; a hot loop over one unit flatters units with many weights. The ways γ of a unit take turns, in a new order
    each round. Whole networks run in each round too, so that a drift of the machine does not look like a difference
    between a network and its parts.

    Args:
        budget_s: seconds for one table, beyond which no round begins; at least three rounds are made.
        repeats: the most rounds. A unit with few ways runs each way several times a round.
        memory_bytes: bytes of weights held at a time; a network that needs more is measured in stretches.
    """

    def __init__(self, budget_s: float = 60.0, repeats: int = 100, memory_bytes: float = 4e9) -> None:
        for name, value in {"budget_s": budget_s, "memory_bytes": memory_bytes}.items():
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if repeats < _MIN_ROUNDS:
            raise ValueError(f"repeats must be at least {_MIN_ROUNDS}, got {repeats}")
        self.budget_s, self.repeats, self.memory_bytes = budget_s, repeats, memory_bytes

    @torch.inference_mode()
    def measure(
        self,
        model: str,
        chain: Chain,
        placement: Placement,
        rates: MachineRates | None = None,
        choices: Sequence[Sequence[int]] = (),
    ) -> BranchLut:
        """Time every unit in every way that it offers, one sample, on this machine; warns when the machine is busy.

        Args:
            model: the network's name, as in the configuration: ``repvgg_a0``.
            chain: the network.
            placement: where the units run, in which precision and with how many threads.
            rates: the machine's measured roofline, for the file.
            choices: γ of each unit, for each whole network; none: all branches in parallel, and all branches folded.

        Raises:
            ConfigError: a unit's output has another shape than the unit states.
            ValueError: a choice has a γ that its unit does not offer.
        """
        specs, item_bytes = chain.facts(), placement.dtype.itemsize
        for gammas in choices:
            _check_choice(gammas, specs)
        placement.set_threads()
        machine = describe_now(placement)
        wanted = [tuple(gammas) for gammas in choices] or [
            tuple(whole_gamma(spec.gammas, folded) for spec in specs) for folded in (False, True)
        ]
        stretches = _stretches(specs, self.memory_bytes * _FLOAT32_BYTES / item_bytes)
        end_s = time.perf_counter() + self.budget_s
        unit_times_s: dict[tuple[int, int], list[float]] = {}
        whole_times_s: dict[Gammas, list[float]] = {gammas: [] for gammas in wanted}
        for number, rows in enumerate(stretches):
            share_s = (end_s - time.perf_counter()) / (len(stretches) - number)
            bench = _Bench(chain, rows, list(whole_times_s), placement, seed=number)
            self._run(bench, share_s, f"stretch {number + 1} of {len(stretches)}")
            unit_times_s |= bench.unit_times_s
            for gammas, times_s in bench.whole_times_s.items():
                whole_times_s[gammas] += times_s
            del bench  # frees memory before the next bench
        units = [_unit(row, spec, unit_times_s, item_bytes) for row, spec in enumerate(specs)]
        lut = BranchLut(model, prod(specs[0].input_shape) * item_bytes, units, machine, _versions(), rates)
        return lut.with_calibration(
            Calibration([ChainTime(gammas, Timing.of(t), lut.sum_s(gammas)) for gammas, t in whole_times_s.items()])
        )

    def _run(self, bench: "_Bench", budget_s: float, stretch: str) -> None:
        end_s = time.perf_counter() + budget_s
        bench.round(record=False)
        for number in tqdm(range(self.repeats), desc=f"Measuring units, {stretch}", unit="round"):
            if number >= _MIN_ROUNDS and time.perf_counter() > end_s:
                break
            bench.round(record=True)


class _Bench:
    """Some neighbouring units in all ways, and whole networks, ready to run."""

    def __init__(
        self, chain: Chain, rows: Sequence[int], choices: Sequence[Gammas], placement: Placement, seed: int
    ) -> None:
        specs = chain.facts()
        self._rng = torch.Generator().manual_seed(seed)
        self._where = placement.torch_device
        self._modules: dict[int, dict[int, nn.Module]] = {}
        self._inputs: dict[int, Tensor] = {}
        self.unit_times_s: dict[tuple[int, int], list[float]] = {}
        self.whole_times_s: dict[Gammas, list[float]] = {gammas: [] for gammas in choices}
        for row in rows:
            self._modules[row] = {gamma: placement.place(chain.unit(row, gamma).eval()) for gamma in specs[row].gammas}
            self._inputs[row] = self._input(specs[row], placement)
            for gamma, module in self._modules[row].items():
                _check_output(module(self._inputs[row]), specs[row], gamma)
                self.unit_times_s[row, gamma] = []
        self._first = self._input(specs[0], placement)
        self._networks = {
            gammas: placement.place(nn.Sequential(*(chain.unit(row, gamma) for row, gamma in enumerate(gammas))).eval())
            for gammas in choices
        }

    def round(self, record: bool) -> None:
        """Run the row of units as often as the unit with most ways has ways, then each whole network."""
        orders = {row: torch.randperm(len(ways), generator=self._rng).tolist() for row, ways in self._modules.items()}
        for slot in range(max(map(len, orders.values()))):
            for row, ways in self._modules.items():
                gamma = list(ways)[orders[row][slot % len(ways)]]
                x = self._inputs[row].clone()  # fresh in the caches, as the unit before leaves it
                took_s = timed_s(lambda module=ways[gamma], x=x: module(x), self._where)  # type: ignore[misc]
                if record:
                    self.unit_times_s[row, gamma].append(took_s)
        for gammas, network in self._networks.items():
            for is_warm in (False, True):  # in use the network repeats; here other units ran before
                took_s = timed_s(lambda network=network: network(self._first), self._where)  # type: ignore[misc]
                if record and is_warm:
                    self.whole_times_s[gammas].append(took_s)

    def _input(self, spec: UnitSpec, placement: Placement) -> Tensor:
        """A random sample as a block's ReLU leaves it: nothing negative."""
        return placement.place_tensor(torch.randn((1, *spec.input_shape), generator=self._rng).relu())


def describe_now(placement: Placement) -> dict[str, str]:
    """The machine, its placement, its load by other programs and the date, in words; warns when the machine is busy."""
    load, cores = psutil.getloadavg()[0], os.cpu_count() or 1
    if load > 0.75 * cores:
        log.warning("The machine is busy (load %.1f on %d cores): measured times will be too long", load, cores)
    return describe_machine() | {
        "accelerator": placement.torch_device.type,
        "precision": placement.precision,
        "num_threads": str(torch.get_num_threads()),
        "load": f"{load:.2f}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _unit(row: int, spec: UnitSpec, times_s: dict[tuple[int, int], list[float]], item_bytes: int) -> UnitLut:
    ways = {
        gamma: Way(
            time=Timing.of(times_s[row, gamma]),
            repeats=len(times_s[row, gamma]),
            flops=spec.flops[gamma],
            bytes=spec.bytes[gamma] * item_bytes / _FLOAT32_BYTES,
        )
        for gamma in spec.gammas
    }
    shapes = tuple(spec.input_shape), tuple(spec.output_shape)
    return UnitLut(spec.name, *shapes, prod(spec.output_shape) * item_bytes, ways)


def _versions() -> dict[str, str]:
    try:
        own = version("splitsem")
    except PackageNotFoundError:  # run from a checkout that is not installed
        own = "not installed"
    return {"splitsem": own, "torch": torch.__version__, "python": platform.python_version()}


def _stretches(specs: Sequence[UnitSpec], memory_bytes: float) -> list[list[int]]:
    """Groups of neighbouring units whose ways fit the memory together; a unit that does not fit is alone."""
    stretches: list[list[int]] = [[]]
    held = 0.0
    for row, spec in enumerate(specs):
        needed = sum(spec.bytes[gamma] for gamma in spec.gammas)
        if stretches[-1] and held + needed > memory_bytes:
            stretches.append([])
            held = 0.0
        stretches[-1].append(row)
        held += needed
    return stretches


def _check_choice(gammas: Sequence[int], specs: Sequence[UnitSpec]) -> None:
    if len(gammas) != len(specs) or any(g not in spec.gammas for g, spec in zip(gammas, specs, strict=True)):
        raise ValueError(f"choices must have an offered γ for each of the {len(specs)} units, got {list(gammas)}")


def _check_output(output: Tensor, spec: UnitSpec, gamma: int) -> None:
    if tuple(output.shape) != (1, *spec.output_shape):
        raise ConfigError(
            f"unit {spec.name!r} with γ {gamma} makes {list(output.shape)}, expected {[1, *spec.output_shape]}"
        )
