"""Every command and block of the pages is checked, run by a test that it names, or marked with the reason why not.

A command of `run.py` is composed, its first job of a sweep: names, options and types of all its settings are checked.
`tests/system/test_page_runs.py` (slow) also runs it, shrunk.
"""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import DictConfig, open_dict

from splitsem import extras
from splitsem.data.entries import ENTRIES
from splitsem.workflows import settings
from tests.conftest import ROOT
from tests.page_blocks import PAGES, RUN, SHOWN, Block, blocks, commands, without_environment

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FLAGS = {"-m", "--multirun", "--resolve"}
WITH_VALUE = {"--cfg", "--package", "-c", "-p", "--config-dir"}


def overrides(words: list[str]) -> list[str]:
    """The settings of a command without flags; of what is swept, the first value."""
    found: list[str] = []
    skip = False
    for word in words:
        if skip or word in FLAGS or word.startswith("--"):
            skip = not skip and word in WITH_VALUE
            continue
        if "=" not in word and not word.startswith("~"):  # a folder, of workflow=report
            continue
        (override,) = OverridesParser.create().parse_overrides([word])
        if override.is_sweep_override():
            word = f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
        found.append(word)
    return found


def composed(words: list[str]) -> DictConfig:
    """The configuration of a command, checked as far as that needs no file."""
    folders = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    search = [f"hydra.searchpath=[{','.join(f'file://{ROOT / folder}' for folder in folders)}]"] if folders else []
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", [*search, *overrides(words)], return_hydra_config=True)


def check(words: list[str]) -> None:
    """Fail where a command names what is not there."""
    match without_environment(words):
        case ["python", *rest]:
            _check_python(rest)
        case ["splitsem", *rest]:
            _check_python(["run.py", *rest])
        case ["make", *rest]:
            targets = [word for word in rest if "=" not in word]
            assert set(targets) <= TARGETS, targets
        case ["sudo", script, *rest] | [script, *rest] if script.startswith("scripts/"):
            assert (ROOT / script).is_file()
            if rest[:1] == ["python"]:
                check(rest)
        case ["pip", "install" | "download", *rest]:
            named = {name for word in rest for group in re.findall(r"\[([\w,-]+)\]", word) for name in group.split(",")}
            assert named <= {*extras.PACKAGES, "all", "dev", "docs"}
        case ["source" | "export" | "cd" | "mkdir" | "ssh" | "scp", *_]:
            pass  # of the shell, or of another machine
        case _:
            raise AssertionError("no rule runs this: say <!-- not run here: REASON --> in the line above the block")


def _check_python(words: list[str]) -> None:
    """A command of Python: of splitsem, of a module, of a file."""
    match words:
        case ["run.py", *rest] | ["-m", "splitsem", *rest]:
            if "--help" not in rest:
                cfg = composed(rest)
                HydraConfig.instance().cfg = cfg.copy()  # the command line, too, is checked
                with open_dict(cfg):
                    del cfg.hydra
                settings.check(cfg)
        case ["-m", "splitsem.check", part, *rest]:
            if "=" in part:
                composed([part, *(word for word in rest if word.startswith(("task", "model", "codec", "transport")))])
        case ["-m", "splitsem.data", verb, *names]:
            assert verb in ("list", "get")
            assert set(names) <= {"all", *(entry.name for entry in ENTRIES)}
        case ["-m", module, *_]:
            assert importlib.util.find_spec(module)
        case [path, *_]:
            assert (ROOT / path).is_file()


@pytest.fixture(autouse=True)
def _without_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is made: a command may name a user's own file."""
    monkeypatch.setattr(settings, "_check_made", lambda where, node: None)
    monkeypatch.syspath_prepend(ROOT / "examples")
    for module in ("my", "my_package"):  # a user's network, as pages name it
        (tmp_path / f"{module}.py").write_text("from torch.nn import Identity as Net\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of packages that a command imports
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_block_of_the_page_is_run_checked_or_marked(path: Path):
    wrong = [said for block in blocks(path) if (said := wrong_with(block))]
    assert wrong == [], "\n" + "\n".join(wrong)


def wrong_with(block: Block) -> str:
    """What a page has to say otherwise; empty where all is well."""
    if block.language not in RUN + SHOWN:
        return f"{block}: name the block's language, one of {', '.join(RUN)} (run), {', '.join(SHOWN)} (shown)"
    if block.reason:
        return "" if len(block.reason) > 10 else f"{block}: say why it is not run"
    if block.test:
        test = ROOT / block.test
        names = test.is_file() and _says(test.read_text(), Path(block.page))
        return "" if names else f"{block}: {block.test} does not name this page"
    if block.language == "yaml":
        return _wrong_yaml(block)
    if block.language == "sh":
        for words in commands(block.body):
            try:
                check(words)
            except Exception as exc:  # noqa: BLE001 (whatever it is, the page is wrong)
                return f"{block}: {' '.join(words)}: {exc}"
    return ""


def _says(source: str, page: Path) -> bool:
    """Whether a test names a page, or the pages of its kind (``add-a-….md``)."""
    return page.name in source or f"{page.stem.rpartition('-')[0]}-…" in source


def _wrong_yaml(block: Block) -> str:
    content = yaml.safe_load(block.body)
    target = content.get("_target_", "") if isinstance(content, dict) else ""
    if target.startswith("splitsem."):
        get_object(target)
    return ""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_block_is_made_by_indenting_which_nothing_would_run(path: Path):
    outside = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\n\n {4}(?![*-] |\d+\. )(\S.*)", outside) == []


def test_a_block_without_language_or_reason_is_noticed(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "```\nmake x\n```\n<!-- not run here: needs a board that is not there -->\n```sh\nfly\n```\n"
        "```sh\nfly --to moon\n```\n```sh\npython run.py codec=quant9\n```\n```text\nout\n```\n"
        "<!-- run by tests/unit/test_site.py -->\n```sh\nfly\n```\n"
    )
    first, second, third, fourth, fifth, sixth = blocks(page, tmp_path)
    assert "name the block's language" in wrong_with(first)
    assert wrong_with(second) == wrong_with(fifth) == ""
    assert "fly --to moon: no rule runs this" in wrong_with(third)
    assert "quant9" in wrong_with(fourth)
    assert "does not name this page" in wrong_with(sixth)
    assert second.line == 5


def test_of_a_sweep_the_first_job_counts():
    assert overrides(["task=digits", "codec=quant2,quant4", "-m", "--cfg", "job"]) == ["task=digits", "codec=quant2"]
