"""The pages' Python runs, block after block, as a reader would run it; their commands run, shrunk (slow).

The rule by which a command is shrunk: of a sweep the first job, on the CPU, without MLflow; a training of one epoch and
two batches, a few samples, short measurements: ``SHRUNK``. What a page says for longer runs is what those gave.
"""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import splitsem
from splitsem.errors import ConfigError
from tests.conftest import ROOT
from tests.page_blocks import PAGES, Block, blocks, commands, without_environment
from tests.unit.test_page_commands import composed, overrides

SHRUNK = {
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 2,
    "workflow.num_samples": 6,
    "workflow.calibration_samples": 4,
    "workflow.budget_s": 0.05,
    "workflow.half_s": 0.01,
    "workflow.rates_s": 0.1,
    "workflow.channel_seeds": 1,
    "workflow.meter.budget_s": 1.0,
    "workflow.meter.repeats": 2,
    "workflow.num_best": 1,
    "workflow.max_rounds": 1,
    "federated.rounds": 1,
    "federated.num_clients": 2,
    "workflow.tuning.max_epochs": 1,
}
BRIEF = ', "trainer.limit_train_batches=2", "workflow.num_samples=4", "tracking=none")'
ELSEWHERE = {  # workflows that need a server, minutes, or a cluster; the tests that run them
    "workflow=serve": "tests/system/test_two_machines.py",
    "workflow=offload": "tests/system/test_offload.py",
    "workflow=measure_link": "tests/integration/test_measure_link.py",
    "workflow=split_train": "tests/system/test_split_train.py",
    "workflow=zoo": "tests/system/test_zoo_run.py",
    "experiment=": "tests/system/test_codec_presets.py, test_sweepers.py",
    "workflow=joint": "tests/system/test_joint.py",
    "workflow=splitfed": "tests/system/test_splitfed.py",
    "workflow=federated": "tests/system/test_federated.py",
    "workflow=track": "tests/unit/test_tracking.py",
}
NOT_HERE = r"splitsem\.data get|pip install|make data|cannot read|does not exist|is no folder|must be given"
PYTHON = [page for page in PAGES if any(b.language == "python" and not (b.reason or b.test) for b in blocks(page))]


def runs(block: Block) -> list[list[str]]:
    """The words of each command of ``run.py`` in a block that nothing else runs."""
    if block.language != "sh" or block.reason or block.test:
        return []
    found = [without_environment(words) for words in commands(block.body)]
    return [
        words[2:]
        for words in found
        if words[:2] == ["python", "run.py"]
        and "--cfg" not in words
        and not any(word.startswith(other) for word in words for other in ELSEWHERE)
    ]


COMMANDS = [
    pytest.param(words, id=f"{block}:{number}")
    for page in PAGES
    for block in blocks(page)
    for number, words in enumerate(runs(block))
]


@pytest.mark.thorough
@pytest.mark.parametrize("page", PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_runs_in_order(page: Path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.language == "python" and not (block.reason or block.test):
            shrunk = block.body.replace('"trainer.max_epochs=1")', '"trainer.max_epochs=1"' + BRIEF)
            exec(compile(shrunk, str(block), "exec"), names)
    if page.name in ("README.md", "library.md"):
        assert "bytes" in capsys.readouterr().out
    if page.name == "library.md":
        assert set(names["table"]["codec"].dropna()) >= {"quant2", "quant8"}


def test_whatever_is_run_elsewhere_has_its_test():
    for tests in ELSEWHERE.values():
        first = tests.partition(",")[0]
        assert (ROOT / first).is_file(), first


@pytest.mark.slow  # some seconds each, a hundred commands
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_runs_shrunk(words: list[str], tmp_path, trained_cache, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    placeholder = re.search(r"FOLDER|FILE|my\.|my_|pictures=|/path/", " ".join(words))
    if placeholder:
        pytest.skip(f"names a reader's own file: {placeholder[0]}")
    given = overrides(words)
    config = [word for word in words if word.startswith("--config-dir=")]
    cfg = composed(words)
    short = [f"{name}={value}" for name, value in SHRUNK.items() if OmegaConf.select(cfg, name) is not None]
    own = ["device=cpu", "tracking=none", f"cache_dir={trained_cache}", *_absent(cfg, given)]
    folder = ROOT / config[0].partition("=")[2] if config else None
    monkeypatch.chdir(tmp_path)
    try:
        run = splitsem.run(*given, *own, *short, **({"config_dir": str(folder)} if folder else {}))
    except ConfigError as exc:
        if re.search(NOT_HERE, str(exc)):  # of the reader, or of an extra
            pytest.skip(str(exc))
        raise
    assert run.metrics


def _absent(cfg, given: list[str]) -> list[str]:
    """A number of samples where the workflow knows one and the page names none."""
    named = {word.partition("=")[0] for word in given}
    known = OmegaConf.select(cfg, "workflow")
    return ["workflow.num_samples=6"] if "num_samples" in known and "workflow.num_samples" not in named else []
