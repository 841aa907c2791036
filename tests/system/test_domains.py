"""Task domains through the real entry point: swept, trained once each, drawn, and refused in one line."""

import csv
import json

from tests.conftest import SHRUNK

DIGITS = ("task=domains", "task@task.base=digits", "tracking=none")


def test_a_sweep_over_domains_trains_and_scores_each_by_itself(run_py, tmp_path):
    fixed = ("workflow=train", *SHRUNK, "workflow.num_samples=null", "trainer.batch_size=32", "cache_dir=cache")
    done = run_py(*DIGITS, *fixed, "task.domain=0,6", "hydra.sweep.dir=sweep", "-m")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "sweep" / "results.csv").read_text().splitlines()))
    assert [row["task.domain"] for row in rows] == ["0", "6"]
    assert len(list((tmp_path / "cache" / "weights").glob("*.safetensors"))) == 2


def test_domains_are_drawn_without_training(run_py, tmp_path):
    done = run_py(*DIGITS, "workflow=domains", "partition@task.partition=dirichlet", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["num_domains"] == 10
    assert metrics["num_train_least"] >= 10
    assert (tmp_path / "run" / "domains.png").exists()
    assert (tmp_path / "run" / "partition.png").exists()
    assert not (tmp_path / ".cache").exists()
