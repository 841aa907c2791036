"""Workflow codec: train a learned codec for one cut, in its stages, and score it on the test split with real bytes."""

import logging
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import DictConfig

from splitsem.codecs.codec import Codec
from splitsem.codecs.learned.learned import LearnedCodec
from splitsem.lightning import weights
from splitsem.lightning.importance import code_importance
from splitsem.plots.importance import importance
from splitsem.plots.run_breakdown import run_breakdown
from splitsem.plots.score_channel import Axis, score_channel
from splitsem.split.partition import Cut
from splitsem.workflows import assemble, codecs, over_link, split
from splitsem.workflows.codec_options import is_learned
from splitsem.workflows.job import Result

log = logging.getLogger(__name__)
_NUM_EXPLAINED = 64


def run(cfg: DictConfig, folder: Path) -> Result:
    """Train (or take from the cache) and score; leaves ``codec.safetensors`` in the folder, for ``codec.weights=``.

    With ``workflow.over`` also over all those settings of the link. A codec without weights is scored likewise, to
    stand beside the learned ones of a sweep.
    """
    assemble.check_settings(cfg)
    if cfg.workflow.over:
        over_link.links(cfg)
    network = assemble.network(cfg)
    point = assemble.chosen_point(cfg, network.graph)
    encoder: Codec
    history: list[dict[str, float]] = []
    figures: dict[str, Figure] = {}
    cut, train_s, kept = network.graph.cut(point), 0.0, ""
    if is_learned(cfg):
        encoder, trained = codecs.trained_codec(cfg, network, point)
        path = folder / "codec.safetensors"
        weights.save(encoder, path, trained.history, trained.train_s)
        history, train_s, kept = trained.history, trained.train_s, f"; weights: {path}"
        figures["importance"] = _importance(cfg, network, cut, encoder)
    else:
        log.info("%s has no weights: it is scored as it is", cfg.codec["_target_"].rpartition(".")[2])
        encoder = codecs.codec(cfg, network, point)
    decoder = codecs.codec(cfg, network, point)
    metrics = split.evaluate(cfg, network, cut, encoder, decoder, cfg.workflow.channel_seeds)
    metrics = {"score_clean": metrics["score"], **metrics, "train_s": train_s, **split.labels(cfg)}
    if cfg.workflow.over:
        over, rows = over_link.score_over(cfg, network, cut, encoder, decoder, folder)
        metrics |= over
        known = {name: metrics[name] for name in ("codec", "score_clean", "score_unsplit")}
        x: Axis = "snr_db" if rows["snr_db"].notna().any() else "ber"
        subtitle = f"{metrics['task']} · {point.name} · {metrics['payload_bytes']:,.0f} bytes"
        figures["score_channel"] = score_channel(rows.assign(**known, training_seed=cfg.seed), x, subtitle)
    split.references(cfg, network)
    figures["breakdown"] = run_breakdown(metrics)
    ratio = metrics["input_bytes"] / metrics["payload_bytes"]
    headline = (
        f"{point.name}, {metrics['codec']}: score {metrics['score']:.4f} "
        f"(clean link {metrics['score_clean']:.4f}, unsplit {metrics['score_unsplit']:.4f}), "
        f"payload {metrics['payload_bytes']:,.1f} bytes: 1/{metrics['compression_ratio']:.0f} of the float32 features, "
        f"1/{ratio:.1f} of the sample; encoder {metrics['encoder_bytes']:,} bytes{kept}"
    )
    return Result(metrics, figures, history, headline)


def _importance(cfg: DictConfig, network: assemble.Network, cut: Cut, codec: LearnedCodec) -> Figure:
    """What matters in the codes of the first test samples."""
    num = min(_NUM_EXPLAINED, cfg.workflow.num_samples or _NUM_EXPLAINED)
    x, y = next(assemble.test_batches(network.task, network.device, num, num))
    values, what = code_importance(codec, cut, network.task, x, y)
    is_picture = network.task.is_image and x.shape[1] in (1, 3)
    pictures = x.float().clamp(0, 1).cpu().numpy() if is_picture else None
    return importance(values.float().cpu().numpy(), pictures, what)
