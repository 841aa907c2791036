"""How well the roofline predicts this machine: fitted on some networks, judged on others, one thread.

    python benchmarks/roofline_fit.py            # two minutes on a quiet machine

Peak and memory rate are measured; ``efficiency``, ``overhead_s`` and ``repack_bytes_per_s`` are fitted by least
squares of log(predicted / measured) over both halves at up to ten cuts of each network of TUNED, each network with one
vote. The networks of JUDGED are others. Bar: the median ratio of each of them is within 1.3×. Networks have random
weights, which have no bearing on time. All halves are measured in turns, five rounds, so that a slow minute does not
fall on one network.
"""

import sys
from collections.abc import Callable
from math import log

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import nn
from torchvision import models

from harness.measured_rows import record
from splitsem.cost.machines import Roofline
from splitsem.cost.measure import MachineRates, measure, measure_rates
from splitsem.models.cnn import StagedCnn
from splitsem.models.lstm import LstmForecaster
from splitsem.models.unet import UNet
from splitsem.placement import Placement
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.half import Half

BAR, ROUNDS, NUM_CUTS = 1.3, 5, 10
Builder = Callable[[], nn.Module]
TUNED: dict[str, tuple[Builder, tuple[int, ...]]] = {
    "resnet34 at 128": (models.resnet34, (3, 128, 128)),
    "resnet18 at 64": (models.resnet18, (3, 64, 64)),
    "mobilenet_v2 at 128": (models.mobilenet_v2, (3, 128, 128)),
    "cnn at 32": (lambda: StagedCnn((3, 32, 32), (10,)), (3, 32, 32)),
    "unet of width 8 at 128": (lambda: UNet((3, 128, 128), (12, 128, 128), width=8), (3, 128, 128)),
    "lstm of 128 states": (lambda: LstmForecaster((48, 3), (8,), hidden=128), (48, 3)),
}
JUDGED: dict[str, tuple[Builder, tuple[int, ...]]] = {
    "unet (disaster)": (lambda: UNet((3, 64, 64), (12, 64, 64)), (3, 64, 64)),
    "cnn (digits)": (lambda: StagedCnn((1, 8, 8), (10,)), (1, 8, 8)),
    "lstm (netqos)": (lambda: LstmForecaster((48, 3), (8,)), (48, 3)),
    "mobilenet_v3_small at 224": (models.mobilenet_v3_small, (3, 224, 224)),
    "resnet18 at 224": (models.resnet18, (3, 224, 224)),
}


def halves(build: Builder, shape: tuple[int, ...]) -> list[Half]:
    """Both halves at up to NUM_CUTS cuts, spread evenly; those that compute nothing left out."""
    graph = SplitGraph(build().eval(), shape)
    chosen = sorted({round(at) for at in np.linspace(0, len(graph.points) - 1, NUM_CUTS)})
    return [half for at in chosen for half in graph.cut(at).halves() if half.ops]


def measured(networks: dict[str, list[Half]]) -> tuple[MachineRates, dict[str, list[float]]]:
    """This machine's rates and the time of each half: medians over the rounds."""
    rates: list[MachineRates] = []
    times: dict[str, list[list[float]]] = {name: [[] for _ in halves] for name, halves in networks.items()}
    for _ in range(ROUNDS):
        rates.append(measure_rates(Placement("cpu", "float32", 1), 1.0))
        for name, all_halves in networks.items():
            for half, found in zip(all_halves, times[name], strict=True):
                found.append(measure(half, 30, 2, 0.06).median_s)
    peak = float(np.median([rate.peak_flops_per_s for rate in rates]))
    memory = float(np.median([rate.memory_bytes_per_s for rate in rates]))
    return MachineRates(peak, memory), {name: [float(np.median(t)) for t in found] for name, found in times.items()}


def machine(rates: MachineRates, efficiency: float, overhead_s: float, repack_bytes_per_s: float) -> Roofline:
    """The roofline of this machine with the given fitted numbers."""
    return Roofline(
        peak_flops_per_s=rates.peak_flops_per_s,
        memory_bytes_per_s=rates.memory_bytes_per_s,
        active_w=0.0,
        idle_w=0.0,
        efficiency=min(efficiency, 1.0),
        overhead_s=overhead_s,
        repack_bytes_per_s=repack_bytes_per_s,
    )


def ratios(roofline: Roofline, all_halves: list[Half], times_s: list[float]) -> np.ndarray:
    """Predicted ÷ measured of each half."""
    return np.array([roofline.time_s(half) for half in all_halves]) / times_s


def fitted(rates: MachineRates, networks: dict[str, list[Half]], times: dict[str, list[float]]) -> Roofline:
    """The roofline with the least squares of log ratios over TUNED."""

    def residuals(logs: np.ndarray) -> np.ndarray:
        roofline = machine(rates, *np.exp(logs))
        each = [np.log(ratios(roofline, networks[name], times[name])) for name in TUNED]
        return np.concatenate([found / np.sqrt(len(found)) for found in each])

    start = [log(0.8), log(6e-6), log(5e9)]
    return machine(rates, *np.exp(least_squares(residuals, start, bounds=([-9, -20, 10], [0, -5, 40])).x))


def main() -> None:
    """Print the fit and network × (median, worst ratio); exit with an error when the bar is missed."""
    torch.set_num_threads(1)
    networks = {name: halves(*network) for name, network in (TUNED | JUDGED).items()}
    rates, times = measured(networks)
    best = fitted(rates, networks, times)
    assert best.repack_bytes_per_s is not None
    print(f"torch {torch.__version__}, one thread: {rates.peak_flops_per_s / 1e9:.0f} GFLOP/s, ", end="")
    print(f"{rates.memory_bytes_per_s / 1e9:.0f} GB/s; fitted: efficiency {best.efficiency:.2f}, ", end="")
    print(f"overhead {1e6 * best.overhead_s:.1f} µs, repack {best.repack_bytes_per_s / 1e9:.1f} GB/s\n")
    print(f"{'predicted / measured':28}{'whole ms':>10}{'median':>9}{'worst':>8}")
    missed = []
    for name in networks:
        found = ratios(best, networks[name], times[name])
        worst = float(found[np.argmax(np.abs(np.log(found)))])
        print(f"{name:28}{1e3 * max(times[name]):10.2f}{np.median(found):9.2f}{worst:8.2f}", end="")
        print("   tuned" if name in TUNED else "")
        if name in JUDGED:
            median = float(np.median(found))
            missed += [name] * (abs(log(median)) > log(BAR))
            record(f"roofline against the clock, {name}", f"{median:.2f} ×", f"within {BAR} ×", name in missed)
    if missed:
        sys.exit(f"bar missed: the median is beyond {BAR}× for {', '.join(missed)}")


if __name__ == "__main__":
    main()
