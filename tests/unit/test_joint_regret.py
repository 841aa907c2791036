"""What workflow=joint minimises, by the command line: the optimum of its table; and its regret in a measured sweep."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from splitsem.errors import ConfigError
from splitsem.workflows.result import Result
from tests.unit.test_joint_anywhere import run as plainly
from tests.unit.test_workflow_joint_cuts import run

TIMES = ("workflow.times=hardware", "hardware=pi5_datacenter", "transport=wifi")
CODECS = "workflow.codecs=[identity,quant8,quant4,{codec:topk_quant,keep_ratio:[0.1,0.3],bit_width:[4,8]}]"
MODULE = "optimise.objective._target_=splitsem.search.objective"
POWERS = ("+optimise.objective.active_w=6.4", "+optimise.objective.idle_w=2.7")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def chosen(cache: Path, folder: Path, *overrides: str) -> tuple[Result, pd.DataFrame, dict]:
    """The result, the rows that may be chosen with ``kept`` (whether they keep ε), and the file of the choice."""
    result = run(cache, folder, CODECS, *TIMES, "workflow.screening_samples=null", "workflow.margin=0", *overrides)
    rows = pd.read_csv(folder / "rate_accuracy.csv")
    rows = rows[rows["left_out"].isna()]
    found = json.loads((folder / "digits_joint.json").read_text())
    lost = found["accuracy_ref_val"] - rows["score"]
    return result, rows.assign(kept=lost <= found["epsilon"] + 1e-12, lost=lost), found


@pytest.mark.parametrize(
    ("name", "overrides", "value"),
    [
        ("t_eff", ("optimise.objective.omega=0.3",), lambda r: 0.3 * r["latency_s"] + 0.7 * r["cycle_s"]),
        ("latency", ("~optimise.objective.omega",), lambda r: r["latency_s"]),
        ("cycle", ("~optimise.objective.omega",), lambda r: r["cycle_s"]),
        ("energy", ("~optimise.objective.omega", *POWERS), lambda r: 3.7 * r["edge_s"] + 2.7 * r["cycle_s"]),
    ],
)
def test_each_goal_gives_the_optimum_over_cuts_codecs_and_bit_widths(cache, tmp_path, name, overrides, value):
    result, rows, found = chosen(cache, tmp_path / "run", f"{MODULE}.{name}", *overrides)
    least = value(rows[rows["kept"]]).min()
    assert found["best"]["value"] == pytest.approx(least)
    assert rows["codec"].nunique() == 7
    both = ("all on the edge", "all on the server")
    assert all(words in result.headline for words in both)
    assert result.metrics["edge_only_lambda"] == rows["lambda"].max()
    assert result.metrics["server_only_lambda"] == 0


def test_the_best_score_within_a_budget_of_latency_and_pace(cache, tmp_path):
    _, rows, _ = chosen(cache, tmp_path / "all", f"{MODULE}.latency", "~optimise.objective.omega")
    most_s, rate_hz = float(rows["latency_s"].quantile(0.5)), 1 / float(rows["cycle_s"].quantile(0.9))
    budget = (f"workflow.most_latency_s={most_s}", f"workflow.least_rate_hz={rate_hz}", "workflow.least=damage")
    _, rows, found = chosen(cache, tmp_path / "some", *budget)
    allowed = rows[(rows["latency_s"] <= most_s) & (rows["cycle_s"] <= 1 / rate_hz)]
    lost = max(0.0, allowed["lost"].min())
    assert found["best"]["damage"] <= lost
    assert found["best"]["value"] == pytest.approx(allowed.loc[allowed["lost"] <= lost, "value"].min())
    with pytest.raises(
        ConfigError, match=r"no cut and codec keeps workflow\.most_latency_s=1e-09 \(the least is .* with .*\): allow"
    ) as e:
        chosen(cache, tmp_path / "none", "workflow.most_latency_s=1e-9")
    assert "\n" not in str(e.value)


def sweep(folder: Path, rows: pd.DataFrame, factor: np.ndarray | float = 1.0) -> Path:
    """A sweep's table in which everything takes ``factor`` times as long as by the tables of a choice."""
    folder.mkdir(parents=True)
    words = rows["codec"].str.split(" ")
    jobs = pd.DataFrame(
        {
            "split_point": rows["split_point"],
            "codec": words.str[0],
            "codec.keep_ratio": [next((w[11:] for w in each if w.startswith("keep_ratio=")), None) for each in words],
            "codec.bit_width": [next((w[10:] for w in each if w.startswith("bit_width=")), None) for each in words],
            "latency_s": 0.0,
            "measured_latency_s": rows["latency_s"] * factor,
            "measured_latency_low_s": rows["latency_s"] * factor * 0.95,
            "measured_latency_high_s": rows["latency_s"] * factor * 1.05,
            "throughput_hz": 1 / rows["cycle_s"],
            "edge_s": rows["edge_s"],
            "payload_bytes": rows["payload_bytes"],
            "task": "digits",
            "model": "cnn",
        }
    )
    jobs.to_csv(folder / "results.csv", index=False)
    return folder


def test_regret_is_what_the_choice_takes_over_the_best_that_was_measured(cache, tmp_path):
    latency = (f"{MODULE}.latency", "~optimise.objective.omega")
    _, rows, found = chosen(cache, tmp_path / "plain", *latency)
    best = found["best"]
    own = ((rows["split_point"] == best["split_point"]) & (rows["codec"] == best["codec"])).to_numpy()
    kept = rows["kept"] & ~own
    second = rows[kept].sort_values("latency_s").iloc[0]
    same = sweep(tmp_path / "sweeps" / "same", rows)
    result, *_ = chosen(cache, tmp_path / "same", *latency, f"workflow.against={same}")
    assert result.metrics["regret"] == result.metrics["regret_low"] == result.metrics["regret_high"] == 0
    assert result.metrics["num_swept"] == rows["kept"].sum()

    slower = np.where(own, 2 * second["latency_s"] / best["latency_s"], 1.0)  # the choice takes twice the second best
    worse = sweep(tmp_path / "sweeps" / "worse", rows, slower)
    result, *_ = chosen(cache, tmp_path / "worse", *latency, f"workflow.against={worse}")
    assert result.metrics["regret"] == pytest.approx(1.0)
    assert result.metrics["regret_low"] == pytest.approx(2 * 0.95 / 1.05 - 1)
    assert result.metrics["swept_best"].startswith(second["split_point"])
    assert (
        f"regret 100.0% against the best of {rows['kept'].sum()} measured settings that keep the constraint"
        in result.headline
    )
    assert "measured there: " in result.headline
    assert re.search(r"all on the edge [\d.]+ [mµ]?s", result.headline)

    near = sweep(tmp_path / "sweeps" / "near", rows, np.where(own, 1.02 * second["latency_s"] / best["latency_s"], 1.0))
    result, *_ = chosen(cache, tmp_path / "near", *latency, f"workflow.against={near}")
    assert "regret 2.0% (tied) against" in result.headline
    assert ("more cannot be told apart" in result.headline) == (
        (rows[kept]["latency_s"] <= 1.1 * second["latency_s"]).sum() > 1
    )
    result, *_ = chosen(cache, tmp_path / "both", *latency, f"workflow.against=[{same},{worse}]")
    assert result.metrics["regret_low"] <= result.metrics["regret"] <= result.metrics["regret_high"]

    others = sweep(tmp_path / "sweeps" / "others", rows[~own])
    result, *_ = chosen(cache, tmp_path / "others", *latency, f"workflow.against={others}")
    assert f"regret unknown: {others} has no {best['split_point']}" in result.headline
    assert "regret" not in result.metrics


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (None, r"has no results\.csv: give the folder of a sweep of cuts"),
        ("split_point,codec", r"results\.csv has no column latency_s: give a sweep of workflow=split or offload"),
        (
            "split_point,codec,latency_s,throughput_hz,edge_s,payload_bytes,task\ninput,x,1,1,1,1,netqos",
            "is a sweep of task=netqos, not digits",
        ),
        ("", r"results\.csv is no table of a sweep \(No columns to parse"),
        (
            "split_point,codec,latency_s,throughput_hz,edge_s,payload_bytes,task,transport\n"
            "input,x,1,1,1,1,digits,wifi\ninput,x,1,1,1,1,digits,lte",
            r"is a sweep over transport \(wifi, lte\), too: give one of cuts and codecs alone",
        ),
    ],
)
def test_what_is_no_sweep_of_this_network_is_refused_before_anything_is_trained(tmp_path, columns, says):
    if columns is not None:
        (tmp_path / "results.csv").write_text(f"{columns}\n")
    with pytest.raises(ConfigError, match=says) as told:
        run(tmp_path / "cache", tmp_path / "run", f"workflow.against={tmp_path}")
    assert "\n" not in str(told.value)


def test_a_sweep_of_a_network_with_other_settings_is_refused(tmp_path):
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("- model=cnn\n- model.stem_width=4\n- codec=quant8\n")
    columns = "split_point,codec,latency_s,throughput_hz,edge_s,payload_bytes"
    (tmp_path / "results.csv").write_text(f"{columns}\ninput,x,1,1,1,1\n")
    with pytest.raises(ConfigError, match=r"is a sweep of another network: model\.\S+ is of one only"):
        plainly(tmp_path / "cache", tmp_path / "run", "model=cnn", f"workflow.against={tmp_path}")
    (tmp_path / "results.csv").write_text(f"{columns},exit_share\ninput,x,1,1,1,1,0.5\n")
    with pytest.raises(ConfigError, match=r"is a sweep with exit=confidence: give one with exit=none"):
        plainly(tmp_path / "cache", tmp_path / "run", "model=cnn", f"workflow.against={tmp_path}")
    with pytest.raises(ConfigError, match=r"workflow\.against=\[\] names no sweep"):
        run(tmp_path / "cache", tmp_path / "run", "workflow.against=[]")


def test_with_the_least_damage_the_choice_pays_against_settings_that_lose_no_more(cache, tmp_path):
    budget = ("workflow.least=damage", "workflow.most_latency_s=10", f"{MODULE}.latency", "~optimise.objective.omega")
    _, rows, found = chosen(cache, tmp_path / "plain", *budget)
    same = sweep(tmp_path / "sweeps" / "damage", rows)
    result, *_ = chosen(cache, tmp_path / "run", *budget, "workflow.epsilon=1", f"workflow.against={same}")
    assert result.metrics["regret"] == 0
    assert result.metrics["num_swept"] == (rows["lost"] <= max(0.0, found["best"]["damage"])).sum() < len(rows)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("model=repvgg_tiny", "workflow.most_latency_s=1"), "are for networks without branches: give model="),
        (("model=cnn", "hardware.chain=[local,local]", "workflow.against=x"), "is a sweep of two machines: not with"),
    ],
)
def test_budgets_and_sweeps_are_refused_where_nobody_reads_them(tmp_path, overrides, says):
    with pytest.raises(ConfigError, match=says):
        plainly(tmp_path, tmp_path / "run", *overrides)
