"""The main job through the real entry point: every contract on runs and sweeps, shrunk."""

import json
import math
import re

import mlflow
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import SHRUNK

CONTRACT = [
    "score",
    "score_unsplit",
    "split_point",
    "split_index",
    "raw_bytes",
    "payload_bytes",
    "input_bytes",
    "compression_ratio",
    "edge_s",
    "head_s",
    "encode_s",
    "link_s",
    "link_busy_s",
    "link_delay_s",
    "server_s",
    "decode_s",
    "tail_s",
    "answer_bytes",
    "answer_s",
    "latency_s",
    "cycle_s",
    "throughput_hz",
    "energy_j",
    "distortion_mse",
    "score_ci95",
    "score_delta",
    "score_delta_ci95",
    "score_val",
]
CODING = ("encode_s", "decode_s", "answer_encode_s", "answer_decode_s")  # measured
TIMINGS = (
    *CODING,
    "evaluation_s",
    "edge_s",
    "server_s",
    "latency_s",
    "cycle_s",
    "throughput_hz",
    "energy_j",
    "edge_j",
    "idle_j",
    "encode_s_ci95",
    "decode_s_ci95",
    "coding_drift",
)
PLOTS = ("accuracy_throughput.png", "latency_breakdown.png", "rate_accuracy.png")


@pytest.fixture
def cache(trained_cache):
    return f"cache_dir={trained_cache}"


def metrics_of(folder) -> dict:
    return json.loads((folder / "metrics.json").read_text())


# MLflow's own store warns of SQLAlchemy 2.1 and leaves its connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_bare_multirun_sweeps_every_split_point_and_leaves_results(run_py_anew, cache, tmp_path):
    done = run_py_anew("task=disaster", "codec=quant8", *SHRUNK, cache, "hydra.sweep.dir=sweep", "-m")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "sweep"
    *_, page, compared = done.stdout.rstrip().splitlines()
    assert page.endswith("report.html")
    assert compared.startswith("To compare the jobs (mlflow ui --port 5000 --backend-store-uri sqlite:///")
    results = pd.read_csv(folder / "results.csv")
    jobs = results[results["reference"].isna()]
    assert jobs["split_point"].iloc[0] == "input"
    assert jobs["split_point"].iloc[-1] == "output"
    assert jobs["split_index"].tolist() == list(range(len(jobs)))
    baselines = results["reference"].value_counts().to_dict()
    assert baselines == {"all_on_edge": 1, "pixels": 1, "png": 1, "webp_lossless": 1, "jpeg": 5, "webp": 5}
    assert (results["status"] == "ok").all()
    for plot in PLOTS:
        assert Image.open(folder / plot).size[0] > 600
    page = (folder / "report.html").read_text()
    assert len(page.encode()) < 1e6
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)  # it opens without a network
    assert (results.loc[results["payload_bytes"] > 0, "latency_s_ci95"] > 0).all()
    assert f"To run again: cd {tmp_path} && " in (folder / "README.txt").read_text()
    assert all(point in page for point in jobs["split_point"])

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("splitsem")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run not in parents and not run.info.run_name.startswith("training")]
    assert len(parents) == 1
    assert len(children) == len(jobs)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    child = next(run for run in children if run.data.params["split_point"] == "input")
    on_disk = metrics_of(folder / "0")
    assert child.data.metrics["payload_bytes"] == on_disk["payload_bytes"]
    assert child.data.params["codec.bit_width"] == "8"
    assert "version.torch" in child.data.tags
    assert "metrics.json" in {item.path for item in client.list_artifacts(child.info.run_id)}
    assert "report.html" in {item.path for item in client.list_artifacts(parents[0].info.run_id)}


def test_a_single_run_keeps_the_contract_of_its_folder(run_py, cache, tmp_path):
    done = run_py("split.point=stage2", *SHRUNK, cache, "hydra.run.dir=one")
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path / "one")
    assert set(CONTRACT) <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values() if not isinstance(value, str))
    whole = ("edge_s", "link_s", "server_s", "answer_s")
    busy = ("edge_s", "link_busy_s", "server_s", "answer_busy_s")
    assert metrics["latency_s"] == pytest.approx(sum(metrics[name] for name in whole))
    assert metrics["cycle_s"] == max(metrics[name] for name in busy)
    assert metrics["throughput_hz"] == pytest.approx(1 / metrics["cycle_s"])
    assert metrics["compression_ratio"] == pytest.approx(metrics["raw_bytes"] / metrics["payload_bytes"])
    assert metrics["energy_source"] == "estimated"
    assert (tmp_path / "one" / ".hydra" / "overrides.yaml").exists()
    assert (tmp_path / "one" / "breakdown.png").exists()
    assert (tmp_path / "one" / "gallery.png").exists()


def test_identity_scores_exactly_as_the_uncut_network_at_every_point_that_lambda_numbers(run_py, cache, tmp_path):
    every = "split.index=range(0,9)"
    done = run_py("codec=identity", every, *SHRUNK, cache, "tracking=none", "hydra.sweep.dir=sweep", "-m")
    assert done.returncode == 0, done.stderr
    results = pd.read_csv(tmp_path / "sweep" / "results.csv")
    jobs = results[results["reference"].isna()]
    assert jobs["split_index"].tolist() == list(range(9))
    assert jobs["split_point"].iloc[0] == "input"
    assert jobs["split_point"].iloc[-1] == "output"
    assert (jobs["score"] == jobs["score_unsplit"]).all()
    assert (jobs["distortion_mse"] == 0).all()


def test_equal_settings_give_equal_metrics(run_py, tmp_path):
    for name in ("one", "two"):
        done = run_py(
            "split.point=stage1", *SHRUNK, f"cache_dir={name}-cache", "tracking=none", f"hydra.run.dir={name}"
        )
        assert done.returncode == 0, done.stderr
        assert "Training" in done.stdout + done.stderr
    one, two = (metrics_of(tmp_path / name) for name in ("one", "two"))
    assert {k: v for k, v in one.items() if k not in TIMINGS} == {k: v for k, v in two.items() if k not in TIMINGS}


def test_a_failing_job_is_a_row_and_the_others_go_on(run_py, cache, tmp_path):
    done = run_py("split.point=stage1,nosuch,stage2", *SHRUNK, cache, "tracking=none", "hydra.sweep.dir=sweep", "-m")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    results = pd.read_csv(tmp_path / "sweep" / "results.csv")
    jobs = results[results["reference"].isna()]
    assert jobs["status"].tolist() == ["ok", "failed", "ok"]
    assert "nosuch" in jobs["error"].iloc[1]
    assert (tmp_path / "sweep" / "report.html").exists()

    kept = (tmp_path / "sweep" / "results.csv").read_bytes()
    other = run_py("split.point=stage1,stage3,stage2", *SHRUNK, cache, "tracking=none", "hydra.sweep.dir=sweep", "-m")
    assert other.returncode == 1
    assert other.stderr.strip().count("\n") == 0
    assert "sweep holds another run, which is kept" in other.stderr
    assert (tmp_path / "sweep" / "results.csv").read_bytes() == kept


def test_an_unreachable_tracking_server_is_said_and_the_results_are_kept(run_py, cache, tmp_path):
    done = run_py("split.point=stage1", *SHRUNK, cache, "tracking.uri=http://127.0.0.1:9", "hydra.run.dir=one")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert f"`python run.py workflow=track folder={tmp_path}/one`" in done.stdout.splitlines()[-1]
    assert metrics_of(tmp_path / "one")["split_point"] == "stage1"
    assert not (tmp_path / "one" / "error.txt").exists()


def test_a_corrupt_cached_weight_file_is_trained_again_and_said(run_py, tmp_path):
    arguments = ("split.point=stage1", *SHRUNK, "cache_dir=cache", "tracking=none")
    assert run_py(*arguments).returncode == 0
    (weights,) = (tmp_path / "cache" / "weights").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    again = run_py(*arguments)
    assert again.returncode == 0, again.stderr
    assert "Made again: weights file" in again.stdout + again.stderr
    third = run_py(*arguments)
    assert "Training" not in third.stdout + third.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("answer.at=cloud", "answer.at must be one of edge, server, got 'cloud'"),
        ("hardware.edge.coding_bytes_per_s=null", "run python -m splitsem.cost.coding_rate there"),
        ("transport.duty_cycle=0", "duty_cycle must be above 0 and at most 1, got 0"),
    ],
)
def test_what_is_wrong_is_told_before_a_training(run_py, tmp_path, setting, said):
    done = run_py("split.point=stage1", setting, "tracking=none", f"cache_dir={tmp_path}/empty")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Training" not in done.stdout + done.stderr
