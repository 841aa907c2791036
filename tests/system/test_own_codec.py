"""The codec of docs/how-to/add-a-codec.md in every workflow; and codecs that break a promise."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SHRUNK
from tests.system.test_recipes import recipe

Run = Callable[..., subprocess.CompletedProcess[str]]
OWN = ("--config-dir=my_conf", "task=digits", "device=cpu", "tracking=none", *SHRUNK[:2])


@pytest.fixture
def own(tmp_path: Path, trained_cache: Path, run_py: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a workflow with the recipe's codec, part of its text replaced; it leaves its metrics in ``one``."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    files = recipe("codec").files

    def write(old: str = "", new: str = "") -> None:
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text.replace(old, new) if old else text)

    def call(*arguments: str, old: str = "", new: str = "") -> subprocess.CompletedProcess[str]:
        write(old, new)
        return run_py(*OWN, f"cache_dir={trained_cache}", "hydra.run.dir=one", *arguments)

    write()
    return call


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "one" / "metrics.json").read_text())


def test_the_recipe_is_as_short_as_it_says():
    python, yaml = recipe("codec").files.values()
    assert len(python.splitlines()) <= 35
    assert len(python[python.index("class ") :].splitlines()) <= 25
    assert len(yaml.splitlines()) <= 3


@pytest.mark.parametrize(
    "workflow",
    [
        ("workflow=codec", "split.point=stage1", "workflow.num_samples=6"),
        ("workflow=federated", "federated.num_clients=2", "federated.rounds=1"),
        (  # so slow an edge that the choice is to send something
            *("workflow=joint", "model=cnn", "workflow.codecs=[mine]", "workflow.edge_slowdown=1000"),
            *("workflow.half_s=0.02", "workflow.num_samples=6"),
        ),
    ],
    ids=lambda arguments: arguments[0].partition("=")[2],
)
def test_it_works_in_a_workflow(workflow, own, tmp_path):
    chosen = () if workflow[0] == "workflow=joint" else ("codec=mine",)  # joint takes its codecs from a list
    done = own(*workflow, *chosen)
    assert done.returncode == 0, done.stderr
    found = metrics(tmp_path)
    assert found["codec"] == "mine"
    assert found.get("payload_bytes", found.get("uplink_bytes")) > 0


def test_a_server_reads_what_the_edge_sends(own, serve_py, trained_cache, tmp_path):
    address, process = serve_py(*OWN, "codec=mine", f"cache_dir={trained_cache}")
    done = own(
        "codec=mine", f"transport.target={address}", "workflow=offload", "split.point=stage1", "workflow.num_samples=6"
    )
    assert done.returncode == 0, done.stderr
    found = metrics(tmp_path)
    assert found["frames_answered"] >= 6
    assert found["score"] == pytest.approx(found["score_unsplit"], abs=0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("tuple(tensor for", "tuple(tensor.reshape(-1) for", "decode must give back float32[1, "),
        ("load(raw)", "{}[payload]", "decode raised KeyError on undamaged bytes"),
    ],
)
def test_a_broken_promise_is_told_in_one_line_by_the_workflow_that_meets_it(old, new, told, own):
    done = own("workflow=split", "codec=mine", "split.point=stage1", "workflow.num_samples=6", old=old, new=new)
    assert done.returncode == 1
    assert f"MyCodec breaks the contract of a codec: {told}" in done.stderr
    assert "python -m splitsem.check my_package.codec.MyCodec" in done.stderr
    assert "Traceback" not in done.stderr
