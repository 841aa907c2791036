"""Times and memory of every operation of a network on this machine, measured inside the whole network."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from splitsem.cost.layer_memory import measure_peaks
from splitsem.cost.measure import Timing
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.half import OpCost

_MIN_ROUNDS = 5


@dataclass(frozen=True)
class LayerTimes:
    """What rounds of a whole network took, operation by operation.

    Attributes:
        costs: every operation that computes, in order.
        times: of each of ``costs``.
        whole: of the network as it usually runs, in turns with the rounds that are timed by operation.
        num_rounds: how many.
        peak_bytes: the most that was allocated while each of ``costs`` ran, see ``measure_peaks``.
    """

    costs: tuple[OpCost, ...]
    times: tuple[Timing, ...]
    whole: Timing
    num_rounds: int
    peak_bytes: tuple[int, ...]

    @property
    def sum_ratio(self) -> float:
        """``whole ÷ sum``: what the network takes against the sum of its operations, by medians."""
        return self.whole.median_s / sum(each.median_s for each in self.times)


class _Timed(fx.Interpreter):
    """Runs a graph node by node and notes each operation's seconds."""

    def __init__(self, module: fx.GraphModule, wait: Callable[[], None], clock: Callable[[], float]) -> None:
        super().__init__(module)
        self.wait, self.clock, self.took_s = wait, clock, dict[str, float]()

    def run_node(self, n: fx.Node) -> Any:
        """See Interpreter."""
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        self.wait()
        began = self.clock()
        made = n.target(*args, **kwargs)  # type: ignore[operator]
        self.wait()
        self.took_s[n.meta.get("of", n.name)] = self.clock() - began
        return made


@torch.inference_mode()
def measure_layers(
    graph: SplitGraph,
    rounds: int = 100,
    budget_s: float = 5.0,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> LayerTimes:
    """Time each operation inside rounds of the whole network, batch 1, with the threads that are set.

    Rounds that are timed by operation take turns with rounds of the network as it is, so that a slow second falls on
    both. On a GPU each operation is waited for, so that their sum is above the whole. A postprocess is not timed.

    Args:
        graph: the network.
        rounds: at most so many, at least five.
        budget_s: no round begins after so many seconds.
        warmup: rounds before.
        clock: ``time.thread_time`` counts this thread's work alone, for one thread beside other programs.
    """
    network, example, device = graph.network(), graph.example, graph.device

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    interpreter = _Timed(network, wait, clock)
    seen: dict[str, list[float]] = {}
    whole_s: list[float] = []
    deadline_s = time.perf_counter() + budget_s
    for number in range(-warmup, rounds):
        if number >= _MIN_ROUNDS and time.perf_counter() > deadline_s:
            break
        interpreter.run(*example)
        began = clock()
        network(*example)
        wait()
        took_s = clock() - began
        if number < 0:
            continue
        whole_s.append(took_s)
        for name, took in interpreter.took_s.items():
            seen.setdefault(name, []).append(took)
    costs = tuple(cost for part in graph.parts() for cost in part.costs if cost.name in seen)
    times, peaks = tuple(Timing.of(seen[cost.name]) for cost in costs), measure_peaks(graph)
    return LayerTimes(costs, times, Timing.of(whole_s), len(whole_s), tuple(peaks[cost.name] for cost in costs))
