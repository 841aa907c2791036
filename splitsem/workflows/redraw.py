"""Redraw (``workflow=report``): figures, tables and page of kept sweeps, alone or joined; no job runs again.

The run's folder gets a link to each job and each reference, so it is one of a sweep to all that reads sweeps: the same
summary is drawn as at a sweep's end, and the folder can be redrawn or joined again.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from splitsem import extras, redaction
from splitsem.errors import ConfigError
from splitsem.workflows import folders
from splitsem.workflows.result import Result
from splitsem.workflows.summary import summarise, sweep_of


def run(cfg: DictConfig, folder: Path) -> Result:
    """Report the sweeps in ``cfg.folders``, in the style that ``cfg.plots`` names."""
    extras.check("plots", "workflow=report")
    sources = list(dict.fromkeys(Path(str(name)).expanduser().absolute() for name in cfg.folders))
    if not sources:
        raise ConfigError("workflow=report needs the folder of a sweep: python run.py workflow=report multirun/…")
    made_by = {str(source): _workflow(source) for source in sources}
    if len(set(made_by.values())) > 1:
        told = ", ".join(f"{name} of {kind}" for name, kind in made_by.items())
        raise ConfigError(f"sweeps are joined where one workflow made them, got {told}: report them one by one")
    link(sources, folder)
    results = summarise(folder, details={f"sweep {sweep_of(source)}": _command(source) for source in sources})
    metrics = {"num_sweeps": len(sources), "num_jobs": len(folders.jobs(folder))}
    return Result(metrics, {}, [], f"{len(results)} rows of {len(sources)} sweep{'s' * (len(sources) > 1)}; none ran")


def link(sources: list[Path], folder: Path) -> None:
    """Make ``folder`` show the jobs of all sources, numbered on, and each of their references once."""
    (folder / "references").mkdir()
    jobs = [job for source in sources for job in folders.jobs(source)]
    for number, job in enumerate(jobs):
        (folder / str(number)).symlink_to(job.resolve(), target_is_directory=True)
    for path in (path for source in sources for path in sorted(source.glob("references/*.*"))):
        place = folder / "references" / path.name  # the name says of which network, link, machines and settings
        if not place.is_symlink() and path.suffix in (".json", ".npz"):
            place.symlink_to(path.resolve())


def _workflow(source: Path) -> str:
    """Which workflow the sweep's jobs ran."""
    jobs = folders.jobs(source)
    if not jobs:
        raise ConfigError(f"{source} holds no jobs of a sweep: name one below multirun/")
    return str(OmegaConf.load(jobs[0] / ".hydra" / "config.yaml").workflow._target_)


def _command(source: Path) -> str:
    """The settings that the sweep was asked for."""
    path = source / "multirun.yaml"
    kept = OmegaConf.select(OmegaConf.load(path), "hydra.overrides.task") if path.exists() else None
    return redaction.text(" ".join(kept)) if kept else "settings not kept"
