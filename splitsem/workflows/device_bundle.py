"""Workflow bundle: writes what a board without torch needs for its half, and scores the files that it runs there."""

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset, Subset

from splitsem import extras
from splitsem.errors import ConfigError
from splitsem.export import bundle_writer, coders, onnx_file
from splitsem.export.bundle_writer import Parts
from splitsem.export.onnx_file import footprint
from splitsem.remote.labels import codec_label, weights_digest
from splitsem.report.units import worded
from splitsem.scoring import plain
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.task import Task
from splitsem.trees import call, mapped
from splitsem.workflows import assemble, assemble_codec, evaluation, split
from splitsem.workflows.assemble import Network
from splitsem.workflows.optional_figures import breakdown
from splitsem.workflows.result import Metrics, Result
from splitsem_device.bundle import BundleFacts
from splitsem_device.onnx_half import OnnxHalf

log = logging.getLogger(__name__)
Runner = Callable[[Any], list[NDArray[Any]]]
_VARIANTS = ("int8", "float16")


def run(cfg: DictConfig, folder: Path) -> Result:
    """Write ``bundle.zip`` or the folder ``bundle``.

    Heads in int8 and float16 are kept if their score on the validation split is within ``workflow.margin`` of the
    float32 file's.
    """
    extras.check("export", "workflow=bundle")
    coders.check(get_object(cfg.codec["_target_"]))
    assemble.check_settings(cfg)
    assemble.simulated_link(cfg)
    suits = _suits(cfg)
    network = assemble.network(cfg, suits)
    suits(network.graph)  # where nothing was trained, nobody has asked
    if network.placement.torch_device.type != "cpu" or network.placement.precision != "float32":
        raise ConfigError("workflow=bundle writes float32 files for a CPU: add device=cpu device.precision=float32")
    point = assemble.chosen_point(cfg, network.graph)
    cut = network.graph.cut(point)
    codec = assemble_codec.codec(cfg, network, point)
    program, packing = onnx_file.export(cut, codec)
    answering = assemble.answering(cfg, network.task, network.graph)
    parts = Parts(cut.with_tail(codec.tail), codec, packing, answering.coder if answering.at == "edge" else None)
    if cfg.workflow.whole and (parts.answer is None or parts.answer.reader is None):
        why = "answers stay on the server" if parts.answer is None else f"{parts.answer.name} has no reader"
        raise ConfigError(f"workflow.whole=true is for answers that a device can make, and here {why}")
    needs = footprint(program)
    found = evaluation.evaluate(cfg, network, cut, codec, codec, cfg.workflow.channel_seeds)
    scratch = folder / "heads"
    scratch.mkdir(exist_ok=True)
    onnx_file.write(program, scratch / "head.float32.onnx", packing.outputs, onnx_file.input_names(cut))
    metrics: Metrics = {"device_flops": needs.flops, "peak_activation_bytes": needs.peak_activation_bytes}
    metrics |= _heads(cfg, network.task, parts, scratch)
    if "pt2" in cfg.workflow.formats:
        torch.export.save(program, scratch / "device.pt2")
        metrics["pt2_bytes"] = (scratch / "device.pt2").stat().st_size
    if cfg.workflow.whole:
        assert isinstance(network.graph, SplitGraph)
        whole = onnx_file.export_whole(network.graph)
        outputs = [f"output_{k}" for k in range(len(whole.graph_signature.user_outputs))]
        onnx_file.write(whole, scratch / "whole.onnx", outputs, onnx_file.input_names(cut))
    made = _bundle(cfg, network, parts, scratch, metrics, folder / "bundle")
    metrics = found.metrics | split.labels(cfg) | metrics
    metrics["bundle_bytes"] = sum(one.stat().st_size for one in ([made] if made.is_file() else made.iterdir()))
    headline = f"{worded(_headline(metrics), metrics['score_name'])}: {made}"
    return Result(metrics, breakdown(cfg, metrics), [], headline, found.draws)


def _suits(cfg: DictConfig) -> Callable[[CutGraph], None]:
    """Asks a graph, before a training, whether the point leaves something for the server; and see assemble_codec."""
    if "float32" not in cfg.workflow.formats:
        raise ConfigError("workflow.formats needs float32, which the others are made of and judged by")
    asked = assemble_codec.suits(cfg)

    def ask(graph: CutGraph) -> None:
        if not isinstance(graph, SplitGraph):
            raise ConfigError(
                "workflow=bundle writes networks of torch; the halves of an ONNX file are ONNX graphs already: "
                "onnx.save(splitsem.split(…).cut(…).head.proto, FILE), see docs/onnx.md"
            )
        asked(graph)
        if assemble.chosen_point(cfg, graph, is_told=False).name == "output":
            raise ConfigError(
                "at the point output the whole network runs on the device, and nothing is left for a server: choose "
                "another split.point=; workflow.whole=true adds the whole network for a device whose link is down"
            )
        if cfg.workflow.whole:
            onnx_file.check_whole(graph)

    return ask


def _heads(cfg: DictConfig, task: Task, parts: Parts, folder: Path) -> Metrics:
    """Sizes and scores of the ONNX files; a variant that fails on the validation split is removed."""
    splits, num = task.splits(), cfg.workflow.num_samples
    path = folder / "head.float32.onnx"
    full, names = onnx_file.read(path), onnx_file.input_names(parts.cut)
    same = [
        parts.framing.payload(*full(onnx_file.named(names, x))) == parts.codec.encode(call(parts.cut.head, x))
        for x, _ in _samples(splits.test, num)
    ]
    metrics: Metrics = {
        "onnx_bytes": path.stat().st_size,
        "onnx_same_payloads": sum(same) / len(same),
        "val_score_onnx": _score(full, parts, task, splits.val, num),
        "score_onnx": _score(full, parts, task, splits.test, num),
    }
    for form in (form for form in _VARIANTS if form in cfg.workflow.formats):
        small_path = folder / f"head.{form}.onnx"
        if form == "int8":
            calibration = (x for x, _ in _samples(splits.train, cfg.workflow.calibration_samples))
            onnx_file.write_int8(path, small_path, calibration, names)
        else:
            onnx_file.write_float16(path, small_path)
        small = onnx_file.read(small_path)
        val = metrics[f"val_score_{form}"] = _score(small, parts, task, splits.val, num)
        is_kept = metrics["val_score_onnx"] - val <= cfg.workflow.margin
        metrics[f"{form}_kept"] = int(is_kept)
        if is_kept:
            metrics[f"{form}_bytes"] = small_path.stat().st_size
            metrics[f"score_{form}"] = _score(small, parts, task, splits.test, num)
        else:
            small_path.unlink()
    return metrics


def _bundle(cfg: DictConfig, network: Network, parts: Parts, scratch: Path, scores: Metrics, path: Path) -> Path:
    """Move the files of ``scratch`` into a bundle; returns where it is."""
    task, contents = network.task, {file.name: file.read_bytes() for file in sorted(scratch.iterdir())}
    heads = {name.split(".")[1]: name for name in contents if name.startswith("head.")}
    inputs = [x for x, _ in islice(_samples(task.splits().test, None), cfg.workflow.kept_samples)]
    running = {form: OnnxHalf(contents[name], name) for form, name in heads.items()}
    samples, files = bundle_writer.samples(parts, running, inputs)
    facts = BundleFacts(
        plan=parts.plan(weights_digest(network.model), codec_label(parts.codec), cfg.split.granularity),
        framing=parts.framing,
        answer=None if parts.answer is None else parts.answer.reader,
        inputs=parts.inputs(),
        picture=task.picture_input(),
        class_names=list(task.class_names),
        heads=heads,
        whole="whole.onnx" if "whole.onnx" in contents else "",
        samples=samples,
        files={},
        scores={name: value for name, value in scores.items() if "score" in name or "same" in name},
        versions=bundle_writer.versions(),
        licence=cfg.workflow.licence or _licence(cfg),
    )
    made = bundle_writer.write(facts, contents | files, path, cfg.workflow.archive)
    for file in scratch.iterdir():
        file.unlink()
    scratch.rmdir()
    return made


def _licence(cfg: DictConfig) -> str:
    """What is known of what others own in a bundle."""
    network, weights = cfg.model["_target_"], cfg.trainer.weights or cfg.model.get("weights") or "trained here"
    agpl = "; ultralytics' networks are under AGPL-3.0" * ("ultralytics" in network)
    return (
        f"not stated (workflow.licence=). It holds a part of the network {network} (weights: {weights}) and samples of "
        f"{cfg.task['_target_']}, each under its owner's terms{agpl}"
    )


@torch.no_grad()
def _score(head: OnnxHalf, parts: Parts, task: Task, source: Dataset, num: int | None) -> float:
    """The task's score of what an exported file sends over a clean link."""
    metrics, cut, names = task.metrics(), parts.cut, onnx_file.input_names(parts.cut)
    for x, y in _samples(source, num):
        z_hat = parts.codec.decode(parts.framing.payload(*head(onnx_file.named(names, x))))
        metrics.update(mapped(plain, cut.tail(*cut.received(z_hat))), y)
    return float(metrics.compute()["score"])


def _samples(source: Dataset, num: int | None) -> Iterator[tuple[Any, Any]]:
    """The first samples, one by one, as an edge meets them."""
    size = len(source)  # type: ignore[arg-type]
    yield from DataLoader(Subset(source, range(size if num is None else min(num, size))), batch_size=1)


def _headline(metrics: Metrics) -> str:
    variants = ""
    for form in (form for form in _VARIANTS if f"{form}_kept" in metrics):
        verdict = f"test score {metrics[f'score_{form}']:.4f}" if metrics[f"{form}_kept"] else "not kept"
        variants += f"{form}: validation score {metrics[f'val_score_{form}']:.4f}, {verdict}\n"
    return (
        f"{metrics['split_point']}, {metrics['codec']}: score {metrics['score']:.4f} by torch\n"
        f"ONNX: score {metrics['score_onnx']:.4f} (validation {metrics['val_score_onnx']:.4f}), "
        f"{metrics['onnx_bytes']:,} bytes; {100 * metrics['onnx_same_payloads']:.1f} % of its payloads are torch's to "
        "the last bit\n"
        f"{variants}"
        f"on the board: {metrics['device_flops']:,.0f} FLOPs a sample, activations at most "
        f"{metrics['peak_activation_bytes']:,} bytes; the bundle has {metrics['bundle_bytes']:,} bytes"
    )
