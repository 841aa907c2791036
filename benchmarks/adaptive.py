"""How the adaptive controller does over five kinds of traces, against what is known afterwards and in advance.

    python benchmarks/adaptive.py                        # the table of docs/adaptive.md, some minutes
    python benchmarks/adaptive.py --figure adaptive      # one run of each kind as PNG files, with the baselines
    python benchmarks/adaptive.py --networks resnet50 --first-seed 100 --seeds 10 --controller probe_s=0.1   # to tune
    python benchmarks/adaptive.py --distance             # of which frames the distance to the oracle is
    python benchmarks/adaptive.py --trace FILE           # over a Mahimahi trace of one's own

The controller is the object that runs on a real line. Tables: cuts of torchvision's networks (random weights) by
quant8 and quant4, the times of a Raspberry Pi 4 and a laptop's CPU by the roofline model (coding left out), real
payloads of noise with the spectrum of pictures. A camera takes a frame each 1.5 times what the whole network takes on
the edge; latency counts from there. Everything is computed, and the same seeds give the same table.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchvision
from hydra.utils import instantiate

from harness.ends import composed
from harness.measured_rows import record
from splitsem.codecs.quantise import Quantise
from splitsem.cost.setting_table import SettingTable
from splitsem.intervals import ci95
from splitsem.report.adaptive_figures import adaptation
from splitsem.search.adaptive.controller import Adaptive
from splitsem.search.adaptive.informed import Informed
from splitsem.search.adaptive.one_step import OneStep
from splitsem.search.adaptive.replayed import Replayed, best_fixed, oracle, replay
from splitsem.search.adaptive.variations import KINDS, STEP_S, Variation, of_mahimahi
from splitsem.splitting.graph import SplitGraph
from splitsem.workflows.setting_tables import useful

NETWORKS = ("resnet18", "mobilenet_v2")
OTHER_NETWORKS = ("resnet50", "efficientnet_b0", "squeezenet1_1")
"""For tuning, so that what is reported was not tuned on."""
BIT_WIDTHS = (8, 4)
RUNS = ("adaptive", "best fixed", "one-step", "informed", "oracle")
FRAMES = (
    "while link or server changed",
    "given up, no change under way",
    "not informed's setting",
    "informed's setting",
)
GAIN_BAR, STEADY_BAR, ORACLE_BAR = -0.15, 0.02, 0.08  # where the link varies; where it does not; everywhere


def table_of(network: str) -> SettingTable:
    """Each layer's cut by each bit width, without the settings that another one beats in everything."""
    cfg = composed(["hardware=pi4_desktop", "hardware/machine@hardware.server=laptop_cpu"])
    edge, server = instantiate(cfg.hardware.edge), instantiate(cfg.hardware.server)
    torch.manual_seed(0)
    graph = SplitGraph(getattr(torchvision.models, network)().eval(), (3, 224, 224))
    picture = _picture()
    rows: list[tuple[Any, ...]] = []
    for point in graph.points:
        cut = graph.cut(point)
        head, tail = cut.halves()
        if point.name == "output":
            rows.append(("all on the edge", edge.time_s(head), 0.0, 0.0, 0.0, 1.0))
            continue
        with torch.inference_mode():
            z = cut.head(picture)
        for bit_width in BIT_WIDTHS:
            name = f"{point.name} quant{bit_width}"
            rows.append((name, edge.time_s(head), len(Quantise(bit_width).payload(z)), server.time_s(tail), 2.0, 1.0))
    names, edge_s, num_bytes, server_s, answer_bytes, scores = zip(*rows, strict=True)
    table = SettingTable(names, edge_s, num_bytes, server_s, answer_bytes, scores)
    return table.only(useful(table, None))


def _picture() -> torch.Tensor:
    """Noise with the spectrum of natural pictures, amplitudes falling as 1/f."""
    noise = torch.fft.fft2(torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)))
    across = torch.fft.fftfreq(224)
    picture = torch.fft.ifft2(noise / (across[:, None] ** 2 + across**2).sqrt().clamp(min=1 / 224)).real
    return (0.5 + 0.2 * (picture - picture.mean()) / picture.std()).clamp(0, 1)


def runs(table: SettingTable, variation: Variation, seed: int, settings: dict[str, Any]) -> Iterator[Replayed]:
    """The frames of each of ``RUNS``."""
    period_s = 1.5 * float(table.edge_s[table.home])
    yield replay(table, variation, Adaptive(table, **settings), period_s, seed)
    yield best_fixed(table, variation, period_s, seed)[1]
    yield replay(table, variation, OneStep(table, variation.rtt_s), period_s, seed)
    yield replay(table, variation, Informed(table, variation), period_s, seed)
    yield oracle(table, variation, period_s, seed)


def show(network: str, table: SettingTable, kinds: dict[str, Callable[[int], Variation]], args: Any) -> None:
    """Print the rows of a network; each ``±`` is a 95 % interval of the mean over seeds."""
    about = f"{len(table)} settings, all on the edge {1e3 * table.edge_s[table.home]:.0f} ms"
    print(f"\n{network}: {about}, {args.seeds} seeds from {args.first_seed}")
    print(
        f"{'trace':14}"
        + "".join(f"{name:>12}" for name in RUNS)
        + "   adaptive − fixed     − one-step     − informed       − oracle  informed − fixed  switches"
    )
    gains, above = {}, {}
    for kind, make in kinds.items():
        found = [list(runs(table, make(seed), seed, args.settings)) for seed in args.range]
        means = np.array([[run.mean_s for run in each] for each in found])
        row = f"{kind:14}" + "".join(f"{1e3 * mean:9.1f} ms" for mean in means.mean(axis=0))
        for one, other in ((0, 1), (0, 2), (0, 3), (0, 4), (3, 1)):
            ratios = [100 * (each[one] / each[other] - 1) for each in means]
            half = ci95(ratios) if len(ratios) > 1 else None
            row += f"{statistics.fmean(ratios):+9.1f} %" + (f" ± {half:3.1f}" if half is not None else "")
        print(row + f"{statistics.fmean(each[0].num_switches for each in found):10.0f}", flush=True)
        gains[kind], above[kind] = ((means[:, 0] / means[:, other] - 1).mean() for other in (1, 4))
    if args.trace is None:
        what, steady = f"a cut that follows the link, {network}, simulated", gains.pop("stable")
        worst, furthest = max(gains, key=lambda kind: gains[kind]), max(above, key=lambda kind: above[kind])
        record(
            f"{what}: to the best fixed cut, {worst}",
            f"{gains[worst]:+.1%}",
            f"≤ {GAIN_BAR:.0%}",
            gains[worst] > GAIN_BAR,
        )
        record(f"{what}: to the best fixed cut, stable", f"{steady:+.1%}", f"≤ {STEADY_BAR:+.0%}", steady > STEADY_BAR)
        record(
            f"{what}: to the oracle, {furthest}",
            f"{above[furthest]:+.1%}",
            f"≤ {ORACLE_BAR:+.0%}",
            above[furthest] > ORACLE_BAR,
        )


def distance(network: str, table: SettingTable, kinds: dict[str, Callable[[int], Variation]], args: Any) -> None:
    """Print what share of the oracle's latency each sort of frame adds to it."""
    print(f"\n{network}, above the oracle by frames, {args.seeds} seeds from {args.first_seed}")
    print(f"{'trace':14}" + "".join(f"{name:>34}" for name in FRAMES))
    for kind, make in kinds.items():
        added, whole_s = np.zeros(len(FRAMES)), 0.0
        for seed in args.range:
            variation = make(seed)
            period_s = 1.5 * float(table.edge_s[table.home])
            mine = replay(table, variation, Adaptive(table, **args.settings), period_s, seed)
            informed = replay(table, variation, Informed(table, variation), period_s, seed)
            best = oracle(table, variation, period_s, seed)
            ends_s = np.stack([best.taken_s, mine.taken_s + np.maximum(mine.latency_s, best.latency_s)])
            steps = np.minimum(ends_s / STEP_S, len(variation.rate_bps) - 1).astype(int)
            rates, factors = np.maximum(variation.rate_bps, 1.0)[steps], variation.server_factor[steps]
            has_changed = np.max([rates.max(0) / rates.min(0), factors.max(0) / factors.min(0)], axis=0) > 2
            is_other = mine.setting != informed.setting
            sort = np.select([has_changed, mine.is_lost, is_other], [0, 1, 2], 3)
            added += np.bincount(sort, mine.latency_s - best.latency_s, len(FRAMES))
            whole_s += best.latency_s.sum()
        print(f"{kind:14}" + "".join(f"{100 * each / whole_s:+32.1f} %" for each in added), flush=True)


def draw(network: str, table: SettingTable, kind: str, variation: Variation, path: Path, args: Any) -> None:
    """One run as a figure, with those that it is compared with."""
    mine, *others = runs(table, variation, args.first_seed, args.settings)
    compared = {name: run.latency_s for name, run in zip(RUNS[1:], others, strict=True) if name != "informed"}
    sent = table.payload_bytes[mine.setting]
    frames = pd.DataFrame({
        "taken_s": mine.taken_s, "setting": [table.names[each] for each in mine.setting], "latency_s": mine.latency_s,
        "payload_bytes": sent, "is_lost": mine.is_lost, "bandwidth_bps": mine.believed_bps,
        "bandwidth_low_bps": mine.believed_low_bps, "bandwidth_high_bps": mine.believed_high_bps,
    })  # fmt: skip
    rate = np.arange(len(variation.rate_bps)) * STEP_S, variation.rate_bps
    figure = adaptation(frames, f"{network}, {kind}, simulated", rate, compared)
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=[*NETWORKS, *OTHER_NETWORKS])
    parser.add_argument("--controller", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the controller")
    parser.add_argument(
        "--distance", action="store_true", help="of which frames the distance to the oracle is, instead"
    )
    parser.add_argument("--trace", help="a Mahimahi trace, with a round trip of 10 ms")
    parser.add_argument("--figure", type=Path, metavar="FOLDER", help="draw a run of each kind instead")
    args = parser.parse_args()
    args.settings = {name: float(value) for name, value in (each.split("=") for each in args.controller)}
    args.range = range(args.first_seed, args.first_seed + args.seeds)
    kinds: dict[str, Callable[[int], Variation]] = dict(KINDS)
    if args.trace:
        kinds = {Path(args.trace).stem: lambda _: of_mahimahi(args.trace, 0.01)}
    for network in args.networks:
        table = table_of(network)
        if args.figure is None:
            (distance if args.distance else show)(network, table, kinds, args)
            continue
        args.figure.mkdir(parents=True, exist_ok=True)
        for kind, make in kinds.items():
            path = args.figure / f"{network}-{kind.replace(' ', '-')}.png"
            draw(network, table, kind, make(args.first_seed), path, args)
