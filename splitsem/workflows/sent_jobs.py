"""Sent jobs: those of a sweep that submitit runs, on a SLURM cluster or as processes here.

submitit's launcher by itself raises at the first job that was killed, while others still run, and leaves all of them
to themselves when the sweep is stopped.
"""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from splitsem.errors import ConfigError
from splitsem.workflows import stopping

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)
_LAUNCHERS = "hydra_plugins.hydra_submitit_launcher."
_PATIENCE_S = 15.0
"""For jobs that were cancelled to end."""


def are_sent(config: DictConfig) -> bool:
    """Whether the jobs of this sweep run elsewhere than where the sweep was started."""
    return str(config.hydra.launcher["_target_"]).startswith(_LAUNCHERS)


def wait_for_all(config: DictConfig) -> None:
    """Have a sweep that sends its jobs wait for all of them, and cancel them when it is stopped.

    Args:
        config: the sweep's; others are left as they are.
    """
    _lost.clear()
    if not are_sent(config):
        return
    executor: Any = import_module("submitit").AutoExecutor
    if executor.map_array is not _send_and_wait:
        _sending.append(executor.map_array)
        executor.map_array = _send_and_wait


_sending: list[Callable[..., Any]] = []
"""submitit's own way to send jobs."""
_lost: list[str] = []


def _send_and_wait(executor: "submitit.AutoExecutor", *args: Any) -> "list[_Ended]":
    """What the jobs returned, once all of them ended; on a stop, none goes on."""
    _share_path()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it: a terminal's Ctrl-C
    try:  # is for this one, which cancels them
        jobs: list[submitit.Job[JobReturn]] = _sending[0](executor, *args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        return [_Ended(_outcome(job)) for job in jobs]
    except BaseException:
        _cancel(jobs)
        raise


def _share_path() -> None:
    """Have the jobs find what lies beside run.py, as this process does: they are started in another way."""
    if (Path(sys.path[0]) / "run.py").is_file():
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, (sys.path[0], *given))))


class _Ended(NamedTuple):
    """A job that ended, in place of submitit's, which the launcher asks for what it returned."""

    returned: JobReturn

    def results(self) -> list[JobReturn]:
        """See ``submitit.Job``."""
        return [self.returned]


def _outcome(job: "submitit.Job[JobReturn]") -> JobReturn:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        returned, *_ = job.results()  # of the first task, where a job has several
    except (FailedJobError, UncompletedJobError) as exc:
        log.debug("submitit: %s", exc)
        why = "ended in an error of its own" if isinstance(exc, FailedJobError) else "was killed before it ended"
        lost = ConfigError(
            f"job {job.job_id} of submitit {why}: see {job.paths.stderr}; if it lacked memory or time, give more "
            "(hydra.launcher.mem_gb, hydra.launcher.timeout_min); the same command runs it again"
        )
        log.error("%s", lost)
        _lost.append(job.job_id)
        return JobReturn(status=JobStatus.FAILED, _return_value=lost)
    if returned.status == JobStatus.FAILED:  # its own process told it to a file of submitit's
        log.error("%s", told_failed(returned, OmegaConf.select(cast(DictConfig, returned.hydra_cfg), "hydra.job.num")))
    return returned


def are_lost() -> bool:
    """Whether jobs of this process's sweep came to no end, so that the sweep did not either."""
    return bool(_lost)


def told_failed(returned: JobReturn, number: int) -> str:
    """One line of a sweep's log: which job failed, and why.

    Args:
        returned: by the job.
        number: the job's.
    """
    error = returned._return_value
    return f"Job {number} failed: {(str(error) or type(error).__name__).splitlines()[0]}"


def _cancel(jobs: "list[submitit.Job[JobReturn]]") -> None:
    """Cancel what has not ended, and wait a little, so that the jobs' folders say how they ended."""
    going = [job for job in jobs if not job.done()]
    for job in going:
        if not _is_here(job):
            job.cancel(check=False)
    deadline = time.monotonic() + _PATIENCE_S
    while going and time.monotonic() < deadline:
        for job in filter(_is_here, going):  # again, for while a job starts, submitit passes the signal by
            os.kill(int(job.job_id), signal.SIGTERM)
        time.sleep(0.5)
        going = [job for job in going if not job.done()]


def _is_here(job: "submitit.Job[JobReturn]") -> bool:
    """Whether the job is a child of this process, by the number of the process that starts it and hands on signals."""
    from submitit import LocalJob

    return isinstance(job, LocalJob)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """In a process of submitit's, have a signal that cancels the job raise Stopped; others listen already."""
    with stopping.listening(is_once=True) if "SUBMITIT_EXECUTOR" in os.environ else contextlib.nullcontext():
        yield
