"""Workflow split: one split point, one codec, one link, two machines — scored and timed on the test split."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.files import locked, write_whole
from splitsem.json_files import finite
from splitsem.report.units import worded
from splitsem.workflows import assemble, assemble_codec, early_exit, evaluation
from splitsem.workflows.assemble import Network
from splitsem.workflows.optional_figures import breakdown, gallery_of
from splitsem.workflows.result import Metrics, Result, write_draws
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
    references(cfg, network)
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
    figures = breakdown(metrics) | early_exit.figures(early, metrics) | (gallery.figures(metrics) if gallery else {})
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


class _Baseline(NamedTuple):
    name: str
    codec: DictConfig
    varied: dict[str, int]  # what tells it from others of its name
    point: str


def references(cfg: DictConfig, network: Network) -> None:
    """In a sweep, once for each network, link and pair of machines: all on the edge, and all on the server.

    A picture goes to the server in each way that ``references`` lists, any other sample as it is. Processes that run
    jobs of one sweep share these evaluations: each takes those that no other has begun.
    """
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode != RunMode.MULTIRUN or not cfg.references:
        return
    groups = ("transport", "hardware", "references", "answer")
    shared: dict[str, Any] = {name: OmegaConf.to_container(cfg[name]) for name in groups}
    shared |= {"num_samples": cfg.workflow.num_samples, "channel_seeds": cfg.workflow.channel_seeds}
    key = hashlib.sha256((network.key + json.dumps(shared, sort_keys=True)).encode()).hexdigest()[:12]
    folder = Path(hydra_cfg.sweep.dir) / "references"
    folder.mkdir(exist_ok=True)
    for name, codec, varied, point in _baselines(cfg.references, network.task.is_image):
        path = folder / f"{'-'.join((key, name, *map(str, varied.values())))}.json"
        if path.exists():
            continue
        with locked(path, waits=False) as is_mine:
            if is_mine and not path.exists():
                cut, seeds = network.graph.cut(point), cfg.workflow.channel_seeds
                found = evaluation.evaluate(cfg, network, cut, instantiate(codec), instantiate(codec), seeds)
                write_draws(found.draws, path.with_suffix(".npz"))
                metrics = found.metrics | labels(cfg) | {"codec": name, "reference": name, **varied}
                write_whole(json.dumps(finite(metrics), indent=2).encode(), path)


def _baselines(references: DictConfig, is_image: bool) -> Iterator[_Baseline]:
    plain = DictConfig({"_target_": "splitsem.codecs.tensorwise.Identity"})
    yield _Baseline("all_on_edge", plain, {}, "output")
    if not is_image:
        yield _Baseline("input_as_it_is", plain, {}, "input")
        return
    for name, codec in references.items():
        if "quality" in codec and OmegaConf.is_list(codec.quality):
            for quality in codec.quality:
                varied = {"codec.quality": quality}
                yield _Baseline(str(name), DictConfig({**codec, "quality": quality}), varied, "input")
        else:
            yield _Baseline(str(name), codec, {}, "input")
