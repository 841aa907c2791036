"""Sweeps in other ways: parallel jobs, a multi-objective search, a sweep that was killed."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from tests.conftest import ENVIRONMENT, ROOT, SHRUNK


@pytest.mark.thorough
def test_parallel_jobs_give_the_same_results_as_one_after_the_other(run_py, trained_cache, tmp_path):
    shared = (*SHRUNK, f"cache_dir={trained_cache}", "split.point=stage1,stage2,output")
    alone = run_py(*shared, "tracking=none", "hydra.sweep.dir=alone", "device.num_threads=1", "-m")
    together = run_py(*shared, "experiment=parallel", "hydra.sweep.dir=together", "-m", SPLITSEM_JOBS="2")
    assert (alone.returncode, together.returncode) == (0, 0), together.stderr
    one, two = (pd.read_csv(tmp_path / name / "results.csv") for name in ("alone", "together"))
    same = ["split_point", "score", "payload_bytes", "link_s", "head_s", "score_val", "distortion_mse"]
    pd.testing.assert_frame_equal(one[same], two[same])


@pytest.mark.thorough
def test_optuna_searches_score_and_throughput_together(run_py, trained_cache, tmp_path):
    done = run_py(
        "experiment=pareto", "hydra.sweeper.n_trials=4", "hydra.sweep.dir=sweep", *SHRUNK,
        f"cache_dir={trained_cache}", "tracking=none", "-m",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = (tmp_path / "sweep" / "optimization_results.yaml").read_text()
    assert "solutions" in found
    results = pd.read_csv(tmp_path / "sweep" / "results.csv")
    assert (results["reference"].isna()).sum() == 4


@pytest.mark.thorough
def test_a_killed_sweep_started_again_trains_nothing_twice(run_py, tmp_path):
    arguments = [*SHRUNK, "cache_dir=cache", "tracking=none", "hydra.sweep.dir=sweep", "-m"]
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    with (tmp_path / "log").open("w") as log:
        sweep = subprocess.Popen(command, cwd=tmp_path, env=os.environ | ENVIRONMENT, stdout=log, stderr=log)
    first = tmp_path / "sweep" / "0" / "metrics.json"
    deadline = time.monotonic() + 120
    while not first.exists():
        assert sweep.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        os.sched_yield()
    sweep.send_signal(signal.SIGKILL)
    sweep.wait(30)
    again = run_py(*arguments)
    assert again.returncode == 0, again.stderr
    assert "Training" not in again.stdout + again.stderr
    assert (pd.read_csv(tmp_path / "sweep" / "results.csv")["status"] == "ok").all()
