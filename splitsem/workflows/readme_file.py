"""README.txt of a run's or a sweep's folder: what was run, what came out, what the files are, how to go on."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from splitsem import redaction
from splitsem.json_files import write_text
from splitsem.workflows import folders, pasted
from splitsem.workflows.folders import README

_FILES = {
    "report.html": "the whole report as one page; it opens without a network",
    "accuracy_throughput.png": "score against pace: the best cuts are named; the legend names each mark",
    "latency_breakdown.png": "where the time of each cut goes",
    "rate_accuracy.png": "score against bytes",
    "sensitivity.png": "which cut is best if a time or the link is off",
    "sensitivity.csv": "its numbers",
    "gallery.png": "the samples on which the split and the unsplit network disagree most",
    "breakdown.png": "where the time of a sample goes",
    "exit.png": "what each threshold of the early exit does, on the validation split",
    "exit.csv": "its numbers",
    "adaptation.png": "link, setting and latency over time",
    "domains.png": "score and throughput of what each job chose",
    "score_by_round.png": "loss and score, round by round",
    "score_by_uplink.png": "score against the bytes that clients have sent",
    "partition.png": "how many samples of which class each client has",
    "layers.png": "the slowest operations",
    "roofline.png": "each operation against what arithmetic and memory of this machine allow",
    "frames.csv": "a row a frame",
    "results.csv": "a row a job, and a row for each reference: settings and all metrics",
    "table.md": "the table, for a page",
    "table.tex": "the table, for a paper (booktabs)",
    "measured.md": "predictions beside what frames took, for a page",
    "measured.tex": "the same, for a paper",
    "codecs.md": "the table of codecs, for a page",
    "codecs.tex": "the table of codecs, for a paper",
    "means.csv": "means over seeds",
    "domains.csv": "what was chosen for each domain",
    "best.json": "the best cut of each goal",
    "metrics.json": "all metrics of this run; units stand in their names",
    "history.json": "each epoch or round",
    "training.json": "each epoch of the training that this run needed first",
    "rounds.csv": "a row a round",
    "points.csv": "the split points",
    "layers.csv": "a row an operation: its work and its time",
    "lut.json": "measured times of each half, for hardware.edge.lut=",
    "edge_lut.json": "measured times of each half on this machine, for hardware.edge.lut=",
    "server_lut.json": "the same of the server, for hardware.server.lut=",
    "bundle.zip": "all that splitsem-device needs on the board",
    "weights.safetensors": "the trained weights, for trainer.weights=",
    "federated.safetensors": "where the last round ended, for federated.resume=",
    "score_draws.npz": "scores on bootstrap draws, for intervals",
    "references": "metrics of sending the picture itself, a file each",
    "run.json": "the state of this run, its code and its MLflow run",
    "run.log": "the log",
    "error.txt": "why it failed",
    "multirun.yaml": "the sweep's own configuration",
    ".hydra": "the configuration: config.yaml (all of it), overrides.yaml (what was asked for)",
}
_CHOSEN_ANEW = ("hydra.mode=", "hydra.run.dir=", "hydra.sweep.dir=")
_OF_A_USER = ("command-line", "api")
"""Who gave a folder of options: ``--config-dir``, or ``config_dir`` from Python."""

_KINDS = {
    ".png": "a figure",
    ".pdf": "a figure, for a paper",
    ".svg": "a figure, for a page",
    ".csv": "numbers of a figure or a table",
}


def write(folder: Path, result: str, coming: Iterable[str] = ()) -> None:
    """Leave README.txt; one that a summary wrote into the same folder stays.

    Args:
        folder: of a run, a job or a sweep, with its files.
        result: what was printed, the main result among it.
        coming: names of files that are still being drawn.
    """
    if (folder / README).exists():
        return
    place = folder.absolute()
    redraw = []
    if any(path.name.isdigit() for path in folder.iterdir() if path.is_dir()):
        redraw = [f"To draw again, without a job: {pasted.anywhere(_cwd(folder), 'workflow=report', str(place))}"]
        redraw += [f"For a paper, add: {pasted.words(['plots.style=paper', 'plots.formats=[pdf]'])}"]
    lines = [
        f"{place.name}, {time.strftime('%Y-%m-%d %H:%M')}",
        "",
        f"To run again: {command_of(folder)}",
        *redraw,
        "",
        "RESULT",
        "",
        *(line.rstrip() for line in result.strip("\n").splitlines()),
        "",
        "FILES",
        "",
        *(f"{name:24}  {said}" for name, said in _listed(folder, coming)),
        "",
        "What each metric means: docs/numbers.md and the site's reference (make docs).",
    ]
    write_text(redaction.text("\n".join(lines) + "\n"), folder / README)


def command_of(folder: Path) -> str:
    """The command that made the folder, but for where its results go, which a further run chooses anew.

    It works from any folder: paths are relative to where it ran, and parts of a user's own are found as they were.
    """
    is_sweep, hydra = (folder / folders.SWEEP).exists(), _hydra(folder)
    given = (str(one) for one in hydra.get("overrides", {}).get("hydra", ()))
    own = [one for one in given if not one.lstrip("+~").startswith(_CHOSEN_ANEW)]
    sources = hydra.get("runtime", {}).get("config_sources", ())
    options = [f"--config-dir={one['path']}" for one in sources if one["provider"] in _OF_A_USER]
    return pasted.anywhere(_cwd(folder), *options, *own, *folders.asked(folder), *(["-m"] if is_sweep else []))


def _hydra(folder: Path) -> dict[str, Any]:
    """Hydra's own settings of a run or a sweep, as kept there."""
    kept = folder / folders.SWEEP
    return dict(folders.kept_yaml(kept if kept.exists() else folder / ".hydra" / "hydra.yaml").get("hydra", {}))


def _cwd(folder: Path) -> Path | None:
    """Where the command was given."""
    cwd = _hydra(folder).get("runtime", {}).get("cwd")
    return Path(cwd) if cwd else None


def _listed(folder: Path, coming: Iterable[str]) -> list[tuple[str, str]]:
    """The files that a reader looks for, with what they are; known ones first."""
    names = sorted({*coming, *(path.name for path in folder.iterdir())})
    known = [(name, said) for name, said in _FILES.items() if name in names]
    jobs = [name for name in names if name.isdigit()]
    if jobs:
        known.append(("0" if len(jobs) == 1 else f"0 … {len(jobs) - 1}", "a folder a job, each with such a file"))
    others = [name for name in names if name not in _FILES and not name.isdigit() and name[0] != "."]
    return known + [(name, _KINDS[suffix]) for name in others if (suffix := Path(name).suffix) in _KINDS]
