"""Workflow split: one split point, one codec, one link, two machines — scored and timed on the test split."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from splitsem.report.units import worded
from splitsem.workflows import assemble, assemble_codec, early_exit, evaluation, references
from splitsem.workflows.optional_figures import breakdown, gallery_of
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.shared_features import SharedFeatures

_features = SharedFeatures(most_bytes=0)


def run(cfg: DictConfig, folder: Path) -> Result:
    """Score and time the chosen cut; in a sweep also, once, the picture sent as JPEG and WebP."""
    assemble.check_settings(cfg)
    assemble.simulated_link(cfg)
    early_exit.check(cfg)
    network = assemble.network(cfg, assemble_codec.suits(cfg))
    point = assemble.chosen_point(cfg, network.graph)
    cut = network.graph.cut(point)
    encoder, decoder = (assemble_codec.codec(cfg, network, point) for _ in range(2))
    gallery = gallery_of(cfg, network)
    scorer = gallery.score if gallery else None
    seeds, shared = cfg.workflow.channel_seeds, _shared(cfg)
    early = early_exit.early_exit(cfg, network, cut)
    found = evaluation.evaluate(cfg, network, cut, encoder, decoder, seeds, scorer=scorer, shared=shared, early=early)
    metrics = found.metrics | labels(cfg)
    references.evaluate(cfg, network, labels(cfg))
    training = [] if network.trained.from_cache else network.trained.history
    clean = f"clean link {metrics['score_clean']:.4f}, " if "score_clean" in metrics else ""
    half = f" ± {metrics['score_ci95']:.4f}" if "score_ci95" in metrics else ""
    scored = f"score {metrics['score']:.4f}{half} ({clean}unsplit {metrics['score_unsplit']:.4f})"
    timings = {metrics[f"{part}_timing"] for part in ("edge", "link", "server")}
    origin = "measured" if timings <= {"measured"} else "estimated"
    headline = (
        f"{metrics['split_point']}: {worded(scored, metrics['score_name'])}, {early_exit.told(metrics)}"
        f"payload {metrics['payload_bytes']:,.0f} bytes, latency {1e3 * metrics['latency_s']:.2f} ms, "
        f"{metrics['throughput_hz']:.1f} samples/s ({origin})"
    )
    figures = breakdown(cfg, metrics) | early_exit.figures(early, metrics)
    figures |= gallery.figures(metrics) if gallery else {}
    return Result(metrics, figures, [], headline, found.draws, training)


def _shared(cfg: DictConfig) -> SharedFeatures | None:
    """What the jobs of a sweep that run in this process share."""
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    _features.most_bytes = cfg.workflow.features_mb * 10**6
    return _features


def labels(cfg: DictConfig) -> Metrics:
    """The names of what ran, as chosen from the config groups."""
    choices = HydraConfig.get().runtime.choices
    pair = {side: choices[f"hardware/machine@hardware.{side}"] for side in ("edge", "server")}
    return {group: choices[group] for group in ("task", "model", "codec", "transport")} | pair
