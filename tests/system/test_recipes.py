"""The recipes docs/how-to/add-a-….md run as they stand: their files are written, their commands are called."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ENVIRONMENT, ROOT

KINDS = ("codec", "task", "link", "machine", "model")
PAGES = {kind: (ROOT / "docs" / "how-to" / f"add-a-{kind}.md").read_text() for kind in KINDS}
CHECK = (ROOT / "docs" / "how-to" / "check-a-part.md").read_text()
# Added to each `python run.py` of a recipe: no MLflow, and no more work than shows that it runs.
SHRUNK = (
    "device=cpu",
    "tracking=none",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "workflow.num_samples=6",
)


class Recipe(NamedTuple):
    """What a reader copies from one page.

    Attributes:
        files: their text by their path, which is the first line of each block.
        commands: in order.
    """

    files: dict[str, str]
    commands: list[str]


def recipe(kind: str) -> Recipe:
    """The blocks of the page on a kind."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGES[kind], re.MULTILINE | re.DOTALL)
    sources = [body for language, body in blocks if language in ("python", "yaml")]
    commands = [line for language, body in blocks if language == "sh" for line in body.splitlines()]
    return Recipe({body.splitlines()[0].removeprefix("# "): body for body in sources}, commands)


@pytest.fixture
def follow(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Write a recipe's files, some text replaced, into the test's folder, and call a command there."""

    def call(kind: str, command: str, old: str = "", new: str = "") -> subprocess.CompletedProcess[str]:
        for path, text in recipe(kind).files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text.replace(old, new) if old else text)
        python, *words = shlex.split(command)
        assert python == "python"
        if words[0] == "run.py":
            words = [str(ROOT / "run.py"), *words[1:], *SHRUNK]
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "device")))},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


def test_every_page_has_a_recipe_of_a_class_an_option_a_check_and_a_run():
    for kind in KINDS:
        files, commands = recipe(kind)
        assert [path.rpartition(".")[2] for path in files][:2] == ["py", "yaml"], kind
        assert all(re.fullmatch(r"my_(package|conf)/[\w/]+\.\w+", path) for path in files), kind
        assert [" ".join(command.split()[:3]) for command in commands] == [
            "python -m splitsem.check",
            "python run.py --config-dir=my_conf",
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_part_of_each_recipe_keeps_its_contract(kind, follow):
    command = recipe(kind).commands[0]
    done = follow(kind, command)
    name = command.rpartition(".")[2]
    assert re.fullmatch(rf"ok: {name} keeps the contract of a {kind} \(\d+ promises\)\n", done.stdout), done.stderr
    assert done.returncode == 0


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_each_recipe_runs_as_it_stands(kind, follow):
    done = follow(kind, recipe(kind).commands[1])
    assert done.returncode == 0, done.stderr
    assert "score" in done.stdout


def test_the_check_also_takes_the_option_of_a_recipe(follow):
    done = follow("link", "python -m splitsem.check transport=serial --config-dir=my_conf")
    assert re.fullmatch(r"ok: transport=serial keeps the contract of a link \(\d+ promises\)\n", done.stdout), (
        done.stderr
    )


def test_the_page_shows_what_the_check_prints(follow):
    good, bad = re.findall(r"^```text\n(.*?)^```$", CHECK, re.MULTILINE | re.DOTALL)
    command = recipe("codec").commands[0]
    assert follow("codec", command).stdout == good
    flat = follow("codec", command, "return tuple(tensor for", "return tuple(tensor.reshape(-1) for")
    assert (flat.returncode, flat.stdout) == (1, bad)
