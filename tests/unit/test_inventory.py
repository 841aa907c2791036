"""Machines that were saved are options of hardware/machine, without a word in splitsem's own configuration."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath

from hydra_plugins.inventory import Inventory
from splitsem.errors import ConfigError
from splitsem.workflows.profile import _check_name
from tests.conftest import ROOT


def test_the_folder_of_saved_machines_is_searched_where_it_is_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SPLITSEM_INVENTORY", str(tmp_path))
    option = tmp_path / "hardware" / "machine" / "my_pi.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("_target_: splitsem.cost.profiled.Profiled\nfile: my_pi.json\nactive_w: 5.0\nidle_w: 1.0\n")
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", ["hardware/machine@hardware.edge=my_pi"])
    assert cfg.hardware.edge.file == "my_pi.json"
    assert cfg.hardware.save is None


def test_without_a_folder_nothing_is_searched(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SPLITSEM_INVENTORY", str(tmp_path / "none"))

    class Nothing(ConfigSearchPath):
        get_path = prepend = append = None  # type: ignore[assignment]

    Inventory().manipulate_search_path(Nothing)  # type: ignore[arg-type]


def test_a_machine_of_splitsem_is_not_written_over() -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", ["hardware.save=raspberry_pi_4"])
    with pytest.raises(ConfigError, match="raspberry_pi_4 is a machine of splitsem"):
        _check_name(cfg)
