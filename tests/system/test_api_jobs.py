"""Runs and sweeps from Python: what the command does, with results as objects; mistakes are exceptions of one line."""

import subprocess
import sys

import pytest

import splitsem
from splitsem.errors import ConfigError, SplitPointError

BRIEF = ("task=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "workflow.num_samples=6")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch, trained_cache):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def brief(trained_cache):
    return (*BRIEF, f"cache_dir={trained_cache}")


def test_a_run_has_metrics_and_figures(brief):
    run = splitsem.run(*brief, "codec=quant8", "split.point=stage2", "tracking=none")
    assert run.metrics["split_point"] == "stage2"
    assert run.metrics["payload_bytes"] > 0
    assert run.figures["breakdown"]._repr_png_().startswith(b"\x89PNG")
    assert str(run.folder) in repr(run)
    assert "\n" not in repr(run)


def test_a_sweep_is_a_table_that_can_be_read_again(brief):
    table = splitsem.sweep(*brief, "codec=quant2,quant8", "split.point=stage1", "tracking=none")
    cuts = table[table["split.point"] == "stage1"]
    assert sorted(cuts["codec"]) == ["quant2", "quant8"]
    assert len(splitsem.results(table.attrs["folder"])) == len(table)


@pytest.mark.parametrize(
    ("setting", "kind", "said"),
    [
        ("codec=nosuch", ConfigError, "quant8"),
        ("codec.bit_widht=3", ConfigError, "bit_width"),
        ("split.point=nosuch", SplitPointError, "stage2"),
        ("not a setting", ConfigError, "NAME=VALUE"),
    ],
)
def test_mistakes_are_exceptions_of_one_line(setting, kind, said, brief):
    with pytest.raises(kind, match=said) as failed:
        splitsem.run(*brief, setting, "tracking=none")
    assert "\n" not in str(failed.value)


def test_a_sweep_with_a_job_that_failed_is_a_table_still(brief, capsys):
    table = splitsem.sweep(*brief, "split.point=nosuch,stage1", "tracking=none", "hydra.sweep.dir=swept")
    assert list(table["status"])[:2] == ["failed", "ok"]
    assert "no split point 'nosuch'" in table["error"][0]
    assert "1 jobs of the sweep in" in capsys.readouterr().out


def test_a_sweep_without_a_job_that_is_ok_raises(brief):
    with pytest.raises(ConfigError, match=r"no job of the sweep in \S+swept is ok: no split point 'nosuch'"):
        splitsem.sweep(*brief, "split.point=nosuch,nosuch2", "tracking=none", "hydra.sweep.dir=swept")


@pytest.mark.parametrize("source", ["nothing", "."])
def test_results_that_are_not_there(source):
    with pytest.raises(ConfigError, match=r"no folder|folder without"):
        splitsem.results(source)


def test_importing_splitsem_loads_nothing_else():
    code = "import sys, splitsem; sys.exit(' '.join({'torch', 'hydra', 'numpy', 'pandas'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_offered_exists():
    assert all(getattr(splitsem, name) for name in splitsem.__all__)
    with pytest.raises(AttributeError, match="nosuch"):
        splitsem.nosuch  # noqa: B018
