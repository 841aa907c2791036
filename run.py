"""Entry point: compose the configuration, run the workflow, return its objective. See `python run.py --help`."""

import sys

from splitsem.workflows.startup import list_groups_quickly, spin_briefly

spin_briefly()  # before anything loads torch

import hydra
from hydra.errors import CompactHydraException
from omegaconf import DictConfig

from splitsem import files, redaction
from splitsem.errors import ConfigError, SplitSemError
from splitsem.workflows import renamed, sweep

sweep.register()
list_groups_quickly()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> list[float]:
    """Run one job and return the values that a sweeper optimises."""
    from splitsem.workflows.job import run_job

    try:
        return run_job(cfg)
    except SplitSemError as exc:
        raise CompactHydraException(str(exc)) from exc
    except OSError as exc:  # a full disk, a folder in place of a file: what was trained is kept already
        raise CompactHydraException(f"{files.reason(exc)}; make room or name another place, and run again") from exc


if __name__ == "__main__":
    redaction.install()
    try:
        renamed.check_arguments(sys.argv[1:])
    except ConfigError as exc:
        sys.exit(str(exc))
    try:
        with sweep.closing():
            main()
    except SystemExit as exc:  # Hydra has printed what it was made of
        if said := renamed.explain(exc.__context__):
            sys.stderr.write(f"{said}\n")
        raise
