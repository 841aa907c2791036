"""Entry point: compose the configuration, run the workflow, return its objective. See `python run.py --help`."""

import sys
from pathlib import Path

from splitsem.workflows.startup import list_groups_quickly, raise_plainly, spin_briefly

spin_briefly()  # before anything loads torch

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

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
    except (SplitSemError, HydraException, OmegaConfBaseException) as exc:
        line = mistakes.told(exc)
        if line is None or mistakes.wants_traceback():
            raise
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # a row of the sweep's table
            raise ConfigError(line) from exc
        (Path(HydraConfig.get().runtime.output_dir) / "error.txt").write_text(f"{line}\n")
        sys.exit(line)


if __name__ == "__main__":
    sys.excepthook = mistakes.report
    renamed.check_arguments(sys.argv[1:])
    with sweep.closing():
        main()
