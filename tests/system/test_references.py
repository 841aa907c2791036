"""What sweeps compare their cuts with: evaluated once while all that determines it stays, the machine's start too."""

import pandas as pd
import pytest

NETWORK = ("task=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "device=cpu", "tracking=none")
SWEEP = ("split.point=stage1", "workflow.num_samples=40", "workflow.gallery=0", "-m")
WEBP = ("references.webp.quality=[50]", *(f"~references.{name}" for name in ("pixels", "png", "jpeg", "webp_lossless")))
SAID = "were evaluated at"


@pytest.fixture
def swept(run_py, trained_cache, tmp_path):
    def sweep(name: str, *more: str) -> tuple[pd.DataFrame, str]:
        done = run_py(*NETWORK, *SWEEP, *WEBP, f"cache_dir={trained_cache}", f"hydra.sweep.dir={name}", *more)
        assert done.returncode == 0, done.stderr
        found = pd.read_csv(tmp_path / name / "results.csv")
        return found[found["reference"].notna()].set_index("reference"), done.stdout + done.stderr

    return sweep


def test_a_later_sweep_takes_them(swept):
    first, said = swept("first")
    assert SAID not in said
    assert set(first.index) == {"all_on_edge", "webp"}
    again, said = swept("again")
    assert SAID in said
    pd.testing.assert_series_equal(first.loc["all_on_edge"], again.loc["all_on_edge"])  # nothing of it was timed
    for exact in ("score", "score_val", "payload_bytes", "link_s"):
        assert first.loc["webp", exact] == again.loc["webp", exact]
