"""UNet: shapes, stages, thin skips, and that it can be exported for cutting."""

import pytest
import torch

from splitsem.models.unet import UNet


@pytest.fixture(scope="module")
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet((3, 64, 64), (12, 64, 64)).eval()


def test_logits_have_the_pictures_size(unet: UNet) -> None:
    assert unet(torch.rand(2, 3, 64, 64)).shape == (2, 12, 64, 64)


def test_pictures_need_not_be_square() -> None:
    assert UNet((1, 32, 48), (4, 32, 48), width=4)(torch.rand(1, 1, 32, 48)).shape == (1, 4, 32, 48)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_depth_sets_the_number_of_levels(depth: int) -> None:
    model = UNet((3, 32, 32), (5, 32, 32), width=4, depth=depth).eval()
    stages = [name for name, _ in model.named_children()]
    down = [f"{kind}{level}" for level in range(1, depth + 1) for kind in ("enc", "skip")]
    assert stages == [*down, "bottleneck", *(f"dec{level}" for level in range(depth, 0, -1)), "classifier"]
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 5, 32, 32)


def test_it_is_small(unet: UNet) -> None:
    assert 100_000 <= sum(p.numel() for p in unet.parameters()) <= 500_000


def test_what_crosses_after_the_bottleneck_is_less_than_the_picture(unet: UNet) -> None:
    sizes: dict[str, int] = {}
    hooks = [
        unet.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: sizes.update({name: out.numel()}))
        for name in ("skip1", "skip2", "enc3", "skip3", "bottleneck")
    ]
    unet(torch.rand(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    picture = 3 * 64 * 64
    assert sizes["skip1"] + sizes["skip2"] + sizes["enc3"] < picture
    assert sizes["skip1"] + sizes["skip2"] + sizes["skip3"] + sizes["bottleneck"] < 0.65 * picture


def test_every_skip_and_the_bottleneck_reach_the_output(unet: UNet) -> None:
    x = torch.rand(1, 3, 64, 64)
    reference = unet(x)
    for name in ("skip1", "skip2", "skip3", "bottleneck"):
        hook = unet.get_submodule(name).register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
        assert not torch.equal(unet(x), reference), name
        hook.remove()


def test_export_with_a_free_batch_is_exact(unet: UNet) -> None:
    x = torch.rand(2, 3, 64, 64)
    exported = torch.export.export(unet, (x,), strict=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    for batch in (1, 3):
        x = torch.rand(batch, 3, 64, 64)
        assert torch.equal(exported(x), unet(x))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"input_shape": (3, 60, 64), "output_shape": (12, 60, 64)}, "divisible by 16"),
        ({"input_shape": (3, 64, 64), "output_shape": (12, 32, 32)}, "of one size"),
        ({"input_shape": (3, 64, 64), "output_shape": (12,)}, "of one size"),
        ({"input_shape": (3, 64, 64), "output_shape": (12, 64, 64), "width": 0}, "at least 1"),
    ],
)
def test_bad_sizes_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UNet(**arguments)
