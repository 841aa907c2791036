"""One job: run the workflow, write its folder, log it to MLflow, return what a sweeper optimises."""

import json
import logging
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem import redaction
from splitsem.errors import LinkError
from splitsem.workflows import settings
from splitsem.workflows.result import DRAWS, Result, write_draws
from splitsem.workflows.sweep import parent_run
from splitsem.workflows.tracking import Mlflow

log = logging.getLogger(__name__)


def run_job(cfg: DictConfig) -> list[float]:
    """Run the workflow that ``cfg`` names; its results are in the run's folder whatever becomes of the tracking."""
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    redaction.install()  # a process of a parallel sweep has not begun in run.py
    redaction.learn(OmegaConf.to_container(cfg, resolve=False))
    settings.check(cfg)
    redaction.learn(OmegaConf.to_container(cfg, resolve=True))
    for left_over in ("metrics.json", DRAWS, "error.txt"):  # of an earlier run into the same folder
        (folder / left_over).unlink(missing_ok=True)
    tracker: Mlflow | None = instantiate(cfg.tracking) or None  # tracking=none is an empty setting
    run_id, trouble = _start(tracker, hydra_cfg)
    ok = False
    try:
        result: Result = get_method(cfg.workflow["_target_"])(cfg, folder)
        _write(result, folder)
        ok = True
        log.info("%s", result.headline)
        redaction.clean(folder)  # what is logged, too
        if tracker and run_id:
            params = _flat(OmegaConf.to_container(cfg, resolve=True))
            tracker.log(run_id, params, result.metrics, result.history, sorted(folder.iterdir()))
    finally:
        redaction.clean(folder)
        if tracker and run_id:
            tracker.end(run_id, ok)
    if trouble:
        raise LinkError(f"{trouble}. The results are in {folder}")
    values = (result.metrics[name] for name in cfg.workflow.objective)
    return [float("nan") if value is None else float(value) for value in values]  # None: this run did not seek it


def _start(tracker: Mlflow | None, hydra_cfg: HydraConf) -> tuple[str | None, LinkError | None]:
    """The MLflow run of this job, or what kept it from being made."""
    if tracker is None:
        return None, None
    try:
        parent = parent_run(hydra_cfg)
        name = hydra_cfg.job.override_dirname or hydra_cfg.runtime.choices["task"]
        experiment_id = parent["experiment_id"] if parent else tracker.open()
        return tracker.start(experiment_id, name, parent["run_id"] if parent else None), None
    except LinkError as exc:
        log.error("%s", exc)
        return None, exc


def _write(result: Result, folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps(result.metrics, indent=2) + "\n")
    write_draws(result.draws, folder / DRAWS)
    for name, figure in result.figures.items():
        figure.savefig(folder / f"{name}.png")


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    if isinstance(node, dict):
        pairs = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in node.items()]
        return {name: value for pair in pairs for name, value in pair.items()}
    return {prefix: node}
