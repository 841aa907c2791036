"""Workflow export: writes head and encoder as files for other runtimes, and scores these files."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset, Subset

from splitsem import extras
from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError
from splitsem.export import coders, onnx_file
from splitsem.export.onnx_file import footprint
from splitsem.report.units import worded
from splitsem.scoring import plain
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.task import Task
from splitsem.trees import call, mapped
from splitsem.workflows import assemble, assemble_codec, evaluation, split
from splitsem.workflows.optional_figures import breakdown
from splitsem.workflows.result import Metrics, Result
from splitsem_device import framing
from splitsem_device.framing import Framing

log = logging.getLogger(__name__)
Runner = Callable[[Any], list[NDArray[Any]]]


def run(cfg: DictConfig, folder: Path) -> Result:
    """Write ``device.pt2``, ``device.json`` and, with the extra ``export``, ``device.onnx`` and ``device.int8.onnx``.

    The int8 file is kept if its score on the validation split is within ``workflow.margin`` of the float32 file's.
    """
    coders.check(get_object(cfg.codec["_target_"]))
    assemble.check_settings(cfg)
    assemble.simulated_link(cfg)
    network = assemble.network(cfg, assemble_codec.suits(cfg))
    if not isinstance(network.graph, SplitGraph):
        raise ConfigError(
            "workflow=export writes networks of torch; the halves of an ONNX file are ONNX graphs already: "
            "onnx.save(splitsem.split(…).cut(…).head.proto, FILE), see docs/onnx.md"
        )
    if network.placement.torch_device.type != "cpu" or network.placement.precision != "float32":
        raise ConfigError("workflow=export writes float32 files for a CPU: add device=cpu device.precision=float32")
    point = assemble.chosen_point(cfg, network.graph)
    cut = network.graph.cut(point)
    codec = assemble_codec.codec(cfg, network, point)
    program, packing = onnx_file.export(cut, codec)
    torch.export.save(program, folder / "device.pt2")
    framing.write(packing, folder / "device.json")
    needs = footprint(program)
    found = evaluation.evaluate(cfg, network, cut, codec, codec, cfg.workflow.channel_seeds)
    metrics = (
        found.metrics
        | split.labels(cfg)
        | {
            "device_flops": needs.flops,
            "peak_activation_bytes": needs.peak_activation_bytes,
            "pt2_bytes": (folder / "device.pt2").stat().st_size,
        }
    )
    if extras.has("export"):
        onnx_file.write(program, folder / "device.onnx", packing.outputs, onnx_file.input_names(cut))
        metrics |= _onnx(cfg, network.task, cut, codec, packing, folder)
    else:
        log.info("No ONNX file: pip install 'splitsem[export]' brings what writes it")
    headline = f"{worded(_headline(metrics), metrics['score_name'])}: {folder}"
    return Result(metrics, breakdown(metrics), [], headline, found.draws)


def _onnx(cfg: DictConfig, task: Task, cut: Cut, codec: Codec, packing: Framing, folder: Path) -> Metrics:
    """Sizes and scores of the ONNX files; an int8 file that fails on the validation split is removed."""
    splits, num = task.splits(), cfg.workflow.num_samples
    path, int8_path = folder / "device.onnx", folder / "device.int8.onnx"
    full = onnx_file.OnnxDevice(path)
    onnx_file.write_int8(path, int8_path, (x for x, _ in _samples(splits.train, cfg.workflow.calibration_samples)))
    small = onnx_file.OnnxDevice(int8_path)
    same = [packing.payload(*full.outputs(x)) == codec.encode(call(cut.head, x)) for x, _ in _samples(splits.test, num)]
    val, int8_val = (_score(d.outputs, packing, cut, codec, task, splits.val, num) for d in (full, small))
    is_kept = val - int8_val <= cfg.workflow.margin
    metrics: Metrics = {
        "onnx_bytes": path.stat().st_size,
        "onnx_same_payloads": sum(same) / len(same),
        "val_score_onnx": val,
        "val_score_int8": int8_val,
        "int8_kept": int(is_kept),
    }
    if is_kept:
        metrics["int8_bytes"] = int8_path.stat().st_size
        metrics["score_int8"] = _score(small.outputs, packing, cut, codec, task, splits.test, num)
    else:
        int8_path.unlink()
    return metrics


@torch.no_grad()
def _score(
    run: Runner, packing: Framing, cut: Cut, decoder: Codec, task: Task, source: Dataset, num: int | None
) -> float:
    """The task's score of what an exported file sends over a clean link."""
    metrics, cut = task.metrics(), cut.with_tail(decoder.tail)
    for x, y in _samples(source, num):
        z_hat = decoder.decode(packing.payload(*run(x)))
        metrics.update(mapped(plain, cut.tail(*cut.received(z_hat))), y)
    return float(metrics.compute()["score"])


def _samples(source: Dataset, num: int | None) -> Iterator[tuple[Any, Any]]:
    """The first samples, one by one, as an edge meets them."""
    size = len(source)  # type: ignore[arg-type]
    yield from DataLoader(Subset(source, range(size if num is None else min(num, size))), batch_size=1)


def _headline(metrics: Metrics) -> str:
    int8 = ""
    if "int8_kept" in metrics:
        verdict = f"test score {metrics['score_int8']:.4f}" if metrics["int8_kept"] else "not kept"
        int8 = (
            f"; ONNX {metrics['onnx_bytes']:,} bytes, {100 * metrics['onnx_same_payloads']:.1f} % of its payloads the "
            f"same; int8 validation score {metrics['val_score_int8']:.4f} (float32 {metrics['val_score_onnx']:.4f}): "
            f"{verdict}"
        )
    return (
        f"{metrics['split_point']}, {metrics['codec']}: score {metrics['score']:.4f}; device.pt2 "
        f"{metrics['pt2_bytes']:,} bytes, {metrics['device_flops']:,.0f} FLOPs, activations at most "
        f"{metrics['peak_activation_bytes']:,} bytes{int8}"
    )
