"""One job as the command runs it: what a user's mistake becomes. Imported by every run, so it imports nothing heavy."""

import contextlib
import functools
import sys
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from splitsem import files, redaction
from splitsem.errors import ConfigError, SplitSemError, coded
from splitsem.workflows import mistakes, pasted, sent_jobs, startup, sweep

VERSION_BASE = "1.3"
CONFIG = "config"
NEXT = f"""
Next:
  {pasted.PROGRAM} -m                      every cut of this network, and a report
  {pasted.PROGRAM} codec=quant2,quant4 -m  the same with two codecs
  {pasted.PROGRAM} workflow=points         where the network can be cut
  {pasted.PROGRAM} --help                  what else can be chosen
"""
"""What a run without any argument ends with."""


@functools.cache
def prepare() -> None:
    """What a process does once, before a configuration is composed."""
    redaction.install()
    sweep.register()
    startup.list_groups_quickly()
    startup.read_yaml_quickly()
    startup.raise_plainly()
    startup.log_in_vain()


def job(cfg: DictConfig) -> list[float]:
    """Run one job and return the values that a sweeper optimises.

    Raises:
        SystemExit: with one line, for a user's mistake; the exception that told it is its context.
        ConfigError: with that line, in a job of a sweep.
    """
    from splitsem.workflows.job import run_job

    try:
        with sent_jobs.listening():
            return run_job(cfg)
    except OSError as exc:  # a full disk, a folder in place of a file: what was trained is kept already
        said = files.reason(exc, HydraConfig.get().runtime.output_dir, cfg.cache_dir)
        _give_up(coded(f"{said}; make room or name another place, and run again", mistakes.FILE), exc)
    except (SplitSemError, HydraException, OmegaConfBaseException, ImportError) as exc:
        if (line := mistakes.told(exc)) is None:
            raise
        _give_up(line, exc)


def _give_up(line: str, exc: Exception) -> NoReturn:
    """End this job: as a row of the sweep's table, or with the run."""
    if mistakes.wants_traceback():
        raise exc
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError(line) from exc
    with contextlib.suppress(OSError):  # the disk may be what failed
        (Path(HydraConfig.get().runtime.output_dir) / "error.txt").write_text(redaction.text(f"{line}\n"))
    sys.exit(line)
