"""Official RepVGG files: the same outputs as a network written with the official names, from either form."""

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.errors import ConfigError
from splitsem.models.repvgg import HyperRepVgg
from tests.repvgg_samples import LAYOUTS, NARROW, pictures


def conv_bn(i: int, o: int, size: int, stride: int, groups: int) -> nn.Module:
    conv = nn.Conv2d(i, o, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(o)))


class OfficialBlock(nn.Module):
    def __init__(self, i: int, o: int, stride: int, groups: int, deploy: bool) -> None:
        super().__init__()
        if deploy:
            self.rbr_reparam = nn.Conv2d(i, o, 3, stride, 1, groups=groups)
            return
        self.rbr_identity = nn.BatchNorm2d(i) if i == o and stride == 1 else None
        self.rbr_dense, self.rbr_1x1 = conv_bn(i, o, 3, stride, groups), conv_bn(i, o, 1, stride, groups)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "rbr_reparam"):
            return F.relu(self.rbr_reparam(x))
        identity = 0 if self.rbr_identity is None else self.rbr_identity(x)
        return F.relu(self.rbr_dense(x) + self.rbr_1x1(x) + identity)


class Official(nn.Module):
    """RepVGG as its authors name it, narrow, with ImageNet's normalisation in front."""

    def __init__(self, groups: int, deploy: bool, num_classes: int = 5) -> None:
        super().__init__()
        self.stage0 = OfficialBlock(3, NARROW[0], 2, 1, deploy)
        layer, width = 0, NARROW[0]
        for stage, (number, out) in enumerate(zip(LAYOUTS["tiny"], NARROW[1:], strict=True), 1):
            blocks = nn.Sequential()
            for place in range(number):
                layer += 1
                blocks.append(OfficialBlock(width, out, 1 if place else 2, 1 if layer % 2 else groups, deploy))
                width = out
            self.add_module(f"stage{stage}", blocks)
        self.linear = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        for stage in (self.stage0, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
        return self.linear(x.mean((2, 3)))


def ours(path, groups: int = 1, num_classes: int = 5) -> HyperRepVgg:
    options = {"blocks": LAYOUTS["tiny"], "widths": NARROW, "groups": groups, "image_size": 32}
    return HyperRepVgg((3, 32, 32), (num_classes,), weights=str(path), **options).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("deploy", [False, True])
def test_an_official_file_gives_the_official_outputs_in_both_forms(tmp_path, suffix, groups, deploy, caplog):
    torch.manual_seed(0)
    official = Official(groups, deploy).eval()
    path = tmp_path / f"repvgg{suffix}"
    save_file(official.state_dict(), path) if suffix == ".safetensors" else torch.save(official.state_dict(), path)
    network, x = ours(path, groups), pictures()
    with torch.no_grad():
        expected = official(x)
        for model in (network, network.deploy(network.closest(13)), network.deploy(network.closest(9))):
            assert (model(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert ("folded kernels" in caplog.text) == deploy
    assert all(a.item() == (b == "D" or not deploy) for block in network.blocks for b, a in block.alpha.items())


def test_names_of_a_parallel_training_in_a_nested_file_are_read_too(tmp_path):
    official = Official(1, deploy=False).eval()
    state = {f"module.{key}": tensor for key, tensor in official.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "r.pth")
    x = pictures()
    assert torch.allclose(ours(tmp_path / "r.pth")(x), official(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("deploy", [False, True])
def test_a_classifier_for_other_classes_starts_afresh(tmp_path, deploy, caplog):
    torch.save(Official(1, deploy).state_dict(), tmp_path / "r.pth")
    assert ours(tmp_path / "r.pth", num_classes=7)(pictures()).shape == (2, 7)
    assert "head.linear.weight" in caplog.text


@pytest.mark.parametrize(
    ("deploy", "key", "message"),
    [
        (False, "stage2.1.rbr_identity.weight", r"missing: stage2.1.branches.I.weight"),
        (True, "stage2.1.rbr_reparam.bias", r"stage2.1.rbr_reparam is missing"),
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused_with_its_name(tmp_path, deploy, key, message):
    state = Official(1, deploy).state_dict()
    del state[key]
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(ConfigError, match=message):
        ours(tmp_path / "r.pth")


def test_a_file_of_a_larger_network_is_refused(tmp_path):
    state = Official(1, deploy=True).state_dict()
    state["stage3.2.rbr_reparam.weight"] = torch.zeros(16, 16, 3, 3)
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(ConfigError, match=r"unknown: stage3.2.rbr_reparam.weight"):
        ours(tmp_path / "r.pth")
