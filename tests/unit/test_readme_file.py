"""The folder of a run explains itself a week later."""

import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from splitsem.workflows import readme_file

RUN = f"python {shlex.quote(str(Path(__file__).parents[2] / 'run.py'))}"


@pytest.fixture(autouse=True)
def no_parts_elsewhere(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)


def test_a_runs_folder_says_how_it_came_to_be_and_what_its_files_are(tmp_path):
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(["task=digits", "codec=quant8", "split.point='[a,b]'"], tmp_path / ".hydra" / "overrides.yaml")
    for name in ("metrics.json", "gallery.png", "odd.bin"):
        (tmp_path / name).touch()
    readme_file.write(tmp_path, "stage1: score 0.9", coming=["breakdown.png", "own.png"])
    text = (tmp_path / "README.txt").read_text()
    assert f"To run again: {RUN} task=digits codec=quant8 \"split.point='[a,b]'\"\n" in text
    assert "stage1: score 0.9" in text
    assert "metrics.json              all metrics" in text
    assert "gallery.png               the samples on which" in text
    assert "breakdown.png             where the time" in text
    assert "own.png                   a figure" in text
    assert "odd.bin" not in text
    assert "workflow=report" not in text


def test_a_sweeps_folder_says_how_to_draw_it_again(tmp_path):
    OmegaConf.save({"hydra": {"overrides": {"task": ["codec=quant2,quant8"]}}}, tmp_path / "multirun.yaml")
    for number in range(2):
        (tmp_path / str(number)).mkdir()
    for name in ("results.csv", "accuracy_throughput.png"):
        (tmp_path / name).touch()
    readme_file.write(tmp_path, "the table\n")
    text = (tmp_path / "README.txt").read_text()
    assert f"To run again: {RUN} codec=quant2,quant8 -m" in text
    assert "the legend names each mark" in text
    assert "crosses" not in text, "each reference has a marker of its own"
    assert f"{RUN} workflow=report {tmp_path}" in text
    assert "0 … 1                     a folder a job" in text


def test_what_a_summary_wrote_into_the_same_folder_stays(tmp_path):
    (tmp_path / "README.txt").write_text("of the summary")
    readme_file.write(tmp_path, "of the job")
    assert (tmp_path / "README.txt").read_text() == "of the summary"
