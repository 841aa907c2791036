"""Checkpoints as trainers write them are read, whatever surrounds the weights; nothing in them runs."""

import argparse
import datetime
import json
import logging
import os
import pathlib
import random
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from splitsem.errors import ConfigError
from splitsem.models.checkpoints import fitted, load_weights, read_weights
from splitsem.tasks.digits import Digits
from splitsem.training import kept_weights
from splitsem.workflows import own_model


def network(seed: int = 0, classes: int = 5) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), flat=nn.Flatten(), fc=nn.Linear(4, classes))
    )


STATE = network(1).state_dict()
OTHER = network(2).state_dict()


def named(prefix: str, state=STATE):
    return {prefix + name: value for name, value in state.items()}


class Custom:
    """Stands for a class of the trainer's own."""

    def __init__(self) -> None:
        self.depth = 3


FORMS = {
    "plain": STATE,
    "module": named("module."),
    "compiled": named("_orig_mod."),
    "both": named("module._orig_mod.model."),
    "other way round": named("model.backbone._orig_mod.module."),
    "own word": named("student_net.body."),
    "inside": {name.replace("conv1.", "conv1.module."): value for name, value in STATE.items()},
    "lightning": {
        "state_dict": named("net.") | {"loss.weight": torch.ones(5), "metric.total": torch.zeros(())},
        "hyper_parameters": {"net": Custom(), "path": pathlib.PurePosixPath("a"), "at": datetime.timedelta(1)},
        "optimizer_states": [{"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]}],
        "callbacks": {"x": {"best": torch.ones(3)}},
    },
    "model_state_dict": {"model_state_dict": STATE, "optimizer_state_dict": {"state": {0: torch.ones(2)}}, "loss": 1.0},
    "args": {
        "model": STATE,
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("b")),
        "epoch": np.float64(3),
    },
    "params": {"params": STATE},
    "averaged": {"state_dict": OTHER, "state_dict_ema": STATE},
    "averaged below": {"model": OTHER, "ema": {"module": STATE, "decay": 0.9}},
    "unknown entry": {"weights_of_best": named("module."), "optimizer": {"buffer": torch.ones(3)}},
    "nested": {"checkpoint": {"state_dict": named("module.")}},
    "no counters": {name: value for name, value in STATE.items() if "num_batches" not in name},
    "half": {name: value.half() if value.is_floating_point() else value for name, value in STATE.items()},
    "double": {name: value.double() if value.is_floating_point() else value for name, value in STATE.items()},
    "parameters": {name: nn.Parameter(v) if v.is_floating_point() else v for name, v in STATE.items()},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_as_people_have_them_load(tmp_path, form, zipped):
    path = tmp_path / "epoch=3.pth.tar"
    torch.save(FORMS[form], path, _use_new_zipfile_serialization=zipped)
    loaded = network()
    assert load_weights(loaded, read_weights(path), 5, str(path)) == []
    tolerance = 1e-3 if form == "half" else 0
    for name, value in loaded.state_dict().items():
        if name in STATE and not (form == "no counters" and "num_batches" in name):
            assert torch.allclose(value, STATE[name], atol=tolerance, rtol=tolerance), name


def test_which_weights_are_taken_and_cast_is_said(tmp_path, caplog):
    torch.save(FORMS["averaged"], tmp_path / "ema.pth")
    with caplog.at_level(logging.INFO):
        read_weights(tmp_path / "ema.pth")
        load_weights(network(), FORMS["half"], 5, "a file")
    assert "taking the averaged weights state_dict_ema, not state_dict" in caplog.text
    assert "float16 becomes float32" in caplog.text


def test_a_part_of_a_file_and_a_part_of_a_network_fit(caplog):
    wrapped = nn.ModuleDict({"net": network()})
    assert fitted(STATE, wrapped.state_dict(), "a file").keys() == wrapped.state_dict().keys()
    fitted(named("net.") | {"loss.weight": torch.ones(5)}, STATE, "a file")
    assert "leaving out loss.weight" in caplog.text


def test_several_networks_are_refused_unless_one_is_averaged():
    with pytest.raises(ConfigError, match=r"several networks \(student\., teacher\.\)"):
        fitted(named("student.") | named("teacher."), STATE, "a file")
    both = fitted(named("net.", OTHER) | named("ema."), STATE, "a file")
    assert torch.equal(both["fc.weight"], STATE["fc.weight"])


def test_what_does_not_fit_is_said_with_names_and_shapes_of_both_sides():
    with pytest.raises(ConfigError, match=r"missing: conv1\.weight \(4, 3, 3, 3\).*unknown: stem\.weight \(9, 9\)"):
        load_weights(network(), {"stem.weight": torch.zeros(9, 9)}, 5, "a file")


def test_another_number_of_classes_is_said_with_both_shapes(caplog):
    fresh = load_weights(network(classes=7), STATE, 7, "a file")
    assert fresh == ["fc.weight", "fc.bias"]
    assert "fc.weight (5, 4)≠(7, 4)" in caplog.text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad):
    with pytest.raises(ConfigError, match=r"conv1\.bias holds NaN or infinite"):
        load_weights(network(), {**STATE, "conv1.bias": torch.full((4,), bad)}, 5, "a file")


def test_integers_in_place_of_weights_are_refused():
    with pytest.raises(ConfigError, match=r"conv1\.bias must hold plain torch\.float32 numbers, got torch\.int8"):
        load_weights(network(), {**STATE, "conv1.bias": torch.ones(4, dtype=torch.int8)}, 5, "a file")


def test_every_changed_or_missing_byte_gives_one_line_or_the_same_weights(tmp_path):
    draw = random.Random(0)
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save({"state_dict": STATE, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for _ in range(150):
            place = draw.randrange(len(whole))
            path.write_bytes(whole[:place] + bytes([whole[place] ^ draw.randrange(1, 256)]) + whole[place + 1 :])
            if _loads_other_weights(path) and zipped:
                pytest.fail(f"byte {place} changed the weights unnoticed")
            path.write_bytes(whole[: draw.randrange(len(whole))])
            assert not _loads_other_weights(path)


def test_a_name_of_a_damaged_file_is_told_in_one_line(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({f"{name}\n\x1b[31m": value for name, value in STATE.items()}, path)
    with pytest.raises(ConfigError, match=r"\\n\\x1b\[31m") as told:
        load_weights(network(), read_weights(path), 5, str(path))
    assert str(told.value).isprintable()


def _loads_other_weights(path: pathlib.Path) -> bool:
    loaded = network()
    try:
        load_weights(loaded, read_weights(path), 5, str(path))
    except ConfigError as exc:
        if "\n" in str(exc):
            pytest.fail(f"more than a line: {exc}")
        return False
    return any(not torch.equal(value, STATE[name]) for name, value in loaded.state_dict().items())


def test_every_changed_header_byte_of_a_safetensors_file_gives_one_line_or_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(STATE, path)
    whole = path.read_bytes()
    for place in range(0, 700, 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])
        _loads_other_weights(path)
    path.write_bytes((2**62).to_bytes(8, "little") + whole[8:])
    with pytest.raises(ConfigError, match="header claims"):
        read_weights(path)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_weights(path)


def _other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def _bomb(path):
    torch.save({"a": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


class _RunsCode:
    def __reduce__(self):
        return os.system, ("exit 1",)


REFUSED = {
    "code": (lambda path: torch.save({"a": _RunsCode()}, path), "it names posix.system, which runs code; take a file"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "neither a .safetensors file nor"),
    "other zip": (_other_zip, "archive of something else"),
    "compressed": (_bomb, "it is compressed"),
    "whole network": (lambda path: torch.save(network(), path), r"a whole torch\.nn\.\S+Sequential.*state_dict\(\)"),
    "network in entry": (lambda path: torch.save({"model": network()}, path), r"a whole torch\.nn\..*state_dict\(\)"),
    "script": (lambda path: torch.jit.script(nn.Linear(2, 2)).save(path), r"a program .*state_dict\(\)"),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), "must hold a state dict"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_holds_no_weights_is_refused_in_one_line(tmp_path, kind):
    make, said = REFUSED[kind]
    make(tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=said) as told:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(told.value)
    assert "delete" not in str(told.value)


def test_ready_weights_may_come_from_elsewhere_and_are_not_ours_to_delete(tmp_path):
    torch.save({"state_dict": named("module.")}, tmp_path / "w.pth")
    loaded = network()
    kept_weights.load_any(loaded, tmp_path / "w.pth")
    assert torch.equal(loaded.fc.weight, STATE["fc.weight"])
    with pytest.raises(ConfigError, match=r"fc\.weight \(5, 4\)≠\(7, 4\)"):
        kept_weights.load_any(network(classes=7), tmp_path / "w.pth")
    kept_weights.save(loaded, tmp_path / "own.safetensors", [], 0.0)
    whole = bytearray((tmp_path / "own.safetensors").read_bytes())
    whole[-1] ^= 1
    (tmp_path / "own.safetensors").write_bytes(whole)
    with pytest.raises(ConfigError, match="checksum"):
        kept_weights.load_any(network(), tmp_path / "own.safetensors")


class Net(nn.Module):
    """A user's network, which knows nothing of weights files."""

    def __init__(self, output_shape, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, output_shape[0]))

    def forward(self, x):
        return self.body(x)


def test_any_model_starts_from_a_checkpoint(tmp_path):
    torch.manual_seed(3)
    original = Net((10,))
    torch.save({"state_dict": named("net.", original.state_dict())}, tmp_path / "w.ckpt")
    cfg = OmegaConf.create({"_target_": f"{__name__}.Net", "weights": str(tmp_path / "w.ckpt")})
    model = own_model.make(cfg, instantiate({"_target_": f"{Digits.__module__}.Digits"}))
    assert torch.equal(model.body[1].weight, original.body[1].weight)
