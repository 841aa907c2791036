"""A network of two inputs and two outputs, and one with a postprocess, through the real entry point over gRPC."""

import json

import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
PAIRS = (f"--config-dir={EXAMPLES / 'conf'}", "task=my_pairs", "model=my_two_inputs")
SURE = ("task=digits", "model=custom", "model._target_=my_postprocessor.Sure")
FEW = ("workflow.num_samples=12", "workflow.num_timed=4", "workflow.num_probes=4", "workflow.num_paced=6")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("network", "answer", "point"),
    [
        (PAIRS, "task", "look"),
        pytest.param(PAIRS, "raw", "mix", marks=pytest.mark.slow),
        (SURE, "task", "model.2"),
    ],
    ids=["mapping", "all tensors", "postprocess"],
)
def test_structures_cross_a_real_link_and_come_back(network, answer, point, serve_py, run_py, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{EXAMPLES}")
    common = (*network, "trainer.max_epochs=1", "device=cpu", f"cache_dir={tmp_path / 'cache'}", f"answer={answer}")
    address, _ = serve_py(*common, "tracking=none")
    options = [word for word in common if word.startswith("-")]
    rest = [word for word in common if word not in options]
    done = run_py(*options, "workflow=offload", *rest, *FEW, "tracking=none", f"transport.target={address}",
                  "codec=identity", f"split.point={point}", "hydra.run.dir=one")  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert metrics["score"] == metrics["score_unsplit"]
    assert metrics["frames_answered"] > 12
    assert metrics["answer_bytes"] == {"look": 48, "mix": 48, "model.2": 1}[point]
    assert metrics["answer"].startswith("classes" if point == "model.2" else "tensors(['digit'](1, 10) float32")
