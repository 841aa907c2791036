"""Commands that splitsem prints can be pasted: the shell and Hydra read back what was meant."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from splitsem.workflows import pasted, readme_file

ROOT = Path(__file__).parents[2]
NAMES = ("/a b/c", "/it's/{x},y=z", "/back\\slash'", "/ü/é", "a,b", "[1]", "(x)", "$HOME", 'a"b', "`id`", "null", "1e5")
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF)).filter(lambda text: "${" not in text)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    st.lists,
    max_leaves=6,
)


def read(command: str) -> list[object]:
    """The values of a command's settings, as bash splits it and Hydra's grammar takes it."""
    found = shlex.split(command)
    return [plain(one.value()) for one in OverridesParser.create().parse_overrides(found)]


def plain(value: object) -> object:
    match value:
        case QuotedString():
            return value.text
        case list():
            return [plain(one) for one in value]
        case _:
            return value


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_read_back(name):
    both = [pasted.setting("folder", name), pasted.setting("folders", [name, "multirun/b"])]
    assert read(pasted.words(both)) == [name, [name, "multirun/b"]]


@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_any_setting_is_read_back(value):
    assert read(pasted.words([pasted.setting("x", value)])) == [value]


def test_a_name_that_looks_like_an_interpolation_is_none():
    (override,) = OverridesParser.create().parse_overrides(shlex.split(pasted.words([pasted.setting("x", "/a${b}")])))
    assert OmegaConf.create({"x": plain(override.value())}).x == "/a${b}"


def test_what_needs_no_quotes_has_none():
    assert pasted.command("codec=quant2,quant8", "-m") == "python run.py codec=quant2,quant8 -m"


def test_a_command_holds_no_secret_and_still_its_quotes():
    said = pasted.words(["model.hub_token='abc def'", "tracking.uri='http://ann:pa55@host/a b'"])
    assert "abc" not in said
    assert "pa55" not in said
    assert read(said) == ["REDACTED", "http://REDACTED@host/a b"]


def test_a_sweep_with_a_launcher_and_options_of_ones_own_can_be_run_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:/my parts:lib")
    hydra = {
        "overrides": {
            "hydra": ["hydra/launcher=joblib", "hydra.sweep.dir='/old place'", "hydra.mode=MULTIRUN"],
            "task": ["codec=quant2,quant8", "split.point='a,b'", "folders=['x y','z']", "model.x=[1,{a: 2}]"],
        },
        "runtime": {
            "cwd": "/where it ran",
            "config_sources": [
                {"path": "hydra.conf", "provider": "hydra", "schema": "pkg"},
                {"path": "/my conf", "provider": "command-line", "schema": "file"},
            ],
        },
    }
    OmegaConf.save(OmegaConf.create({"hydra": hydra}), tmp_path / "multirun.yaml")
    words = shlex.split(readme_file.command_of(tmp_path))
    assert words[:6] == ["cd", "/where it ran", "&&", "PYTHONPATH=/my parts:lib", "python", str(ROOT / "run.py")]
    assert words[6:] == ["--config-dir=/my conf", "hydra/launcher=joblib", *hydra["overrides"]["task"], "-m"]


def test_the_command_of_a_run_with_a_part_elsewhere_works_from_any_folder(tmp_path, monkeypatch):
    own, elsewhere = tmp_path / "my project", tmp_path / "elsewhere"
    (own / "parts").mkdir(parents=True)
    elsewhere.mkdir()
    (own / "parts" / "mine.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.setenv("PYTHONPATH", "parts")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # the Python is active
    settings = ["workflow=points", "task=digits", "model=custom", "model._target_=mine.Net", "tracking=none"]
    command = ["python", str(ROOT / "run.py"), *settings, "hydra.run.dir=first"]
    subprocess.run(command, cwd=own, check=True, capture_output=True)
    text = (own / "first" / "README.txt").read_text()
    (again,) = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("To run again")]
    monkeypatch.delenv("PYTHONPATH")
    done = subprocess.run(["sh", "-c", f"{again} hydra.run.dir=second"], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (own / "second" / "metrics.json").exists()


def test_a_report_is_drawn_again_from_a_folder_of_any_name(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for name in NAMES:
        folder = tmp_path / name.strip("/")
        (folder / "0").mkdir(parents=True)
        readme_file.write(folder, "done")
        (line,) = [one for one in (folder / "README.txt").read_text().splitlines() if one.startswith("To draw again")]
        words = shlex.split(line.partition(": ")[2])
        assert words[2] == "workflow=report"
        assert Path(words[3]) == folder
