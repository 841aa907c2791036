"""From the configuration to codecs: built for the cut, and trained or loaded where they have weights."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.point import SplitPoint
from splitsem.tasks.task import Task
from splitsem.training import kept_weights
from splitsem.training.fingerprint import fingerprint
from splitsem.workflows import assemble, early_exit
from splitsem.workflows.assemble import Network, spare_folder
from splitsem.workflows.codec_options import build_codec, is_for_one_cut, is_learned
from splitsem.workflows.own_model import check_learns

if TYPE_CHECKING:
    from splitsem.codecs.learned.learned import LearnedCodec

log = logging.getLogger(__name__)


def suits(cfg: DictConfig) -> Callable[[CutGraph], None]:
    """Asks a graph, also of an untrained network, for the point and whether the codec can be built for it.

    What is returned raises SplitPointError and ConfigError.
    """

    def ask(graph: CutGraph) -> None:
        point = assemble.chosen_point(cfg, graph, is_told=False)
        early_exit.check_point(cfg, point)
        if is_learned(cfg):
            check_point(graph, point, cfg.codec["_target_"])
        else:
            plain_codec(cfg, point, instantiate(cfg.task))

    return ask


def codec(cfg: DictConfig, network: Network, point: SplitPoint) -> Codec:
    """A fresh codec for the cut at ``point``; a learned one has its trained weights, see ``trained_codec``."""
    if not is_learned(cfg):
        return plain_codec(cfg, point, network.task)
    return trained_codec(cfg, network, point)[0]


def plain_codec(cfg: DictConfig, point: SplitPoint, task: Task) -> Codec:
    """A fresh codec without weights. Raises ConfigError where it is built for one tensor and several cross."""
    target = cfg.codec["_target_"]
    if is_for_one_cut(target) and len(point.tensors) != 1:
        raise ConfigError(
            f"{target.rpartition('.')[2]} is built for one crossing tensor, but at {point.name} cross "
            f"{len(point.tensors)}: choose another split.point="
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)  # weights that nothing trains are the same at both ends
        return build_codec(cfg, point.tensors[0].shape[1:], task)


def trained_codec(cfg: DictConfig, network: Network, point: SplitPoint) -> tuple["LearnedCodec", kept_weights.Trained]:
    """The learned codec that ``cfg`` asks for: from ``codec.weights``, from the cache, or trained now and cached.

    Raises ConfigError when the codec is not a learned one, the cut does not suit it, or the weights are of another.
    """
    from splitsem.codecs.learned.learned import LearnedCodec  # with weights of its own; most runs have none

    if not is_learned(cfg):
        raise ConfigError(f"{cfg.codec['_target_']} has nothing to learn: choose a learned one, e.g. codec=semanticnn")
    check_learns(network.model)
    check_point(network.graph, point, cfg.codec["_target_"])
    torch.manual_seed(cfg.seed)
    made = build_codec(cfg, point.tensors[0].shape[1:], network.task)
    if not isinstance(made, LearnedCodec):
        raise ConfigError(
            f"{type(made).__name__} says is_learned and is no LearnedCodec: subclass it, or leave is_learned"
        )
    made.adopt_tail(network.graph.cut(point).network_tail)
    made.to(network.placement.torch_device).eval()
    if made.weights:
        return made, kept_weights.load(made, Path(made.weights))
    settings = OmegaConf.to_container(cfg.codec, resolve=True)
    facts = {"codec": settings, "from": network.key, "point": point.name, "seed": cfg.seed}
    key = fingerprint(facts, (made, "splitsem.training.codec_fit"))  # of task and data, network.key tells
    folder = Path(cfg.cache_dir) / "codecs"

    def train() -> list[dict[str, float]]:
        if network.placement.dtype is not torch.float32:
            raise ConfigError(
                f"a learned codec is trained in float32, got device.precision={network.placement.precision}: "
                "train it with device.precision=float32, then give its file as codec.weights="
            )
        log.info("Training %s for the cut at %s (kept for later runs in %s)", type(made).__name__, point.name, folder)
        from splitsem.training.codec_fit import fit_codec  # seconds, which a run with trained weights does not pay

        assert isinstance(network.graph, SplitGraph)  # the only one that learns
        return fit_codec(made, network.graph, point, network.task, cfg.seed)

    trained = kept_weights.fit_or_load(made, key, folder, train, spare_folder())
    if trained.from_cache:
        log.info("Trained codec: %s", trained.path)
    return made.eval(), trained


def check_point(graph: CutGraph, point: SplitPoint, name: str) -> None:
    """Raise ConfigError unless one image-like tensor crosses at the point; says at which points it does."""
    if _suits(point):
        return
    crossing = " ".join("×".join(map(str, t.shape[1:])) or "a number" for t in point.tensors)
    fit = ", ".join(p.name for p in graph.points if _suits(p)) or "none of this model"
    raise ConfigError(
        f"{name.rpartition('.')[2]} codes one floating-point tensor channels×height×width, but at {point.name} crosses "
        f"{crossing}; points that suit: {fit}"
    )


def _suits(point: SplitPoint) -> bool:
    tensors = point.tensors
    return len(tensors) == 1 and point.is_batched and len(tensors[0].shape) == 4 and tensors[0].dtype.is_floating_point
