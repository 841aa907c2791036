"""check_machine: what every machine promises, tried on the halves of a network."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import isfinite
from typing import get_args, get_type_hints

import torch
from torch import nn

from splitsem.check.promises import Promises, expect
from splitsem.cost.machines import Machine
from splitsem.errors import ConfigError
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.half import Half

_TIMINGS = get_args(get_type_hints(Machine)["timing"])


def check_machine(machine: Machine | Callable[[], Machine], halves: Sequence[Half] | None = None) -> tuple[str, ...]:
    """Try every promise of a machine.

    Args:
        machine: a machine, or what makes one, e.g. its class.
        halves: of one network at several points, for a machine that knows one network only (a latency table); None
            for those of a small network. What is not in a table is not tried.

    Returns:
        The promises, each a sentence, all of them kept.

    Raises:
        ContractError: a line for each promise that is broken.
    """
    promises = Promises("a machine")
    made, _ = promises.twins(machine, Machine, lambda one: False)
    promises.hold_once("active_w ≥ idle_w ≥ 0, both finite", partial(_power, made))
    promises.hold_once("coding_factor is finite and above 0", partial(_coding, made))
    has_timing = promises.hold_once(f"timing is one of {', '.join(_TIMINGS)}", partial(_timing, made))
    cases = {f"the {half.side} at {half.point}": half for half in (small_halves() if halves is None else halves)}
    if has_timing and made.timing == "lut":
        cases = {name: half for name, half in cases.items() if _is_in_table(made, half)}
    times_s: dict[str, float] = {}
    empty = {name: half for name, half in cases.items() if not half.ops}
    promises.hold("time_s is 0 where nothing is computed", partial(_empty, made), empty)
    computed = {name: half for name, half in cases.items() if half.ops}
    computed = promises.hold("time_s is finite and not negative", partial(_time, made, times_s), computed)
    if has_timing and made.timing != "measured":
        promises.hold("the same half takes the same time", partial(_repeats, made), computed)
        promises.hold(
            "a half with more operations never takes less time", partial(_is_monotonous, times_s), _nested(computed)
        )
    return promises.finish()


def small_halves() -> list[Half]:
    """Head and tail of a small network at every point, empty ones at the ends included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
    graph = SplitGraph(network, (1, 8, 8))
    return [half for point in graph.points for half in graph.cut(point).halves()]


def _power(machine: Machine) -> None:
    active_w, idle_w = machine.active_w, machine.idle_w
    expect(isfinite(active_w) and 0 <= idle_w <= active_w, f"got active_w={active_w} and idle_w={idle_w}")


def _coding(machine: Machine) -> None:
    factor = machine.coding_factor()
    expect(isfinite(factor) and factor > 0, f"got {factor}")


def _timing(machine: Machine) -> None:
    expect(machine.timing in _TIMINGS, f"got {machine.timing!r}")


def _is_in_table(machine: Machine, half: Half) -> bool:
    try:
        machine.time_s(half)
    except ConfigError:  # a table's own word for what it does not hold
        return False
    return True


def _empty(machine: Machine, half: Half) -> None:
    time_s = machine.time_s(half)
    expect(time_s == 0.0, f"got {time_s}")


def _time(machine: Machine, times_s: dict[str, float], half: Half) -> None:
    time_s = machine.time_s(half)
    expect(isinstance(time_s, float | int), f"got {type(time_s).__name__}")
    expect(isfinite(time_s) and time_s >= 0, f"got {time_s}")
    times_s[f"the {half.side} at {half.point}"] = time_s


def _repeats(machine: Machine, half: Half) -> None:
    first, second = machine.time_s(half), machine.time_s(half)
    expect(first == second, f"got {first}, then {second}")


def _nested(halves: Mapping[str, Half]) -> dict[str, tuple[str, str]]:
    """Pairs of a half and the next larger one of the same side, of which it is a part."""
    pairs: dict[str, tuple[str, str]] = {}
    for side in ("head", "tail"):
        names = sorted((n for n, half in halves.items() if half.side == side), key=lambda n: len(halves[n].ops))
        pairs |= {f"{more} against {less}": (less, more) for less, more in pairwise(names)}
    return pairs


def _is_monotonous(times_s: dict[str, float], names: tuple[str, str]) -> None:
    less_s, more_s = (times_s[name] for name in names)
    expect(more_s >= less_s, f"{more_s:.6g} s against {less_s:.6g} s")
