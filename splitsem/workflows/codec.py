"""Workflow codec: train a learned codec for one cut, in its stages, and score it on the test split with real bytes."""

from pathlib import Path

from omegaconf import DictConfig

from splitsem.lightning import weights
from splitsem.plots.run_breakdown import run_breakdown
from splitsem.workflows import assemble, codecs, split
from splitsem.workflows.job import Result


def run(cfg: DictConfig, folder: Path) -> Result:
    """Train (or take from the cache) and score; leaves ``codec.safetensors`` in the folder, for ``codec.weights=``."""
    assemble.check_settings(cfg)
    network = assemble.network(cfg)
    point = assemble.chosen_point(cfg, network.graph)
    encoder, trained = codecs.trained_codec(cfg, network, point)
    path = folder / "codec.safetensors"
    weights.save(encoder, path, trained.history, trained.train_s)
    decoder = codecs.codec(cfg, network, point)
    cut = network.graph.cut(point)
    metrics = split.evaluate(cfg, network, cut, encoder, decoder, cfg.workflow.channel_seeds)
    metrics = {"score_clean": metrics["score"], **metrics, "train_s": trained.train_s, **split.labels(cfg)}
    ratio = metrics["input_bytes"] / metrics["payload_bytes"]
    headline = (
        f"{point.name}, {metrics['codec']}: score {metrics['score']:.4f} "
        f"(clean link {metrics['score_clean']:.4f}, unsplit {metrics['score_unsplit']:.4f}), "
        f"payload {metrics['payload_bytes']:,.1f} bytes: 1/{metrics['compression_ratio']:.0f} of the float32 features, "
        f"1/{ratio:.1f} of the sample; encoder {metrics['encoder_bytes']:,} bytes; weights: {path}"
    )
    return Result(metrics, {"breakdown": run_breakdown(metrics)}, trained.history, headline)
