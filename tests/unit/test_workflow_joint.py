"""Workflow joint, run in this process on a tiny network and digits: files, what is reused, what is refused."""

import csv
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from splitsem.cost.branch_lut import slowed
from splitsem.cost.hardware_lut import read_branch_lut, write_branch_lut
from splitsem.errors import ConfigError
from splitsem.placement import Placement
from splitsem.search.deployed import DeployedSplit
from splitsem.search.problem import measured_problem
from splitsem.workflows.joint import workflow
from splitsem.workflows.result import Result
from tests.conftest import ROOT
from tests.repvgg_samples import narrow, pictures
from tests.unit.hardware_lut_file import read_hardware_lut

FIXED = (
    "workflow=joint",
    "task=domains",
    "task@task.base=digits",
    "transport=ethernet",
    "trainer.max_epochs=1",
    "trainer.batch_size=16",
    "trainer.limit_train_batches=6",
    "workflow.meter.repeats=3",
    "workflow.rates_s=0.01",
    "workflow.rival.steps=5",
    "model.widths=[4,4,6,8,12]",
    "device=cpu",
)
FILES = {
    "hardware_lut_complete.json",
    "hardware_lut.csv",
    "initial_throughput_config.json",
    "domain_0_joint.json",
    "importance.csv",
    "front.csv",
    "scored.csv",
}


def config(cache: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        given = [*FIXED, f"cache_dir={cache}", *overrides]
        cfg = compose("config", given, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def run(cache: Path, folder: Path, *overrides: str) -> Result:
    folder.mkdir(exist_ok=True)
    return workflow.run(config(cache, *overrides), folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def done(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """All steps."""
    folder = tmp_path_factory.mktemp("run")
    return folder, run(cache, folder)


def test_all_steps_leave_their_files_figures_and_metrics(done):
    folder, result = done
    assert {path.name for path in folder.iterdir()} >= FILES
    names = {"hyper_weights", "importance", "roofline_server", "gamma_map", "accuracy_throughput"}
    assert result.figures.keys() == names
    promised = (
        "accuracy accuracy_ref epsilon slack feasible lambda throughput_hz baseline_throughput_hz "
        "fused_throughput_hz predicted_t_eff_s solver_s optimality_gap"
    )
    assert set(promised.split()) <= result.metrics.keys()
    assert "measured_t_eff_s" not in result.metrics
    json.dumps(result.metrics, allow_nan=False)


def test_what_is_reported_follows_from_the_tables_and_is_never_slower_than_the_baselines(done):
    folder, result = done
    metrics = result.metrics
    problem = measured_problem(read_hardware_lut(folder / "hardware_lut_complete.json"))
    best = json.loads((folder / "domain_0_joint.json").read_text())["best"]
    times = problem.times(best["lambda"], tuple(best["gammas"]))
    assert metrics["throughput_hz"] == pytest.approx(times.throughput_hz)
    assert metrics["predicted_t_eff_s"] == pytest.approx(0.5 * times.latency_s + 0.5 * times.cycle_s)
    rounding = 1 + 1e-9  # one network's times are added up in several orders
    fastest_s, found_s, fused_s = (metrics[f"{name}_t_eff_s"] for name in ("fastest", "predicted", "fused"))
    assert fastest_s <= found_s * rounding
    assert found_s <= fused_s * rounding
    assert metrics["equivalent_t_eff_s"] <= min(metrics["baseline_t_eff_s"], fused_s) * rounding
    assert metrics["optimality_gap"] >= 0


def test_the_constraint_is_judged_on_test_and_the_choice_was_made_on_val(done):
    _, result = done
    metrics = result.metrics
    assert metrics["accuracy_val"] >= metrics["accuracy_ref_val"] - metrics["epsilon"] - 1e-9
    missing = metrics["accuracy_ref"] - metrics["epsilon"] - metrics["accuracy"]
    assert metrics["slack"] == pytest.approx(max(0.0, missing), abs=1e-9)
    assert metrics["feasible"] == (metrics["slack"] == 0)


def test_the_edge_is_this_machine_slowed_and_says_so(done):
    folder, result = done
    lut = read_hardware_lut(folder / "hardware_lut_complete.json")
    assert result.metrics["edge_timing"] == "assumed"
    assert lut.edge.machine["assumed"] == "the times of this machine × 4"
    edge_s, server_s = lut.edge.to_arrays(calibrated=True).time_s, lut.server.to_arrays(calibrated=True).time_s
    assert edge_s[0, 0] == pytest.approx(4 * server_s[0, 0])
    assert slowed(lut.server, 1.0) is lut.server


def test_what_was_done_is_not_done_again(done, cache, tmp_path, caplog):
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*") if path.suffix in (".json", ".safetensors")}
    with caplog.at_level(logging.INFO):
        again = run(cache, tmp_path / "again", "workflow.steps=[lut,throughput,joint,deploy]")
    after = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*") if path.suffix in (".json", ".safetensors")}
    assert after == before
    assert sum("is done already" in line for line in caplog.messages) == 3
    assert again.metrics["accuracy"] == done[1].metrics["accuracy"]
    assert not again.figures


def test_steps_that_need_no_weights_train_nothing(done, cache, tmp_path):
    shutil.copytree(cache / "lut", tmp_path / "cache" / "lut")
    result = run(tmp_path / "cache", tmp_path / "run", "workflow.steps=[lut,throughput]")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "hardware_lut_complete.json",
        "hardware_lut.csv",
        "initial_throughput_config.json",
    }
    assert result.metrics["throughput_hz"] > 0
    assert result.metrics["accuracy"] is None
    assert not (tmp_path / "cache" / "weights").exists()


def test_an_epsilon_that_nothing_meets_is_told_with_the_smallest_slack(done, cache, tmp_path, caplog):
    result = run(cache, tmp_path / "run", "workflow.margin=0.9", "workflow.steps=[joint]", "~workflow.rival")
    found = json.loads((tmp_path / "run" / "domain_0_joint.json").read_text())
    needed = found["accuracy_ref_val"] - 0.02 + 0.9
    assert not found["feasible_val"]
    assert result.metrics["slack_val"] == pytest.approx(needed - max(s["accuracy_val"] for s in found["scored"]))
    assert f"needs ξ = {result.metrics['slack_val']:.4f}" in caplog.text
    assert result.metrics["optimality_gap"] is None


def test_pruned_branches_are_never_chosen(done, cache, tmp_path):
    run(cache, tmp_path / "run", "model.alpha_keep=0.5", "workflow.steps=[joint]")
    chosen = json.loads((tmp_path / "run" / "domain_0_joint.json").read_text())
    damage = [sum(value is not None for value in row) for row in chosen["damage"]]
    whole = [
        sum(v is not None for v in row) for row in json.loads((done[0] / "domain_0_joint.json").read_text())["damage"]
    ]
    assert sum(damage) < sum(whole)


def test_a_lut_of_another_model_or_with_fewer_ways_is_refused(done, cache, tmp_path):
    (path,) = (cache / "lut").glob("*.json")
    given = ("workflow.steps=[lut]", f"workflow.edge_lut={tmp_path}/edge.json")
    lut = read_branch_lut(path)
    write_branch_lut(slowed(lut, 2.0), tmp_path / "edge.json")
    assert run(cache, tmp_path / "run", *given).metrics["edge_timing"] == "assumed"
    with pytest.raises(ConfigError, match="LUT of the model 'repvgg_tiny', not of 'repvgg_a0'"):
        run(cache, tmp_path / "run", *given, "model=repvgg_a0")
    text = json.loads((tmp_path / "edge.json").read_text())
    del text["units"][2]["ways"]["0"], text["calibration"]
    (tmp_path / "edge.json").write_text(json.dumps(text))
    with pytest.raises(ConfigError, match=r"another γ set: unit 'stage1\.1'"):
        run(cache, tmp_path / "run", *given)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("workflow.steps=[lut,jump]", "workflow.steps must be some of train, importance"),
        ("workflow.epsilon=-0.1", "epsilon must be 0…1"),
        ("workflow.num_best=0", "num_best must be at least 1"),
        ("workflow.edge_slowdown=0", "workflow.edge_slowdown: factor must be positive"),
        ("model.gamma=4", "leave model.gamma=null"),
        ("transport=grpc", "needs a simulated link"),
        ("workflow.undisturbed=true", "exclude each other"),
        ("workflow.mode=maybe", "workflow.mode must be"),
        ("workflow.confidence=1", "confidence must be above 0.5 and below 1"),
        ("workflow.trains_split=stage1.0", "trains_split needs workflow.mode=real"),
        ("workflow.mode=real", "needs transport=grpc or transport=udp, got ethernet"),
        ("workflow.times=hardware", "for networks without branches"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(done, cache, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message) as refused:
        run(cache, tmp_path / "run", "workflow.steps=[throughput]", override)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("split_index", [0, 3, 9])
def test_the_modules_that_are_timed_are_those_that_are_scored(split_index):
    hyper = narrow()
    split = DeployedSplit(hyper, [4, 4, 13, 4, 0, 1, 9, 3, 0], split_index, Placement("cpu"))
    units = [*split.head, *split.tail]
    seen: list[int] = []
    for unit in units:
        unit.register_forward_hook(lambda module, *_: seen.append(id(module)))
    with torch.inference_mode():
        output = split(pictures(1))
    scored, seen[:] = list(seen), []
    split.time(pictures(1), repeats=2)
    assert scored == [id(unit) for unit in units]
    assert set(seen) == set(scored)
    assert torch.equal(output, hyper.deploy(split.gammas)(pictures(1)))


def test_the_tables_of_a_run_are_csv_that_others_can_read(done):
    rows = list(csv.DictReader((done[0] / "hardware_lut.csv").read_text().splitlines()))
    assert {row["tier"] for row in rows} == {"edge", "server"}
    assert all(float(row["median_s"]) > 0 for row in rows)


def test_without_a_margin_a_network_keeps_what_its_loss_may_be_off_by_and_the_reference_is_never_forbidden(done):
    found = json.loads((done[0] / "domain_0_joint.json").read_text())
    assert found["feasible_val"]
    lost = found["accuracy_ref_val"] - found["best"]["accuracy_val"]
    assert lost + found["margin"] <= 0.02 + 1e-9
