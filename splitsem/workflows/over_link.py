"""One codec over many settings of a lossy link in one go: encoded once, a row for each setting and channel seed."""

import functools
import itertools
import statistics
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError
from splitsem.replay import Recording, play_all
from splitsem.split.partition import Cut
from splitsem.transport.link import Link
from splitsem.transport.lossy import LossyLink
from splitsem.workflows import assemble
from splitsem.workflows.assemble import Network
from splitsem.workflows.job import Metrics

SCORES = "link_scores.csv"
Links = dict[str | float, Callable[[int], Link]]


def links(cfg: DictConfig) -> Links:
    """For each value of ``workflow.over.setting``, what makes the configured link with it and a given seed.

    Each is made once here, so that a wrong value is told before anything is trained.

    Raises ConfigError when the link has no channel or no such setting, and what the constructors raise.
    """
    over = cfg.workflow.over
    made: Links = {}
    name = cfg.transport["_target_"].rpartition(".")[2]
    if not isinstance(instantiate(cfg.transport), LossyLink):
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
    batches = assemble.test_batches(network.task, network.device, cfg.trainer.batch_size, cfg.workflow.num_samples)
    seeds = range(cfg.transport.seed, cfg.transport.seed + cfg.workflow.channel_seeds)
    made = links(cfg)
    rows = pd.DataFrame(play_all(Recording(cut, encoder, batches), decoder, network.task, made, seeds))
    rows.rename(columns={"link": cfg.workflow.over.setting}).to_csv(folder / SCORES, index=False)
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
