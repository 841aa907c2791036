"""Workflow train: trains the network and, given a split point, tunes it with the codec in the loop."""

import shutil
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.pipeline import SplitNetwork
from splitsem.report.units import worded
from splitsem.training import kept_weights
from splitsem.training.fingerprint import fingerprint
from splitsem.training.gradient_codec import compression_metrics
from splitsem.workflows import assemble, assemble_codec, evaluation, split
from splitsem.workflows.codec_options import check_not_learned
from splitsem.workflows.own_model import check_learns
from splitsem.workflows.result import Result


def run(cfg: DictConfig, folder: Path) -> Result:
    """Train; leaves ``weights.safetensors`` in the run's folder, for ``trainer.weights=``."""
    if cfg.split.point is None and cfg.split.index is None:
        return _plain(cfg, folder)
    return _codec_in_the_loop(cfg, folder)


def _plain(cfg: DictConfig, folder: Path) -> Result:
    """Train and score the network as the task does."""
    network = assemble.network(cfg)
    check_learns(network.model)
    metrics = evaluation.scores(network.run, network.task, partial(evaluation.batches, cfg, network))
    metrics["train_s"] = network.trained.train_s
    metrics |= compression_metrics(network.trained.history)
    path = folder / f"weights{network.trained.path.suffix}"  # another one than .safetensors: read by trainer.weights
    shutil.copyfile(network.trained.path, path)  # as trained; the scored network may be a form made from these weights
    choices = HydraConfig.get().runtime.choices
    labels = {group: choices[group] for group in ("task", "model")}
    headline = f"{metrics['score_name']} {metrics['score']:.4f} on the test split; weights: {path}"
    if "gradient_bytes" in metrics:
        headline = (
            f"gradients of {metrics['gradient_bytes']:,.0f} bytes a step, "
            f"{metrics['gradient_compression_ratio']:.1f}× fewer than as float32; {headline}"
        )
    return Result(metrics | labels, {}, network.trained.history, headline)


def _codec_in_the_loop(cfg: DictConfig, folder: Path) -> Result:
    """Tune the trained head and tail through ``codec.forward``; score with real bytes before and after."""
    check_not_learned(cfg)
    assemble.check_settings(cfg)
    assemble.simulated_link(cfg)
    network = assemble.fresh_network(cfg, assemble_codec.suits(cfg))
    cut = network.graph.cut(assemble.chosen_point(cfg, network.graph))
    codec, encoder, decoder = (assemble_codec.codec(cfg, network, cut.point) for _ in range(3))
    before = evaluation.evaluate(cfg, network, cut, encoder, decoder).metrics
    fit = instantiate(assemble.trainer_settings(cfg), **cfg.workflow.tuning)
    facts = {"codec": OmegaConf.to_container(cfg.codec, resolve=True), "trainer": assemble.trainer_settings(cfg)}
    facts |= {"tuning": dict(cfg.workflow.tuning), "from": network.key, "point": cut.point.name, "seed": cfg.seed}
    loop = SplitNetwork(cut, codec)
    key = fingerprint(facts, (loop, fit))  # network.key stands for task and data
    trained = kept_weights.fit_or_load(
        network.model,
        key,
        Path(cfg.cache_dir) / "weights",
        lambda: fit.run(loop, network.task, network.placement.torch_device, cfg.seed),
        assemble.spare_folder(),
    )
    after = evaluation.evaluate(cfg, network, cut, encoder, decoder)
    path = folder / "weights.safetensors"
    kept_weights.save(network.model, path, trained.history, trained.train_s)
    metrics = after.metrics | split.labels(cfg) | compression_metrics(trained.history)
    metrics |= {"score_unsplit": before["score_unsplit"], "score_before": before["score"], "train_s": trained.train_s}
    scored = f"score {before['score']:.4f} → {metrics['score']:.4f} (unsplit {before['score_unsplit']:.4f})"
    headline = f"{cut.point.name}, {metrics['codec']}: {worded(scored, metrics['score_name'])}; weights: {path}"
    return Result(metrics, {}, trained.history, headline)
