"""HyperRepVgg networks for tests: narrow ones with the published structure, and weights as training leaves them."""

import torch
from torch import nn

from splitsem.models.repvgg import HyperRepVgg

LAYOUTS = {"a": (2, 4, 14, 1), "b": (4, 6, 16, 1), "tiny": (2, 2, 2, 1)}
NARROW = (8, 8, 12, 16, 24)


def narrow(layout: str = "tiny", groups: int = 1, **options) -> HyperRepVgg:
    """The blocks of a published layout with few channels, lived in, for 3×32×32 pictures and five classes."""
    torch.manual_seed(0)
    arguments = {"blocks": LAYOUTS[layout], "widths": NARROW, "groups": groups, "stem_stride": 1}
    return lived_in(HyperRepVgg((3, 32, 32), (5,), **arguments | options))


def lived_in(network: HyperRepVgg, seed: int = 1) -> HyperRepVgg:
    """Statistics, affine parameters and α that are not what a constructor leaves; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.3, 2, generator=generator)
        for block in network.blocks:
            for alpha in block.alpha.values():
                alpha.uniform_(-0.5, 1.5, generator=generator)
    return network.eval()


def pictures(num: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(2))


def assert_same_function(ours: nn.Module, reference: nn.Module, x: torch.Tensor) -> None:
    """Outputs agree to 1e-4 of the reference's scale, and the reference says something."""
    with torch.no_grad():
        expected, got = reference(x), ours(x)
    scale = expected.abs().max()
    assert scale > 0
    assert (got - expected).abs().max() <= 1e-4 * scale
