"""Entry point: compose the configuration, run the workflow, return its objective. See `python run.py --help`."""

from splitsem.workflows.startup import spin_briefly

spin_briefly()  # before anything loads torch

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import CompactHydraException
from omegaconf import DictConfig

from splitsem.errors import SplitSemError
from splitsem.workflows import sweep

sweep.register()
# Hydra deep-copies this singleton for every group that it lists, and its loads copy what they take anyway: --help
# takes a third of the time without.
ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> list[float]:
    """Run one job and return the values that a sweeper optimises."""
    from splitsem.workflows.job import run_job

    try:
        return run_job(cfg)
    except SplitSemError as exc:
        raise CompactHydraException(str(exc)) from exc


if __name__ == "__main__":
    with sweep.closing():
        main()
