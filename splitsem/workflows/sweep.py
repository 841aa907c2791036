"""Sweep: what joins the jobs of a multirun — the points it goes over, its MLflow parent, its table and report.

This module is imported by every run, so it imports heavy things only where they are used.
"""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from splitsem import redaction
from splitsem.errors import ConfigError, LinkError, SplitSemError
from splitsem.files import make_folder, reason, write_whole
from splitsem.workflows import renamed
from splitsem.workflows.mistakes import told

log = logging.getLogger(__name__)
_PARENT = "mlflow.json"
_started: list["SweepCallback"] = []


def split_points(*, _root_: DictConfig) -> str:
    """Resolver ``${split_points:}``: all split points of the configured model, as a sweep over ``split.point``.

    Gives ``null`` when the command line names points itself.
    """
    if any(o.lstrip("+").startswith(("split.point=", "split.index=")) for o in _root_.hydra.overrides.task):
        return "null"
    from splitsem.workflows import assemble

    try:
        return ",".join(point.name for point in assemble.network(_root_).graph.points)
    except SplitSemError as exc:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(str(exc))  # a resolver's exceptions would reach the user as a traceback


def parent_run(hydra_cfg: HydraConf) -> dict[str, str] | None:
    """The MLflow parent of this job: its ``experiment_id`` and ``run_id``; None outside a sweep.

    Raises LinkError when the sweep found the tracking server unreachable, so that no job tries again.
    """
    if hydra_cfg.mode != RunMode.MULTIRUN:
        return None
    parent = json.loads((Path(hydra_cfg.sweep.dir) / _PARENT).read_text())
    if "error" in parent:
        raise LinkError(parent["error"])
    return parent


@contextlib.contextmanager
def closing() -> Iterator[None]:
    """Write the results of the sweep that runs inside, also when jobs fail or the user stops it."""
    try:
        yield
    finally:
        while _started:
            _started.pop().finish()


class SweepCallback(Callback):
    """Hydra callback: opens the sweep's MLflow parent, keeps the errors of failed jobs, writes the results."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse names that have changed, and a place for the results that cannot be."""
        _refuse_old_names(config)
        _check_place(config, config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse names that have changed; make the sweep's folder and its MLflow parent run, before any job."""
        _refuse_old_names(config)
        _check_place(config, config.hydra.sweep.dir)
        self.folder = Path(config.hydra.sweep.dir).absolute()
        self.began = time.time()
        self.tracker = instantiate(config.tracking) or None
        self.run_id = None
        if self.tracker:
            try:
                experiment_id = self.tracker.open()
                self.run_id = self.tracker.start(experiment_id, " ".join(config.hydra.overrides.task) or "sweep")
                parent = {"experiment_id": experiment_id, "run_id": self.run_id}
            except LinkError as exc:
                log.error("%s", exc)
                parent = {"error": str(exc)}
            (self.folder / _PARENT).write_text(redaction.text(json.dumps(parent)))
        _started.append(self)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Take the secrets out of what Hydra has just written."""
        redaction.learn(OmegaConf.to_container(config, resolve=False))
        folders = [Path(config.hydra.runtime.output_dir) / (config.hydra.output_subdir or ".hydra")]
        if config.hydra.mode == RunMode.MULTIRUN:
            folders.append(Path(config.hydra.sweep.dir))
        for path in (path for folder in folders for path in folder.glob("*.yaml")):
            written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            if (clean := redaction.settings(written)) != written:
                write_whole(OmegaConf.to_yaml(OmegaConf.create(clean)).encode(), path)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Keep the one-line error of a job that failed."""
        if job_return.status == JobStatus.FAILED and config.hydra.mode == RunMode.MULTIRUN:
            error = job_return._return_value
            (Path(config.hydra.runtime.output_dir) / "error.txt").write_text(redaction.text(f"{error}\n"))
            log.error("Job %s failed: %s", config.hydra.job.num, (str(error) or type(error).__name__).splitlines()[0])

    def finish(self) -> None:
        """Gather the jobs into table, plots and report; exits with 1 when a job failed."""
        from splitsem.workflows.summary import summarise

        redaction.clean(self.folder)
        results = summarise(self.folder, time.time() - self.began)
        failed = results.empty or (results["status"] != "ok").any()
        if self.tracker and self.run_id:
            self.tracker.log(
                self.run_id, {"num_jobs": len(results)}, {}, [], [p for p in self.folder.iterdir() if p.is_file()]
            )
            self.tracker.end(self.run_id, not failed)
        if failed:
            sys.exit(1)


def _refuse_old_names(config: DictConfig) -> None:
    try:
        renamed.check_composed(config)
    except (ConfigError, OmegaConfBaseException) as exc:
        sys.exit(told(exc))  # Hydra makes a warning of a callback's exceptions


def _check_place(config: DictConfig, folder: str) -> None:
    """Make the folder of the results, without a secret in its name; ends the process where that cannot be."""
    redaction.learn(OmegaConf.to_container(config, resolve=False))
    names = str(folder)
    if "override_dirname" in str(OmegaConf.to_container(config.hydra.sweep, resolve=False)):
        names += " " + " ".join(config.hydra.overrides.task)
    if redaction.text(names) != names:
        sys.exit(
            f"the results' folder would have a secret in its name ({redaction.text(names)}): name it otherwise, or "
            "give the secret by the environment, e.g. tracking.uri='${oc.env:URI}'"
        )
    try:
        make_folder(folder)
    except ConfigError as exc:
        sys.exit(str(exc))
    except OSError as exc:
        sys.exit(f"cannot make the results' folder: {reason(exc)}; name another by hydra.run.dir or hydra.sweep.dir")


def register() -> None:
    """Make the resolver known to OmegaConf; a second time does no harm."""
    OmegaConf.register_new_resolver("split_points", split_points, replace=True)
