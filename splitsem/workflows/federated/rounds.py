"""A federated run: training in this process, in workers or in Flower's deployment, then score and figures."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress

from splitsem import extras
from splitsem.errors import ConfigError
from splitsem.federated.client_processes import ClientProcesses
from splitsem.federated.flower import ClientApp, Context, Grid, RecordDict, ServerApp
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.round_report import Row, run_metrics
from splitsem.federated.server_app import Server
from splitsem.files import write_csv
from splitsem.report.federated_figures import score_by_round, score_by_uplink
from splitsem.scoring import Batches
from splitsem.training import kept_weights
from splitsem.training.time_left import time_left
from splitsem.trees import call
from splitsem.workflows import assemble, evaluation
from splitsem.workflows.federated import deployment
from splitsem.workflows.federated.assembly import Ends, build
from splitsem.workflows.federated.deployment import as_text, make_client_app, serve, submit
from splitsem.workflows.federated.summary import ROUNDS
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.show_domains import who_has_what

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> Result:
    """See ``run`` in workflow.py."""
    settings = cfg.federated
    if settings.engine is not None and settings.superlink is not None:
        raise ConfigError("federated.superlink and federated/engine name two places to run: give one of them")
    if settings.client_processes > 1 and (settings.engine is not None or settings.superlink is not None):
        raise ConfigError(
            "federated.client_processes is for clients of this process, and federated.superlink or federated/engine "
            "runs them elsewhere: leave out one of them"
        )
    ends = build(cfg)
    num_clients = settings.num_clients
    path = _train(cfg, ends, folder) if settings.superlink is None else submit(cfg, folder)
    trained = kept_weights.load(ends.model, path)
    ends.model.eval()
    rows = trained.history
    write_csv(pd.DataFrame(rows), folder / ROUNDS)
    metrics = _score(cfg, ends) | run_metrics(rows, ends.layout.raw_bytes)
    metrics |= {"num_clients": num_clients, "train_total_s": trained.train_s} | _labels(cfg)
    headline = (
        f"{metrics['strategy']}, {metrics['codec']}: test score {metrics['score']:.4f} after "
        f"{metrics['rounds']} rounds of {num_clients} clients; "
        f"{metrics['uplink_bytes']:,.0f} bytes up a client and round "
        f"({metrics['uplink_compression_ratio']:.1f} times fewer than float32), "
        f"{metrics['downlink_bytes']:,.0f} down; weights: {path}"
    )
    figures = {"score_by_round": score_by_round(rows, metrics)}
    figures["score_by_uplink"] = score_by_uplink(rows, metrics)
    figures |= who_has_what(ends.task, ends.labels, ends.parts, f"{metrics['partition']} · train")
    return Result(metrics, figures, rows, headline)


def _train(cfg: DictConfig, ends: Ends, folder: Path) -> Path:
    """Train on this machine; returns where the weights are."""
    with shown(ends.server):
        if cfg.federated.engine is None:
            return _in_process(cfg, ends, folder)
        path: Path = instantiate(cfg.federated.engine)(cfg, ends, folder)
        return path


@contextmanager
def shown(server: Server) -> Iterator[None]:
    """Show each round: by a progress bar on a terminal, else by a line in the log."""
    with _bar(server.num_rounds) as bar:
        server.on_round = partial(show_round, bar, server.num_rounds, time.perf_counter())
        yield


def _in_process(cfg: DictConfig, ends: Ends, folder: Path) -> Path:
    """Train with all clients in this process, or in some that it starts; returns where the weights are."""
    ends.server.folder = folder if cfg.federated.checkpoint else None
    with grid_of(cfg, ends.client_app) as grid:
        train_s = run_rounds(ends.server, grid)
    path = folder / "weights.safetensors"
    ends.install(ends.server.final)
    kept_weights.save(ends.model, path, ends.server.rows, train_s)
    return path


@contextmanager
def grid_of(cfg: DictConfig, client_app: ClientApp) -> Iterator[InProcessGrid]:
    """All clients in this process, one after the other, or in ``federated.client_processes`` that each build them.

    Raises ConfigError or LinkError where a process cannot build them.
    """
    settings = cfg.federated
    if settings.client_processes == 1:
        yield InProcessGrid(client_app, settings.num_clients)
        return
    command = [sys.executable, "-m", deployment.__name__]
    with ClientProcesses(command, as_text(cfg), settings.client_processes, settings.num_clients) as grid:
        grid.wait_ready()
        yield grid


def run_rounds(server: Server, grid: InProcessGrid) -> float:
    """Run all rounds with the clients of ``grid``; returns the seconds that the rounds took."""
    server.contexts = grid.contexts
    began = time.perf_counter()
    server.app()(grid, Context(1, 0, {}, RecordDict(), {}))
    return time.perf_counter() - began


def _score(cfg: DictConfig, ends: Ends) -> Metrics:
    def of_split(split: str) -> Batches:
        samples = getattr(ends.task.splits(), split)
        return assemble.batches(samples, ends.placement, cfg.trainer.batch_size, cfg.workflow.num_samples)

    return evaluation.scores(partial(call, ends.model), ends.task, of_split)


def _labels(cfg: DictConfig) -> Metrics:
    choices = HydraConfig.get().runtime.choices
    names: dict[str, Any] = {group: choices[group] for group in ("task", "model", "codec")}
    names["strategy"] = choices["federated/strategy"]
    names["partition"] = choices["partition@federated.partition"]
    names["privacy"] = "none" if cfg.federated.privacy is None else choices["federated/privacy"]
    names["downlink_codec"] = choices["codec@federated.downlink_codec"]
    return names


def _bar(num_rounds: int) -> Any:
    """A progress bar over the rounds, for a terminal."""
    return Progress(console=Console(stderr=True), transient=True) if sys.stderr.isatty() else nullcontext()


def show_round(bar: Progress | None, num_rounds: int, began_s: float, row: Row) -> None:
    """Print a line about the round of ``row``: above the bar on a terminal, to the log elsewhere."""
    number = int(row["round/number"])
    scored = f"loss {row['round/train_loss']:.4f}, validation score {row['round/val_score']:.4f}"
    text = f"round {number}/{num_rounds}: {scored}, {row['round/uplink_bytes']:,.0f} bytes up"
    if bar is None:
        left = time_left(time.perf_counter() - began_s, number, num_rounds)
        log.info("%s%s", text, left and f", {left}")
        return
    if not bar.tasks:
        bar.add_task("rounds", total=num_rounds)
    bar.console.print(text, highlight=False, soft_wrap=True)
    bar.update(bar.tasks[0].id, completed=number)


def simulate(cfg: DictConfig, ends: Ends, folder: Path, *, num_cpus: float, num_gpus: float) -> Path:
    """Train with the server here and the clients in Ray's workers, which build the clients from ``cfg``.

    Args:
        cfg: configuration of the run.
        ends: the ends, whose server runs the rounds.
        folder: folder of the run, which gets the checkpoints.
        num_cpus: processors of a worker.
        num_gpus: GPUs of a worker; may be a part of one GPU.

    Returns:
        The path of the weights. Raises ConfigError where Ray is not installed.
    """
    extras.check("simulation", "federated/engine=simulation")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray starts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from flwr.simulation import run_simulation
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        serve(ends, grid, context, folder)

    run_simulation(
        app,
        make_client_app(as_text(cfg)),
        num_supernodes=len(ends.parts),
        backend_config={"client_resources": {"num_cpus": num_cpus, "num_gpus": num_gpus}},
    )
    return folder / "weights.safetensors"
