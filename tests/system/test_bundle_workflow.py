"""workflow=bundle through the real entry point: what is in it, and the scores of what its files send."""

import json

from splitsem_device.bundle import Bundle
from splitsem_device.program import checking

QUICK = ("task=digits", "tracking=none", "trainer.max_epochs=0", "workflow.num_samples=6", "cache_dir=cache")
STAGES = ("codec=semanticnn", "codec.stages.features.max_epochs=0", "codec.stages.task.max_epochs=0")


def test_files_for_the_device_are_written_scored_and_good(run_py, tmp_path):
    formats = "workflow.formats=[float32,int8,float16,pt2]"
    kept = ("workflow.whole=true", "workflow.archive=folder", "workflow.margin=1", "workflow.licence=mine")
    done = run_py("workflow=bundle", *QUICK, *STAGES, "split.point=stem", "hydra.run.dir=run", formats, *kept)
    assert done.returncode == 0, done.stderr
    metrics, folder = json.loads((tmp_path / "run" / "metrics.json").read_text()), tmp_path / "run" / "bundle"
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    files = {"pt2": "device.pt2", "onnx": "head.float32.onnx", "int8": "head.int8.onnx", "float16": "head.float16.onnx"}
    assert {name: metrics[f"{name}_bytes"] for name in files} == {name: sizes[file] for name, file in files.items()}
    assert metrics["bundle_bytes"] == sum(sizes.values())
    assert metrics["int8_bytes"] < metrics["onnx_bytes"]
    assert metrics["float16_bytes"] < metrics["onnx_bytes"]
    assert metrics["onnx_same_payloads"] == 1
    assert metrics["device_flops"] > 2 * 16 * 9 * 8 * 8
    assert metrics["peak_activation_bytes"] >= 4 * 16 * 8 * 8
    assert {"score_onnx", "score_int8", "score_float16", "val_score_int8", "val_score_onnx"} <= metrics.keys()
    bundle = Bundle(folder)
    assert bundle.facts.licence == "mine"
    assert bundle.facts.whole in sizes
    assert bundle.facts.class_names[3] == "3"
    assert all(one.is_good and one.is_exact for one in checking.findings(bundle, list(bundle.facts.heads)))
    assert not (tmp_path / "run" / "heads").exists()
