"""Workflow codec: train a learned codec for one cut, in its stages, and score it on the test split with real bytes."""

import functools
import itertools
import logging
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.codecs.learned.learned import LearnedCodec
from splitsem.errors import ConfigError
from splitsem.files import write_csv
from splitsem.links.link import Link
from splitsem.report.codec_figures import Axis, importance, score_channel
from splitsem.report.units import worded
from splitsem.splitting.cut import Cut
from splitsem.training import kept_weights
from splitsem.training.importance import code_importance
from splitsem.workflows import assemble, assemble_codec, evaluation, references, split
from splitsem.workflows.assemble import Network
from splitsem.workflows.codec_options import is_learned
from splitsem.workflows.drawing import Drawing
from splitsem.workflows.optional_figures import breakdown, gallery_of
from splitsem.workflows.replay import Recording, play_all
from splitsem.workflows.result import SCORES, Metrics, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Links = dict[str | float, Callable[[int], Link]]


def links(cfg: DictConfig) -> Links:
    """For each value of ``workflow.over.setting``, what makes the configured link with it and a given seed.

    Each is made once here, so that a wrong value is told before anything is trained.

    Raises ConfigError when the link has no channel or no such setting, and what the constructors raise.
    """
    over = cfg.workflow.over
    made: Links = {}
    name = cfg.transport["_target_"].rpartition(".")[2]
    if not getattr(instantiate(cfg.transport), "is_lossy", False):  # a real transport is no Link
        raise ConfigError(f"workflow.over needs a link that damages bits, e.g. transport=bsc, got a {name}")
    if not over["values"]:
        raise ConfigError("workflow.over.values must name at least one value")
    for value in over["values"]:
        transport = cfg.transport.copy()
        OmegaConf.set_struct(transport, True)
        try:
            OmegaConf.update(transport, over.setting, value)
        except OmegaConfBaseException as exc:
            raise ConfigError(f"workflow.over.setting={over.setting} is no setting of the {name}") from exc
        made[value] = functools.partial(_link, transport)
        made[value](transport.seed)
    return made


def score_over(
    cfg: DictConfig, network: Network, cut: Cut, encoder: Codec, decoder: Codec, folder: Path
) -> tuple[Metrics, pd.DataFrame]:
    """Score the codec over all of ``links`` and leave a row for each and channel seed in ``folder``.

    Returns:
        ``score_at_<value>`` (-1.5: ``score_at_-1_5``), means over the channel's seeds, and ``score_over_link``, the
        area under the curve of these divided by the range of values; and the rows, as from ``replay.play_all``.
    """
    batches = assemble.test_batches(network.task, network.placement, cfg.trainer.batch_size, cfg.workflow.num_samples)
    seeds = range(cfg.transport.seed, cfg.transport.seed + cfg.workflow.channel_seeds)
    made = links(cfg)
    recording = Recording(cut, encoder, batches, assemble.answering(cfg, network.task, network.graph))
    rows = pd.DataFrame(play_all(recording, decoder, network.task, made, seeds))
    write_csv(rows.rename(columns={"link": cfg.workflow.over.setting}), folder / SCORES)
    scores = {float(value): statistics.fmean(rows.loc[rows["link"] == value, "score"]) for value in made}
    # a dot would make it a setting in the tables of a sweep
    at = {f"score_at_{value:g}".replace(".", "_"): score for value, score in scores.items()}
    return {**at, "score_over_link": area(scores)}, rows


def area(scores: dict[float, float]) -> float:
    """Area under the piecewise linear curve through (value, score), divided by the range of the values.

    >>> area({0.0: 0.0, 1.0: 1.0, 3.0: 1.0})
    0.8333333333333334
    """
    points = sorted(scores.items())
    if len(points) == 1:
        return points[0][1]
    pairs = itertools.pairwise(points)
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairs) / (points[-1][0] - points[0][0])


def _link(transport: DictConfig, seed: int) -> Link:
    made: Link = instantiate(transport, seed=seed)
    return made


log = logging.getLogger(__name__)
_NUM_EXPLAINED = 64


def run(cfg: DictConfig, folder: Path) -> Result:
    """Train (or take from the cache) and score; leaves ``codec.safetensors`` in the folder, for ``codec.weights=``.

    With ``workflow.over`` also over all those settings of the link. A codec without weights is scored likewise, to
    stand beside the learned ones of a sweep.
    """
    assemble.check_settings(cfg)
    assemble.simulated_link(cfg)
    if cfg.workflow.over:
        links(cfg)
    network = assemble.network(cfg, assemble_codec.suits(cfg))
    point = assemble.chosen_point(cfg, network.graph)
    encoder: Codec
    history: list[dict[str, float]] = []
    figures: dict[str, Figure | Drawing] = {}
    cut, train_s, kept = network.graph.cut(point), 0.0, ""
    if is_learned(cfg):
        encoder, trained = assemble_codec.trained_codec(cfg, network, point)
        path = folder / "codec.safetensors"
        kept_weights.save(encoder, path, trained.history, trained.train_s)
        history, train_s, kept = trained.history, trained.train_s, f"; weights: {path}"
        figures["importance"] = _importance(cfg, network, cut, encoder)
    else:
        log.info("%s has no weights: it is scored as it is", cfg.codec["_target_"].rpartition(".")[2])
        encoder = assemble_codec.codec(cfg, network, point)
    decoder = assemble_codec.codec(cfg, network, point)
    gallery = gallery_of(cfg, network)
    scorer = gallery.score if gallery else None
    found = evaluation.evaluate(cfg, network, cut, encoder, decoder, cfg.workflow.channel_seeds, scorer=scorer)
    metrics = {"score_clean": found.metrics["score"], **found.metrics, "train_s": train_s, **split.labels(cfg)}
    if cfg.workflow.over:
        over, rows = score_over(cfg, network, cut, encoder, decoder, folder)
        metrics |= over
        known = {name: metrics[name] for name in ("codec", "score_name", "score_clean", "score_unsplit")}
        x: Axis = "snr_db" if rows["snr_db"].notna().any() else "ber"
        subtitle = f"{metrics['task']} · {point.name} · {metrics['payload_bytes']:,.0f} bytes"
        figures["score_channel"] = score_channel(rows.assign(**known, training_seed=cfg.seed), x, subtitle)
    references.evaluate(cfg, network, split.labels(cfg))
    figures |= breakdown(cfg, metrics) | (gallery.figures(metrics) if gallery else {})
    ratio = metrics["input_bytes"] / metrics["payload_bytes"]
    clean = f"clean link {metrics['score_clean']:.4f}, "
    scored = f"score {metrics['score']:.4f} ({clean}unsplit {metrics['score_unsplit']:.4f})"
    headline = (
        f"{point.name}, {metrics['codec']}: {worded(scored, metrics['score_name'])}, "
        f"payload {metrics['payload_bytes']:,.1f} bytes: 1/{metrics['compression_ratio']:.0f} of the float32 features, "
        f"1/{ratio:.1f} of the sample; encoder {metrics['encoder_bytes']:,} bytes{kept}"
    )
    return Result(metrics, figures, history, headline, found.draws)


def _importance(cfg: DictConfig, network: assemble.Network, cut: Cut, codec: LearnedCodec) -> Figure:
    """What matters in the codes of the first test samples."""
    num = min(_NUM_EXPLAINED, cfg.workflow.num_samples or _NUM_EXPLAINED)
    x, y = next(assemble.test_batches(network.task, network.placement, num, num))
    values, what = code_importance(codec, cut, network.task, x, y)
    is_picture = network.task.is_image and isinstance(x, Tensor) and x.shape[1] in (1, 3)
    pictures = x.float().clamp(0, 1).cpu().numpy() if is_picture else None
    return importance(values.float().cpu().numpy(), pictures, what)
