"""Entry point: compose the configuration, run the workflow, return its objective. See `python run.py --help`."""

import contextlib
import sys
from pathlib import Path
from typing import NoReturn

from splitsem.workflows.startup import flags_last, list_groups_quickly, raise_plainly, spin_briefly

spin_briefly()  # before anything loads torch

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from splitsem import files, redaction
from splitsem.errors import ConfigError, SplitSemError
from splitsem.workflows import mistakes, renamed, sweep

sweep.register()
list_groups_quickly()
raise_plainly()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> list[float]:
    """Run one job and return the values that a sweeper optimises."""
    from splitsem.workflows.job import run_job

    try:
        return run_job(cfg)
    except OSError as exc:  # a full disk, a folder in place of a file: what was trained is kept already
        _give_up(f"{files.reason(exc)}; make room or name another place, and run again", exc)
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


if __name__ == "__main__":
    redaction.install()
    sys.excepthook = mistakes.report
    sys.argv[1:] = flags_last(sys.argv[1:])
    renamed.check_arguments(sys.argv[1:])
    with sweep.closing():
        main()
