"""The examples: short, run by the command in their first line, and true to the contract of their kind."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method
from omegaconf import DictConfig
from safetensors.torch import save_file

from splitsem.check.__main__ import main
from splitsem.errors import ConfigError
from splitsem.workflows import assemble, split
from splitsem_device.bundle import Bundle
from splitsem_device.program import checking
from tests.conftest import ROOT, SHRUNK

FOLDER = ROOT / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
CHECKED = (
    "my_codec.MyCodec",
    "my_link.SerialLine",
    "my_machine.Microcontroller",
    "my_model.Net",
    "my_task.Photos",
    "my_two_outputs.DigitAndMore",
)
PREFIX = ["PYTHONPATH=examples", "python", "run.py"]


def command(example: Path) -> list[str]:
    """The words of the first line of its docstring."""
    return shlex.split(example.read_text().splitlines()[0].strip('"'))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call a workflow in this process with what ``run.py`` would make of these words; returns what that returns."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(tmp_path)

    def call(workflow: Callable[[DictConfig], Any], *words: str) -> Any:
        own = [f"hydra.searchpath=[file://{FOLDER / 'conf'}]", "device=cpu", "tracking=none", f"cache_dir={tmp_path}"]
        given = [word for word in words if not word.startswith("--config-dir")]
        with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
            cfg = compose("config", [*own, *SHRUNK, *given], return_hydra_config=True)
            monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
            return workflow(cfg)

    return call


def test_each_example_is_short_and_begins_with_its_command():
    assert len(EXAMPLES) >= 11
    for example in EXAMPLES:
        assert len(example.read_text().splitlines()) <= 25, example
        assert command(example)[:3] == PREFIX, example


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_by_its_command(example, run):
    if example.stem == "my_weights":
        from my_weights import net

        torch.save(net().state_dict(), "net.pt")
    result = run(lambda cfg: split.run(cfg, Path()), *command(example)[3:])
    assert result.metrics["num_samples"] == 6
    assert "gallery" in result.figures


@pytest.mark.parametrize("part", CHECKED)
def test_an_example_keeps_the_contract_of_its_kind(part, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    assert main([part]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.safetensors", "checkpoint.ckpt"])
def test_weights_give_the_network_that_they_were_saved_from(name, run):
    from my_weights import net

    torch.manual_seed(7)
    saved = net().eval()
    if name.endswith(".safetensors"):
        save_file(saved.state_dict(), name)
    else:
        nested = {"state_dict": saved.state_dict(), "epoch": 3}
        torch.save(nested if name.endswith(".ckpt") else saved.state_dict(), name)
    named = ("model=custom", "model._target_=my_weights.net", f"model.weights={name}", "trainer.max_epochs=0")
    network = run(assemble.network, *named)
    x = torch.rand(3, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(network.model(x), saved(x))


TWO = ("task=my_pairs", "model=my_two_inputs")
WORKFLOWS = {
    "train": (),
    "train with a codec": ("split.point=mix", "codec=quant4"),
    "joint": ("workflow.codecs=[identity,quant4]", "workflow.num_samples=12"),
    "federated": ("federated.rounds=1", "federated.num_clients=2"),
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_structures_pass_through_the_other_workflows(name, run):
    words = (*TWO, f"workflow={name.partition(' ')[0]}", *WORKFLOWS[name])
    result = run(lambda cfg: get_method(cfg.workflow["_target_"])(cfg, Path()), *words)
    assert 0 <= result.metrics["accuracy" if name == "joint" else "score"] <= 1


def test_a_head_with_two_inputs_is_bundled_and_scored(run):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    words = (*TWO, "workflow=bundle", "split.point=mix", "codec=quant8", "workflow.calibration_samples=4")
    result = run(lambda cfg: get_method(cfg.workflow["_target_"])(cfg, Path()), *words)
    assert result.metrics["val_score_onnx"] == result.metrics["val_score_int8"]
    bundle = Bundle("bundle.zip")
    assert len(bundle.head("float32")) == result.metrics["onnx_bytes"]
    assert [one.name for one in bundle.facts.inputs] == ["image", "number"]
    assert all(one.is_good and one.is_exact for one in checking.findings(bundle, ["float32", "int8"]))
    assert result.headline.startswith("mix, quant8: score ")


def test_split_training_of_structures_is_refused_in_a_line(run):
    words = (*TWO, "workflow=splitfed", "split.point=mix")
    with pytest.raises(ConfigError, match="split training is for networks of one input and one output; this one"):
        run(lambda cfg: get_method(cfg.workflow["_target_"])(cfg, Path()), *words)
