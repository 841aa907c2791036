"""What an extra brings is written down twice, alike; and a missing package is one line with pip's command."""

import re
import tomllib

import pytest
from hydra.errors import InstantiationException

from splitsem import extras
from splitsem.errors import ConfigError
from splitsem.workflows import doctor, mistakes
from splitsem.workflows.own_model import find
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED: dict[str, list[str]] = PROJECT["optional-dependencies"]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=;]", requirement)[0]


def lacking(module: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {module!r}", name=module)


def test_the_table_is_pyprojects():
    declared = {extra: {name_of(one) for one in packages} for extra, packages in DECLARED.items()}
    assert declared.pop("all") == {"splitsem"}
    assert DECLARED["all"] == [f"splitsem[{','.join(extras.IN_ALL)}]"]
    assert declared.pop("dev") >= {"splitsem"}  # whoever develops has all
    assert declared.pop("docs")  # no code of splitsem asks for what builds its site
    assert declared.pop("simulation") == {"flwr"}  # whose extra brings Ray
    assert {extra: set(names) for extra, names in extras.PACKAGES.items() if extra != "simulation"} == declared


def test_no_extra_is_part_of_the_core():
    core = {name_of(one) for one in PROJECT["dependencies"]}
    assert core & {package for packages in extras.PACKAGES.values() for package in packages} == set()


def test_a_missing_package_is_one_line_with_the_command_and_a_note():
    with pytest.raises(ConfigError) as caught, extras.needed("training", "task=digits", "or take another task"):
        raise lacking("sklearn.datasets")
    line = "task=digits needs scikit-learn: pip install 'splitsem[training]' (or 'splitsem[all]'); or take another task"
    assert str(caught.value) == line


def test_a_package_that_is_there_but_broken_says_why():
    with pytest.raises(ConfigError) as caught, extras.needed("detection", "X"):
        raise ImportError("libGL.so.1: no such file\nmore")
    assert (
        str(caught.value) == "X needs the extra detection: pip install 'splitsem[detection]' (libGL.so.1: no such file)"
    )


def test_an_import_that_failed_below_anything_is_told_by_its_extra():
    wrapped = InstantiationException("Error locating target\nfull_key: task")
    wrapped.__cause__ = ImportError("Error loading")
    wrapped.__cause__.__cause__ = lacking("torchvision")
    assert (
        mistakes.told(wrapped)
        == "task needs torchvision: pip install 'splitsem[vision]' (or 'splitsem[all]') [E-EXTRA]"
    )
    assert mistakes.told(lacking("mlflow.entities")) == f"{extras.line_of(lacking('mlflow'))} [E-EXTRA]"
    assert mistakes.told(lacking("my_module")) is None


@pytest.mark.parametrize(
    ("option", "extra"), [("hydra/sweeper/optuna", "sweeps"), ("hydra/config/hydra/launcher/submitit_slurm", "slurm")]
)
def test_a_plugin_of_hydras_that_is_missing_names_its_extra(option, extra):
    assert f"pip install 'splitsem[{extra}]'" in mistakes._no_option(option, ["basic"])


def test_a_class_of_a_package_that_is_missing_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda path: (_ for _ in ()).throw(lacking(path.split(".")[0])))
    with pytest.raises(ConfigError, match=r"^model\._target_=timm\.Net needs timm: pip install 'splitsem\[vision\]'"):
        find("timm.Net")


def test_the_doctor_says_what_is_missing_by_extra_with_the_command(monkeypatch):
    monkeypatch.setattr(extras, "_is_there", lambda package: package not in ("mlflow", "timm", "ray"))
    found = doctor._extras("extras", extras.IN_ALL)
    assert (found.found, found.state) == ("tracking: no mlflow; vision: no timm", "info")
    assert "pip install 'splitsem[tracking,vision]'" in found.hint
    with pytest.raises(ConfigError, match=r"workflow=x needs ray: pip install 'splitsem\[simulation\]'$"):
        extras.check("simulation", "workflow=x")
    assert extras.has("plots") != extras.missing()["plots"]
