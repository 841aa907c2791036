"""A task of one's own is one file; old names and old files are refused in one line."""

import json

import pytest

from tests.conftest import ROOT, SHRUNK

DIGITS = "_target_: splitsem.tasks.digits.Digits\nseed: 0\n"
UNTRAINED = ("tracking=none", "trainer.max_epochs=0")


@pytest.fixture
def own(tmp_path):
    """Write files of a configuration folder of one's own; returns the flag that names it."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / "own" / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return f"--config-dir={tmp_path / 'own'}"

    return write


def refused(done, said):
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines() == [f"{said} [E-RENAMED]"]


def test_one_file_is_enough_for_a_task(own, run_py, tmp_path):
    done = run_py(own(task__scans=DIGITS), "task=scans", "tracking=none", *SHRUNK, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["task"], metrics["model"]) == ("scans", "cnn")


def test_settings_of_a_task_for_a_model_stand_beside_it_and_do_not_reach_other_models(own, run_py):
    flag = own(
        task__scans=DIGITS,
        task__settings__scans_cnn="widths: [4, 4]\n",
        task__settings__scans_default="max_epochs: 7\n",
    )
    composed = run_py(flag, "task=scans", "--cfg", "job").stdout
    assert "max_epochs: 7" in composed
    assert "widths:\n  - 4\n  - 4\n" in composed
    other = run_py(flag, "task=scans", "model=unet", "trainer.max_epochs=3", "--cfg", "job").stdout
    assert "UNet" in other
    assert "widths" not in other
    assert "max_epochs: 3" in other


def test_a_task_that_the_default_model_does_not_suit_says_how_to_choose_one(own, run_py):
    scenes = "_target_: splitsem.tasks.disaster.Disaster\nnum_train: 8\nnum_val: 4\nnum_test: 4\n"
    done = run_py(own(task__scenes=scenes), "task=scenes", *UNTRAINED)
    assert done.returncode == 1
    assert "StagedCnn only classifies; choose another network, e.g. model=unet" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_py(
        own(task__scenes="defaults: [_self_, override /model@_global_.model: unet]\n" + scenes),
        "task=scenes",
        "--cfg",
        "job",
    )
    assert "splitsem.models.unet.UNet" in done.stdout


def test_files_that_a_task_once_took_by_its_name_are_not_passed_over_in_silence(own, run_py):
    flag = own(task__scans=DIGITS, model__scans="defaults: [cnn]\n")
    done = run_py(flag, "task=scans", *UNTRAINED)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "give model=scans" in done.stderr


@pytest.mark.parametrize("sweeps", [[], ["-m"]])
def test_an_old_path_in_a_file_of_ones_own_is_refused_in_one_line(own, run_py, sweeps):
    flag = own(codec__mine="_target_: splitsem.codecs.half.HalfPrecision\n")
    done = run_py(flag, "codec=mine", *UNTRAINED, *sweeps)
    refused(
        done,
        "codec._target_=splitsem.codecs.half.HalfPrecision is no more: write splitsem.codecs.tensorwise.HalfPrecision",
    )


def test_an_old_path_inside_a_list_or_deeper_is_found(run_py):
    done = run_py(
        "transport=bsc", "+transport.body_code._target_=splitsem.transport.fec.repetition.Repetition", *UNTRAINED
    )
    refused(
        done,
        "transport.body_code._target_=splitsem.transport.fec.repetition.Repetition is no more: "
        "write splitsem.links.fec.Repetition",
    )


def test_an_old_option_on_the_command_line_is_refused_in_one_line(run_py):
    refused(run_py("transport=measured"), "transport=measured is no more: give transport=recorded")


def test_an_old_option_in_a_file_of_ones_own_is_explained_last(own, run_py):
    flag = own(experiment__mine="# @package _global_\ndefaults:\n  - override /codec: fixed4\n")
    done = run_py(flag, "experiment=mine")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "codec=fixed4 is no more: give codec=fixed codec.bit_width=4 [E-RENAMED]"


def test_no_file_of_a_model_or_trainer_has_a_tasks_name():
    tasks = {path.stem for path in (ROOT / "conf" / "task").glob("*.yaml")}
    for group in ("model", "trainer"):
        assert not tasks & {path.stem for path in (ROOT / "conf" / group).rglob("*.yaml")}


def test_each_settings_file_belongs_to_a_task_and_an_option():
    names = {
        group: {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        for group in ("task", "model", "trainer", "workflow")
    }
    options = names["model"] | names["trainer"] | names["workflow"]
    for path in (ROOT / "conf" / "task" / "settings").glob("*.yaml"):
        assert any(path.stem == f"{task}_{option}" for task in names["task"] for option in options), path
