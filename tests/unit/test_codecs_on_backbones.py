"""Learned codecs at a cut of torchvision's backbones, built as a workflow builds them; nothing is trained."""

from math import ceil

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.training import kept_weights
from splitsem.workflows import assemble, assemble_codec
from tests.conftest import ROOT

# A cut that one image-like tensor crosses, and what crosses for pictures of 64×64.
POINTS = {
    "resnet18": ("layer1", (64, 16, 16)),
    "resnet50": ("layer1", (256, 16, 16)),
    "mobilenet_v2": ("features.3", (24, 16, 16)),
    "mobilenet_v3_small": ("features.2", (24, 8, 8)),
    "mobilenet_v3_large": ("features.3", (24, 16, 16)),
}
SLOW = ("resnet50", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")  # seconds to capture, each


def config(name: str, codec: str, cache_dir, *overrides: str) -> DictConfig:
    """The real configuration of ``workflow=codec`` for an untrained backbone that sees digits at 64×64."""
    chosen = ["workflow=codec", "task=digits", "device=cpu", "model=torchvision", f"model.name={name}"]
    settings = ["model.image_size=64", "trainer.max_epochs=0", f"split.point={POINTS[name][0]}"]
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", [*chosen, *settings, f"codec={codec}", f"cache_dir={cache_dir}", *overrides])


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in POINTS])
def test_learned_codecs_attach_to_a_backbone_and_send_what_their_size_says(name, tmp_path):
    _, (channels, height, width) = POINTS[name]
    positions = ceil(height / 4) * ceil(width / 4)
    body_bytes = {
        "semanticnn": ceil(min(channels // 2, 128) * positions * 3 / 8),
        "crbq": 3 * positions,
        "entropic_student": None,  # what the entropy coder gives
    }
    for codec, expected in body_bytes.items():
        cfg = config(name, codec, tmp_path)
        network = assemble.network(cfg)  # kept for the next codec
        point = assemble.chosen_point(cfg, network.graph)
        assert tuple(point.tensors[0].shape[1:]) == (channels, height, width)
        torch.manual_seed(0)
        untrained = instantiate(cfg.codec, tensor_shape=(channels, height, width), _convert_="all")
        untrained.adopt_tail(network.graph.cut(point).tail)
        kept_weights.save(untrained, tmp_path / f"{codec}.safetensors", [], 0.0)
        cfg.codec.weights = str(tmp_path / f"{codec}.safetensors")
        sender, receiver = (assemble_codec.codec(cfg, network, point) for _ in range(2))
        with torch.no_grad():
            (z,) = network.graph.cut(point).head(torch.rand(1, 1, 8, 8))
            payload = sender.encode((z,))
            (z_hat,) = receiver.decode(payload)
            assert network.graph.cut(point).tail(z_hat).shape == (1, 10)
        assert z_hat.shape == z.shape
        assert torch.equal(z_hat, sender((z,))[0])
        assert len(payload) < point.raw_bytes / 10
        if expected is not None:
            assert len(payload) == sender.protected_bytes(payload) + expected


def test_a_cut_of_a_backbone_that_does_not_suit_names_those_that_do(tmp_path):
    cfg = config("resnet18", "crbq", tmp_path, "split.point=output")
    network = assemble.network(cfg)
    with pytest.raises(ConfigError, match=r"CrBq codes one floating-point tensor.*points that suit: .*layer1"):
        assemble_codec.codec(cfg, network, assemble.chosen_point(cfg, network.graph))
