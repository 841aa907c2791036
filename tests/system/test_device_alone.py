"""A board: a virtual environment with the wheel of splitsem-device and what it asks for, and nothing else."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from splitsem_device.bundle import Bundle
from tests.conftest import ENVIRONMENT, ROOT

pytestmark = pytest.mark.slow
SETTINGS = ("task=digits", "tracking=none", "trainer.max_epochs=0", "cache_dir=cache", "codec=quant8", "device=cpu")
ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ENVIRONMENT
PIP = ("-m", "pip", "--disable-pip-version-check", "-q")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """The interpreter of the environment."""
    folder = tmp_path_factory.mktemp("board")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    build = [sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder / "dist", ROOT / "device"]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    install = [python, *PIP, "install", "--constraint", ROOT / "constraints.txt", wheel]
    done = subprocess.run(install, env=ALONE, capture_output=True, text=True)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("there is no package index here")
    assert done.returncode == 0, done.stderr
    return python


def test_the_board_has_no_torch_and_runs_a_bundle_against_workflow_serve(board, run_py, serve_py, tmp_path):
    missing = subprocess.run([board, "-c", "import torch"], env=ALONE, capture_output=True, text=True)
    assert missing.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'torch'"
    made = run_py("workflow=bundle", *SETTINGS, "split.point=stage1", "workflow.num_samples=4", "hydra.run.dir=run")
    assert made.returncode == 0, made.stderr
    bundle, program = tmp_path / "run" / "bundle.zip", board.with_name("splitsem-device")

    def device(*words: object) -> str:
        done = subprocess.run([program, *map(str, words)], env=ALONE, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "BAD" not in device("check", bundle, "--exact")
    address, _ = serve_py(*SETTINGS, "transport=grpc")
    device("run", bundle, "--target", address, "--answers", "a.npy", "--json", "r.json")
    facts = Bundle(bundle)
    expected = facts.pieces(facts.facts.samples.answers, facts.facts.samples.answer_bytes)
    assert np.array_equal(np.load(tmp_path / "a.npy"), [[answer[0]] for answer in expected])
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["counters"]["frames_answered"] == 8
    assert report["rss_bytes"] < 110e6
    device("profile", bundle, "--output", "lut.json", "--repeats", "3")
    words = ("split.point=stage1", "hardware=pi5_datacenter", "hardware.edge.lut=lut.json", "workflow.num_samples=4")
    done = run_py("workflow=split", *SETTINGS, *words, "hydra.run.dir=split")
    assert done.returncode == 0, done.stderr
    metrics, lut = (json.loads((tmp_path / name).read_text()) for name in ("split/metrics.json", "lut.json"))
    assert metrics["head_s"] == pytest.approx(lut["points"]["stage1"]["head_s"]["median"])
