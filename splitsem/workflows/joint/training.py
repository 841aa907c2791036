"""mode=real with ``workflow.trains_split``: the hyper-network learns with its head here and its tail on the server."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
from hydra.utils import instantiate
from omegaconf import OmegaConf

from splitsem.errors import ConfigError
from splitsem.lightning.fingerprint import fingerprint
from splitsem.workflows import assemble
from splitsem.workflows.assemble import Whole

if TYPE_CHECKING:
    from splitsem.workflows.joint.branches import JointBranches
    from splitsem.workflows.joint.real import RealPair

log = logging.getLogger(__name__)
_LEFT_OUT = ("splitsem.workflows", "splitsem.plots", "splitsem.transport")  # none of them changes a number


def whole(joint: JointBranches, pair: RealPair | None) -> Whole:
    """The trained network: split between the two processes of ``pair`` where that is asked for, else in this one.

    Split-trained weights are kept beside the others, as ``split-<key>.safetensors``; the processes of ``pair`` use them
    from then on.

    Raises:
        ConfigError: there is a penalty on α.
    """
    point = joint.settings.trains_split
    if point is None or pair is None:
        return assemble.whole(joint.cfg)
    if joint.untrained.alpha_l1 > 0:
        raise ConfigError("workflow.trains_split sends no model.alpha_l1 over the link; set it to 0, or train here")
    path = _kept(joint, pair, str(point))
    pair.weights = str(path.absolute())
    cfg = joint.cfg.copy()
    cfg.trainer.weights = pair.weights
    return assemble.whole(cfg)


def _kept(joint: JointBranches, pair: RealPair, point: str) -> Path:
    names = ("task", "model", "trainer")
    facts: dict[str, Any] = {name: OmegaConf.to_container(joint.cfg[name], resolve=True) for name in names}
    for name in joint.untrained.deploy_settings:
        del facts["model"][name]
    transport = joint.cfg.transport["_target_"]  # its settings change no number
    facts |= {"seed": joint.cfg.seed, "trains_split": point, "transport": transport}
    fit = instantiate(assemble.trainer_settings(joint.cfg))
    objects = (instantiate(joint.cfg.task), joint.untrained, fit, "splitsem.workflows.split_train")
    key = fingerprint(facts, objects, without=_LEFT_OUT, cache_dir=Path(joint.cfg.cache_dir))
    path = Path(joint.cfg.cache_dir) / "weights" / f"split-{key}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if path.exists():
            log.info("Weights of a split training at %s: %s", point, path)
        else:
            log.info("Training split at %s, head here and tail on the server (kept in %s)", point, path)
            made = pair.split_train(point)
            shutil.move(made, path)
    return path
