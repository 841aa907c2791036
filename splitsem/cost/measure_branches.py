"""Measuring a network's units in every way γ: in the network's order, in rounds, so that drifts hit all alike."""

import logging
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import prod

import psutil
import torch
from torch import Tensor, nn
from tqdm import tqdm

from splitsem.cost.branch_chain import Chain, UnitSpec
from splitsem.cost.branch_lut import BranchLut, UnitLut, Way
from splitsem.cost.machine_rates import MachineRates
from splitsem.cost.measure import Timing, timed_s
from splitsem.device import Device, describe_machine
from splitsem.errors import ConfigError

log = logging.getLogger(__name__)
_FLOAT32_BYTES = 4
_MIN_ROUNDS = 3  # a median of fewer says nothing, whatever the budget


class _Bench:
    """Some neighbouring units in all their ways, ready to run."""

    def __init__(self, chain: Chain, rows: Sequence[int], device: Device, seed: int) -> None:
        specs = chain.facts()
        self._rng = torch.Generator().manual_seed(seed)
        self._where = device.torch_device
        self._modules: dict[int, dict[int, nn.Module]] = {}
        self._inputs: dict[int, Tensor] = {}
        self.times_s: dict[tuple[int, int], list[float]] = {}
        for row in rows:
            self._modules[row] = {gamma: device.place(chain.unit(row, gamma).eval()) for gamma in specs[row].gammas}
            x = torch.randn((1, *specs[row].input_shape), generator=self._rng).relu()  # as a block leaves it
            self._inputs[row] = device.place_tensor(x)
            for gamma, module in self._modules[row].items():
                _check_output(module(self._inputs[row]), specs[row], gamma)
                self.times_s[row, gamma] = []

    def round(self, record: bool) -> None:
        """Run the units in order as often as the richest one has ways; each in another order of its ways each time."""
        orders = {row: torch.randperm(len(ways), generator=self._rng).tolist() for row, ways in self._modules.items()}
        for slot in range(max(map(len, orders.values()))):
            for row, ways in self._modules.items():
                gamma = list(ways)[orders[row][slot % len(ways)]]
                x = self._inputs[row].clone()  # fresh in the caches, as the unit before leaves it
                took_s = timed_s(lambda module=ways[gamma], x=x: module(x), self._where)  # type: ignore[misc]
                if record:
                    self.times_s[row, gamma].append(took_s)


@torch.inference_mode()
def measure_branches(
    model: str,
    chain: Chain,
    device: Device,
    rates: MachineRates | None = None,
    budget_s: float = 60.0,
    repeats: int = 100,
    memory_bytes: float = 4e9,
) -> BranchLut:
    """Time every unit of a network in every way that it offers, one sample, on this machine.

    The units run one after the other, as in the network, so that each meets the caches as its neighbours leave them: a
    hot loop over one unit flatters those with many weights. All ways take turns, in a new order each round. Before the
    timed rounds there is one that is not.

    Args:
        model: the network's name, as in the configuration: ``repvgg_a0``.
        chain: the network.
        device: where, with which precision and threads.
        rates: the machine's measured roofline, for the file.
        budget_s: seconds for all of it, beyond which no round is begun; at least three rounds are made.
        repeats: the most rounds. Units with fewer ways than others run each of theirs several times a round.
        memory_bytes: of weights held at a time; a network that needs more is measured in stretches.

    Raises:
        ConfigError: a unit does not make the shape that it says.
    """
    if not (budget_s > 0 and repeats >= _MIN_ROUNDS and memory_bytes > 0):
        raise ValueError(
            f"budget_s and memory_bytes must be positive and repeats at least {_MIN_ROUNDS}, "
            f"got {budget_s}, {memory_bytes} and {repeats}"
        )
    device.set_threads()
    machine = describe_now(device)
    specs, item_bytes = chain.facts(), device.dtype.itemsize
    stretches = _stretches(specs, memory_bytes * _FLOAT32_BYTES / item_bytes)
    end_s = time.perf_counter() + budget_s
    times_s: dict[tuple[int, int], list[float]] = {}
    for number, rows in enumerate(stretches):
        share_s = (end_s - time.perf_counter()) / (len(stretches) - number)
        bench = _Bench(chain, rows, device, seed=number)
        times_s |= _measure(bench, share_s, repeats, f"{number + 1}/{len(stretches)}")
        del bench  # before the next one takes its place
    units = [
        UnitLut(
            name=spec.name,
            input_shape=tuple(spec.input_shape),
            output_shape=tuple(spec.output_shape),
            output_bytes=prod(spec.output_shape) * item_bytes,
            ways={
                gamma: Way(
                    time=Timing.of(times_s[row, gamma]),
                    repeats=len(times_s[row, gamma]),
                    flops=spec.flops[gamma],
                    bytes=spec.bytes[gamma] * item_bytes / _FLOAT32_BYTES,
                )
                for gamma in spec.gammas
            },
        )
        for row, spec in enumerate(specs)
    ]
    input_bytes = prod(specs[0].input_shape) * item_bytes
    return BranchLut(model, input_bytes, units, machine, _versions(), rates)


def describe_now(device: Device) -> dict[str, str]:
    """The machine, how it is used, how busy it is with other things, and the day, in words; warns when it is busy."""
    load, cores = psutil.getloadavg()[0], os.cpu_count() or 1
    if load > 0.75 * cores:
        log.warning("The machine is busy (load %.1f on %d cores): measured times will be too long", load, cores)
    return describe_machine() | {
        "accelerator": device.torch_device.type,
        "precision": device.precision,
        "num_threads": str(torch.get_num_threads()),
        "load": f"{load:.2f}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _versions() -> dict[str, str]:
    try:
        own = version("splitsem")
    except PackageNotFoundError:  # run from a checkout that is not installed
        own = "not installed"
    return {"splitsem": own, "torch": torch.__version__, "python": platform.python_version()}


def _measure(bench: _Bench, budget_s: float, repeats: int, stretch: str) -> dict[tuple[int, int], list[float]]:
    end_s = time.perf_counter() + budget_s
    bench.round(record=False)
    for number in tqdm(range(repeats), desc=f"Measuring units, stretch {stretch}", unit="round"):
        if number >= _MIN_ROUNDS and time.perf_counter() > end_s:
            break
        bench.round(record=True)
    return bench.times_s


def _stretches(specs: Sequence[UnitSpec], memory_bytes: float) -> list[list[int]]:
    """Neighbouring units whose ways fit the memory together; a unit that does not fit is alone."""
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


def _check_output(output: Tensor, spec: UnitSpec, gamma: int) -> None:
    if tuple(output.shape) != (1, *spec.output_shape):
        raise ConfigError(
            f"unit {spec.name!r} with γ {gamma} makes {list(output.shape)}, expected {[1, *spec.output_shape]}"
        )
