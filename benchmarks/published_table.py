"""The optimum by the published Jetson-TX2 table of RepVGG-B3: what the edge takes, and what a server changes.

    SPLITSEM_TX2_LUT=jetson_tx2_repvgg_b3_lut.json python benchmarks/published_table.py

The table has 26 blocks on the edge and the last one on the server, in milliseconds. Bar: with the same function, the
exact solver needs at most 151 ms on the edge; all branches in parallel need 180. The file is not part of the project;
without the file, the benchmark does nothing. The server model is an assumption and is printed: the edge's times
divided by a factor, behind a line of a stated rate.
"""

import os
import sys
import time
from pathlib import Path

import torch

from harness.import_table import import_pair
from harness.measured_rows import record
from splitsem.cost.fits import LinkFit
from splitsem.cost.hardware_lut import HardwareLut
from splitsem.models.repvgg import HyperRepVgg
from splitsem.search.exact import Exact
from splitsem.search.objective import Objective, latency, t_eff
from splitsem.search.problem import Problem, function_equivalent, fused_gammas, measured_problem, only, parallel_gammas
from splitsem.search.solution import Solution

BAR_S = 0.151
SERVER_SPEEDUP, LINK = 10.0, LinkFit(s_per_byte=8 / 100e6, delay_s=2e-3, residual_s=0.0, num_transfers=1)


def published(path: str, server_speedup: float | None) -> HardwareLut:
    """Both machines of the file, with the units of RepVGG-B3's stages at 224 × 224, whose shapes need no weights."""
    with torch.device("meta"):
        network = HyperRepVgg((3, 224, 224), (1000,), (4, 6, 16, 1), (64, 192, 384, 768, 2560))
    return import_pair(path, "repvgg_b3", network.facts()[1:-1], "ms", server_speedup, LINK)


def solved(problem: Problem, objective: Objective) -> dict[str, Solution]:
    """Both baselines and both optima, each at the best cut."""
    exact, fused = Exact(objective), fused_gammas(problem)
    return {
        "all in parallel": exact.throughput(problem, only(parallel_gammas(problem))),
        "all fused": exact.throughput(problem, only(fused)),
        "exact, same function": exact.throughput(problem, function_equivalent(fused)),
        "exact, any branches": exact.throughput(problem),
    }


def main() -> None:
    """Print both tables; exit with an error when the bar is missed."""
    path = os.environ.get("SPLITSEM_TX2_LUT")
    if not path:
        print("SPLITSEM_TX2_LUT names no file: nothing to do")
        return
    edge_only = measured_problem(published(path, None))
    found = solved(edge_only, latency())
    began = time.perf_counter()
    Exact(latency()).throughput(edge_only)
    print(f"{Path(path).name}: 26 blocks on the edge; solved in {1e3 * (time.perf_counter() - began):.2f} ms\n")
    print(f"{'':22}{'edge ms':>9}{'against all in parallel':>26}")
    parallel_s = found["all in parallel"].edge_s
    for name, one in found.items():
        print(f"{name:22}{1e3 * one.edge_s:9.1f}{one.edge_s / parallel_s - 1:26.1%}")
    print(f"\nserver: the edge's times / {SERVER_SPEEDUP:g} (assumed), stage4.0 as published; 100 Mbit/s, delay 2 ms")
    print(f"{'':22}{'λ':>4}{'T_eff ms':>10}{'rate Hz':>9}{'edge':>9}{'link':>9}{'server ms':>11}")
    for name, one in solved(measured_problem(published(path, SERVER_SPEEDUP)), t_eff()).items():
        times = f"{1e3 * one.edge_s:9.1f}{1e3 * one.link_s:9.1f}{1e3 * one.server_s:11.1f}"
        print(f"{name:22}{one.split_index:4}{1e3 * one.value:10.1f}{one.throughput_hz:9.1f}{times}")
    is_met = found["exact, same function"].edge_s <= BAR_S
    print(f"\nbar of {1e3 * BAR_S:.0f} ms {'met' if is_met else 'missed'}")
    same_s = found["exact, same function"].edge_s
    record(
        "published Jetson-TX2 table, exact optimum with the same function",
        f"{1e3 * same_s:.1f} ms",
        f"≤ {1e3 * BAR_S:.0f} ms",
        not is_met,
    )
    sys.exit(not is_met)


if __name__ == "__main__":
    main()
