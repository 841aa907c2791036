"""Federated training beside plain Flower, the codec's share of a round, and a hundred clients in one process.

    python benchmarks/federated.py
    python benchmarks/federated.py flower      # only: beside plain Flower, 3 and 10 clients
    python benchmarks/federated.py processes   # only: disaster, 10 clients, in one process and in two

Digits, all clients in this process, but for the last row. Scores are in the study (experiments/federated).
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from harness.ends import state_of_the_machine
from harness.measured_rows import record
from splitsem.federated.flower import ClientApp, Context, Message, MetricRecord, RecordDict
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.round_report import Row, run_metrics
from splitsem.federated.state import State, to_record
from splitsem.workflows.federated.assembly import Ends, build
from splitsem.workflows.federated.rounds import grid_of, run_rounds

CONF = Path(__file__).parents[1] / "conf"
BASE = ("workflow=federated", "task=digits", "device=cpu", "device.num_threads=1")
UNEVEN = (
    "partition@federated.partition=dirichlet",
    "federated.partition.beta=0.3",
    "federated.partition.min_samples=2",
)
REPEATS = 4
ROUNDS = 20

CODECS = ("codec=identity", "codec=quant8", "codec=quant4", "codec=topk_quant codec.keep_ratio=0.01")


def made(*overrides: str) -> Ends:
    """Both ends of a configuration."""
    return build(composed(*overrides))


def composed(*overrides: str) -> DictConfig:
    """A configuration."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", [*BASE, *overrides])


def run(ends: Ends) -> float:
    """Run all rounds; returns the seconds that the rounds took."""
    grid = InProcessGrid(ends.client_app, len(ends.parts))
    began = time.perf_counter()
    ends.server.app()(grid, Context(1, 0, {}, RecordDict(), {}))
    return time.perf_counter() - began


def plain(ends: Ends) -> tuple[float, State]:
    """Train the clients of ``ends`` in Flower's own FedAvg and loop, with whole networks: seconds, and the network."""
    site, app = ends.site, ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        state = message.content.array_records["arrays"].to_torch_state_dict()
        state |= {name: state[name].round().long() for name in site.layout.counters}
        server_round = message.content.config_records["config"]["server-round"]
        assert isinstance(server_round, int)
        trained = site.train(state, {}, int(context.node_config["partition-id"]), server_round, 0.0)
        metrics = MetricRecord({"num-examples": trained.num_examples})
        return Message(RecordDict({"arrays": to_record(trained.state), "metrics": metrics}), reply_to=message)

    grid = InProcessGrid(app, len(ends.parts))
    began = time.perf_counter()
    done = ends.server.strategy.start(grid, to_record(ends.server.initial), num_rounds=ends.server.num_rounds)
    return time.perf_counter() - began, dict(done.arrays.to_torch_state_dict())


def beside_plain_flower(num_clients: int) -> None:
    """Compare FedAvg through the identity codec with Flower's own FedAvg, by the clock and in processor time.

    An update is a difference that the server adds again, so a weight may differ in its last bit after a round. AdamW,
    which divides by a gradient's size, magnifies such a difference by thousands in some rounds; SGD hardly does.
    Ours scores the network after each round, which plain Flower does not do.
    """
    few = (f"federated.num_clients={num_clients}", "federated.rounds=5", "codec=identity")
    clock, processor, apart = [], [], []
    for turn, optimizer in enumerate(("adamw",) * REPEATS + ("sgd",)):
        ends, others = (made(*few, f"federated/optimizer={optimizer}") for _ in range(2))
        calls: list[Callable[[], Any]] = [partial(run, ends), partial(plain, others)]
        first, second = (processor_s(call) for call in (calls if turn % 2 else calls[::-1]))
        (ours_s, used_s, _), (theirs_s, theirs_used_s, found) = (first, second) if turn % 2 else (second, first)
        clock.append(ours_s / theirs_s)
        processor.append(used_s / theirs_used_s)
        theirs = found[1]
        apart.append(
            max(float((ends.server.final[name].double() - theirs[name].double()).abs().max()) for name in theirs)
        )
    clock, processor = clock[:REPEATS], processor[:REPEATS]
    told = f"{statistics.median(clock):.2f} × by the clock ({min(clock):.2f} … {max(clock):.2f}), "
    told += f"{statistics.median(processor):.2f} × in processor time"
    print(
        f"FedAvg, identity, {num_clients} clients, 5 rounds, beside plain Flower: {told}; largest difference of a "
        f"weight {apart[-1]:.1e} with SGD, {max(apart[:REPEATS]):.1e} with AdamW"
    )
    what = f"FedAvg with identity / plain Flower, digits, {num_clients} clients, 5 rounds"
    record(what, told, "≤ 1.1 ×", statistics.median(processor) > 1.1)


def processor_s(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds by the clock and of the processor that a call takes, and what it returns."""
    began, used_s = time.perf_counter(), time.process_time()
    found = call()
    return time.perf_counter() - began, time.process_time() - used_s, found


def in_processes() -> None:
    """Compare clients one after another with clients in two processes, turn and turn about.

    The first round is left out: it imports Lightning, here as there. A round is timed with its scoring.
    """
    few = (
        "task=disaster",
        "codec=quant8",
        "federated.num_clients=10",
        "federated.rounds=3",
        "federated.local_epochs=1",
    )
    networks: list[State] = []
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in (1, 2) * 2:
        cfg = composed(*few, f"federated.client_processes={number}")
        ends, ended_s = build(cfg), list[float]()
        ends.server.on_round = partial(_note, ended_s)
        began = time.perf_counter()
        with grid_of(cfg, ends.client_app) as grid:
            start_s = time.perf_counter() - began
            run_rounds(ends.server, grid)
        networks.append(ends.server.final)
        rates[number].append((len(ended_s) - 1) / (ended_s[-1] - ended_s[0]))
        print(f"disaster, 10 clients, {number} processes: {rates[number][-1]:.3f} rounds/s; start-up {start_s:.1f} s")
    same = all(bool((network[name] == networks[0][name]).all()) for network in networks for name in network)
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    print(f"two processes: {ratio:.2f} times the rounds/s of one; networks equal to the last bit: {same}")
    print(state_of_the_machine())


def _note(ended_s: list[float], row: Row) -> None:
    """A round has ended."""
    ended_s.append(time.perf_counter())


def main() -> None:
    """Print the figures."""
    print(state_of_the_machine())
    if "processes" in sys.argv[1:]:
        in_processes()
        return
    for codec in CODECS:  # warm up: import and compile everything
        run(made("federated.num_clients=2", "federated.rounds=1", *codec.split()))
    for num_clients in (3, 10):
        beside_plain_flower(num_clients)
    if "flower" in sys.argv[1:]:
        return
    print(f"{'10 clients, Dirichlet(0.3)':45}{'bytes up':>10}{'fewer':>8}{'round s':>9}{'codec':>9}")
    for codec in CODECS:
        ends = made(*UNEVEN, "federated.rounds=5", "federated.num_clients=10", *codec.split())
        run(ends)
        metrics = run_metrics(ends.server.rows, ends.layout.raw_bytes)
        print(
            f"{codec:45}{metrics['uplink_bytes']:10,.0f}{metrics['uplink_compression_ratio']:8.1f}"
            f"{metrics['round_s']:9.2f}{100 * metrics['codec_share']:7.1f} %"
        )
    peaks_mb: list[float] = []
    ends = made("federated.num_clients=100", f"federated.rounds={ROUNDS}", "codec=quant8")
    ends.server.on_round = lambda row: peaks_mb.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    seconds = run(ends)
    share = run_metrics(ends.server.rows, ends.layout.raw_bytes)["codec_share"]
    print(
        f"100 clients, {ROUNDS} rounds, quant8: {seconds:.0f} s, {100 * share:.1f} % of it the codec's; peak memory "
        f"{peaks_mb[0]:.0f} MB after the first round, {peaks_mb[-1]:.0f} MB after the last"
    )
    in_processes()


if __name__ == "__main__":
    main()
