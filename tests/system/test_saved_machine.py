"""The page on machines (docs/machines.md): a machine is saved, then every workflow takes it, its server a process."""

from pathlib import Path

import pandas as pd
import pytest

import splitsem
from splitsem.errors import ConfigError
from splitsem.workflows import profile
from splitsem_device.grpc.client import GrpcTail
from tests.conftest import ROOT
from tests.page_blocks import blocks, commands

pytestmark = pytest.mark.thorough
TINY = ("model.widths=[4,4]", "model.inner_widths=null", "model.stem_width=4")
SERVED = ("task=digits", "device=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2")
SHRUNK = {
    "profile": ("budget_s=0.01", "layers_s=0.1", "rates_s=0.05", "probe_s=0.001"),
    "split": ("num_samples=6",),
    "joint": ("num_samples=40", "codecs=[identity,quant4]"),
    "offload": ("num_samples=10", "num_timed=5", "num_probes=5", "num_paced=10"),
}
"""The settings that make each workflow of the page short."""


def page_commands() -> list[list[str]]:
    """The settings of each command in the blocks of the page that this file runs, in order."""
    own = [one for one in blocks(ROOT / "docs" / "machines.md") if one.test.endswith(Path(__file__).name)]
    return [words[2:] for one in own for words in commands(one.body)]


def workflow_of(words: list[str]) -> str:
    """The verb of a command."""
    return next((word.partition("=")[2] for word in words if word.startswith("workflow=")), "split")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):
    """The folder where the page's first command has saved a machine, and what the others need."""
    folder = tmp_path_factory.mktemp("saved")
    common = (*SERVED, *TINY, "tracking=none", f"cache_dir={folder / 'cache'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SPLITSEM_INVENTORY", str(folder / "inventory"))
        patch.setattr(profile, "NUM_PROBES", 5)  # one of each style
        _, first, *others = page_commands()
        yield others, common, splitsem.run(*first, *common, *_short("profile")), folder


def _short(workflow: str) -> list[str]:
    return [f"workflow.{one}" for one in SHRUNK[workflow]]


def test_the_machine_is_saved_with_its_probes_and_not_added_to_by_another(saved):
    _, common, first, folder = saved
    text = (folder / "inventory" / "my_pi.json").read_text()
    assert all(f"probe {number} (" in text for number in range(5))
    assert first.metrics["num_layers"] > 5
    path = folder / "inventory" / "other.json"
    path.write_text(text.replace('"num_threads": "', '"num_threads": "9'))
    with pytest.raises(
        ConfigError, match=r"other\.json was measured with num_threads 9\d+, this is \d+: measure"
    ) as told:
        splitsem.run("workflow=profile", *common, "hardware.save=other")
    assert "\n" not in str(told.value)
    with pytest.raises(
        ConfigError, match=r"hardware\.save=my_pi is what workflow=profile writes; .* uses it: hardware/m"
    ):
        splitsem.run(*common, "hardware.save=my_pi")


@pytest.mark.parametrize("number", range(3))
def test_a_workflow_of_the_page_takes_the_saved_machine(saved, number: int, capsys):
    others, common, *_ = saved
    words = [word for word in others[number] if word not in common]
    run = splitsem.run(*words, *common, *_short(workflow_of(words)))
    assert run.metrics["latency_s"] > 0
    if "edge_timing" in run.metrics:
        assert run.metrics["edge_timing"] == "predicted"  # by the file: this network's own times are in it
    assert "they are predicted" not in capsys.readouterr().out
    assert run.metrics.get("chain", "my_pi").startswith("my_pi")


def test_a_network_that_is_not_in_the_file_is_predicted_and_said_to_be(saved, capsys):
    others, common, *_ = saved
    other = [word for word in common if not word.startswith("model.stem_width")]
    run = splitsem.run(*[w for w in others[0] if w not in common], *other, "model.stem_width=6", *_short("split"))
    assert run.metrics["edge_s"] > 0
    assert "my_pi.json has no times of this network: they are predicted, median error" in capsys.readouterr().out


@pytest.mark.slow  # a server's process
def test_a_run_over_a_link_takes_the_saved_machine(saved, serve_py):
    others, common, *_ = saved
    address, _ = serve_py(*common)
    words = [word for word in others[3] if word not in common and not word.startswith("transport.target")]
    run = splitsem.run(*words, *common, f"transport.target={address}", "split.point=stage1", *_short("offload"))
    assert run.metrics["edge_timing"] == "predicted"
    assert run.metrics["measured_latency_s"] > 0
    assert run.metrics["latency_s"] > 0


@pytest.mark.slow  # a server's process
def test_a_server_is_profiled_layer_by_layer_and_an_older_one_is_said_to_be(saved, serve_py, monkeypatch, capsys):
    _, common, *_ = saved
    address, _ = serve_py(*common)
    page = [word for word in page_commands()[0] if not word.startswith("transport.target") and word not in common]
    words = (*page, f"transport.target={address}", *common, *_short("profile"))
    run = splitsem.run(*words)
    own, server = (pd.read_csv(run.folder / f"{prefix}layers.csv") for prefix in ("", "server_"))
    assert list(server["layer"]) == list(own["layer"])
    assert list(server) == list(own)
    assert (server[["median_s", "peak_bytes", "live_bytes"]] > 0).all(axis=None)
    assert list(pd.read_csv(run.folder / "server_points.csv").filter(like="head_")) == []
    assert {"layers", "server_layers", "roofline"} <= run.figures.keys()
    assert run.metrics["server_energy_source"] in ("measured", "estimated")
    capsys.readouterr()
    told = GrpcTail.profile
    monkeypatch.setattr(  # a reply without the field, as of a server that does not know it
        GrpcTail, "profile", lambda *given, **more: told(*given, **more)._replace(layers_json="")
    )
    run = splitsem.run(*words)
    assert not (run.folder / "server_layers.csv").exists()
    assert (
        f"the server at {address} is of an older version, which tells no layers: update it" in capsys.readouterr().out
    )
