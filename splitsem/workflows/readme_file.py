"""README.txt of a run's or a sweep's folder: what was run, what came out, what the files are, how to go on."""

import shlex
import time
from pathlib import Path

from omegaconf import OmegaConf

from splitsem import redaction
from splitsem.workflows.folders import README

_FILES = {
    "report.html": "the whole report as one page; it opens without a network",
    "results.csv": "a row a job, and a row for each reference: settings and all metrics",
    "table.md": "the table, for a page",
    "table.tex": "the table, for a paper (booktabs)",
    "codecs.md": "the table of codecs, for a page",
    "codecs.tex": "the table of codecs, for a paper",
    "means.csv": "means over seeds",
    "domains.csv": "what was chosen for each domain",
    "best.json": "the best cut of each goal",
    "metrics.json": "all metrics of this run; units stand in their names",
    "history.json": "each epoch or round",
    "training.json": "each epoch of the training that this run needed first",
    "points.csv": "the split points",
    "lut.json": "measured times of each half, for hardware.edge.lut=",
    "weights.safetensors": "the trained weights, for trainer.weights=",
    "score_draws.npz": "scores on bootstrap draws, for intervals",
    "references": "metrics of sending the picture itself, a file each",
    "run.json": "the state of this run, its code and its MLflow run",
    "run.log": "the log",
    "error.txt": "why it failed",
    "multirun.yaml": "the sweep's own configuration",
    ".hydra": "the configuration: config.yaml (all of it), overrides.yaml (what was asked for)",
}
_KINDS = {
    ".png": "a figure",
    ".pdf": "a figure, for a paper",
    ".svg": "a figure, for a page",
    ".csv": "numbers of a figure or a table",
}


def write(folder: Path, result: str) -> None:
    """Leave README.txt; one that a summary wrote into the same folder stays.

    Args:
        folder: of a run, a job or a sweep, with all its files.
        result: what was printed, the main result among it.
    """
    if (folder / README).exists():
        return
    is_sweep = (folder / "multirun.yaml").exists()
    settings = redaction.text(shlex.join(asked(folder)))
    command = f"python run.py {settings}".rstrip() + (" -m" if is_sweep else "")
    place = folder.absolute()
    redraw = []
    if any(path.name.isdigit() for path in folder.iterdir() if path.is_dir()):
        redraw = [f"To draw again, without a job: python run.py workflow=report {shlex.quote(str(place))}"]
        redraw += ["For a paper, add: plots.style=paper plots.formats=[pdf]"]
    lines = [
        f"{place.name}, {time.strftime('%Y-%m-%d %H:%M')}",
        "",
        f"To run again: {command}",
        *redraw,
        "",
        "RESULT",
        "",
        *(line.rstrip() for line in result.strip("\n").splitlines()),
        "",
        "FILES",
        "",
        *(f"{name:24}  {said}" for name, said in _listed(folder)),
        "",
        "What each metric means: docs/numbers.md and the site's reference (make docs).",
    ]
    (folder / README).write_text(redaction.text("\n".join(lines) + "\n"), encoding="utf-8")


def asked(folder: Path) -> list[str]:
    """The settings of the command line that made the folder; none where Hydra kept none."""
    for path, key in ((folder / "multirun.yaml", "hydra.overrides.task"), (folder / ".hydra" / "overrides.yaml", "")):
        if path.exists():
            kept = OmegaConf.load(path)
            return [str(one) for one in ((OmegaConf.select(kept, key) if key else kept) or ())]
    return []


def _listed(folder: Path) -> list[tuple[str, str]]:
    """The files that a reader looks for, with what they are; known ones first."""
    names = sorted(path.name for path in folder.iterdir())
    known = [(name, said) for name, said in _FILES.items() if name in names]
    jobs = [name for name in names if name.isdigit()]
    if jobs:
        known.append(("0" if len(jobs) == 1 else f"0 … {len(jobs) - 1}", "a folder a job, each with such a file"))
    others = [name for name in names if name not in _FILES and not name.isdigit() and name[0] != "."]
    return known + [(name, _KINDS[suffix]) for name in others if (suffix := Path(name).suffix) in _KINDS]
