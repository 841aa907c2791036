"""HyperRepVgg: RepVGG with learned branch weights α, deployed in any of 14 ways γ a block; official weights fit."""

import copy
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from splitsem.errors import ConfigError
from splitsem.models.branches import Branch, gamma_at, without_identity
from splitsem.models.capabilities import UnitChain
from splitsem.models.checkpoints import fitted, load_weights, read_weights
from splitsem.models.image_front import ImageFront, attach, front_of
from splitsem.models.repvgg_block import DeployedBlock, RepVggBlock
from splitsem.models.repvgg_units import UnitFacts, block_facts, check_layout, head, head_facts, most_important, trunk

if TYPE_CHECKING:
    from splitsem.models.repvgg_block import RepVggBlock


log = logging.getLogger(__name__)
_RENAMED = (
    (re.compile(r"(?<![^.])stage0\."), "stem."),
    (re.compile(r"(?<![^.])(?<!head\.)linear\."), "head.linear."),
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
        network: a network in training form.
        weights: state dict in official key names.
        source: where the weights come from, for messages.

    Raises:
        ConfigError: a tensor is missing, unknown or of another shape.
    """
    own = network.state_dict()
    names = {key for key in own if ".alpha." not in key}
    names |= {f"{block}.rbr_reparam.{kind}" for block in network.block_names for kind in ("weight", "bias")}
    renamed = fitted({_ours(key): tensor for key, tensor in weights.items()}, dict.fromkeys(names), source)
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


class DeployedRepVgg(UnitChain):
    """The form for inference: plain convolutions, scales and additions, in eval mode, with weights of its own.

    Attributes:
        gammas: the way in which each block runs.
    """

    def __init__(self, units: Mapping[str, nn.Module], gammas: tuple[int, ...]) -> None:
        super().__init__(units)
        self.gammas = gammas
        self.eval()


class HyperRepVgg(UnitChain):
    """A chain of blocks with up to three branches each, ``stem``, ``stage1.0``, …, then ``head`` (arXiv 2411.00838).

    It trains with all branches beside each other; ``deploy`` folds a trained network into the form that runs. The stem
    is a block like the others, so RepVGG-B3 has 28 of them, as in RepVGG's own count (arXiv 2101.03697); the 27 of
    HyperRepVGG's published tables are those of the stages.

    Args:
        input_shape: ``(channels, height, width)`` of one picture in [0, 1].
        output_shape: ``(classes,)``.
        blocks: how many blocks each stage has; the first one of a stage halves height and width.
        widths: channels of the stem and of each stage: one more than ``blocks``.
        groups: groups of the convolutions in blocks 2, 4, …, 26 (the stem is block 0); 1 elsewhere.
        stem_stride: 2 as published, or 1 for small pictures.
        image_size: height and width to which pictures are resized; they also get three channels and ImageNet's
            normalisation, which published weights expect. None takes pictures as they are.
        weights: a local ``.safetensors`` or ``.pth`` file in RepVGG's official key names, of either form.
        gamma: how ``deployed`` runs the blocks: None for the training form, one γ for all blocks (where a block has no
            identity, the closest way without it, see ``closest``), or one γ a block, the stem first.
        alpha_keep: share of all branches that ``deployed`` keeps, the most important ones, one a block at least.
        is_alpha_trained: whether every α is learned; else it stays 1.
        alpha_epochs: 0: α learns with the weights. Otherwise the weights learn with every α = 1, and then every α
            learns alone for so many epochs, with frozen weights and batch norm statistics, as published: this makes
            α comparable between blocks. ``training.fit.Fit`` does so.
        alpha_l1: β, weight of Σ|α| in the training loss; 0.01 as published, where α learns alone. While the weights
            learn, too, β has little effect: the next batch norm makes up for a smaller α.

    Raises:
        ValueError: an argument makes no sense, or a γ is not possible for its block.
        ConfigError: the weights cannot be read or do not fit.
    """

    deploy_settings: ClassVar[tuple[str, ...]] = ("gamma", "alpha_keep")

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        blocks: Sequence[int],
        widths: Sequence[int],
        groups: int = 1,
        stem_stride: int = 2,
        image_size: int | None = None,
        weights: str | None = None,
        gamma: int | Sequence[int] | None = None,
        alpha_keep: float = 1.0,
        is_alpha_trained: bool = True,
        alpha_epochs: int = 0,
        alpha_l1: float = 0.0,
    ) -> None:
        check_layout(input_shape, output_shape, blocks, widths, groups, stem_stride)
        if weights is not None and image_size is None:
            raise ValueError("image_size must be given with weights: 224 is what the published ones were trained with")
        if not 0 < alpha_keep <= 1:
            raise ValueError(f"alpha_keep must be in (0, 1], got {alpha_keep}")
        if not 0 <= alpha_l1 < math.inf:
            raise ValueError(f"alpha_l1 must be 0 or more, got {alpha_l1}")
        if alpha_epochs < 0:
            raise ValueError(f"alpha_epochs must be 0 or more, got {alpha_epochs}")
        if alpha_epochs and not is_alpha_trained:
            raise ValueError(f"alpha_epochs must be 0 with is_alpha_trained=false, got {alpha_epochs}")
        in_channels = input_shape[0] if image_size is None else 3
        super().__init__(
            trunk(in_channels, blocks, widths, groups, stem_stride) | {"head": head(widths[-1], output_shape[0])}
        )
        if image_size is not None:
            attach(ImageFront(input_shape, image_size=image_size), self.units[0])
        self.input_shape, self.num_classes = tuple(input_shape), output_shape[0]
        self.alpha_keep, self.alpha_l1, self.alpha_epochs = alpha_keep, alpha_l1, alpha_epochs
        self._are_weights_frozen = False
        self.learn(weights=True, alpha=is_alpha_trained and not alpha_epochs)
        self.gamma = None if gamma is None else self.closest(gamma) if isinstance(gamma, int) else self._checked(gamma)
        if weights is not None:
            load_official(self, read_weights(weights), weights)

    @property
    def blocks(self) -> tuple[RepVggBlock, ...]:
        """All blocks in order, the stem first."""
        return tuple(unit for unit in self.units if isinstance(unit, RepVggBlock))

    @property
    def block_names(self) -> tuple[str, ...]:
        """The names of the blocks, in order: all units but the head."""
        return self.unit_names[:-1]

    def deployed(self) -> nn.Module:
        """The form that ``gamma`` and ``alpha_keep`` ask for; the network itself where they ask for nothing."""
        network = self
        if self.alpha_keep < 1:
            network = self.with_branches(most_important(self.importance(), self.alpha_keep))
        return network.eval() if self.gamma is None else network.deploy(self.gamma)

    def deploy(self, gammas: int | Sequence[int]) -> DeployedRepVgg:
        """A new network that computes what this one does in eval mode with the branches that the γ name.

        Args:
            gammas: γ of each block, the stem first; or of each unit, the head's 0 at the end; or one for all blocks.

        Raises:
            ValueError: a γ is not possible for its block, which is named; or their number is wrong.
        """
        gammas = self._checked([gammas] * len(self.blocks) if isinstance(gammas, int) else gammas)
        units = {
            name: self.unit(index, gamma)
            for index, (name, gamma) in enumerate(zip(self.block_names, gammas, strict=True))
        }
        return DeployedRepVgg(units | {self.unit_names[-1]: self.unit(len(gammas), 0)}, gammas)

    def unit(self, index: int, gamma: int) -> nn.Module:
        """One unit in its form for inference, new and in eval mode; ``deploy`` is made of these.

        Args:
            index: 0 is the stem, the last one the head.
            gamma: the way to run it; 0 for the head, which has no branches.

        Raises:
            ValueError: γ is not possible there; the message names the unit.
        """
        name, unit = self.unit_names[index], self.units[index]
        if not isinstance(unit, RepVggBlock):
            if gamma != 0:
                raise ValueError(f"{name}: γ must be 0, since it has no branches; got {gamma}")
            return copy.deepcopy(unit).eval()
        try:
            deployed = DeployedBlock(unit, gamma_at(gamma))
        except ValueError as exc:
            raise ValueError(f"{name}: {exc}") from exc
        front = front_of(unit)
        if front is not None:
            attach(copy.deepcopy(front), deployed)
        return deployed

    def closest(self, gamma: int) -> tuple[int, ...]:
        """``gamma`` for each block; where a block has no identity the same way without I, e.g. 13 → 4, 9 → 3, 5 → 0.

        Raises:
            ValueError: nothing is left of γ without I, for a block that lacks it.
        """
        wanted, ways = gamma_at(gamma), []
        for name, block in zip(self.block_names, self.blocks, strict=True):
            way = wanted if block.has_identity else without_identity(wanted)
            if way is None:
                raise ValueError(
                    f"{name}: γ {gamma} ({wanted.label}) is not possible for all blocks: this one changes width or "
                    "size and has no identity; give a list with one γ a block"
                )
            ways.append(way.index)
        return tuple(ways)

    def facts(self) -> tuple[UnitFacts, ...]:
        """Shapes, valid γ, FLOPs and bytes of every unit, for one sample."""
        facts: list[UnitFacts] = []
        for name, unit in zip(self.unit_names, self.units, strict=True):
            shape = facts[-1].output_shape if facts else self.input_shape
            if isinstance(unit, RepVggBlock):
                facts.append(block_facts(name, unit, shape, front_of(unit)))
            else:
                facts.append(head_facts(name, shape, self.num_classes))
        return tuple(facts)

    def importance(self) -> tuple[dict[Branch, float], ...]:
        """``|α| / (FLOPs / 1e9)`` of every branch of every block, at its input shape (arXiv 2411.00838)."""
        return tuple(
            {
                branch: block.alpha[branch].detach().abs().item() / (flops / 1e9)
                for branch, flops in facts.branch_flops.items()
            }
            for block, facts in zip(self.blocks, self.facts()[:-1], strict=True)
        )

    def with_branches(self, kept: Sequence[Iterable[Branch]]) -> "HyperRepVgg":
        """A copy in training form in which only the ``kept`` branches of each block take part.

        Raises:
            ValueError: names the block that would keep nothing, or a branch that it does not have.
        """
        if len(kept) != len(self.blocks):
            raise ValueError(f"kept must name the branches of each of the {len(self.blocks)} blocks, got {len(kept)}")
        network = copy.deepcopy(self)
        for name, block, branches in zip(network.block_names, network.blocks, kept, strict=True):
            try:
                block.keep(branches)
            except ValueError as exc:
                raise ValueError(f"{name}: {exc}") from exc
        return network

    def regularisation(self) -> Tensor:
        """``β·Σ|α|`` over the branches that take part."""
        return self.alpha_l1 * torch.stack([block.alpha[b].abs() for block in self.blocks for b in block.active]).sum()

    def learn(self, weights: bool, alpha: bool) -> None:
        """Say what training changes: the weights (with batch norm's statistics), every α, or weights and α."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(alpha if ".alpha." in name else weights)
        self._are_weights_frozen = not weights
        self.train(self.training)

    def train(self, mode: bool = True) -> "HyperRepVgg":
        """As for any module; frozen weights keep batch norm's statistics as they are."""
        super().train(mode)
        if self._are_weights_frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def _checked(self, gammas: Sequence[int]) -> tuple[int, ...]:
        if len(gammas) == len(self.units) and gammas[-1] == 0:
            gammas = gammas[:-1]  # the head's
        if len(gammas) != len(self.blocks):
            raise ValueError(
                f"gamma must be one for all or one for each of the {len(self.blocks)} blocks "
                f"({self.block_names[0]} … {self.block_names[-1]}), got {len(gammas)}"
            )
        for name, block, gamma in zip(self.block_names, self.blocks, gammas, strict=True):
            try:
                block.check(gamma_at(gamma))
            except ValueError as exc:
                raise ValueError(f"{name}: {exc}") from exc
        return tuple(gammas)
