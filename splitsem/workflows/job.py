"""One job: run the workflow, write its folder, log it to MLflow, return what a sweeper optimises."""

import contextlib
import functools
import json
import logging
from concurrent.futures import Future, wait
from pathlib import Path

from hydra._internal.utils import _locate  # get_method logs what it raises, too
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from splitsem import json_files, redaction
from splitsem.errors import LinkError
from splitsem.report import figure_choice
from splitsem.workflows import aside, digests, drawing, folders, mistakes, readme_file, settings, stopping, track
from splitsem.workflows.drawing import UNDRAWN
from splitsem.workflows.folders import Record
from splitsem.workflows.result import DRAWS, Metrics, Result, write_draws
from splitsem.workflows.tracking import provenance

log = logging.getLogger(__name__)


def run_job(cfg: DictConfig) -> list[float]:
    """Run the workflow that ``cfg`` names; its results are in the run's folder whatever becomes of the tracking.

    A job of a sweep that went on after an interruption is not run again where its folder holds its results.
    """
    stopping.check()
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    redaction.install()  # a process of a parallel sweep has not begun in run.py
    redaction.learn(OmegaConf.to_container(cfg, resolve=False))
    settings.check(cfg)
    redaction.learn(OmegaConf.to_container(cfg, resolve=True))
    if hydra_cfg.mode != RunMode.MULTIRUN:
        record = folders.read(folder)
        metrics = _run(cfg, hydra_cfg, folder, record or Record(settings=""), record is None or record.run_id is None)
    else:
        metrics = _run_once(cfg, hydra_cfg, folder)
    values = (metrics[name] for name in cfg.workflow.objective)
    return [float("nan") if value is None else float(value) for value in values]  # None: this run did not seek it


def _run_once(cfg: DictConfig, hydra_cfg: HydraConf, folder: Path) -> Metrics:
    """Run a job of a sweep, or take what an earlier process has found for it."""
    if (lock := folders.hold(folder)) is None:
        log.info("Job %s: a process of the interrupted sweep still works on it; waiting", hydra_cfg.job.num)
        lock = folders.hold(folder, timeout_s=-1)
    assert lock
    try:
        settings = digests.of_job(cfg, hydra_cfg.runtime.choices)
        earlier = folders.read(folder)
        if earlier is None or earlier.settings != settings:
            folders.clear(folder)
            return _run(cfg, hydra_cfg, folder, Record(settings=settings), is_new=True)
        if (metrics := folders.metrics(folder)) is not None and not (folder / UNDRAWN).exists():
            return metrics
        folders.clear(folder)
        earlier.state, earlier.tracked = "running", False
        return _run(cfg, hydra_cfg, folder, earlier, is_new=False)
    finally:
        lock.release()


def _run(cfg: DictConfig, hydra_cfg: HydraConf, folder: Path, record: Record, is_new: bool) -> Metrics:
    left_overs = folders.METRICS, DRAWS, track.HISTORY, track.TRAINING, folders.ERROR, UNDRAWN
    for left_over in left_overs:  # of an earlier try
        (folder / left_over).unlink(missing_ok=True)
    record.provenance = record.provenance or provenance()
    record.write(folder)
    tracker = _Tracker(cfg, hydra_cfg, folder, record)
    tracker.begin(is_new)
    if OmegaConf.select(cfg, "workflow.gallery"):
        drawing.get_ready()
    try:
        with figure_choice.using(**cfg.plots):
            result: Result = _locate(cfg.workflow["_target_"])(cfg, folder)
            drawn = _write(result, folder, cfg.plots)
            coming = [f"{name}.{form}" for name in result.figures for form in cfg.plots.formats]
            readme_file.write(folder, result.headline, coming)
        if drawn is not None and tracker.has_next:
            drawn.add_done_callback(functools.partial(_tell_undrawn, folder))
        elif drawn is not None:
            drawn.result()
        log.info("%s", result.headline)
        if hydra_cfg.mode != RunMode.MULTIRUN:
            log.info("Results: %s", folder)
        stopping.check()
        return result.metrics
    except Exception as exc:
        with contextlib.suppress(OSError):  # the disk may be what failed
            line = mistakes.told(exc) or f"{type(exc).__name__}: {exc}"
            (folder / folders.ERROR).write_text(redaction.text(f"{line}\n"))
        record.state = "failed"
        raise
    except BaseException:
        record.state = folders.ended(folder, is_stopped=True)
        raise
    finally:
        if record.state == "running":
            record.state = "ok"
        redaction.clean(folder)
        tracker.end()


class _Tracker:
    """The MLflow run of one job; whatever fails here is one line of the log.

    Args:
        cfg: the job's configuration.
        hydra_cfg: Hydra's own.
        folder: the run's.
        record: the folder's.
    """

    def __init__(self, cfg: DictConfig, hydra_cfg: HydraConf, folder: Path, record: Record) -> None:
        self.cfg, self.folder, self.record = cfg, folder, record
        self.sweep = Path(hydra_cfg.sweep.dir) if hydra_cfg.mode == RunMode.MULTIRUN else None
        self.name = track.name_of(hydra_cfg, self.sweep)
        self.store = track.store_of(cfg)
        self.has_next = self.sweep is not None and hydra_cfg.runtime.choices["hydra/launcher"] == "basic"
        self.begun: Future[Record] | None = None

    def begin(self, is_new: bool) -> None:
        """Show the run as running, while it computes."""
        if self.store is not None and not self._is_given_up():
            self.begun = aside.call(
                track.begin, self.store, self.folder, self.record, self.name, self.sweep, is_new=is_new
            )

    def end(self) -> None:
        """Keep the run's state, then copy everything, of a job that others follow while these compute."""
        self._join()
        try:
            self.record.write(self.folder)
        except OSError as exc:
            self._failed(exc)
        if self.store is None or self._is_given_up():
            return
        params = track.params(self.cfg)
        copied = aside.call(track.copy, self.store, self.folder, self.record, self.name, self.sweep, params)
        copied.add_done_callback(lambda done: self._failed(done.exception()))
        if not self.has_next:
            wait([copied])

    def _join(self) -> None:
        """Take what ``begin`` has put into the record."""
        if self.begun is None:
            return
        try:
            begun = self.begun.result()
            self.record.run_id, self.record.experiment_id = begun.run_id, begun.experiment_id
        except (LinkError, OSError) as exc:
            log.warning("%s. The run goes on, and tries again at its end", exc)
            self._give_up(exc)

    def _failed(self, exc: BaseException | None) -> None:
        if exc is None:
            return
        if not isinstance(exc, LinkError | OSError):
            log.error("A fault of the program, not of the store", exc_info=exc)
        else:
            log.warning("%s", track.told(exc, self.folder))
        self._give_up(exc)

    def _is_given_up(self) -> bool:
        return self.sweep is not None and (self.sweep / track.UNTRACKED).exists()

    def _give_up(self, exc: BaseException) -> None:
        """Spare the other jobs of the sweep the same wait; the sweep tries once more at its end."""
        if self.sweep is not None:
            with contextlib.suppress(OSError):  # the disk may be what failed
                (self.sweep / track.UNTRACKED).write_text(redaction.text(f"{exc}\n"))


def _tell_undrawn(folder: Path, drawn: "Future[None]") -> None:
    """Say it where the figures of a job that others follow failed; its results are there."""
    if (exc := drawn.exception()) is not None:
        log.error("%s lacks its figures: %s: %s", folder, type(exc).__name__, exc)


def _write(result: Result, folder: Path, plots: DictConfig) -> "Future[None] | None":
    """Leave the results; the metrics last and whole, for they say that a job is done. Returns what is being drawn."""
    write_draws(result.draws, folder / DRAWS)
    for rows, name in ((result.history, track.HISTORY), (list(result.training), track.TRAINING)):
        if rows:
            json_files.write_text(json.dumps(json_files.finite(rows)) + "\n", folder / name)
    drawn = drawing.save_aside(result.figures, folder, plots.style, list(plots.formats))
    json_files.write_text(json.dumps(json_files.finite(result.metrics), indent=2) + "\n", folder / folders.METRICS)
    return drawn
