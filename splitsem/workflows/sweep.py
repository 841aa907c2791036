"""Sweep: what joins the jobs of a multirun — its folder, the points it goes over, its MLflow parent, table and report.

This module is imported by every run, so it imports heavy things only where they are used.
"""

import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from splitsem import extras, files, redaction
from splitsem.errors import ConfigError, FolderError, LinkError, SplitSemError, coded
from splitsem.files import write_whole
from splitsem.report.terminal import Screen
from splitsem.training.time_left import time_left
from splitsem.workflows import (
    aside,
    digests,
    drawing,
    folders,
    pasted,
    renamed,
    sent_jobs,
    stopping,
    study_name,
    summary_aside,
    track,
    workers,
)
from splitsem.workflows.composed_once import compose_once
from splitsem.workflows.folders import Claim, Record, State
from splitsem.workflows.mistakes import FILE, told
from splitsem.workflows.stopping import Stopped
from splitsem.workflows.tracking import Mlflow, provenance

log = logging.getLogger(__name__)
_SUBDIR = "${hydra.job.num}"
_started: list["_Run | _Sweep"] = []


def split_points(*, _root_: DictConfig) -> str:
    """Resolver ``${split_points:}``: all split points of the configured model, as a sweep over ``split.point``.

    Gives ``null`` when the command line names points itself.
    """
    if any(o.lstrip("+").startswith(("split.point=", "split.index=")) for o in _root_.hydra.overrides.task):
        return "null"
    from splitsem.workflows import assemble

    try:
        if sent_jobs.are_sent(_root_):  # a cluster's login node trains nothing, and may have no GPU
            here = {"device": {"accelerator": "cpu", "precision": "float32"}}
            graph = assemble.untrained_graph(cast(DictConfig, OmegaConf.merge(_root_, here)))
        else:
            graph = assemble.network(_root_).graph
        return ",".join(point.name for point in graph.points)
    except (SplitSemError, HydraException, ImportError) as exc:
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or (line := told(exc)) is None:
            raise
        sys.exit(line)  # a resolver's exceptions would reach the user as a traceback


class JobsFailed(SystemExit):
    """The end of a sweep, with 1, some of whose jobs failed.

    Args:
        folder: the sweep's, with its table.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(1)
        self.folder = folder


@contextlib.contextmanager
def closing() -> Iterator[None]:
    """Close the run or the sweep that goes on inside, also when jobs fail or a signal stops it.

    Raises:
        Stopped: a signal came.
        SystemExit: with 1, where a job of a sweep failed.
    """
    with stopping.listening():
        failure: BaseException | None = None
        try:
            yield
        except BaseException as exc:
            failure = exc
            raise
        finally:
            stop = stopping.stop_of(failure) or stopping.asked()
            state: State = "ok"
            while _started:
                ended = _started.pop()
                state = ended.finish(stop)
            if stop:
                raise stop from None
            if files.is_full(failure):
                raise FolderError(_told_full(cast(OSError, failure), ended.folder)) from failure
            if state == "failed" and isinstance(ended, _Sweep):
                raise JobsFailed(ended.folder)
            if state == "stopped" and failure is None:
                sys.exit(1)


class SweepCallback(Callback):
    """Hydra callback: gives each run and each sweep a folder of its own, before anything else is done.

    It goes to other processes with the jobs, so it holds nothing. Hydra makes a warning of a callback's exceptions, but
    for SystemExit.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse names that have changed; make the run's folder."""
        with _exiting():
            renamed.check_composed(config)
            _refuse_secrets(config, config.hydra.run.dir)
            _started.append(_Run(config))
            _get_ready(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse names that have changed; make the sweep's folder and its MLflow parent run, before any job."""
        with _exiting():
            renamed.check_composed(config)
            _refuse_secrets(config, config.hydra.sweep.dir)
            _started.append(sweep := _Sweep(config))
            compose_once(config)
            sent_jobs.wait_for_all(config)
            workers.get_ready(config)
        sweep.track()
        aside.prepare(summary_aside.get_ready, OmegaConf.select(config, "workflow.summary"))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Take the secrets out of what Hydra has just written."""
        redaction.learn(OmegaConf.to_container(config, resolve=False))
        places = [Path(config.hydra.runtime.output_dir) / (config.hydra.output_subdir or ".hydra")]
        if config.hydra.mode == RunMode.MULTIRUN:
            places.append(Path(config.hydra.sweep.dir))
        for path in (path for place in places for path in place.glob("*.yaml")):
            read = yaml.load(path.read_bytes(), folders.QUICK_YAML)  # a tenth of the time of OmegaConf's own
            if redaction.settings(read) == read:
                continue
            written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            if (clean := redaction.settings(written)) != written:
                write_whole(OmegaConf.to_yaml(OmegaConf.create(clean)).encode(), path)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Keep and say the one-line error of a job that failed."""
        if job_return.status == JobStatus.FAILED and config.hydra.mode == RunMode.MULTIRUN:
            error = job_return._return_value
            with contextlib.suppress(OSError):  # the disk may be what failed
                (Path(config.hydra.runtime.output_dir) / folders.ERROR).write_text(redaction.text(f"{error}\n"))
            log.error("%s", sent_jobs.told_failed(job_return, config.hydra.job.num))
        for sweep in _started:  # none in a process that has a job of the sweep only
            if isinstance(sweep, _Sweep):
                sweep.tell_time_left()


def _get_ready(config: DictConfig) -> None:
    """Have the process aside import what a run will need of it, while this one imports torch."""
    with contextlib.suppress(ConfigError, HydraException):  # the job tells it
        if tracker := track.store_of(config):
            aside.prepare(tracker.get_ready)
    if OmegaConf.select(config, "workflow.gallery"):
        drawing.get_ready()


class _Run:
    """A single run of this process: its folder is made, and ``hydra.run.dir`` is its name.

    Args:
        config: the composed configuration.

    Raises:
        ConfigError: the folder that the user names belongs to another run.
    """

    def __init__(self, config: DictConfig) -> None:
        place, settings = config.hydra.run, digests.of_run(config)
        self.claim = folders.claim(Path(place.dir), folders.pattern_of(_written(place, "dir")) is None, settings)
        self.folder = self.claim.folder
        _write_record(self.claim, settings)
        with read_write(config.hydra):
            place.dir = str(self.folder)

    def finish(self, stop: Stopped | None) -> State:
        """Let go of the folder; ok: there is nothing to add to the exception that ends the run."""
        record = folders.read(self.folder)
        if record and record.state == "running":  # it failed before it could say so
            record.state = folders.ended(self.folder, is_stopped=stop is not None)
            with contextlib.suppress(OSError):
                record.write(self.folder)
        if stop:
            sys.stderr.write(f"stopped by {stop.signal}; what there is lies in {self.folder}\n")
        self.claim.lock.release()
        return "ok"


class _Sweep:
    """A sweep of this process: its folder is made or taken up, and ``hydra.sweep.dir`` is its name.

    Args:
        config: the composed configuration.

    Raises:
        ConfigError: the folder that the user names belongs to another run, or jobs would share one; or an extra is
            missing.
    """

    def __init__(self, config: DictConfig) -> None:
        extras.check("plots", "a sweep (-m)")
        self.config, self.began = config, time.time()
        self.tracker: Mlflow | None = instantiate(config.tracking) or None
        place, settings = config.hydra.sweep, digests.of_sweep(config)
        if (subdir := _written(place, "subdir")) != _SUBDIR:
            raise ConfigError(f"hydra.sweep.subdir must be {_SUBDIR}, a folder for each job, got {subdir}")
        self.num_ended, self.num_planned, self.steady_since = 0, 0, self.began
        self.is_repeatable = digests.is_repeatable(config)
        resumes, pattern = config.resume and self.is_repeatable, folders.pattern_of(_written(place, "dir"))
        claim = folders.take_up(pattern, settings) if resumes and pattern else None
        claim = claim or folders.claim(Path(place.dir), pattern is None, settings)
        self.folder, self.lock, earlier = claim
        if earlier and not resumes:
            raise ConfigError(f"{self.folder} holds an interrupted sweep, which does not go on: name another folder")
        self.record, self.is_new = _write_record(claim, settings), earlier is None
        self.begun: Future[Record] | None = None
        if earlier:
            (self.folder / track.UNTRACKED).unlink(missing_ok=True)
            log.info(
                "Going on with the sweep in %s: %d jobs are done; resume=false starts anew", self.folder, self.num_done
            )
        with read_write(config.hydra):
            place.dir = str(self.folder)
            # each job composes its configuration anew
            config.hydra.overrides.hydra.append(pasted.setting("hydra.sweep.dir", str(self.folder)))

    @property
    def num_done(self) -> int:
        """The number of jobs with results."""
        return sum(folders.metrics(job) is not None for job in folders.jobs(self.folder))

    def tell_time_left(self) -> None:
        """Say how many jobs are over, and how long the rest takes at the pace of those of this process."""
        self.num_ended += 1
        if self.num_ended == 2:  # the second: the first had to train, or to capture the network
            self.steady_since, self.num_planned = time.time(), _planned(self.config)
        elif self.num_ended > 2:
            left = time_left(time.time() - self.steady_since, self.num_ended - 2, self.num_planned - 2)
            if left:
                log.info("%d of %d jobs, %s", self.num_ended, self.num_planned, left)

    def track(self) -> None:
        """Make the parent run in MLflow; jobs in other processes wait for it."""
        if self.tracker is None:
            return
        name = track.sweep_name(self.config.hydra.overrides.task)
        self.begun = aside.call(track.begin, self.tracker, self.folder, self.record, name, is_new=self.is_new)
        if self.config.hydra.runtime.choices["hydra/launcher"] != "basic":
            self._join()

    def _join(self) -> None:
        """Take what ``track`` has put into the record."""
        if self.begun is None:
            return
        begun, self.begun = self.begun, None
        try:
            found = begun.result()
            self.record.run_id, self.record.experiment_id = found.run_id, found.experiment_id
        except (LinkError, OSError) as exc:
            log.warning("%s. The sweep goes on, and tries again at its end", exc)
            with contextlib.suppress(OSError):
                (self.folder / track.UNTRACKED).write_text(redaction.text(f"{exc}\n"))

    def finish(self, stop: Stopped | None) -> State:
        """Gather the jobs into table, plots and report, then log them.

        Args:
            stop: the signal that ended the sweep before its time.

        Returns:
            failed: jobs failed, and each has told why. stopped: not all jobs ended, or there was none.
        """
        aside.settle()  # what it draws is looked through, too
        redaction.clean(self.folder)
        statuses: set[str] = set()
        self.record.state = "stopped"
        try:
            plots: Any = OmegaConf.to_container(self.config.plots, resolve=True)
            seconds, screen = time.time() - self.began, Screen.here()
            done = aside.call(summary_aside.summarise, self.folder, seconds, plots, screen)
            try:
                text, statuses = done.result()
            except Stopped:  # all jobs have ended, and what sums them up is at work
                text, statuses = done.result()
            if statuses and not stop and "unfinished" not in statuses and not sent_jobs.are_lost():
                self.record.state = "ok" if statuses == {"ok"} else "failed"
            sys.stdout.write(text)  # last, since nobody may read it
            sys.stdout.flush()
        except OSError as exc:
            if not files.is_full(exc):
                raise
            log.error("No table and no report: %s", files.reason(exc, self.folder))
        finally:
            self._log()
            self.lock.release()
        if self.record.state == "stopped" and (stop or statuses or self.num_done):  # else no job was started
            self._say_stopped(stop)
        return self.record.state

    def _log(self) -> None:
        try:
            self._join()
            self.record.write(self.folder)
            if self.tracker and (page := aside.call(track.copy_sweep, self.tracker, self.folder).result().page):
                log.info("%s", track.invitation(page, self.tracker))
        except (LinkError, OSError) as exc:
            log.warning("%s", track.told(exc, self.folder))

    def _say_stopped(self, stop: Stopped | None) -> None:
        of = f" of {_planned(self.config)}" if self.num_done else ""  # before a job, the points may not be known
        by = f"stopped by {stop.signal}" if stop else "stopped"
        goes_on = "the same command goes on" if self.is_repeatable else "its jobs are drawn at random: none goes on"
        sys.stderr.write(f"{by} after {self.num_done}{of} jobs; {goes_on}\n")


def _write_record(claim: Claim, settings: str) -> Record:
    """The record of a run that begins, or goes on, in its folder."""
    record = claim.earlier or Record(settings=settings, provenance=provenance())
    record.state, record.tracked = "running", False
    record.write(claim.folder)
    return record


def _written(place: DictConfig, name: str) -> str:
    """A folder's name as it was written, with its interpolations."""
    return str(OmegaConf.to_container(place, resolve=False)[name])  # type: ignore[index, call-overload]


@contextlib.contextmanager
def _exiting() -> Iterator[None]:
    try:
        yield
    except (ConfigError, HydraException, OmegaConfBaseException) as exc:
        if (line := told(exc)) is None:
            raise
        sys.exit(line)
    except OSError as exc:
        sys.exit(coded(f"{files.reason(exc)}; make room or name another place", FILE))


def _told_full(exc: OSError, folder: Path) -> str:
    said = files.reason(exc, folder, tempfile.gettempdir())
    return f"{said}: make room, and give the same command again; what there is lies in {folder}"


def _refuse_secrets(config: DictConfig, folder: str) -> None:
    """Raise ConfigError where the folder of the results would have a secret in its name."""
    redaction.learn(OmegaConf.to_container(config, resolve=False))
    names = str(folder)
    if "override_dirname" in str(OmegaConf.to_container(config.hydra.sweep, resolve=False)):
        names += " " + " ".join(config.hydra.overrides.task)
    if redaction.text(names) != names:
        raise ConfigError(
            f"the results' folder would have a secret in its name ({redaction.text(names)}): name it otherwise, or "
            "give the secret by the environment, e.g. tracking.uri='${oc.env:URI}'"
        )


def _planned(config: DictConfig) -> int:
    """The number of jobs of a sweep."""
    sweeper = config.hydra.sweeper
    if "n_trials" in sweeper:
        return int(sweeper.n_trials)
    settings = {name: value for name, value in sweeper.items() if name != "_target_"}
    basic: Any = Plugins.instance().class_name_to_class[sweeper["_target_"]](**settings)
    overrides = OverridesParser.create().parse_overrides([*basic._parse_config(), *config.hydra.overrides.task])
    return sum(len(batch) for batch in basic.split_arguments(overrides, None))


def register() -> None:
    """Make the resolvers known to OmegaConf; a second time does no harm."""
    OmegaConf.register_new_resolver("study", study_name.study_name_of, replace=True)
    OmegaConf.register_new_resolver("split_points", split_points, replace=True)
