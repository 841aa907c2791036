"""The end of a sweep in the process aside: the same text and the same files, and the jobs' process imports little."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from splitsem.report.terminal import Screen
from splitsem.workflows import startup, summary_aside


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    job = tmp_path / "sweep" / "0" / ".hydra"
    job.mkdir(parents=True)
    (job / "config.yaml").write_text("workflow: {summary: null}\n")
    (job / "overrides.yaml").write_text("- seed=1\n")
    (job.parent / "metrics.json").write_text('{"score": 0.5}')
    return tmp_path / "sweep"


def test_what_is_printed_comes_back_and_files_are_left(sweep: Path) -> None:
    text, statuses = summary_aside.summarise(sweep, 1.0, {}, Screen(100, is_terminal=False))
    assert text == f"1 jobs: {sweep / 'results.csv'}\n"
    assert statuses == {"ok"}
    assert (sweep / "results.csv").exists()


def test_a_sweep_without_a_job_says_so(tmp_path: Path) -> None:
    text, statuses = summary_aside.summarise(tmp_path, 1.0, {}, Screen(100, is_terminal=False))
    assert text.startswith("No job was started")
    assert not statuses


def test_the_process_of_the_jobs_imports_nothing_that_summarises() -> None:
    modules = "splitsem.workflows.sweep, splitsem.workflows.summary_aside, splitsem.workflows.job"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_draws_a_sweep_needs_neither_torch_nor_seaborn() -> None:
    code = (
        "import sys; from splitsem.workflows import summary_aside; "
        "summary_aside.get_ready('splitsem.workflows.split_summary.summarise'); "
        "sys.exit(' '.join({'torch', 'seaborn', 'scipy'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_libyaml_reads_what_omegaconf_reads() -> None:
    text = "a: 1e-3\nb: 2020-01-01\nc: .5\nd: [1, null, yes, '${a}']\ne: {f: 1_000}\n"
    code = f"from omegaconf import OmegaConf; print(OmegaConf.to_container(OmegaConf.create({text!r})))"
    own = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    startup.read_yaml_quickly()
    assert f"{OmegaConf.to_container(OmegaConf.create(text))}\n" == own
    with pytest.raises(yaml.YAMLError, match="duplicate key a"):
        OmegaConf.create("a: 1\na: 2")
