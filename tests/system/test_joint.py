"""Workflow joint through the real entry point: swept over domains, compared at the end."""

import csv
import json
from pathlib import Path

import pytest
from safetensors import safe_open

JOINT = ("workflow=joint", "task=domains", "task@task.base=digits", "transport=ethernet", "tracking=none")
SMALL = ("trainer.max_epochs=1", "trainer.batch_size=16", "trainer.limit_train_batches=4", "model.widths=[4,4,6,8,12]")
SHORT = ("workflow.meter.repeats=3", "workflow.rates_s=0.01", "workflow.rival.steps=5")


def test_a_sweep_over_domains_measures_the_machine_once_and_compares_the_domains(run_py, tmp_path):
    fixed = ("cache_dir=cache", "hydra.sweep.dir=sweep")
    done = run_py(*JOINT, *SMALL, *SHORT, *fixed, "task.domain=0,6", "-m")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "sweep" / "domains.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == ["0", "6"]
    for row, domain in zip(rows, (0, 6), strict=True):
        folder = tmp_path / "sweep" / str(rows.index(row))
        found = json.loads((folder / f"domain_{domain}_joint.json").read_text())
        metrics = json.loads((folder / "metrics.json").read_text())
        assert float(row["accuracy"]) == metrics["accuracy"] == found["deployed"]["accuracy"]
        assert metrics["gain_over_fused"] >= 0 or metrics["predicted_t_eff_s"] <= metrics["fused_t_eff_s"]
        assert (folder / "gamma_map.png").exists()
    assert (tmp_path / "sweep" / "domains.png").exists()
    assert "over all fused" in done.stdout
    assert len(list((tmp_path / "cache" / "lut").glob("*.json"))) == 1
    assert len(list((tmp_path / "cache" / "weights").glob("*.safetensors"))) == 2


def test_cut_and_codec_of_a_network_without_branches_are_chosen_for_several_epsilons_from_one_table(run_py, tmp_path):
    few = ("workflow.codecs=[fp16,quant1]", "workflow.num_samples=30", "workflow.half_s=0.002", "model.widths=[4,4]")
    short = ("trainer.max_epochs=1", "trainer.limit_train_batches=4", "tracking=none", "transport=ble")
    fixed = ("workflow=joint", "task=digits", "model=cnn", "hydra.sweep.dir=sweep", "cache_dir=cache")
    fixed += ("model.inner_widths=null",)  # as many as widths
    done = run_py(*fixed, *few, *short, "workflow.epsilon=0,1", "-m")
    assert done.returncode == 0, done.stderr
    careful, careless = (json.loads((tmp_path / "sweep" / str(job) / "metrics.json").read_text()) for job in (0, 1))
    assert careful["slack_val"] == careless["slack_val"] == 0
    assert careless["predicted_t_eff_s"] <= careful["predicted_t_eff_s"]
    assert "this choice in other workflows: split.point=" in done.stdout
    assert "over one machine alone" in done.stdout
    rows = list(csv.DictReader((tmp_path / "sweep" / "domains.csv").read_text().splitlines()))
    assert [row["codec"] for row in rows] == [careful["codec"], careless["codec"]]
    assert len(list((tmp_path / "cache" / "joint").glob("rates-*.json"))) == 1


@pytest.mark.slow  # fourteen processes, minutes: training, two tables, a server and a device for each network
def test_real_mode_trains_split_and_measures_the_chosen_network_and_both_baselines_on_the_wire(run_py, tmp_path):
    given = ["workflow.mode=real", "transport=grpc", "workflow.num_samples=20", "workflow.num_timed=10"]
    given += ["workflow.num_repeats=1"]
    given += ["workflow.trains_split=stage2.1", "workflow.edge_prefix=[env]"]  # what nothing comes of
    joint = [entry for entry in JOINT if not entry.startswith("transport=")]
    done = run_py(*joint, *SMALL, *SHORT, *given, "hydra.run.dir=run", "cache_dir=cache")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["edge_timing"] == metrics["server_timing"] == "measured"
    assert metrics["wire_accuracy"] == metrics["accuracy"]
    assert metrics["wire_fused_accuracy"] == metrics["accuracy_ref"]
    assert metrics["measured_t_eff_s"] == pytest.approx(
        0.5 * metrics["measured_latency_s"] + 0.5 / metrics["measured_throughput_hz"]
    )
    assert metrics["frames_num_jobs"] >= 8
    assert metrics["frames_edge_base_s"] + metrics["frames_server_base_s"] > 0
    assert len(list((tmp_path / "cache" / "joint").glob("table-*.json"))) == 2
    kept = (tmp_path / "cache" / "weights").glob("*.safetensors")
    (trained,) = (path.name for path in kept if num_epochs(path))  # the server also keeps what training began from
    assert trained.startswith("split-")


def num_epochs(weights: Path) -> int:
    with safe_open(weights, "np") as file:
        return len(json.loads(file.metadata()["history"]))
