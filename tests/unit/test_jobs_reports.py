"""Reports of sweeps whose jobs are compared in one table: joint optimisations and federated runs."""

import base64

import pandas as pd
import pytest

from splitsem.report.federated_figures import federated_report
from splitsem.report.joint_report import joint_report
from splitsem.workflows import summary
from tests.unit.test_plots_report import Tags

EVIL = "<script>alert(1)</script>"
ORIGIN = {"title": EVIL, "command": f"python run.py {EVIL} -m", "details": {"machine": EVIL}}
PNG = b"\x89PNG of no picture"


def joint_results() -> pd.DataFrame:
    """Three domains, of which the second misses ε, and a job that failed."""
    same = {"status": "ok", "task": "domains", "model": "repvgg_tiny", "transport": "wifi", "optimise": "exact"}
    same |= {"epsilon": 0.02, "accuracy_ref": 0.9, "lambda": 4, "split_point": "stage2.0", "gammas": "4 4 13 0"}
    rows = [
        same | {"job": n, "task.domain": str(n), "accuracy": accuracy, "slack": slack, "feasible": slack == 0}
        for n, (accuracy, slack) in enumerate([(0.89, 0.0), (0.87, 0.01), (0.91, 0.0)])
    ]
    results = pd.DataFrame(rows).assign(throughput_hz=[100.0, 120.0, 150.0], optimality_gap=[0.01, None, 0.0])
    results = results.assign(gain_over_baseline=[0.1, 0.2, 0.3], gain_over_fused=[-0.05, 0.0, 0.1])
    failed = {"job": 3, "task.domain": "11", "status": "failed", "error": f"domain must be 0…9\n{EVIL}"}
    return pd.concat([results, pd.DataFrame([failed])], ignore_index=True)


def joint_page(results: pd.DataFrame) -> str:
    pictures = {("", "domains"): PNG, ("0", "gamma_map"): PNG}
    return joint_report(results, [str(n) for n in range((results["status"] == "ok").sum())], pictures, **ORIGIN)


def test_the_joint_page_holds_every_optimum_the_verdict_and_the_failure():
    html = joint_page(joint_results())
    tags = Tags(html)
    assert tags.open == []
    assert EVIL not in html
    texts = tags.texts
    assert {"2 of 3", "0.8700", "1.00", "+10.0 % … +30.0 %", "−5.0 % … +10.0 %"} <= set(texts)
    assert texts.count("4 4 13 0") == 3
    assert ("class", "answer none") in tags.attributes
    assert "task.domain=11" in texts
    assert f"domain must be 0…9 {EVIL}" in texts
    assert "measured" not in texts  # columns without values are left out
    images = [value for name, value in tags.attributes if name == "src"]
    assert images == ["data:image/png;base64," + base64.b64encode(PNG).decode()] * 2


def test_gains_on_the_wire_are_the_ones_told_where_they_were_measured():
    measured = {"measured_gain_over_baseline": 0.5, "measured_gain_over_fused": 0.25, "measured_throughput_hz": 99.0}
    texts = Tags(joint_page(joint_results().iloc[:1].assign(**measured))).texts
    assert "+50.0 %" in texts
    assert "99.0" in texts


def federated_results() -> pd.DataFrame:
    same = {"status": "ok", "task": "digits", "model": "digits", "strategy": "fedavg", "downlink_bytes": 2e5}
    same |= {"round_s": 1.0, "failed_clients": 0, "uplink_raw_bytes": 176000, "rounds": 3}
    runs = [("quant8", 0.9, 27e3), ("quant4", 0.895, 14e3), ("quant1", 0.5, 4e3)]
    rows = [
        same | {"job": n, "codec": codec, "score": score, "uplink_bytes": up, "uplink_compression_ratio": 176e3 / up}
        for n, (codec, score, up) in enumerate(runs)
    ]
    return pd.DataFrame([*rows, {"job": 3, "status": "failed", "codec": "quant2", "error": "a reason"}])


def test_the_federated_page_puts_the_best_run_first_and_names_the_smallest_good_one():
    results = federated_results()
    page = federated_report(results, ["quant8", "quant4", "quant1"], {("", "score_by_update"): PNG}, **ORIGIN)
    tags = Tags(page)
    assert tags.open == []
    texts = tags.texts
    assert [text for text in texts if text in ("0.9000", "0.8950", "0.5000")][-3:] == ["0.9000", "0.8950", "0.5000"]
    assert texts[texts.index("Fewest bytes within 1 point of it") :][:6].count("quant4") == 1
    assert "a reason" in texts


@pytest.mark.parametrize("make", [joint_page, lambda r: federated_report(r, [], {}, **ORIGIN)])
def test_a_sweep_in_which_nothing_ended_well_still_makes_a_page(make):
    results = joint_results().iloc[3:] if make is joint_page else federated_results().iloc[3:]
    assert "Failed jobs" in Tags(make(results)).texts


def test_a_sweeps_end_writes_the_page_with_the_figures_that_its_jobs_left(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "gamma_map.png").write_bytes(PNG)
    results = joint_results().assign(**dict.fromkeys(("baseline_throughput_hz", "fused_throughput_hz"), 90.0))
    results = results.assign(**dict.fromkeys(("predicted_t_eff_s", "baseline_t_eff_s", "fused_t_eff_s"), 0.01))
    results = results.assign(accuracy_ci95=0.02, accuracy_delta=-0.01, accuracy_delta_ci95=0.012, num_samples=96)
    results = results.assign(objective="T_eff = 0.5·latency + 0.5·cycle", objective_value=0.01, latency_s=0.012)
    results = results.assign(domain=results["task.domain"], num_scored=3, accuracy_val=0.9, accuracy_ref_val=0.9)
    monkeypatch.setattr(summary, "gather", lambda folder: results)
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "config.yaml").write_text(
        "workflow: {summary: splitsem.workflows.joint.summary.summarise}\n"
    )
    summary.summarise(tmp_path, 1.0)
    html = (tmp_path / "report.html").read_text()
    assert html.count('<img src="data:image/png') == 2
    assert 'id="gamma_map_1"' in html


def test_the_joint_page_says_agreement_where_there_were_no_labels():
    texts = " ".join(Tags(joint_page(joint_results().assign(score_word="agreement"))).texts)
    assert "The agreement constraint holds on the test split" in texts
    assert "accuracy" not in texts.lower()
