"""Redraw (``workflow=report``): figures, tables and page of kept sweeps, alone or joined; no job runs again.

The run's folder gets a link to each job and each reference, so it is one of a sweep to all that reads sweeps: the same
summary is drawn as at a sweep's end, and the folder can be redrawn or joined again.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from splitsem import extras
from splitsem.errors import ConfigError
from splitsem.workflows import folders, pasted
from splitsem.workflows.folders import asked
from splitsem.workflows.readme_file import command_of
from splitsem.workflows.result import Result
from splitsem.workflows.summary import summarise, sweep_of, title_of

_MOST_NAMED = 4
"""Sweeps that a title tells apart."""


def run(cfg: DictConfig, folder: Path) -> Result:
    """Report the sweeps in ``cfg.folders``, in the style that ``cfg.plots`` names."""
    extras.check("plots", "workflow=report")
    sources = list(dict.fromkeys(Path(str(name)).expanduser().absolute() for name in cfg.folders))
    if not sources:
        raise ConfigError(f"workflow=report needs the folder of a sweep: {pasted.PROGRAM} workflow=report multirun/…")
    made_by = {str(source): _workflow(source) for source in sources}
    if len(set(made_by.values())) > 1:
        told = ", ".join(f"{name} of {kind}" for name, kind in made_by.items())
        raise ConfigError(f"sweeps are joined where one workflow made them, got {told}: report them one by one")
    link(sources, folder)
    results = summarise(
        folder,
        details={f"sweep {sweep_of(source)}": _command(source) for source in sources},
        title=_title(list(dict.fromkeys(title_of(source) for source in sources)), len(sources)),
    )
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


def _title(titles: list[str], num_sweeps: int) -> str:
    """What was run: that of the only sweep, or what the joined sweeps share and what tells them apart.

    >>> _title(["digits · quant2", "digits · quant8"], 2)
    '2 sweeps joined: digits · quant2 | quant8'
    """
    if num_sweeps == 1:
        return titles[0]
    parts = [title.split(" · ") for title in titles]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    own = [" · ".join(part for part in one if part not in shared) for one in parts] if len(parts) > 1 else []
    apart = " | ".join(one or "as it is" for one in own[:_MOST_NAMED]) + (" | …" if len(own) > _MOST_NAMED else "")
    return f"{num_sweeps} sweeps joined: " + " · ".join(filter(None, [*shared, apart]))


def _command(source: Path) -> str:
    """What made the sweep."""
    return command_of(source) if asked(source) else "settings not kept"
