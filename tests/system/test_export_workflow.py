"""workflow=export through the real entry point: files, their sizes, and the scores of what they send."""

import json

QUICK = ("task=digits", "tracking=none", "trainer.max_epochs=0", "workflow.num_samples=6", "cache_dir=cache")
STAGES = ("codec.stages.features.max_epochs=0", "codec.stages.task.max_epochs=0")


def test_files_for_the_device_are_written_and_scored(run_py, tmp_path):
    done = run_py("workflow=export", *QUICK, *STAGES, "split.point=stem", "hydra.run.dir=run", "workflow.margin=1")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for name, file in (("pt2_bytes", "device.pt2"), ("onnx_bytes", "device.onnx"), ("int8_bytes", "device.int8.onnx")):
        assert metrics[name] == (tmp_path / "run" / file).stat().st_size
    assert metrics["int8_bytes"] < metrics["onnx_bytes"]
    assert metrics["onnx_same_payloads"] == 1
    assert metrics["device_flops"] > 2 * 16 * 9 * 8 * 8
    assert metrics["peak_activation_bytes"] >= 4 * 16 * 8 * 8
    assert {"score_int8", "val_score_int8", "val_score_onnx"} <= metrics.keys()
