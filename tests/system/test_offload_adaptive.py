"""An offload run that adapts, through the real entry point: each frame has a setting, and its score is that of it."""

import json

import pandas as pd
import pytest

from splitsem.workflows.setting_tables import HOME

SERVED = ("task=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "device=cpu")
RUN = ("workflow=offload", "controller=adaptive", *SERVED, "tracking=none", "hydra.run.dir=run")
FEW = ("workflow.num_samples=20", "workflow.points=[stem,stage1]", "workflow.codecs=[quant8,identity]")


@pytest.fixture
def address(serve_py, trained_cache):
    """Of a server of the same network."""
    return serve_py(*SERVED, f"cache_dir={trained_cache}")[0]


def test_each_frame_of_a_run_that_adapts_has_a_setting_of_those_it_may_take(run_py, address, trained_cache, tmp_path):
    here = (f"cache_dir={trained_cache}", f"transport.target={address}")
    done = run_py(*RUN, *FEW, *here, "workflow.num_adaptive=60", "controller.least_score=0.05")
    assert done.returncode == 0, done.stderr
    assert "switches over 60 frames" in done.stdout
    frames, metrics = pd.read_csv(tmp_path / "run" / "frames.csv"), _metrics(tmp_path)
    offered = {f"{point} {codec}" for point in ("stem", "stage1") for codec in ("quant8", "identity")}
    taken = set(frames["setting"])
    assert len(frames) == metrics["num_frames"] == 60
    assert taken <= {HOME, *offered}, taken
    assert metrics["num_samples"] == 20
    assert metrics["num_switches"] == (frames["setting"] != frames["setting"].shift()).sum() - 1
    assert ((frames["payload_bytes"] > 0) == (frames["setting"] != HOME)).all()
    assert (frames["latency_s"] > 0).all()
    assert metrics["measured_latency_s"] == pytest.approx(frames["latency_s"].mean())
    assert (tmp_path / "run" / "adaptation.png").exists()

    few = run_py(*RUN, *FEW, *here, "workflow.num_adaptive=9", "hydra.run.dir=few", "controller.least_score=0.05")
    assert few.returncode == 0, few.stderr
    found = json.loads((tmp_path / "few" / "metrics.json").read_text())
    assert (found["num_samples"], found["num_frames"]) == (9, 9)
    assert (9 * found["score_unsplit"]) % 1 == pytest.approx(0, abs=1e-9), "of the same nine samples"

    refused = run_py(*RUN, *FEW, *here, "controller.least_score=1.0", "hydra.run.dir=floor")
    assert refused.returncode == 1
    assert "least_score" in refused.stderr
    assert "Traceback" not in refused.stderr


def _metrics(folder):
    return json.loads((folder / "run" / "metrics.json").read_text())
