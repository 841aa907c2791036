"""Federated updates on digits: bytes against float32 and scores of several codecs; the time of plain Flower; memory.

``python benchmarks/federated.py [rounds]``: 10 clients, Dirichlet(0.3), all in this process; one seed, so scores are
only a first look (experiments/federated has the study).
"""

import resource
import sys
import time
from pathlib import Path

from hydra import compose, initialize_config_dir

from splitsem.federated.flower import ClientApp, Context, Message, MetricRecord, RecordDict
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.report import run_metrics
from splitsem.federated.state import to_record
from splitsem.pipeline import score
from splitsem.workflows import assemble
from splitsem.workflows.federated_ends import Ends, build

CONF = Path(__file__).parents[1] / "conf"
BASE = ("workflow=federated", "task=digits", "device=cpu", "federated.local_epochs=2")
UNEVEN = (
    "partition@federated.partition=dirichlet",
    "federated.partition.beta=0.3",
    "federated.partition.min_samples=2",
)
CASES = {
    "identity": ("codec=identity",),
    "quant8": ("codec=quant8",),
    "quant4, error feedback": ("codec=quant4",),
    "quant4, none": ("codec=quant4", "federated.error_feedback=false"),
    "top 1 %, error feedback": ("codec=topk", "codec.keep_ratio=0.01"),
    "top 1 % in 8 bits, error feedback": ("codec=topk_quant", "codec.keep_ratio=0.01"),
}


def made(*overrides: str) -> Ends:
    """Both ends of a configuration."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return build(compose("config", [*BASE, *overrides]))


def run(ends: Ends) -> float:
    """All rounds; returns the seconds they took."""
    grid = InProcessGrid(ends.client_app, len(ends.parts))
    began = time.perf_counter()
    ends.server.app()(grid, Context(1, 0, {}, RecordDict(), {}))
    return time.perf_counter() - began


def plain(ends: Ends) -> float:
    """The same clients under Flower's own FedAvg and loop, whole networks as numpy arrays; returns the seconds."""
    site, app = ends.site, ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        state = message.content["arrays"].to_torch_state_dict()
        state |= {name: state[name].round().long() for name in site.layout.counters}
        server_round = message.content["config"]["server-round"]
        trained = site.train(state, {}, context.node_config["partition-id"], server_round, 0.0)
        metrics = MetricRecord({"num-examples": trained.num_examples})
        return Message(RecordDict({"arrays": to_record(trained.state), "metrics": metrics}), reply_to=message)

    grid = InProcessGrid(app, len(ends.parts))
    began = time.perf_counter()
    ends.server.strategy.start(grid, to_record(ends.server.initial), num_rounds=ends.server.num_rounds)
    return time.perf_counter() - began


def main() -> None:
    """Print the figures."""
    rounds = f"federated.rounds={sys.argv[1] if len(sys.argv) > 1 else 25}"
    run(made(*UNEVEN, rounds, "federated.num_clients=2", "federated.rounds=1"))  # everything is imported and compiled
    print(f"{'codec':36}{'score':>8}{'bytes up':>10}{'fewer':>8}{'round s':>9}{'codec s':>9}")
    for name, overrides in CASES.items():
        ends = made(*UNEVEN, rounds, "federated.num_clients=10", *overrides)
        run(ends)
        metrics = run_metrics(ends.server.rows, ends.layout.raw_bytes)
        ends.install(ends.server.final)
        reached = score(ends.model, ends.task, assemble.test_batches(ends.task, ends.device, 256, None))["score"]
        print(
            f"{name:36}{reached:8.4f}{metrics['uplink_bytes']:10,.0f}{metrics['uplink_compression_ratio']:8.1f}"
            f"{metrics['round_s']:9.2f}{10 * metrics['codec_s']:9.2f}"
        )
    few = ("federated.num_clients=3", "federated.rounds=5", "codec=identity")
    times = [(run(made(*few)), plain(made(*few))) for _ in range(3)]
    ours, theirs = (min(column) for column in zip(*times, strict=True))
    print(
        f"FedAvg, identity, 3 clients, 5 rounds: {ours:.2f} s, plain Flower {theirs:.2f} s: {ours / theirs:.2f} times"
    )
    for num_rounds in (1, 3):
        seconds = run(made("federated.num_clients=100", f"federated.rounds={num_rounds}", "codec=quant8"))
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"100 clients, {num_rounds} rounds: {seconds:.1f} s; peak memory of this process {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
