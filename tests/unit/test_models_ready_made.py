"""torchvision's and timm's networks: every family fits the task, keeps its names, and normalises inside."""

from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F

from splitsem.errors import ConfigError
from splitsem.models.image_front import IMAGENET_MEAN, IMAGENET_STD, ImageFront, check_output
from splitsem.models.ready_made import timm_model, torchvision_model

CONF = Path(__file__).parents[2] / "conf"
# The smallest of every family; 96 pixels are enough for all but maxvit, whose windows are 7×7 after 32-fold reduction.
FAMILIES = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 shufflenet_v2_x0_5
squeezenet1_1 swin_t swin_v2_t vgg11 vit_b_32
"""
SEGMENTERS = "lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large fcn_resnet50"
TIMM_FAMILIES = """
resnet18 mobilenetv3_large_100 vit_tiny_patch16_224 swin_tiny_patch4_window7_224 mobilevit_s
efficientnet_lite0 convnext_atto deit_tiny_distilled_patch16_224 densenet121 regnetx_002 repvgg_a0 levit_128s
maxvit_rmlp_pico_rw_256 efficientvit_m0 ghostnet_100 fastvit_t8
"""


def size_for(name: str) -> int:
    return 224 if name == "maxvit_t" else 96


@pytest.mark.parametrize("name", FAMILIES.split())
def test_every_torchvision_family_fits_small_grey_pictures_and_seven_classes(name: str) -> None:
    network = torchvision_model(name, (1, 8, 8), (7,), image_size=size_for(name))
    x = torch.rand(2, 1, 8, 8)
    assert network.eval()(x).shape == (2, 7)
    assert network.train()(x).shape == (2, 7)


@pytest.mark.parametrize("name", SEGMENTERS.split())
@pytest.mark.parametrize("image_size", [None, 64])
def test_torchvision_segmenters_give_one_map_at_the_pictures_size(name: str, image_size: int | None) -> None:
    network = torchvision_model(name, (3, 32, 48), (12, 32, 48), image_size=image_size)
    x = torch.rand(2, 3, 32, 48)
    assert network.eval()(x).shape == (2, 12, 32, 48)
    assert network.train()(x).shape == (2, 12, 32, 48)


@pytest.mark.parametrize("name", TIMM_FAMILIES.split())
def test_every_timm_family_fits_small_grey_pictures_and_seven_classes(name: str) -> None:
    network = timm_model(name, (1, 8, 8), (7,), image_size=64)
    x = torch.rand(2, 1, 8, 8)
    assert network.eval()(x).shape == (2, 7)
    assert network.train()(x).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_torchvision_classifier_fits(name: str) -> None:
    if name in ("regnet_y_128gf", "vit_h_14"):
        pytest.skip("gigabytes of weights, and of the same family as others here")
    assert torchvision_model(name, (3, 64, 64), (7,), image_size=224).eval()(torch.rand(1, 3, 64, 64)).shape == (1, 7)


def test_names_of_modules_and_weights_stay_the_networks_own() -> None:
    network = torchvision_model("resnet18", (1, 28, 28), (10,))
    original = torchvision.models.resnet18(num_classes=10)
    assert set(network.state_dict()) == set(original.state_dict())
    assert {name for name, _ in network.named_modules()} == {name for name, _ in original.named_modules()} | {"front"}


def test_pictures_are_normalised_inside_as_torchvision_does_outside() -> None:
    network = torchvision_model("resnet18", (3, 32, 32), (10,)).eval()
    original = torchvision.models.resnet18(num_classes=10).eval()
    original.load_state_dict(network.state_dict())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(network(x), original(torchvision.transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)(x)))


def test_timms_own_mean_and_std_are_used() -> None:
    assert timm_model("vit_tiny_patch16_224", (3, 32, 32), (10,)).front.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_grey_pictures_are_seen_as_grey_colour_pictures() -> None:
    x = torch.rand(2, 1, 6, 6)
    assert torch.equal(ImageFront((1, 6, 6))(x), ImageFront((3, 6, 6))(x.repeat(1, 3, 1, 1)))


def test_small_pictures_are_enlarged_inside() -> None:
    x = torch.rand(1, 3, 8, 8)
    seen = ImageFront((3, 8, 8), mean=(0, 0, 0), std=(1, 1, 1), image_size=32)(x)
    torch.testing.assert_close(seen, F.interpolate(x, (32, 32), mode="bilinear"))


def test_constants_follow_device_and_dtype() -> None:
    network = torchvision_model("squeezenet1_1", (1, 32, 32), (10,)).eval().double()
    assert network(torch.rand(1, 1, 32, 32, dtype=torch.float64)).dtype == torch.float64
    assert {buffer.device.type for buffer in deepcopy(network).to("meta").front.buffers()} == {"meta"}


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(lambda: torchvision_model("resnet18", (1, 8, 8), (10,), image_size=32), id="resnet18"),
        pytest.param(lambda: torchvision_model("vit_b_32", (1, 8, 8), (10,), image_size=64), id="vit"),
        pytest.param(
            lambda: torchvision_model("lraspp_mobilenet_v3_large", (1, 8, 8), (3, 8, 8), image_size=64), id="lraspp"
        ),
        pytest.param(lambda: timm_model("mobilenetv3_small_050", (1, 8, 8), (10,), image_size=32), id="timm"),
    ],
)
def test_export_traces_what_the_hooks_do_for_any_batch(network) -> None:
    model = network().eval()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(model, (torch.rand(2, 1, 8, 8),), strict=False, dynamic_shapes=dynamic)
    for batch in (1, 3):
        x = torch.rand(batch, 1, 8, 8)
        assert torch.equal(program.module()(x), model(x))


def test_copies_have_their_own_front() -> None:
    model = torchvision_model("squeezenet1_1", (3, 32, 32), (10,)).eval()
    copy = deepcopy(model)
    copy.front.mean.zero_()
    x = torch.rand(1, 3, 32, 32)
    assert not torch.equal(copy(x), model(x))


def test_mode_and_statistics_are_untouched_by_the_check_of_the_output() -> None:
    network = torchvision_model("resnet18", (3, 32, 32), (10,))
    assert network.training
    assert network.bn1.num_batches_tracked == 0
    assert network.bn1.running_mean.abs().max() == 0


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_builders_are_hydra_targets_and_take_constructor_options(library: str) -> None:
    option = {"torchvision": "dropout", "timm": "drop_rate"}[library]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"+model={library}", "model.name=efficientnet_b0", f"+model.{option}=0.6"]
        config = compose(overrides=overrides).model
    network = instantiate(config, input_shape=(3, 32, 32), output_shape=(4,))
    assert isinstance(network, nn.Module)
    assert 0.6 in [getattr(network, "drop_rate", None), *(m.p for m in network.modules() if isinstance(m, nn.Dropout))]


@pytest.mark.parametrize(
    ("builder", "name", "shapes", "message"),
    [
        (
            torchvision_model,
            "resnet81",
            ((3, 32, 32), (10,)),
            "no network 'resnet81' for pictures; did you mean resnet18",
        ),
        (torchvision_model, "raft_large", ((3, 32, 32), (10,)), "torchvision has no network 'raft_large' for pictures"),
        (torchvision_model, "?", ((3, 32, 32), (10,)), "it has e.g. alexnet"),
        (
            timm_model,
            "resnet81",
            ((3, 32, 32), (10,)),
            "timm has no network 'resnet81' for pictures; did you mean .*resnet18",
        ),
        (
            torchvision_model,
            "alexnet",
            ((3, 32, 32), (10,)),
            r"cannot take inputs of \(3, 32, 32\).*image_size",
        ),
        (torchvision_model, "vit_b_16", ((3, 30, 30), (10,)), r"indivisible by patch size.*image_size"),
        (torchvision_model, "vit_b_16", ((3, 32, 48), (10,)), r"needs square pictures, got \(32, 48\)"),
        (timm_model, "inception_v3", ((1, 8, 8), (10,)), r"cannot take inputs of \(1, 8, 8\).*image_size"),
        (torchvision_model, "resnet18", ((3, 32, 32), (10, 32, 32)), r"gives \(10,\).*task needs \(10, 32, 32\)"),
        (timm_model, "resnet18", ((3, 32, 32), (10, 32, 32)), r"gives \(10,\).*task needs \(10, 32, 32\)"),
        (torchvision_model, "lraspp_mobilenet_v3_large", ((3, 32, 32), (10,)), r"gives \(10, 32, 32\).*needs \(10,\)"),
    ],
)
def test_network_that_does_not_fit_is_a_config_error(builder, name: str, shapes: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        builder(name, *shapes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("builder", [torchvision_model, timm_model])
def test_unknown_constructor_option_is_a_config_error(builder) -> None:
    with pytest.raises(ConfigError, match=r"cannot build resnet18.*unexpected keyword argument 'wdith'"):
        builder("resnet18", (3, 32, 32), (10,), wdith=3)


@pytest.mark.parametrize("builder", [torchvision_model, timm_model])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": True, "weights": "a.pth"}, "weights must be null when pretrained is true, got a.pth"),
        ({"input_shape": (4, 32, 32)}, r"input_shape must be \(1 or 3, height, width\), got \(4, 32, 32\)"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(builder, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        builder("resnet18", **{"input_shape": (3, 32, 32), "output_shape": (10,), **arguments})


def test_timms_tagged_names_are_known() -> None:
    assert timm_model("resnet18.a1_in1k", (3, 32, 32), (4,)).num_classes == 4
    assert timm.is_model("resnet18.a1_in1k")


@pytest.mark.parametrize(
    ("output_shape", "said"),
    [((100, 6), "which are boxes: take a detector, e.g. model=detector or"), ((4, 32, 32), "take e.g. model=unet or")],
)
def test_a_network_of_another_kind_than_the_task_needs_is_told_with_one_that_fits(output_shape, said) -> None:
    with pytest.raises(ConfigError, match=said):
        check_output(nn.Flatten(), "flatten", torch.zeros(1, 3, 32, 32), output_shape)
