"""Tracking: whatever is wrong with a store is one short line, and what is logged twice is there once."""

import http.server
import importlib
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitsem.errors import ConfigError, LinkError
from splitsem.workflows import folders, track, tracking
from splitsem.workflows.folders import Record
from splitsem.workflows.tracking import Mlflow
from tests.conftest import ROOT
from tests.unit import toy_job
from tests.unit.toy_job import run_toy

pytestmark = [  # MLflow's own store warns of SQLAlchemy 2.1 and leaves its connections to the garbage collector
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers everything with the status that the server holds."""

    def do_GET(self) -> None:
        """See BaseHTTPRequestHandler."""
        if self.server.status == 0:
            self.connection.close()
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"<oops/>")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_server_that_hangs_is_one_line_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_GREETING_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        importlib.import_module("mlflow")  # is not what is timed
        began = time.monotonic()
        with pytest.raises(LinkError, match=r"failed \(it did not answer in time\)"):
            Mlflow(f"http://127.0.0.1:{silent.getsockname()[1]}", "x", str(tmp_path)).open()
    assert time.monotonic() - began < 5
    assert 2 * tracking._GREETING_S + tracking._ANSWER_S <= 10


@pytest.mark.parametrize("status", [200, 401, 403, 404, 0])
def test_a_server_that_answers_wrongly_is_one_line_without_its_password(server, tmp_path, status):
    server.status = status
    with pytest.raises(LinkError) as caught:
        Mlflow(f"http://user:secret@127.0.0.1:{server.server_port}", "x", str(tmp_path)).open()
    assert f"MLflow at http://REDACTED@127.0.0.1:{server.server_port} failed" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:///{folder}/directory", "unable to open database file"),
        ("sqlite:///{folder}/text", "file is not a database"),
        ("sqlite:////proc/nowhere/x.db", "No such file or directory"),
        ("mysql+nodriver://user:secret@127.0.0.1/x", "nodriver"),
        ("postgresql+nodriver://user:secret@127.0.0.1/x", "nodriver"),
        ("nosuch://x", "nosuch"),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_line(tmp_path, uri, said):
    (tmp_path / "directory").mkdir()
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(LinkError, match=said) as caught:
        Mlflow(uri.format(folder=tmp_path), "x", str(tmp_path)).open()
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded store that has its tables; making them takes seconds."""
    folder = tmp_path_factory.mktemp("blank")
    Mlflow(None, "splitsem", str(folder)).open()
    return folder / "mlflow.db"


@pytest.fixture
def store(blank: Path, tmp_path: Path) -> Mlflow:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mlflow.db").write_bytes(blank.read_bytes())
    return Mlflow(None, "splitsem", str(tmp_path / "store"))


def runs(store: Mlflow) -> list:
    import mlflow

    client = mlflow.MlflowClient(store.uri)
    return client.search_runs([client.get_experiment_by_name("splitsem").experiment_id])


def settings(store: Mlflow) -> dict[str, str]:
    return {
        "_target_": "splitsem.workflows.tracking.Mlflow",
        "experiment": "splitsem",
        "folder": str(store.folder),
        "uri": None,
    }


def test_a_wrong_schema_is_one_line(store):
    with sqlite3.connect(store.folder / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'nosuch'")
    database.close()
    with pytest.raises(LinkError, match=r"failed \(") as caught:
        store.open()
    assert "\n" not in str(caught.value)


def test_a_run_that_was_logged_without_a_store_is_logged_later_all_the_same_and_once(store, tmp_path):
    run_toy(tmp_path / "now", tracking=settings(store))
    run_toy(tmp_path / "later")
    assert track.copy_run(store, tmp_path / "later") is True
    assert track.copy_run(store, tmp_path / "later") is False
    later, now = runs(store)
    assert now.info.status == later.info.status == "FINISHED"
    assert now.data.metrics == later.data.metrics == {"score": 0.1, "loss": 0.5}
    assert now.data.params == later.data.params
    assert now.data.params["seed"] == "1"
    assert not any(name.startswith(("tracking", "resume")) for name in now.data.params)
    assert now.info.run_name == later.info.run_name == "seed 1"
    assert now.data.tags["label"] == later.data.tags["label"] == "a"
    assert later.data.tags["version.torch"] == now.data.tags["version.torch"]
    assert [(row["name"], row["score"], row["label"]) for row in store.rows()] == [("seed 1", 0.1, "a")] * 2


def test_a_setting_whose_name_mlflow_does_not_take_is_logged_by_another(store):
    run_id = store.start(store.open(), "one", key="k", began_s=0.0, tags={}, parent=None)
    store.log(run_id, {"codec@place": "quant4"}, {}, [], [])
    (run,) = runs(store)
    assert run.data.params == {"codec_place": "quant4"}


def test_rows_of_what_is_not_there_are_none_and_make_no_store(store, tmp_path):
    assert Mlflow(None, "another", str(store.folder)).rows() == []
    assert Mlflow(None, "splitsem", str(tmp_path / "nothing")).rows() == []
    assert not (tmp_path / "nothing").exists()


def test_a_copy_that_broke_off_is_finished_without_a_second_run(store, tmp_path):
    run_toy(tmp_path / "run")
    assert track.copy_run(store, tmp_path / "run")
    record = folders.read(tmp_path / "run")
    record.tracked, record.run_id = False, None  # as if a kill had come before they were written
    record.write(tmp_path / "run")
    assert track.copy_run(store, tmp_path / "run")
    (run,) = runs(store)
    import mlflow

    assert len(mlflow.MlflowClient(store.uri).get_metric_history(run.info.run_id, "score")) == 1


def test_a_sweep_is_logged_later_as_a_parent_with_its_children(store, tmp_path):
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    Record(settings="", state="failed").write(sweep)
    (sweep / "results.csv").write_text("job\n")
    run_toy(sweep, num=0)
    with pytest.raises(ValueError, match="oh no"):
        run_toy(sweep, toy_job.fails, num=1)
    run_toy(sweep, num=2)
    killed = folders.read(sweep / "2")
    (sweep / "2" / "metrics.json").unlink()
    killed.state = "running"  # what a kill leaves
    killed.write(sweep / "2")
    assert track.copy_sweep(store, sweep)[:2] == (4, 4)
    assert track.copy_sweep(store, sweep)[:2] == (4, 1)  # the killed one may have gone on
    found = {run.data.tags.get("mlflow.parentRunId", "") + run.info.status: run for run in runs(store)}
    parent = folders.read(sweep).run_id
    assert set(found) == {"FAILED", f"{parent}FINISHED", f"{parent}FAILED", f"{parent}KILLED"}
    assert found["FAILED"].data.params["num_jobs"] == "3"


def test_jobs_of_a_sweep_before_in_the_same_folder_go_below_the_new_one(store, tmp_path):
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    for state in ("failed", "ok"):
        Record(settings="", state="running").write(sweep)  # a folder without results is taken again, by a new record
        run_toy(sweep, num=0)
        record = folders.read(sweep / "0")
        record.tracked = False
        record.write(sweep / "0")
        again = folders.read(sweep)
        again.state = state
        again.write(sweep)
        track.copy_sweep(store, sweep)
        assert store.parent(folders.read(sweep / "0").run_id) == folders.read(sweep).run_id


def test_a_folder_without_a_run_and_one_whose_run_is_going_are_refused(store, tmp_path):
    from omegaconf import OmegaConf

    cfg = OmegaConf.create({"tracking": settings(store), "folder": str(tmp_path / "nothing")})
    with pytest.raises(ConfigError, match="holds no run and no sweep"):
        track.run(cfg, tmp_path)
    run_toy(tmp_path / "going")
    cfg.folder = str(tmp_path / "going")
    lock = folders.hold(tmp_path / "going")
    with pytest.raises(ConfigError, match="still going"):
        track.run(cfg, tmp_path)
    lock.release()
    assert track.run(cfg, tmp_path).metrics == {"num_runs": 1, "num_logged": 1}
    cfg.tracking = {}
    with pytest.raises(ConfigError, match="tracking=mlflow"):
        track.run(cfg, tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("num_jobs", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_jobs_that_write_to_one_store_at_the_same_time_are_all_there(num_jobs, store, tmp_path):
    code = (
        "import os, sys, mlflow\n"
        "from splitsem.workflows.tracking import Mlflow\n"
        "folder, num, parent = sys.argv[1], int(sys.argv[2]), sys.argv[3]\n"
        "pids = []\n"
        "for job in range(num):\n"
        "    if not (pid := os.fork()):\n"
        "        store = Mlflow(None, 'splitsem', folder)\n"
        "        run = store.start(store.open(), f'job {job}', key=str(job), parent=parent)\n"
        "        params = {f'p{n}': job for n in range(150)}\n"
        "        store.log(run, params, {'score': job, 'twice': 2 * job}, [{'loss': job}] * 20, [])\n"
        "        store.set_status(run, 'FINISHED')\n"
        "        os._exit(0)\n"
        "    pids.append(pid)\n"
        "sys.exit(any(os.waitpid(pid, 0)[1] for pid in pids))\n"
    )
    parent = store.start(store.open(), "parent", key="parent")
    subprocess.run(
        [sys.executable, "-c", code, str(store.folder), str(num_jobs), parent], cwd=ROOT, check=True, timeout=500
    )
    jobs = [run for run in runs(store) if run.data.tags.get("mlflow.parentRunId") == parent]
    assert {run.info.status for run in jobs} == {"FINISHED"}
    assert sorted(run.data.metrics["score"] for run in jobs) == list(range(num_jobs))
    assert all(
        run.data.metrics["twice"] == 2 * int(run.data.params["p149"]) == 2 * run.data.metrics["loss"] for run in jobs
    )


@pytest.mark.parametrize(
    ("uri", "cwd", "shown_by"),
    [
        (f"sqlite:///{ROOT}/outputs/mlflow/mlflow.db", ROOT, "make ui"),
        (
            f"sqlite:///{ROOT}/outputs/mlflow/mlflow.db",
            None,
            f"mlflow ui --port 5000 --backend-store-uri sqlite:///{ROOT}/",
        ),
        ("sqlite:////a b/mlflow.db", ROOT, "mlflow ui --port 5000 --backend-store-uri sqlite:////a b/mlflow.db"),
        (
            "postgresql://me:secret@db/runs",
            ROOT,
            "mlflow ui --port 5000 --backend-store-uri postgresql://REDACTED@db/runs",
        ),
        ("http://127.0.0.1:5000", ROOT, ""),
    ],
)
def test_a_sweep_names_the_command_that_shows_its_page_where_it_ran(uri, cwd, shown_by, tmp_path, monkeypatch):
    monkeypatch.chdir(cwd or tmp_path)
    line = track.invitation("http://page", Mlflow(uri, "splitsem", "store")).replace("'", "")  # around a space
    assert line.startswith(f"To compare the jobs ({shown_by}" if shown_by else "To compare the jobs: ")
    assert line.endswith(": http://page")
