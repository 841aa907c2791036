"""Drawings: figures that another process draws, and what the folder says until they are there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitsem.workflows import aside, drawing
from splitsem.workflows.drawing import UNDRAWN, Drawing

METRICS = {"score": 0.5, "score_name": "score", "score_unsplit": 0.5, "split_point": "stage2", "payload_bytes": 10.0}
BREAKDOWN = Drawing("splitsem.report.run_figures.run_breakdown", (METRICS,))


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    aside.close()


def test_a_drawing_leaves_the_files_that_its_figure_leaves(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    assert drawing.save_aside({"breakdown": BREAKDOWN.figure()}, here, "screen", ["png", "svg"]) is None
    drawn = drawing.save_aside({"breakdown": BREAKDOWN}, there, "screen", ["png", "svg"])
    assert drawn is not None
    drawn.result()
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (here, there)]
    assert files[0] == files[1]
    assert files[0].keys() == {"breakdown.png", "breakdown.svg", "breakdown.csv"}


def test_a_drawing_that_fails_is_told_and_the_folder_says_why(tmp_path: Path) -> None:
    drawn = drawing.save_aside({"bad": Drawing("math.sqrt", (-1.0,))}, tmp_path, "screen", ["png"])
    assert drawn is not None
    assert (tmp_path / UNDRAWN).exists()
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        drawn.result()
    assert (tmp_path / UNDRAWN).read_text().startswith("ValueError: ")


def test_what_is_settled_is_drawn(tmp_path: Path) -> None:
    drawing.save_aside({"breakdown": BREAKDOWN}, tmp_path, "screen", ["png"])
    aside.settle()
    assert (tmp_path / "breakdown.png").exists()
    assert not (tmp_path / UNDRAWN).exists()


def test_the_process_aside_stays_when_it_gets_ready() -> None:
    before = aside.call(os.getpid).result()
    drawing.get_ready()
    assert aside.call(os.getpid).result() == before


def test_a_job_that_is_drawn_aside_imports_nothing_that_draws() -> None:
    modules = "splitsem.workflows.split, splitsem.workflows.job, splitsem.workflows.gallery"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
