"""Kept sweeps are redrawn and joined without running a job; the kept folders stay as they are."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from splitsem.errors import ConfigError
from splitsem.report import results as rs
from splitsem.workflows import redraw
from splitsem.workflows.result import DRAWS
from splitsem.workflows.startup import flags_last, folders_named
from splitsem.workflows.summary import gather
from tests.unit.sample_results import complete_results

POINTS = ("input", "pool1", "output")
SUMMARY = "splitsem.workflows.split_summary.summarise"


def kept(folder: Path, codec: str, workflow: str = "splitsem.workflows.split.run", seed: int = 0) -> Path:
    """The folder of a sweep, with a reference."""
    results = complete_results(POINTS, (codec,), seed=seed)
    drawn = results[results["reference"].isna()]
    settings = {"workflow": {"_target_": workflow, "summary": SUMMARY, "sensitivity": False}, "seed": 0}
    for number, row in enumerate(drawn.to_dict("records")):
        job = folder / str(number)
        (job / ".hydra").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(settings), job / ".hydra" / "config.yaml")
        OmegaConf.save(
            OmegaConf.create([f"split.point={row['split_point']}", f"codec={codec}"]), job / ".hydra" / "overrides.yaml"
        )
        np.savez(job / DRAWS, val=row.pop("draws_val"))
        (job / "metrics.json").write_text(json.dumps({k: v for k, v in row.items() if v is not None and v == v}))
    (folder / "references").mkdir()
    row = results[results["reference"].eq("pixels")].drop(columns="draws_val").iloc[0].dropna().to_dict()
    (folder / "references" / "key-pixels.json").write_text(json.dumps(row))
    OmegaConf.save(OmegaConf.create({"hydra": {"overrides": {"task": [f"codec={codec}"]}}}), folder / "multirun.yaml")
    return folder


def report(tmp_path: Path, *sources: Path):
    (folder := tmp_path / "report").mkdir()
    return folder, redraw.run(OmegaConf.create({"folders": [str(source) for source in sources]}), folder)


def state(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_kept_sweep_is_drawn_again_elsewhere_and_stays_as_it_is(tmp_path):
    source = kept(tmp_path / "day" / "first", "quant8")
    before = state(source)
    folder, result = report(tmp_path, source)
    assert result.metrics == {"num_sweeps": 1, "num_jobs": 3}
    expected = {"results.csv", "report.html", "rate_accuracy.png", "rate_accuracy.csv", "table.tex", "table.md"}
    assert expected <= {path.name for path in folder.iterdir()}
    page = (folder / "report.html").read_text()
    assert "codec=quant8" in page
    assert "<h1>quant8</h1>" in page
    assert state(source) == before


def test_a_joined_table_says_whose_each_row_is_and_has_each_reference_once(tmp_path):
    sources = [kept(tmp_path / "day" / name, codec) for name, codec in (("first", "quant8"), ("second", "quant4"))]
    folder, result = report(tmp_path, *sources)
    assert result.metrics == {"num_sweeps": 2, "num_jobs": 6}
    assert "<h1>2 sweeps joined: quant8 | quant4</h1>" in (folder / "report.html").read_text()
    table = pd.read_csv(folder / "results.csv")
    jobs = table[table["reference"].isna()]
    assert jobs.groupby("sweep")["codec"].unique().map(list).to_dict() == {
        "day/first": ["quant8"],
        "day/second": ["quant4"],
    }
    assert jobs["job"].is_unique
    assert len(table) == 7
    assert sorted(rs.splits(rs.prepare(table))["series"].unique()) == ["quant4", "quant8"]


def test_the_same_settings_in_two_sweeps_are_two_series(tmp_path):
    folder, _ = report(tmp_path, *(kept(tmp_path / "day" / n, "quant8", seed=i) for i, n in enumerate("ab")))
    frame = rs.prepare(gather(folder))
    assert sorted(rs.splits(frame)["series"].unique()) == ["sweep a", "sweep b"]
    assert len(rs.splits(frame)) == 5  # nothing is sent at the output, which so is one row


def test_a_report_can_be_joined_further(tmp_path):
    folder, _ = report(tmp_path, kept(tmp_path / "day" / "first", "quant8"))
    (tmp_path / "more").mkdir()
    _, result = report(tmp_path / "more", folder, kept(tmp_path / "day" / "second", "quant4"))
    assert result.metrics["num_jobs"] == 6


def test_what_cannot_be_reported_is_told_in_one_line(tmp_path):
    split, joint = (
        kept(tmp_path / "a", "quant8"),
        kept(tmp_path / "b", "quant8", "splitsem.workflows.joint.workflow.run"),
    )
    with pytest.raises(ConfigError, match="one by one"):
        report(tmp_path, split, joint)
    with pytest.raises(ConfigError, match="holds no jobs of a sweep"):
        redraw.run(OmegaConf.create({"folders": [str(tmp_path / "nowhere")]}), tmp_path)
    with pytest.raises(ConfigError, match="needs the folder of a sweep"):
        redraw.run(OmegaConf.create({"folders": []}), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["workflow=report", "a", "b"], ["workflow=report", "folders=[a,b]"]),
        (["workflow=report", "it's"], ["workflow=report", r"folders=['it\'s']"]),
        (["workflow=report", "folders=[a]", "-cd", "mine"], ["workflow=report", "folders=[a]", "-cd", "mine"]),
        (["task=digits", "stray"], ["task=digits", "stray"]),
    ],
)
def test_folders_need_no_name_on_the_command_line(arguments, expected):
    assert folders_named(arguments) == expected


def test_a_folder_whose_name_has_an_equals_sign_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o=p").mkdir()
    assert folders_named(["workflow=report", "o=p", "a=b"]) == ["workflow=report", "a=b", "folders=['o=p']"]
    assert flags_last(["-m", "--config-dir", "o=p", "a=b"]) == ["a=b", "-m", "--config-dir", "o=p"]
