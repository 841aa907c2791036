"""A federated run, in this process or by Flower's: its training, its score, its figures."""

import logging
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.progress import Progress

from splitsem.errors import ConfigError
from splitsem.federated.flower import Context, RecordDict
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.report import Row, run_metrics
from splitsem.lightning import weights
from splitsem.pipeline import score
from splitsem.plots.federated import score_by_round, score_by_uplink
from splitsem.plots.partition import partition
from splitsem.tasks.classification import ClassificationTask
from splitsem.tasks.dealing import class_counts
from splitsem.workflows import assemble
from splitsem.workflows.federated_deployed import submit
from splitsem.workflows.federated_ends import Ends, build
from splitsem.workflows.job import Metrics, Result

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> Result:
    """See workflows/federated.py."""
    settings = cfg.federated
    if settings.engine is not None and settings.superlink is not None:
        raise ConfigError("federated.superlink and federated/engine name two places to run: give one of them")
    ends = build(cfg)
    num_clients = settings.num_clients
    path = _train(cfg, ends, folder) if settings.superlink is None else submit(cfg, folder)
    trained = weights.load(ends.model, path)
    ends.model.eval()
    rows = trained.history
    metrics = _score(cfg, ends) | run_metrics(rows, ends.layout.raw_bytes)
    metrics |= {"num_clients": num_clients, "train_total_s": trained.train_s} | _labels(cfg)
    headline = (
        f"{metrics['strategy']}, {metrics['codec']}: score {metrics['score']:.4f} after {metrics['rounds']} rounds of "
        f"{num_clients} clients; {metrics['uplink_bytes']:,.0f} bytes up a client and round "
        f"({metrics['uplink_compression_ratio']:.1f} times fewer), "
        f"{metrics['downlink_bytes']:,.0f} down; weights: {path}"
    )
    figures = {"score_by_round": score_by_round(rows, metrics)}
    figures["score_by_uplink"] = score_by_uplink(rows, metrics)
    if ends.labels is not None:
        counts = class_counts(ends.labels, ends.parts)
        figures["partition"] = partition(counts, _class_names(ends, counts.shape[1]), f"{metrics['partition']} · train")
    return Result(metrics, figures, rows, headline)


def _train(cfg: DictConfig, ends: Ends, folder: Path) -> Path:
    """Train on this machine; returns where the weights are."""
    server = ends.server
    with _bar(server.num_rounds) as bar:
        server.on_round = partial(_show, bar, server.num_rounds)
        if cfg.federated.engine is None:
            return _in_process(cfg, ends, folder)
        path: Path = instantiate(cfg.federated.engine)(cfg, ends, folder)
        return path


def _in_process(cfg: DictConfig, ends: Ends, folder: Path) -> Path:
    """All clients here, one after the other."""
    server = ends.server
    grid = InProcessGrid(ends.client_app, cfg.federated.num_clients)
    server.contexts = grid.contexts
    server.folder = folder if cfg.federated.checkpoint else None
    began = time.perf_counter()
    server.app()(grid, Context(1, 0, {}, RecordDict(), {}))
    path = folder / "weights.safetensors"
    ends.install(server.final)
    weights.save(ends.model, path, server.rows, time.perf_counter() - began)
    return path


def _class_names(ends: Ends, num_classes: int) -> list[str]:
    names = ends.task.class_names if isinstance(ends.task, ClassificationTask) else ()
    return [*map(str, names[:num_classes]), *map(str, range(len(names), num_classes))]


def _score(cfg: DictConfig, ends: Ends) -> Metrics:
    batches = assemble.test_batches(ends.task, ends.device, cfg.trainer.batch_size, cfg.workflow.num_samples)
    return score(ends.model, ends.task, batches)


def _labels(cfg: DictConfig) -> Metrics:
    choices = HydraConfig.get().runtime.choices
    names: dict[str, Any] = {group: choices[group] for group in ("task", "model", "codec")}
    names["strategy"] = choices["federated/strategy"]
    names["partition"] = choices["partition@federated.partition"]
    names["privacy"] = "none" if cfg.federated.privacy is None else choices["federated/privacy"]
    names["downlink_codec"] = choices["codec@federated.downlink_codec"]
    return names


def _bar(num_rounds: int) -> Any:
    """A progress bar over the rounds, where somebody looks."""
    return Progress(transient=True) if sys.stderr.isatty() else nullcontext()


def _show(bar: Progress | None, num_rounds: int, row: Row) -> None:
    text = f"loss {row['round/train_loss']:.4f}, validation score {row['round/val_score']:.4f}"
    if bar is None:
        up = row["round/uplink_bytes"]
        log.info("round %d/%d: %s, %s bytes up", row["round/number"], num_rounds, text, f"{up:,.0f}")
        return
    if not bar.tasks:
        bar.add_task("", total=num_rounds)
    bar.update(bar.tasks[0].id, completed=row["round/number"], description=text)
