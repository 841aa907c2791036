"""Tracking: every run in MLflow, a sweep as a parent with a child a job. The run's folder stays the truth."""

import contextlib
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import filelock

from splitsem import extras, redaction
from splitsem.errors import LinkError
from splitsem.workflows import comparison, pasted

log = logging.getLogger(__name__)
_VERSIONS = ("splitsem", "torch", "lightning", "hydra-core", "mlflow", "numpy")
_PATIENCE_S = 120  # for other processes that write to the same file
_CONNECT_S = 10
_GREETING_S = 3  # a server that hangs is noticed by this, at the begin and again at the end of a run
_ANSWER_S = 6  # of a server that answered once; with a greeting it is less than 10 s
_KEY = "splitsem.run"
UI = "http://127.0.0.1:5000"
_EMBEDDED = "outputs/mlflow/mlflow.db"  # of a checkout, as make ui shows it
CHOSEN = ("task", "model", "codec", "transport", "edge", "server", "split_point", "optimise", "strategy", "partition")
"""Labels among a run's metrics that say what it ran: MLflow's parameters, by which it groups and compares."""
_UNTAKEN = re.compile(r"[^\w\-. :/]", re.ASCII)  # in a parameter's name: codec@place
_QUIET = ("alembic", "mlflow", "urllib3.connectionpool")  # tell of tables made; what fails is said in one line here

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class Mlflow:
    """Writes runs to an MLflow store, each in a few batched calls. All methods raise LinkError, whatever goes wrong.

    Args:
        uri: tracking store; null takes ``MLFLOW_TRACKING_URI``, else an SQLite file under ``folder``.
        experiment: MLflow experiment that the runs go to.
        folder: where the embedded store keeps its database and artifacts.
    """

    def __init__(self, uri: str | None, experiment: str, folder: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_ANSWER_S))
        os.environ.setdefault("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", str(_ANSWER_S))
        extras.check("tracking", "tracking=mlflow", "or give tracking=none")
        self.experiment = experiment
        self.folder = Path(folder).absolute()
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / 'mlflow.db'}"
        self._is_reached = False

    def get_ready(self) -> None:
        """Import what writes, before there is a run to write of; an import that fails is told when it is needed."""
        with contextlib.suppress(ImportError):
            import_module("mlflow")
            if self.uri.startswith("sqlite"):
                import_module("mlflow.store.tracking.sqlalchemy_store")

    def open(self) -> str:
        """The experiment's id; it is created once however many processes ask."""
        from mlflow.exceptions import MlflowException

        with self._client() as client:
            if (found := client.get_experiment_by_name(self.experiment)) is None:
                place = (self.folder / "artifacts").as_uri() if self.uri.startswith("sqlite") else None
                try:
                    return client.create_experiment(self.experiment, artifact_location=place)
                except MlflowException:
                    if (found := client.get_experiment_by_name(self.experiment)) is None:
                        raise  # else another process was first
            return found.experiment_id

    def start(
        self,
        experiment_id: str,
        name: str,
        *,
        key: str,
        began_s: float | None = None,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> str:
        """Begin a run; returns its id.

        Args:
            experiment_id: see ``open``.
            name: shown in the list of runs.
            key: by which ``find`` finds the run.
            began_s: Unix time, now if None.
            tags: where the run comes from.
            parent: id of the run that it is shown below.
        """
        own = {"mlflow.runName": redaction.text(name), "mlflow.source.name": "run.py", _KEY: key, **(tags or {})}
        if parent:
            own["mlflow.parentRunId"] = parent
        with self._client() as client:
            return client.create_run(experiment_id, start_time=_ms(began_s or time.time()), tags=own).info.run_id

    def find(self, experiment_id: str, key: str) -> str | None:
        """The id of the run that was started with ``key``, if there is one."""
        with self._client() as client:
            found = client.search_runs([experiment_id], f"tags.`{_KEY}` = '{key}'", max_results=1)
            return found[0].info.run_id if found else None

    def parent(self, run_id: str) -> str | None:
        """The id of the run that a run is shown below."""
        with self._client() as client:
            return client.get_run(run_id).data.tags.get("mlflow.parentRunId")

    def page(self, experiment_id: str, run_id: str) -> str:
        """The address of the charts of a sweep's jobs; of an embedded store, where ``shown_by`` shows it."""
        at = redaction.text(self.uri).rstrip("/") if self.uri.startswith("http") else UI
        return f"{at}/#/experiments/{experiment_id}/runs?viewStateShareKey={run_id}&compareRunsMode=CHART"

    @property
    def shown_by(self) -> str:
        """The command that shows the pages of an embedded store, in the folder of this process; empty for a server."""
        if self.uri.startswith("http"):
            return ""
        if self.uri == f"sqlite:///{pasted.CHECKOUT}/{_EMBEDDED}" and Path.cwd() == pasted.CHECKOUT:
            return "make ui"
        return pasted.words(["mlflow", "ui", "--port", "5000", "--backend-store-uri", redaction.text(self.uri)])

    def save_view(self, experiment_id: str, run_id: str, state: str) -> None:
        """Keep what ``page`` shows, see ``comparison.state``."""
        with self._client() as client:
            client.set_experiment_tag(experiment_id, comparison.TAG + run_id, state)

    def has(self, run_id: str) -> bool:
        """Whether this store knows the run, and nobody has removed it."""
        from mlflow.exceptions import MlflowException

        with self._client() as client:
            try:
                return client.get_run(run_id).info.lifecycle_stage == "active"
            except MlflowException as exc:
                if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise

    def rows(self) -> list[dict[str, Any]]:
        """All finished runs of the experiment, the newest first: ``run_id``, ``name``, metrics and labels.

        Empty where there is no such experiment, or no store yet.
        """
        if self.uri.startswith("sqlite") and not self._database.exists():
            return []
        found: list[dict[str, Any]] = []
        with self._client(writes=False) as client:
            if (experiment := client.get_experiment_by_name(self.experiment)) is None:
                return []
            token = None
            while token is not None or not found:
                page = client.search_runs([experiment.experiment_id], "status = 'FINISHED'", page_token=token)
                for run in page:
                    labels = {name: text for name, text in run.data.tags.items() if "." not in name}
                    labels |= {name: run.data.params[name] for name in CHOSEN if name in run.data.params}
                    found.append({"run_id": run.info.run_id, "name": run.info.run_name, **run.data.metrics, **labels})
                if (token := page.token or None) is None:
                    break
        return found

    def log(
        self,
        run_id: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, Any],
        history: list[dict[str, float]],
        paths: Iterable[Path],
        at_s: float | None = None,
    ) -> None:
        """Copy a run's settings, numbers (text becomes tags), training curve and files into MLflow.

        A second time, with the same ``at_s``, changes nothing.
        """
        from mlflow.entities import Metric, Param, RunTag

        now = _ms(at_s or time.time())
        numbers = [Metric(k, v, now, 0) for k, v in metrics.items() if isinstance(v, int | float)]
        numbers += [
            Metric(k, v, now, epoch) for epoch, row in enumerate(history) for k, v in row.items() if v is not None
        ]
        tags = [RunTag(k, redaction.text(str(v))) for k, v in metrics.items() if not isinstance(v, int | float)]
        settings = [Param(_UNTAKEN.sub("_", k), str(v)[:6000]) for k, v in redaction.settings(params).items()]
        with self._client() as client:  # MLflow takes 1000 entries a batch, at most 100 of them settings
            for i in range(max(-(-len(numbers) // 800), -(-len(settings) // 100), 1)):
                batch = numbers[800 * i : 800 * (i + 1)], settings[100 * i : 100 * (i + 1)], tags if i == 0 else []
                client.log_batch(run_id, *batch)
        with self._client(writes=False) as client:
            for path in paths:
                if path.is_dir():
                    client.log_artifacts(run_id, str(path), path.name)
                else:
                    client.log_artifact(run_id, str(path))

    def set_status(self, run_id: str, status: Status, at_s: float | None = None) -> None:
        """Say how a run is; any status but RUNNING closes it."""
        with self._client() as client:
            if status == "RUNNING":
                client.update_run(run_id, status)
            else:
                client.set_terminated(run_id, status, end_time=_ms(at_s or time.time()))

    @contextlib.contextmanager
    def _client(self, *, writes: bool = True) -> Iterator[Any]:
        """MLflow's client; where the store is a file, no two processes write at the same time."""
        try:
            import mlflow

            for name in _QUIET:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            if not self._is_reached:
                self._reach()
            client = mlflow.MlflowClient(self.uri)
            with self._turn() if writes else contextlib.nullcontext():
                yield client
        # Stores, drivers, plug-ins and clouds raise exceptions of their own, and none of them may lose a result.
        except Exception as exc:
            log.debug("MLflow failed", exc_info=True)
            raise LinkError(f"MLflow at {redaction.text(self.uri)} failed ({_reason(exc)})") from exc

    def _turn(self) -> contextlib.AbstractContextManager[object]:
        if not self.uri.startswith("sqlite"):
            return contextlib.nullcontext()
        self._database.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(f"{self._database}.lock", timeout=_PATIENCE_S)

    @property
    def _database(self) -> Path:
        """The file of an SQLite store."""
        return Path(re.sub(r"^sqlite[^/]*:///|\?.*", "", self.uri))

    def _reach(self) -> None:
        """Connect to a database or a server once before MLflow does: MLflow tries for long, and says nothing useful.

        Any answer of a server will do. A new database gets its tables from one process at a time.
        """
        if re.match(r"(sqlite|postgresql|mysql|mssql)\b", self.uri):
            import mlflow
            import sqlalchemy

            turn = self._turn()
            patience = "timeout" if self.uri.startswith(("sqlite", "mssql")) else "connect_timeout"
            engine = sqlalchemy.create_engine(
                self.uri, poolclass=sqlalchemy.pool.NullPool, connect_args={patience: _CONNECT_S}
            )
            with engine.connect() as connection:
                is_new = (
                    not connection.dialect.has_table(connection, "experiments")
                    or not connection.execute(
                        sqlalchemy.text(
                            "SELECT 1 FROM experiments LIMIT 1"
                        )  # MLflow puts one there when all else is done
                    ).first()
                )
            if is_new:
                with turn:
                    mlflow.MlflowClient(self.uri)
        elif self.uri.startswith("http"):
            from mlflow.utils.credentials import get_default_host_creds
            from mlflow.utils.rest_utils import http_request

            server = get_default_host_creds(self.uri)
            http_request(server, "/health", "GET", timeout=_GREETING_S, max_retries=0, raise_on_status=False)
        self._is_reached = True


def versions() -> dict[str, str]:
    """The versions of the packages that decide a run's numbers."""
    found = {}
    for package in _VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "not installed"
    return found


def provenance() -> dict[str, str]:
    """Tags that say which code makes a run: git commit and package versions."""
    tags = {f"version.{package}": number for package, number in versions().items()}
    root = Path(__file__).parent
    try:
        tags["mlflow.source.git.commit"] = _git(root, "rev-parse", "HEAD")
        tags["git.dirty"] = str(bool(_git(root, "status", "--porcelain", "--untracked-files=no")))
    except (OSError, subprocess.SubprocessError):
        tags["mlflow.source.git.commit"] = "not a git checkout"
    return tags


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def _ms(time_s: float) -> int:
    return int(time_s * 1000)


def _reason(exc: BaseException) -> str:
    """An exception in a few words; the deepest one of a chain knows best."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    if "timed out" in str(exc):
        return "it did not answer in time"
    first = next(iter(str(exc).splitlines()), "")
    if isinstance(exc, ModuleNotFoundError):
        first = extras.line_of(exc, "this store") or f"{first}: install it with pip"
    return redaction.text(f"{type(exc).__name__}: {first[:300]}" if first else type(exc).__name__)
