"""workflow=codec through the real entry point: trained once, scored with real bytes, used again by other workflows."""

import json
from pathlib import Path

import pytest
import safetensors

STAGES = (
    *("codec.stages.features.max_epochs=0", "codec.stages.task.max_epochs=1"),
    "codec.stages.task.is_tail_tuned=true",  # its tail must be found by other workflows, too
)
QUICK = ("task=digits", "tracking=none", "trainer.max_epochs=0", "workflow.num_samples=6", "cache_dir=cache")


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_a_codec_is_trained_once_scored_with_real_bytes_and_used_by_other_workflows(run_py, tmp_path):
    chosen = (*QUICK, "split.point=stem", *STAGES)
    noise = ("transport=bsc", "transport.channel.ber=null", "transport.channel.ebn0_db=0", "workflow.channel_seeds=2")
    done = run_py("workflow=codec", *chosen, *noise, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "Stage task: 1 epochs" in done.stdout
    metrics = metrics_of(tmp_path / "run")
    num_bits = 8 * 2 * 2 * 3  # half of 16 channels, 8×8 positions in steps of four, three bits each
    assert metrics["payload_bytes"] == num_bits // 8 + 11
    assert metrics["encoder_bytes"] >= 4 * 16 * 8 * 4 * 4
    assert metrics["bit_errors"] > 0
    assert 0.05 < metrics["ber"] < 0.11
    assert metrics["snr_db"] == pytest.approx(0.0)
    assert {"score_clean", "score_ci95"} <= metrics.keys()
    assert metrics["train_s"] > 0
    with safetensors.safe_open(tmp_path / "run" / "codec.safetensors", framework="pt") as file:
        assert any(name.startswith("tail.") for name in file.keys())  # noqa: SIM118 (not a dict)
    assert (tmp_path / "run" / "importance.png").stat().st_size > 0
    split = run_py("workflow=split", "codec=semanticnn", *chosen, *noise, "hydra.run.dir=split")
    assert split.returncode == 0, split.stderr
    assert "Stage task" not in split.stdout
    same = metrics_of(tmp_path / "split")
    assert all(same[name] == metrics[name] for name in ("score", "payload_bytes", "distortion_mse"))


def test_a_point_that_does_not_suit_is_refused_in_one_line_that_names_those_that_do(run_py):
    done = run_py("workflow=codec", *QUICK, "split.point=output")
    assert done.returncode == 1
    assert "SemanticNN codes one floating-point tensor channels×height×width, but at output crosses 10" in done.stderr
    assert "points that suit: input, stem, stage1.0" in done.stderr
