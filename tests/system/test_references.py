"""What sweeps compare their cuts with: evaluated once while all that determines it stays, the machine's start too."""

import pandas as pd
import pytest

NETWORK = ("task=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "device=cpu", "tracking=none")
SWEEP = ("split.point=stage1", "workflow.num_samples=40", "workflow.gallery=0", "-m")
WEBP = "references={webp: {quality: [50]}}"
SAID = "were evaluated at"


@pytest.fixture
def swept(run_py, trained_cache, tmp_path):
    def sweep(name: str, *more: str) -> tuple[pd.DataFrame, str]:
        done = run_py(*NETWORK, *SWEEP, WEBP, f"cache_dir={trained_cache}", f"hydra.sweep.dir={name}", *more)
        assert done.returncode == 0, done.stderr
        found = pd.read_csv(tmp_path / name / "results.csv")
        return found[found["reference"].notna()].set_index("reference"), done.stdout + done.stderr

    return sweep


def test_a_later_sweep_takes_them_unless_something_has_changed(swept, trained_cache):
    first, said = swept("first")
    assert SAID not in said
    again, said = swept("again")
    assert f"References: {len(first)} {SAID}" in said
    pd.testing.assert_frame_equal(first, again)
    other, said = swept("other", "transport=lte")
    assert SAID not in said
    assert (other["link_s"] != first["link_s"]).any()
    assert other["score"].equals(first["score"])
    assert SAID not in swept("anew", "workflow.keep_references=false")[1]
    for path in (trained_cache / "references").glob("webp-*.npz"):
        path.write_bytes(path.read_bytes()[:-100])
    mended, said = swept("mended")
    assert "is damaged" in said
    assert mended["score"].equals(first["score"])
