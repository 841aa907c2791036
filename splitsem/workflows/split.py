"""Workflow split: one split point, one codec, one link, two machines — scored and timed on the test split."""

import hashlib
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.codecs.codec import Codec
from splitsem.cost.end_to_end import Cost
from splitsem.links.link import Link
from splitsem.pipeline import Frames, Pipeline, score
from splitsem.report.run_figures import run_breakdown
from splitsem.split.cut import Cut
from splitsem.workflows import assemble, assemble_codec, replay
from splitsem.workflows.assemble import Network
from splitsem.workflows.replay import Recording
from splitsem.workflows.result import Metrics, Result

_unsplit: dict[tuple[str, int, int | None], float] = {}


def run(cfg: DictConfig, folder: Path) -> Result:
    """Score and time the chosen cut; in a sweep also, once, the picture sent as JPEG and WebP."""
    assemble.check_settings(cfg)
    network = assemble.network(cfg)
    point = assemble.chosen_point(cfg, network.graph)
    cut = network.graph.cut(point)
    encoder, decoder = (assemble_codec.codec(cfg, network, point) for _ in range(2))
    metrics = {**evaluate(cfg, network, cut, encoder, decoder, cfg.workflow.channel_seeds), **labels(cfg)}
    references(cfg, network)
    history = [] if network.trained.from_cache else network.trained.history
    clean = f"clean link {metrics['score_clean']:.4f}, " if "score_clean" in metrics else ""
    headline = (
        f"{metrics['split_point']}: score {metrics['score']:.4f} ({clean}unsplit {metrics['score_unsplit']:.4f}), "
        f"payload {metrics['payload_bytes']:,.0f} bytes, latency {1e3 * metrics['latency_s']:.2f} ms, "
        f"{metrics['throughput_hz']:.1f} samples/s"
    )
    return Result(metrics, {"breakdown": run_breakdown(metrics)}, history, headline)


def evaluate(
    cfg: DictConfig,
    network: Network,
    cut: Cut,
    encoder: Codec,
    decoder: Codec,
    channel_seeds: int = 1,
    measured: Link | None = None,
) -> Metrics:
    """Run the test split through ``cut`` and price it: the contract's metrics of a split run.

    A tail that was tuned with the codec takes the place of the network's own, in the score and in the times.
    The link is the configured one, or one that was ``measured``. Over a lossy one, scores are means over
    ``channel_seeds`` runs of its channel, see ``channel.repeat``.
    """
    task, point, cut = network.task, cut.point, cut.with_tail(decoder.tail)
    frames = Frames()
    link = measured or instantiate(cfg.transport)
    pipeline = Pipeline(cut, encoder, decoder, link)
    batches = assemble.test_batches(task, network.placement, cfg.trainer.batch_size, cfg.workflow.num_samples)
    began = time.perf_counter()
    scores = score(lambda x: pipeline.run(x, frames), task, batches)
    evaluation_s = time.perf_counter() - began
    repeated: Metrics = {}
    if link.is_lossy:
        again = assemble.test_batches(task, network.placement, cfg.trainer.batch_size, cfg.workflow.num_samples)
        repeated = replay.repeat(
            cfg.transport, Recording(cut, encoder, again), decoder, task, (scores, frames), channel_seeds
        )
    head, tail = cut.halves()
    edge, server = instantiate(cfg.hardware.edge), instantiate(cfg.hardware.server)
    cost = Cost.of(
        edge,
        edge_s=edge.time_s(head),
        link_s=statistics.fmean(frames.link_s),
        server_s=server.time_s(tail),
        link_j=statistics.fmean(frames.link_j),
    )
    payload_bytes = statistics.fmean(frames.payload_bytes)
    answers = {"answer_bytes": statistics.fmean(frames.answer_bytes)} if frames.answer_bytes else {}
    return {
        **scores,
        "score_unsplit": _score_unsplit(network, cfg.trainer.batch_size, cfg.workflow.num_samples),
        "split_point": point.name,
        "split_index": point.index,
        "num_samples": len(frames.payload_bytes),
        "num_lost": frames.num_lost,
        "raw_bytes": point.raw_bytes,
        "payload_bytes": payload_bytes,
        "wire_bytes": statistics.fmean(frames.wire_bytes),
        "input_bytes": task.input_bytes,
        "encoder_bytes": encoder.encoder_bytes,
        "compression_ratio": point.raw_bytes / payload_bytes,
        "distortion_mse": frames.distortion_mse,
        "encode_s": statistics.median(frames.encode_s),
        "decode_s": statistics.median(frames.decode_s),
        "evaluation_s": evaluation_s,
        "edge_timing": edge.timing,
        "link_timing": "measured" if measured else "simulated",
        "server_timing": server.timing,
        **cost.to_metrics(),
        **answers,
        **repeated,
    }


def labels(cfg: DictConfig) -> Metrics:
    """The names of what ran, as chosen from the config groups."""
    choices = HydraConfig.get().runtime.choices
    pair = {side: choices[f"hardware/machine@hardware.{side}"] for side in ("edge", "server")}
    return {group: choices[group] for group in ("task", "model", "codec", "transport")} | pair


def _score_unsplit(network: Network, batch_size: int, num_samples: int | None) -> float:
    """Score of the whole network, uncut, on the same samples; computed once a process."""
    key = (network.key, batch_size, num_samples)
    if key not in _unsplit:
        batches = assemble.test_batches(network.task, network.placement, batch_size, num_samples)
        _unsplit[key] = score(network.model, network.task, batches)["score"]
    return _unsplit[key]


def references(cfg: DictConfig, network: Network) -> None:
    """In a sweep of an image task: "just send the picture", once for each network, link and pair of machines."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode != RunMode.MULTIRUN or not network.task.is_image or not cfg.references:
        return
    shared: dict[str, Any] = {n: OmegaConf.to_container(cfg[n]) for n in ("transport", "hardware", "references")}
    shared |= {"num_samples": cfg.workflow.num_samples, "channel_seeds": cfg.workflow.channel_seeds}
    key = hashlib.sha256((network.key + json.dumps(shared, sort_keys=True)).encode()).hexdigest()[:12]
    folder = Path(hydra_cfg.sweep.dir) / "references"
    folder.mkdir(exist_ok=True)
    with filelock.FileLock(folder / f"{key}.lock"):
        for name, codec, varied in _reference_codecs(cfg.references):
            path = folder / f"{'-'.join((key, name, *map(str, varied.values())))}.json"
            if not path.exists():
                cut = network.graph.cut(network.graph.point("input"))
                seeds = cfg.workflow.channel_seeds
                metrics = evaluate(cfg, network, cut, instantiate(codec), instantiate(codec), seeds)
                metrics |= labels(cfg) | {"codec": name, "reference": name, **varied}
                path.write_text(json.dumps(metrics, indent=2))


def _reference_codecs(references: DictConfig) -> Iterator[tuple[str, DictConfig, dict[str, int]]]:
    """Name and settings of each reference, and the quality where several are listed."""
    for name, codec in references.items():
        if "quality" in codec and OmegaConf.is_list(codec.quality):
            for quality in codec.quality:
                yield str(name), DictConfig({**codec, "quality": quality}), {"codec.quality": quality}
        else:
            yield str(name), codec, {}
