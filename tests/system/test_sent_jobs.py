"""Sweeps whose jobs submitit runs, as processes here: the same numbers, one training, and each job's own end."""

import os
import signal
import subprocess
import sys
import time

import mlflow
import pandas as pd
import psutil
import pytest

from splitsem.workflows import folders
from tests.conftest import ENVIRONMENT, ROOT, SHRUNK
from tests.page_blocks import blocks, commands

pytestmark = pytest.mark.thorough
pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra slurm is not installed")
SENT = ("experiment=slurm", "hydra/launcher=submitit_local")
TOY = (
    "workflow=points",
    "workflow._target_=tests.unit.toy_job.ends_variously",
    "workflow.objective=[score]",
    "tracking=none",
)


@pytest.mark.slow  # four processes that import torch, three that import MLflow
# MLflow's own store warns of SQLAlchemy 2.1 and leaves its connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_jobs_that_are_sent_train_once_and_find_what_jobs_of_one_process_find(run_py, tmp_path):
    (block,) = (one for one in blocks(ROOT / "docs" / "how-to" / "run-on-slurm.md") if one.test)
    ((_, _, *words),) = commands(block.body)
    assert words[:2] == [*SENT]
    command = (*words[2:], "references={}", *SHRUNK)
    sent = run_py(*SENT, *command)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    here = run_py(*command, "tracking=none", "cache_dir=other", "device.num_threads=1")
    assert here.returncode == 0, here.stdout + here.stderr
    trained = [log for log in tmp_path.glob("multirun/*/*-slurm-*/*/run.log") if "Training" in log.read_text()]
    assert len(trained) == 1
    (theirs,), (ours,) = (list(tmp_path.glob(f"multirun/*/*-{kind}-*/results.csv")) for kind in ("slurm", "split"))
    names = ["codec", "split_point", "status", "score", "score_unsplit", "payload_bytes", "distortion_mse"]
    pd.testing.assert_frame_equal(pd.read_csv(theirs)[names], pd.read_csv(ours)[names])
    assert (theirs.parent / "report.html").exists()
    runs = mlflow.MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow/mlflow.db").search_runs(["1"])
    (parent,) = [run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "score" in run.data.metrics]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent}
    assert {run.data.params["codec"] for run in children} == {"quant4", "quant8"}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_job_that_was_killed_costs_its_own_row_and_is_run_by_the_same_command(run_py, tmp_path):
    done = run_py(*SENT, *TOY, "seed=1,2,3", "-m")
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert "of submitit was killed before it ended: see " in said
    assert "Job 2 failed: three is odd [E-CONFIG]" in said
    (folder,) = tmp_path.glob("multirun/*/*")
    results = pd.read_csv(folder / "results.csv")
    assert results["status"].tolist() == ["unfinished", "ok", "failed"]
    assert said.rstrip().splitlines()[-2] == "stopped after 1 of 3 jobs; the same command goes on"
    assert folders.read(folder).state == "stopped"


def test_a_sweep_that_is_stopped_cancels_the_jobs_that_it_sent(tmp_path):
    sweep = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *SENT, *TOY, "seed=4,5", "-m"],
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (found := list(tmp_path.glob("multirun/*/*/1/pid.txt"))) or not found[0].read_text():
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.05)
    job = psutil.Process(int(found[0].read_text()))
    sweep.send_signal(signal.SIGTERM)  # SIGINT is ignored where the tests run in the background
    said = sweep.communicate(timeout=60)[0]
    assert sweep.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    assert not job.is_running()
    assert folders.read(found[0].parent).state == "stopped"
