"""Starting up: help and configuration come at once, without the heavy libraries; wrong choices are explained."""

import subprocess
import sys
import time

import pytest

from splitsem.workflows.command import NEXT
from tests.conftest import ROOT

HEAVY = {"torch", "lightning", "mlflow", "seaborn", "pandas", "matplotlib", "timm", "torchvision"}


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"], ["--cfg", "job", "task=disaster", "codec=quant2"]])
def test_help_and_cfg_import_nothing_heavy(flags, tmp_path):
    code = (
        "import atexit, runpy, sys\n"
        f"atexit.register(lambda: print('LOADED', sorted({HEAVY!r} & set(sys.modules))))\n"
        f"sys.argv = ['run.py', *{flags!r}]\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("LOADED []")


def test_the_flag_of_a_sweep_may_stand_between_settings(run_py):
    done = run_py("task=digits", "-m", "--config-dir=.", "codec=nosuch", "tracking=none")
    assert "unrecognized arguments" not in done.stderr
    assert "quant8" in done.stderr


def test_help_takes_less_than_a_second_or_as_much_more_as_the_cores_are_slow(run_py_anew):
    times, yardstick = [], []
    for _ in range(3):
        began = time.perf_counter()
        assert run_py_anew("--help").returncode == 0
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import hydra"], check=True)
        yardstick.append(time.perf_counter() - began)
    assert min(times) < max(1.0, 5 * min(yardstick))


def test_help_teaches_the_groups_and_the_first_commands(run_py):
    text = run_py("--help").stdout
    for group in ("task", "model", "codec", "transport", "hardware", "device", "workflow", "experiment"):
        assert group in text
    assert "python run.py task=disaster codec=quant8 -m" in text
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 80


def test_a_run_without_arguments_ends_with_what_to_try_next():
    assert "workflow=points" in NEXT
    assert max(map(len, NEXT.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["codec=nosuch"], "quant8"),  # an unknown option lists the known ones
        (["task=nosuch"], "disaster"),
        (["codec.bit_widht=4"], "bit_widht"),  # a typo is refused, not ignored
        (["split.point=nosuch"], "stage2"),  # an unknown point lists the valid ones
        (["task=imagefolder", "task.root=/nowhere"], "/nowhere"),
    ],
)
def test_wrong_choices_are_explained_without_a_traceback(arguments, said, run_py):
    done = run_py(*arguments, "tracking=none", "trainer.max_epochs=0")
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("codec.bit_width=17", "bit_width must be"),
        ("split.index=1", "give one of them"),
        ("transport.bandwidth_bps=-1", "bandwidth_bps must be"),
    ],
)
def test_what_needs_no_network_is_refused_before_one_is_trained(wrong, said, run_py, tmp_path):
    done = run_py(wrong, "split.point=stage2", "tracking=none", "cache_dir=cache")
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cache").exists()


def test_shell_completion_is_offered(run_py):
    assert "hydra_bash_completion" in run_py("--shell-completion", "install=bash").stdout
