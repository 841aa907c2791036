"""A job's results are on disk before anything is logged, and nothing that tracking does can change how it ended."""

import json
import logging

import pytest

from splitsem.workflows import aside, folders, stopping, track
from splitsem.workflows.folders import Record
from tests.unit import toy_job
from tests.unit.toy_job import run_toy

STORE = "tests.unit.test_job.Failing"


class Failing:
    """A store that fails at one call, and writes the calls to a file: it works in a process of its own."""

    def __init__(self, at: str, calls: str) -> None:
        self.at, self.calls = at, calls

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **kwargs):
            with open(self.calls, "a") as file:
                file.write(f"{name}\n")
            if name == self.at:
                raise track.LinkError("MLflow at nowhere failed (Oops: it is broken)")
            return {"has": True, "find": None}.get(name, "1")

        return call


@pytest.fixture(autouse=True)
def _fresh():
    toy_job.calls.clear()


@pytest.fixture
def store(tmp_path_factory):
    """The settings of a store that fails at a call, and what it was called for, once all is done."""
    path = tmp_path_factory.mktemp("store") / "calls.txt"

    def calls():
        aside.close()
        return path.read_text().split()

    return lambda at: {"_target_": STORE, "at": at, "calls": str(path)}, calls


def test_the_metrics_come_last_and_whole(tmp_path):
    assert run_toy(tmp_path) == [0.1]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"score": 0.1, "label": "a"}
    assert json.loads((tmp_path / "history.json").read_text()) == [{"loss": 0.5}]
    assert folders.read(tmp_path).state == "ok"
    assert not list(tmp_path.glob("*.part"))


def test_a_run_ends_with_the_folder_of_its_results(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run_toy(tmp_path)
    assert caplog.records[-1].getMessage() == f"Results: {tmp_path}"


@pytest.mark.parametrize("at", ["open", "start", "log", "set_status"])
def test_a_store_that_fails_at_any_moment_is_one_line_with_the_remedy(tmp_path, caplog, at, store):
    assert run_toy(tmp_path, tracking=store[0](at)) == [0.1]
    aside.close()
    assert folders.metrics(tmp_path) == {"score": 0.1, "label": "a"}
    record = folders.read(tmp_path)
    assert (record.state, record.tracked) == ("ok", False)
    last = [entry for entry in caplog.records if entry.levelno >= logging.WARNING][-1].getMessage()
    assert "it is broken" in last
    assert f"`python run.py workflow=track folder={tmp_path}`" in last
    assert "\n" not in last


def test_after_one_failure_the_other_jobs_of_a_sweep_do_not_wait_for_the_store(tmp_path, store):
    Record(settings="sweep", experiment_id="1", run_id="2").write(tmp_path)
    for num in range(3):
        run_toy(tmp_path, num=num, tracking=store[0]("start"))
    assert store[1]() == ["start"]
    assert (tmp_path / track.UNTRACKED).exists()
    assert [folders.read(tmp_path / str(num)).state for num in range(3)] == ["ok"] * 3


def test_a_job_that_is_done_is_not_run_again_and_one_with_other_settings_is(tmp_path):
    for seed in (1, 1, 2):
        assert run_toy(tmp_path, num=0, seed=seed) == [seed / 10]
    assert toy_job.calls == [1, 2]


@pytest.mark.parametrize("text", ["", '{"score": 0.'])
def test_a_job_with_half_its_metrics_runs_again(tmp_path, text):
    run_toy(tmp_path, num=0)
    (tmp_path / "0" / "metrics.json").write_text(text)
    assert run_toy(tmp_path, num=0) == [0.1]
    assert toy_job.calls == [1, 1]


def test_a_job_that_failed_says_so_and_runs_again_in_a_clean_folder(tmp_path):
    with pytest.raises(ValueError, match="oh no"):
        run_toy(tmp_path, toy_job.fails, num=0)
    assert (tmp_path / "0" / "error.txt").read_text() == "ValueError: oh no\n"
    key = folders.read(tmp_path / "0").key
    with pytest.raises(ValueError, match="oh no"):
        run_toy(tmp_path, toy_job.fails, num=0)
    assert toy_job.calls == [1, 1]
    assert folders.read(tmp_path / "0").key == key
    run_toy(tmp_path, num=0)
    assert sorted(path.name for path in (tmp_path / "0").iterdir() if path.name[0] != ".") == [
        "README.txt", "history.json", "metrics.json", "run.json",
    ]  # fmt: skip


def test_a_stopped_job_says_so(tmp_path, store):
    with stopping.listening(), pytest.raises(stopping.Stopped):
        run_toy(tmp_path, toy_job.is_stopped, num=0, tracking=store[0]("nowhere"))
    assert folders.read(tmp_path / "0").state == "stopped"
    assert store[1]()[-1] == "set_status"


def test_no_job_begins_after_a_stop(tmp_path):
    with stopping.listening():
        for num in range(2):
            with pytest.raises(stopping.Stopped):
                run_toy(tmp_path, toy_job.is_stopped if num == 0 else toy_job.works, num=num)
    assert toy_job.calls == []
