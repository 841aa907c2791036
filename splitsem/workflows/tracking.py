"""Tracking: every run in MLflow, a sweep as a parent with a child a job. The run's folder stays the truth."""

import logging
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock

from splitsem import redaction
from splitsem.errors import LinkError

log = logging.getLogger(__name__)
_VERSIONS = ("splitsem", "torch", "lightning", "hydra-core", "mlflow", "numpy")


class Mlflow:
    """Writes runs to an MLflow store, each in a few batched calls.

    Args:
        uri: tracking store; null takes ``MLFLOW_TRACKING_URI``, else an SQLite file under ``folder``.
        experiment: MLflow experiment that the runs go to.
        folder: where the embedded store keeps its database and artifacts.
    """

    def __init__(self, uri: str | None, experiment: str, folder: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self.experiment = experiment
        self.folder = Path(folder).absolute()
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / 'mlflow.db'}"

    def open(self) -> str:
        """The experiment's id; it is created once however many processes ask. Raises LinkError."""
        from mlflow.exceptions import MlflowException

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(self.folder / "experiment.lock"):
                found = self._client().get_experiment_by_name(self.experiment)
                if found is not None:
                    return found.experiment_id
                local = self.uri.startswith("sqlite")
                place = (self.folder / "artifacts").as_uri() if local else None
                return self._client().create_experiment(self.experiment, artifact_location=place)
        except MlflowException as exc:
            raise LinkError(
                f"MLflow at {redaction.text(self.uri)} cannot be reached "
                f"({redaction.text(str(exc)).splitlines()[0][:200]}); start it, name another with tracking.uri=..., "
                "or go without by tracking=none"
            ) from exc

    def start(self, experiment_id: str, name: str, parent: str | None = None) -> str:
        """Begin a run, below ``parent`` if given; returns its id."""
        tags = {"mlflow.runName": redaction.text(name), "mlflow.source.name": "run.py", **_provenance()}
        if parent:
            tags["mlflow.parentRunId"] = parent
        return self._client().create_run(experiment_id, tags=tags).info.run_id

    def log(
        self,
        run_id: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, Any],
        history: list[dict[str, float]],
        paths: Iterable[Path],
    ) -> None:
        """Copy a run's settings, numbers (text becomes tags), training curve and files into MLflow."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        numbers = [Metric(k, v, now, 0) for k, v in metrics.items() if isinstance(v, int | float)]
        numbers += [Metric(k, v, now, epoch) for epoch, row in enumerate(history) for k, v in row.items()]
        tags = [RunTag(k, redaction.text(str(v))) for k, v in metrics.items() if not isinstance(v, int | float)]
        settings = [Param(k, str(v)[:6000]) for k, v in redaction.settings(params).items()]
        client = self._client()
        for start in range(0, max(len(numbers), len(settings), 1), 100):
            client.log_batch(
                run_id, numbers[start : start + 100], settings[start : start + 100], tags if start == 0 else []
            )
        for path in paths:
            if path.is_dir():
                client.log_artifacts(run_id, str(path), path.name)
            else:
                client.log_artifact(run_id, str(path))

    def end(self, run_id: str, ok: bool) -> None:
        """Close a run as finished or failed."""
        self._client().set_terminated(run_id, "FINISHED" if ok else "FAILED")

    def _client(self) -> Any:
        import mlflow

        logging.getLogger("alembic").setLevel(logging.WARNING)
        return mlflow.MlflowClient(self.uri)


def versions() -> dict[str, str]:
    """The versions of the packages that decide a run's numbers."""
    found = {}
    for package in _VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "not installed"
    return found


def _provenance() -> dict[str, str]:
    """Tags that say which code made a run: git commit and package versions."""
    tags = {f"version.{package}": number for package, number in versions().items()}
    root = Path(__file__).parent
    try:
        tags["mlflow.source.git.commit"] = _git(root, "rev-parse", "HEAD")
        tags["git.dirty"] = str(bool(_git(root, "status", "--porcelain", "--untracked-files=no")))
    except (OSError, subprocess.CalledProcessError):
        tags["mlflow.source.git.commit"] = "not a git checkout"
    return tags


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
