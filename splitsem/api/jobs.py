"""Runs and sweeps from Python: what the command does, with the results as objects; and results that are kept."""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import version as hydra_version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from splitsem import extras, files
from splitsem.errors import ConfigError, SplitSemError
from splitsem.workflows import command, folders, mistakes, renamed, stopping
from splitsem.workflows import sweep as sweeping
from splitsem.workflows.tracking import Mlflow

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
TABLE = "results.csv"


class Picture:
    """A PNG file that a notebook shows.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Picture({str(self.path)!r})"

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True, repr=False)
class Run:
    """What one run has left.

    Attributes:
        folder: the run's.
        metrics: all its numbers and labels, see docs/numbers.md.
        figures: its figures by name.
    """

    folder: Path
    metrics: Mapping[str, Any]
    figures: Mapping[str, Picture]

    def __repr__(self) -> str:
        facts = [str(self.folder)]
        if "score" in self.metrics:
            facts.append(f"{self.metrics.get('score_name', 'score')} {self.metrics['score']:.4f}")
        return f"Run({', '.join([*facts, f'{len(self.metrics)} metrics', f'{len(self.figures)} figures'])})"


def run(*settings: str, config_dir: str | Path | None = None) -> Run:
    """Do what ``splitsem SETTING …`` does, in this process.

    Args:
        settings: as on the command line: ``"task=digits"``, ``"codec=quant8"``.
        config_dir: a folder of options of your own.

    Raises:
        SplitSemError: what the command would tell in one line.
    """
    done: list[JobReturn] = []
    with _hydra(settings, config_dir) as hydra:
        done.append(hydra.run(command.CONFIG, command.job, list(settings)))
    return _kept(Path(done[0].hydra_cfg.hydra.runtime.output_dir))  # type: ignore[union-attr]


def sweep(*settings: str, config_dir: str | Path | None = None) -> "pd.DataFrame":
    """Do what ``splitsem SETTING … -m`` does, in this process.

    Without ``split.point=`` the sweep goes over all split points. ``attrs["folder"]`` of the table names the folder of
    the sweep, which also has its report and plots.

    Args:
        settings: as on the command line: ``"task=digits"``, ``"codec=quant2,quant8"``.
        config_dir: a folder of options of your own.

    Returns:
        A row a job. A job that failed has ``failed`` in the column ``status`` and its line in ``error``; a warning is
        logged.

    Raises:
        SplitSemError: what the command would tell in one line; where no job is ok, that of one that failed.
    """
    jobs: list[JobReturn] = []
    try:
        with _hydra(settings, config_dir) as hydra:
            for batch in hydra.multirun(command.CONFIG, command.job, [*settings, "hydra.mode=MULTIRUN"]):
                jobs += batch
    except sweeping.JobsFailed as exc:
        table, told = results(exc.folder), _told(exc)
        if "ok" not in set(table["status"]):
            raise type(told)(f"no job of the sweep in {exc.folder} is ok: {told}") from exc.__context__
        num_failed = sum(table["status"] == "failed")
        log.warning("%d jobs of the sweep in %s failed: see the columns status and error", num_failed, exc.folder)
        return table
    return results(jobs[0].hydra_cfg.hydra.sweep.dir)  # type: ignore[union-attr]


def results(source: str | Path) -> "pd.DataFrame":
    """The kept results of a run, of a sweep, or of an MLflow experiment, a row a run.

    Args:
        source: the folder of a run or a sweep; else the name of an experiment in the embedded MLflow store, or in that
            of ``MLFLOW_TRACKING_URI``.

    Raises:
        ConfigError: there is no such folder or experiment, or it holds no results; or pandas is not installed.
        LinkError: the store cannot be read.
    """
    with extras.needed("plots", "a table of results"):
        import pandas as pd

    folder = Path(source)
    if (folder / TABLE).is_file():
        table = pd.read_csv(folder / TABLE)
    elif (folder / folders.METRICS).is_file():
        table = pd.DataFrame([_kept(folder).metrics])
    else:
        settings = OmegaConf.load(files.CONF / "tracking" / "mlflow.yaml")
        rows = Mlflow(settings.uri, str(source), settings.folder).rows()
        if not rows:
            what = f"a folder without {TABLE} and {folders.METRICS}" if folder.is_dir() else "no folder"
            raise ConfigError(f"{source} is {what}, and no MLflow experiment with finished runs")
        return pd.DataFrame(rows)
    table.attrs["folder"] = str(folder)
    return table


@contextlib.contextmanager
def _hydra(settings: Sequence[str], config_dir: str | Path | None) -> Iterator[Hydra]:
    """Hydra as the command has it; its exceptions and exits become one SplitSemError."""
    if GlobalHydra.instance().is_initialized():
        raise ConfigError("Hydra is in use in this process: run and sweep compose a configuration of their own")
    if wrong := [one for one in settings if not isinstance(one, str)]:
        raise ConfigError(f'settings are texts, one by one: run("task=digits", "codec=quant8"), got {wrong[0]!r}')
    if flags := [one for one in settings if one.startswith("-")]:
        raise ConfigError(
            f'flags are no settings, got {flags[0]}: in place of --config-dir=FOLDER give config_dir="FOLDER", in '
            "place of -m call sweep"
        )
    command.prepare()
    renamed.check_arguments(settings)
    hydra_version.setbase(command.VERSION_BASE)
    path = create_config_search_path(str(files.CONF))
    if config_dir is not None:
        path.prepend("api", f"file://{Path(config_dir).absolute()}")
    try:
        with sweeping.closing():
            yield Hydra.create_main_hydra2("run", path)
    except stopping.Stopped as exc:
        raise KeyboardInterrupt from exc
    except sweeping.JobsFailed:
        raise
    except SystemExit as exc:
        raise _told(exc) from exc.__context__
    except (HydraException, OmegaConfBaseException, ValueError) as exc:
        if (line := mistakes.told(exc)) is None or isinstance(exc, SplitSemError):
            raise
        raise ConfigError(line) from exc
    finally:
        GlobalHydra.instance().clear()


def _told(end: SystemExit) -> SplitSemError:
    """The exception behind an exit of the command."""
    told = end.__context__
    return told if isinstance(told, SplitSemError) else ConfigError(str(end.code))


def _kept(folder: Path) -> Run:
    metrics = json.loads((folder / folders.METRICS).read_text())
    return Run(folder, metrics, {path.stem: Picture(path) for path in sorted(folder.glob("*.png"))})
