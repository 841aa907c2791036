"""A split over a channel that damages bits, through the real entry point."""

import json

from tests.conftest import SHRUNK

QUICK = (*SHRUNK, "task=digits", "split.point=stage1", "tracking=none", "hydra.run.dir=run")


def test_a_run_over_a_channel_reports_errors_intervals_and_the_clean_score(run_py, tmp_path, trained_cache):
    done = run_py("codec=fixed", "transport=bsc", "transport.channel.ber=0.05", *QUICK, f"cache_dir={trained_cache}")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    bits = metrics["channel_seeds"] * metrics["num_samples"] * 8 * metrics["wire_bytes"]
    assert abs(metrics["ber"] - 0.05) < 4 * (0.05 * 0.95 / bits) ** 0.5
    assert 0 < metrics["bit_errors"] < 8 * metrics["payload_bytes"]
    assert metrics["wire_bytes"] > metrics["payload_bytes"]
    assert metrics["snr_db"] < 2
    assert {"score_clean", "score_ci95"} <= set(metrics)
    assert "clean link" in done.stdout
