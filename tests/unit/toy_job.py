"""A job in this process: a configuration of a few lines, and workflows of a line each."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from splitsem.errors import ConfigError
from splitsem.workflows.job import run_job
from splitsem.workflows.result import Result

calls: list[int] = []
"""The seed of each job whose workflow was called."""


def works(cfg: DictConfig, folder: Path) -> Result:
    """A score of a tenth of the seed, after one epoch."""
    calls.append(cfg.seed)
    return Result({"score": cfg.seed / 10, "label": "a"}, {}, [{"loss": 0.5}], "done")


def fails(cfg: DictConfig, folder: Path) -> Result:
    """A mistake of a user's code, after a file was left."""
    calls.append(cfg.seed)
    (folder / "half.txt").write_text("half")
    raise ValueError("oh no")


def is_stopped(cfg: DictConfig, folder: Path) -> Result:
    """A signal while the workflow runs."""
    signal.raise_signal(signal.SIGTERM)
    raise AssertionError("the signal was not told")


def counted(cfg: DictConfig, folder: Path) -> Result:
    """A job of some time, which adds a line with its seed to the file ``evaluated.txt`` when it is done."""
    time.sleep(0.2)
    with Path("evaluated.txt").open("a") as file:
        file.write(f"{cfg.seed}\n")
    return Result({"score": cfg.seed / 10}, {}, [], f"seed {cfg.seed}")


def ends_variously(cfg: DictConfig, folder: Path) -> Result:
    """A score of the even seeds; 1 is killed, as where there is no memory left, 3 fails, 5 waits to be stopped."""
    if cfg.seed == 1:
        signal.raise_signal(signal.SIGKILL)
    if cfg.seed == 3:
        raise ConfigError("three is odd")
    if cfg.seed == 5:
        (folder / "pid.txt").write_text(f"{os.getpid()}")
        signal.pause()
    return Result({"score": cfg.seed / 10}, {}, [], f"seed {cfg.seed}")


def fills(cfg: DictConfig, folder: Path) -> Result:
    """A score; seed 2 first writes more than its disk holds."""
    if cfg.seed == 2:
        (folder / "features.bin").write_bytes(bytes(8 << 20))
    return Result({"score": cfg.seed / 10}, {}, [], f"seed {cfg.seed}")


def run_toy(
    folder: Path,
    workflow: Callable[..., Result] = works,
    *,
    seed: int = 1,
    num: int | None = None,
    tracking: object = None,
) -> list[float]:
    """Run a job as Hydra does: a single run in ``folder``, or the job ``num`` of a sweep there."""
    output = folder if num is None else folder / str(num)
    own = {"seed": seed, "tracking": tracking or {}, "resume": True, "plots": {"style": "screen", "formats": ["png"]}}
    own["workflow"] = {"_target_": f"{__name__}.{workflow.__name__}", "summary": None, "objective": ["score"]}
    hydra = {
        "mode": RunMode.RUN if num is None else RunMode.MULTIRUN,
        "runtime": {
            "output_dir": str(output),
            "choices": {"task": "toy", "hydra/launcher": "basic"},
            "config_sources": [],
        },
        "sweep": {"dir": str(folder)},
        "job": {"num": num, "override_dirname": f"seed={seed}"},
        "overrides": {"task": [f"seed={seed}"]},
    }
    (output / ".hydra").mkdir(parents=True, exist_ok=True)
    for name, part in {"config": own, "hydra": {"hydra": hydra}, "overrides": [f"seed={seed}"]}.items():
        OmegaConf.save(OmegaConf.create(part), output / ".hydra" / f"{name}.yaml")
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = OmegaConf.create({"hydra": hydra})
    try:
        return run_job(OmegaConf.create(own))
    finally:
        HydraConfig.instance().cfg = before
