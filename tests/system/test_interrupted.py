"""Sweeps that are stopped or killed go on where they were; those of the same second do not meet."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest

from splitsem.workflows import folders
from tests.conftest import ENVIRONMENT, ROOT

TOY = ("workflow=points", "workflow._target_=tests.unit.toy_job.counted", "workflow.objective=[score]")
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *TOY, *arguments, "-m"],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_done(sweep: subprocess.Popen[str], folder: Path, num_jobs: int) -> None:
    """Wait until so many jobs have results, whichever process has found them."""
    while len(list(folder.glob("multirun/*/*/*/metrics.json"))) < num_jobs:
        try:
            sweep.wait(0.01)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(sweep.communicate()[0])


@pytest.mark.thorough
# MLflow's own store warns of SQLAlchemy 2.1 and leaves its connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("num_jobs", "stops"),
    [
        (6, [(3, TERM)]),
        pytest.param(20, [(4, KILL), (9, TERM), (15, INT)], marks=pytest.mark.slow),
        pytest.param(20, [(1, INT), (2, KILL), (19, TERM)], marks=pytest.mark.slow),
    ],
)
def test_the_same_command_goes_on_with_a_sweep_that_was_stopped(num_jobs, stops, tmp_path):
    command = (f"seed=range(0,{num_jobs})", "trainer.batch_size=7")
    for after, number in stops:
        sweep = start(tmp_path, *command)
        until_done(sweep, tmp_path, after)
        sweep.send_signal(number)
        said = sweep.communicate(timeout=120)[0]
        assert "Traceback" not in said
        if number == KILL:
            assert sweep.returncode == -KILL
            continue
        assert sweep.returncode == 128 + number
        done = len(list(tmp_path.glob("multirun/*/*/*/metrics.json")))
        last = f"stopped by {number.name} after {done} of {num_jobs} jobs; the same command goes on"
        assert said.rstrip().splitlines()[-1] == last
        (table,) = tmp_path.glob("multirun/*/*/results.csv")
        assert pd.read_csv(table)["status"].value_counts()["ok"] == done
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow/mlflow.db")
        assert {run.info.status for run in client.search_runs(["1"])} <= {"FINISHED", "KILLED"}
        assert "KILLED" in {run.info.status for run in client.search_runs(["1"]) if "num_jobs" not in run.data.params}
    last_one = start(tmp_path, *command)
    said = last_one.communicate(timeout=120)[0]
    assert last_one.returncode == 0, said
    assert "Going on with the sweep in" in said
    assert "resume=false starts anew" in said
    assert sorted(map(int, (tmp_path / "evaluated.txt").read_text().split())) == list(range(num_jobs))
    (folder,) = tmp_path.glob("multirun/*/*")
    results = pd.read_csv(folder / "results.csv")
    assert results["score"].tolist() == [seed / 10 for seed in range(num_jobs)]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow/mlflow.db")
    runs = client.search_runs(["1"])
    (parent,) = [run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(runs) == num_jobs + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags.get("mlflow.parentRunId", parent) for run in runs} == {parent}


@pytest.mark.thorough
def test_sweeps_and_runs_of_one_second_have_folders_of_their_own_and_a_finished_one_is_not_gone_on_with(tmp_path):
    """The folders' names hold no seconds here, so that all of them meet."""
    place = "hydra.sweep.dir='multirun/${now:%Y}/sweep'"
    first = [start(tmp_path, "tracking=none", place, f"seed={seed},{seed + 1}") for seed in (0, 10, 20)]
    said = [sweep.communicate(timeout=120)[0] for sweep in first]
    assert [sweep.returncode for sweep in first] == [0] * 3, said
    again = start(tmp_path, "tracking=none", place, "seed=0,1")
    told = again.communicate(timeout=120)[0]
    assert again.returncode == 0, told
    found = {tuple(pd.read_csv(path)["score"]) for path in tmp_path.glob("multirun/*/*/results.csv")}
    assert found == {(0.0, 0.1), (1.0, 1.1), (2.0, 2.1)}
    assert {path.name for path in tmp_path.glob("multirun/*/*")} == {"sweep", "sweep-2", "sweep-3", "sweep-4"}


def test_jobs_that_would_share_a_folder_are_refused(run_py):
    done = run_py(*TOY, "tracking=none", "hydra.sweep.subdir=one", "seed=0,1", "-m")
    assert done.returncode == 1
    line = "hydra.sweep.subdir must be ${hydra.job.num}, a folder for each job, got one"
    assert done.stderr.strip() == f"{line} [E-CONFIG]"


@pytest.mark.thorough
def test_a_disk_that_fills_ends_a_sweep_in_one_line_and_the_same_command_goes_on(tmp_path):
    """The results' disk is one of a megabyte, and job 1 writes more; then there is room."""
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("needs a mount namespace of its own")
    (tmp_path / "multirun").mkdir()
    toy = "workflow=points workflow._target_=tests.unit.toy_job.fills workflow.objective=[score] tracking=none"
    run = f"{shlex.join([sys.executable, str(ROOT / 'run.py')])} {toy} seed=1,2,3 -m"
    small, large = "mount -t tmpfs -o size=1m none multirun", "mount -o remount,size=64m multirun"
    script = f"{small} && ({run}; echo $? > status; cp -r multirun first; {large}; {run}; cp -r multirun second)"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert (tmp_path / "status").read_text() == "1\n"
    (folder,) = tmp_path.glob("first/*/*")
    place = f"{tmp_path / 'multirun' / folder.parent.name / folder.name}"
    line = (
        f"No space left on device in {place}: make room, and give the same command again; what there is lies in {place}"
    )
    assert f"{line} [E-FOLDER]" in said
    assert folders.metrics(folder / "0") == {"score": 0.1}
    assert [folders.read(place).state for place in (folder, folder / "0", folder / "1")] == ["stopped", "ok", "failed"]
    (folder,) = tmp_path.glob("second/*/*")
    assert pd.read_csv(folder / "results.csv")["score"].tolist() == [0.1, 0.2, 0.3]
    assert folders.read(folder).state == "ok"


@pytest.mark.thorough
def test_the_workers_of_a_sweep_that_was_killed_end_too(tmp_path):
    sweep = start(tmp_path, "experiment=parallel", "hydra.launcher.n_jobs=2", "tracking=none", "seed=range(0,6)")
    until_done(sweep, tmp_path, 1)
    others = psutil.Process(sweep.pid).children(recursive=True)
    assert any("loky" in word for other in others for word in other.cmdline())
    sweep.kill()
    sweep.wait()
    _, left = psutil.wait_procs(others, timeout=20)  # joblib's own wait for minutes
    assert left == []
    sweep.stdout.close()


@pytest.mark.thorough
def test_a_sweep_whose_worker_is_killed_before_any_job_goes_on(tmp_path):
    """One line says why; the sweep is not over, and has nothing to compare."""
    command = ("experiment=parallel", "hydra.launcher.n_jobs=2", "seed=1,2")
    sweep = start(tmp_path, *command)
    killed = False
    while not killed and sweep.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            sweep.wait(0.01)
        with contextlib.suppress(psutil.NoSuchProcess):  # others end meanwhile
            for child in psutil.Process(sweep.pid).children():
                if any("popen_loky" in word for word in child.cmdline()):
                    child.kill()
                    killed = True
    said = sweep.communicate(timeout=120)[0]
    assert sweep.returncode == 1
    assert "a worker of the sweep was killed" in said
    assert said.count("the same command goes on") == 1
    assert "Traceback" not in said
    assert "To compare the jobs" not in said
    (folder,) = tmp_path.glob("multirun/*/*")
    assert not folders.jobs(folder)
    assert folders.read(folder).state == "stopped"
    assert "Going on with the sweep" in start(tmp_path, *command).communicate(timeout=120)[0]
    assert folders.read(folder).state == "ok"
