"""load_official: RepVGG weights in the key names of the published files, of the training or the deploy form."""

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from splitsem.errors import ConfigError
from splitsem.models.weights import load_weights

if TYPE_CHECKING:
    from splitsem.models.repvgg import HyperRepVgg
    from splitsem.models.repvgg_block import RepVggBlock

log = logging.getLogger(__name__)
_RENAMED = (
    (re.compile(r"^module\."), ""),  # saved from a parallel training
    (re.compile(r"^stage0\."), "stem."),
    (re.compile(r"^linear\."), "head.linear."),
    (re.compile(r"\.rbr_dense\."), ".branches.D."),
    (re.compile(r"\.rbr_1x1\."), ".branches.K."),
    (re.compile(r"\.rbr_identity\."), ".branches.I."),
)
_FOLDED = re.compile(r"\.rbr_reparam\.(weight|bias)$")


def load_official(network: "HyperRepVgg", weights: Mapping[str, Tensor], source: str) -> None:
    """Load ``weights`` into ``network``; a classifier for other classes keeps its fresh start.

    From the training form (``stage1.0.rbr_dense.conv.weight``, …) every α is 1. The deploy form
    (``stage1.0.rbr_reparam.weight``) has one folded kernel a block: it becomes the branch D, with a batch norm that
    changes nothing but adds the bias, and the other branches get α = 0.

    Args:
        network: in training form.
        weights: state dict in official key names.
        source: where it comes from, for messages.

    Raises:
        ConfigError: a tensor is missing, unknown or of another shape.
    """
    renamed = {_ours(key): tensor for key, tensor in weights.items()}
    own = network.state_dict()
    if any(_FOLDED.search(key) for key in renamed):
        renamed = _unfolded(network, renamed, source)
        log.warning("%s holds folded kernels: the branches K and I of every block are empty", source)
    else:
        renamed = {key: torch.ones(()) for key in own if ".alpha." in key} | renamed
    load_weights(network, renamed, network.num_classes, source)


def _ours(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def _unfolded(network: "HyperRepVgg", folded: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    state = network.state_dict() | {key: tensor for key, tensor in folded.items() if not _FOLDED.search(key)}
    for name, block in zip(network.block_names, network.blocks, strict=True):
        kernel, bias = (folded.get(f"{name}.rbr_reparam.{kind}") for kind in ("weight", "bias"))
        if kernel is None or bias is None:
            raise ConfigError(f"weights from {source} do not fit HyperRepVgg: {name}.rbr_reparam is missing")
        state |= {f"{name}.{key}": tensor for key, tensor in _as_branches(block, kernel, bias).items()}
    unknown = [key for key in folded if _FOLDED.search(key) and _FOLDED.sub("", key) not in network.block_names]
    return state | {key: folded[key] for key in unknown}


def _as_branches(block: "RepVggBlock", kernel: Tensor, bias: Tensor) -> dict[str, Tensor]:
    bn = block.branches["D"].get_submodule("bn")
    assert isinstance(bn, nn.BatchNorm2d)
    ones = torch.ones_like(bias)
    return {
        "branches.D.conv.weight": kernel,
        "branches.D.bn.weight": ones,
        "branches.D.bn.bias": bias,
        "branches.D.bn.running_mean": torch.zeros_like(bias),
        "branches.D.bn.running_var": ones - bn.eps,
        **{f"alpha.{name}": torch.tensor(float(name == "D")) for name in block.alpha},
    }
