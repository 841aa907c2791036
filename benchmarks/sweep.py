"""What a sweep over all cuts takes, as ratios: to one evaluation of the unsplit network, and of two workers to one.

    python benchmarks/sweep.py                    # all of it; some minutes, and a training where none is kept
    python benchmarks/sweep.py process resnet18   # one network in this process
    python benchmarks/sweep.py main joblib        # the main job: task=disaster codec=quant8 -m

``main``: wall time, with references that an earlier sweep left and with fresh ones; the jobs' evaluations over one
evaluation of the unsplit network on the same samples, test and validation; what a further job takes beyond its
evaluation. ``joblib``: the same sweep by two workers. Both take their network from ``.cache`` of the checkout.
``process``: cut, head, coding and tail of every cut of torchvision's networks, one thread, in processor time, which
other work disturbs less; the bound is one forward and all tails by their FLOPs.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torchvision
from hydra import compose, initialize_config_dir

from harness.measured_rows import record
from splitsem.codecs.quantise import Quantise
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames, Pipeline, features
from splitsem.scoring import score_samples
from splitsem.splitting.graph import SplitGraph
from splitsem.workflows import assemble, evaluation, sweep
from splitsem.workflows.shared_features import Batch, SharedFeatures

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache"
JOB = ("task=disaster", "codec=quant8", f"cache_dir={CACHE}", "device.num_threads=1")
NETWORKS = ("resnet18", "resnet50", "densenet121", "mobilenet_v3_large")
NAMES = {
    "main s": "the main job, all cuts, weights and references kept",
    "anew s": "the main job, its references evaluated anew",
    "evaluations": "the main job: its evaluations, of one evaluation of the unsplit network",
    "beyond s": "the main job: a further cut, beyond its evaluation",
    "joblib": "the main job: as fast by two workers",
    "of bound": "all cuts in one process, of the bound",
}
BARS = {"main s": 12.0, "anew s": 12.0, "evaluations": 20.0, "beyond s": 0.2, "joblib": 1.6, "of bound": 2.0}


def main() -> None:
    """Print what is asked for, each figure with its bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=("main", "joblib", "process", *NETWORKS), metavar="WHAT")
    what = parser.parse_args().what or ["main", "joblib", "process"]
    torch.set_num_threads(1)
    if "main" in what or "joblib" in what:
        with tempfile.TemporaryDirectory() as folder:
            run(folder, [*JOB, "split.point=input", "-m"])  # which trains, and evaluates references, where none is kept
            wall_s = of_main(folder)
            began = time.perf_counter()
            run(folder, [*JOB, "workflow.keep_references=false", "hydra.sweep.dir=anew", "-m"])
            told("anew s", time.perf_counter() - began, "s of wall time with references evaluated anew")
            if "joblib" in what:
                began = time.perf_counter()
                run(folder, [*JOB, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=two", "-m"])
                told("joblib", wall_s / (time.perf_counter() - began), "× as fast by two workers")
    if "process" in what:
        for name in [name for name in what if name in NETWORKS] or NETWORKS:
            of_process(name)


def of_main(folder: str) -> float:
    """Run the main job and read the clock off the jobs' folders; returns its wall time."""
    began = time.perf_counter()
    run(folder, [*JOB, "hydra.sweep.dir=one", "-m"])
    wall_s = time.perf_counter() - began
    jobs = sorted(Path(folder).glob("one/*/metrics.json"), key=lambda path: int(path.parent.name))
    written_s = [path.stat().st_mtime for path in jobs]
    evaluation_s = [json.loads(path.read_text())["evaluation_s"] for path in jobs]
    beyond_s = [written_s[i] - written_s[i - 1] - evaluation_s[i] for i in range(2, len(jobs))]  # the first pays more
    told("main s", wall_s, f"s of wall time, {len(jobs)} cuts, with MLflow and figures")
    told("evaluations", sum(evaluation_s) / unsplit_s(), "× one evaluation of the unsplit network: all jobs' together")
    told("beyond s", statistics.median(beyond_s), "s that a job takes beyond its evaluation")
    return wall_s


def unsplit_s() -> float:
    """Seconds of one evaluation of the unsplit network, on both held-out splits."""
    sweep.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", list(JOB))
        network = assemble.network(cfg)

    def evaluate() -> None:
        for split in ("test", "val"):
            score_samples(network.run, network.task, evaluation.batches(cfg, network, split))

    return min(timed(evaluate, time.perf_counter) for _ in range(5))


def run(folder: str, arguments: Sequence[str]) -> None:
    """Run the command in a process of its own."""
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=os.environ)


@torch.inference_mode()
def of_process(name: str, num_batches: int = 2, batch: int = 8) -> None:
    """All cuts of a network, with features that move on from cut to cut, and what heads take that begin anew."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    graph = SplitGraph(model, (3, 224, 224))
    batches = [torch.rand(batch, 3, 224, 224) for _ in range(num_batches)]
    one_s = min(timed(lambda: [model(x) for x in batches]) for _ in range(3))
    shares = [sum(op.flops for op in point.tail_ops) for point in graph.points]
    bound = 1 + sum(shares) / shares[0]
    shared, spent_s = SharedFeatures(10**9), Counter[str]()
    for point in graph.points:
        with adding(spent_s, "cut"):
            cut = graph.cut(point)
        link = SimulatedLink(bandwidth_bps=1e8, rtt_s=0.01, energy_j_per_bit=0.0)
        pipeline, frames = Pipeline(cut, Quantise(8), Quantise(8), link), Frames()
        for number, x in enumerate(batches):
            with adding(spent_s, "head"):
                made = shared.at(graph, cut, Batch(name, "test", number), x)
            with adding(spent_s, "tail"):
                pipeline.finish(made, frames)
            with adding(spent_s, "anew"):
                features(cut, x)
    cuts, heads, tails, anew = (spent_s[part] / one_s for part in ("cut", "head", "tail", "anew"))
    ratio = cuts + heads + tails
    told("of bound", ratio / bound, f"of the bound: {name}, {len(shares)} cuts, {ratio:.1f} × one evaluation")
    print(f"{'':>8} making cuts {cuts:.1f}, heads {heads:.1f}, coding and tails {tails:.1f}; the bound is {bound:.1f}")
    print(f"{'':>8} heads that begin anew: {anew:.1f}, all then {ratio - heads + anew:.1f}", flush=True)


def timed(call: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that a call takes."""
    began = clock()
    call()
    return clock() - began


@contextlib.contextmanager
def adding(spent_s: Counter[str], part: str) -> Iterator[None]:
    """Add the processor seconds of what runs inside."""
    began = time.process_time()
    yield
    spent_s[part] += time.process_time() - began  # type: ignore[assignment]


def told(bar: str, value: float, words: str) -> None:
    """Print a figure with its bar, and record it."""
    limit = BARS[bar]
    is_met = value >= limit if bar == "joblib" else value <= limit
    print(f"{value:>8.2f} {words} (bar {limit:g}: {'met' if is_met else 'MISSED'})", flush=True)
    of = f": {words.partition(': ')[2].partition(',')[0]}" if bar == "of bound" else ""
    unit = " s" if bar.endswith(" s") else " ×"
    sign = "≥" if bar == "joblib" else "≤"
    record(f"{NAMES[bar]}{of}", f"{value:.2f}{unit}", f"{sign} {limit:g}{unit}", not is_met)


if __name__ == "__main__":
    main()
