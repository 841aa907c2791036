"""RepVggBlock: up to three parallel branches with learned weights α, and their folding into plain convolutions."""

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from splitsem.models.branches import Branch, Gamma, offered


class RepVggBlock(nn.Module):
    """``y = ReLU(α_D·BN(conv3×3(x)) + α_K·BN(conv1×1(x)) + α_I·BN(x))`` (RepVGG, arXiv 2101.03697; α: 2411.00838).

    The identity is there only where it can be added: equal widths and stride 1. Every α starts at 1.

    Args:
        in_channels: width of ``x``.
        out_channels: width of ``y``.
        stride: stride of both convolutions.
        groups: groups of both convolutions.

    Attributes:
        active: the branches that are summed; the others keep their weights and take no part.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride, self.groups = in_channels, out_channels, stride, groups
        branches: dict[str, nn.Module] = {
            "D": _conv_bn(in_channels, out_channels, 3, stride, groups),
            "K": _conv_bn(in_channels, out_channels, 1, stride, groups),
        }
        if in_channels == out_channels and stride == 1:
            branches["I"] = nn.BatchNorm2d(in_channels)
        self.branches = nn.ModuleDict(branches)
        self.alpha = nn.ParameterDict({name: nn.Parameter(torch.ones(())) for name in branches})
        self.active = tuple(Branch(name) for name in branches)

    @property
    def has_identity(self) -> bool:
        """Whether the block has the branch I."""
        return Branch.I in self.branches

    @property
    def gammas(self) -> tuple[Gamma, ...]:
        """The ways to run this block that use nothing but its active branches."""
        return tuple(gamma for gamma in offered(self.has_identity) if gamma.branches <= set(self.active))

    def check(self, gamma: Gamma) -> None:
        """Raise ValueError when ``gamma`` names a branch that the block never had."""
        if Branch.I in gamma.branches and not self.has_identity:
            ways = ", ".join(str(way.index) for way in offered(has_identity=False))
            raise ValueError(
                f"γ {gamma.index} ({gamma.label}) needs an identity, but this block changes width or size and has "
                f"none; allowed here: {ways}"
            )

    def keep(self, branches: Iterable[Branch]) -> None:
        """Let only ``branches`` take part. Raises ValueError when there are none, or the block lacks one of them."""
        kept = set(branches)
        if not kept or not kept <= set(map(Branch, self.branches)):
            raise ValueError(
                f"branches to keep must be one or more of {', '.join(self.branches)}, got {sorted(kept) or 'none'}"
            )
        self.active = tuple(branch for branch in Branch if branch in kept)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, in_channels, height, width) → (batch, out_channels, ⌈height/stride⌉, ⌈width/stride⌉)."""
        first, *others = (self.alpha[branch] * self.branches[branch](x) for branch in self.active)
        return F.relu(sum(others, first))

    @torch.no_grad()
    def scale_and_bias(self, branch: Branch) -> tuple[Tensor, Tensor]:
        """What batch norm and α do to each output channel in eval mode, in float64.

        ``s = α·weight / √(var + eps)`` and ``b = α·bias − mean·s``.
        """
        module = self.branches[branch]
        bn = module if branch is Branch.I else module.get_submodule("bn")
        assert isinstance(bn, nn.BatchNorm2d)
        assert bn.running_mean is not None
        assert bn.running_var is not None
        alpha = self.alpha[branch].double()
        scale = alpha * bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
        return scale, alpha * bn.bias.double() - bn.running_mean.double() * scale

    @torch.no_grad()
    def kernel_and_bias(self, branch: Branch) -> tuple[Tensor, Tensor]:
        """The branch as one convolution, in float64; the identity is a 1×1 convolution, block-diagonal if grouped.

        Returns:
            The kernel (out_channels, in_channels / groups, k, k) with k = 3 for D and 1 for the others, and the bias.
        """
        scale, bias = self.scale_and_bias(branch)
        if branch is Branch.I:
            width = self.in_channels // self.groups
            kernel = scale.new_zeros(self.out_channels, width, 1, 1)
            channels = torch.arange(self.out_channels, device=scale.device)
            kernel[channels, channels % width] = scale[:, None, None]
            return kernel, bias
        conv = self.branches[branch].get_submodule("conv")
        assert isinstance(conv, nn.Conv2d)
        return conv.weight.double() * scale[:, None, None, None], bias

    def folded(self, group: Iterable[Branch]) -> nn.Module:
        """The sum of some branches as one new module: a convolution of the largest kernel among them.

        The identity alone is a ``ChannelAffine``, never a convolution.
        """
        branches = [branch for branch in Branch if branch in set(group)]
        weight = next(self.parameters())
        if branches == [Branch.I]:
            scale, bias = self.scale_and_bias(Branch.I)
            return ChannelAffine(scale.to(weight.dtype), bias.to(weight.dtype))
        pairs = [self.kernel_and_bias(branch) for branch in branches]
        size = max(kernel.shape[-1] for kernel, _ in pairs)
        conv = skip_init(  # a random start would cost time and disturb the caller's random numbers
            nn.Conv2d, self.in_channels, self.out_channels, size,
            stride=self.stride, padding=size // 2, groups=self.groups, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        with torch.no_grad():
            conv.weight.copy_(sum(F.pad(kernel, [(size - kernel.shape[-1]) // 2] * 4) for kernel, _ in pairs))
            conv.bias.copy_(sum(bias for _, bias in pairs))
        return conv


class ChannelAffine(nn.Module):
    """``x · scale + bias``, one scale and one bias a channel: what is left of batch norm on an identity branch.

    Args:
        scale: (channels,).
        bias: (channels,).
    """

    def __init__(self, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.detach().reshape(-1, 1, 1).clone())
        self.bias = nn.Parameter(bias.detach().reshape(-1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channels, height, width) → the same shape."""
        return torch.addcmul(self.bias, x, self.scale)


class DeployedBlock(nn.Module):
    """A block as it runs at inference: one module for each group of γ, their sum, ReLU.

    Branches that were pruned are left out of their groups.

    Args:
        block: a trained block, which is only read.
        gamma: the way to run it.

    Attributes:
        gamma: the way the block runs.

    Raises:
        ValueError: γ names a branch that the block never had, or only branches that were pruned.
    """

    def __init__(self, block: RepVggBlock, gamma: Gamma) -> None:
        super().__init__()
        block.check(gamma)
        groups = [group & set(block.active) for group in gamma.groups]
        if not any(groups):
            raise ValueError(
                f"γ {gamma.index} ({gamma.label}) has no branch left: only {'+'.join(block.active)} is not pruned"
            )
        self.gamma = gamma
        self.groups = nn.ModuleDict(
            OrderedDict(("".join(b for b in Branch if b in group), block.folded(group)) for group in groups if group)
        )
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, in_channels, height, width) → what the trained block gives, up to rounding."""
        first, *others = (group(x) for group in self.groups.values())
        return F.relu(sum(others, first))


def _conv_bn(in_channels: int, out_channels: int, size: int, stride: int, groups: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))
