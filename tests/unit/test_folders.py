"""Folders of runs: each has one owner, however many ask at once, and what is there is not lost."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from splitsem.errors import ConfigError
from splitsem.workflows import folders
from splitsem.workflows.folders import Record
from splitsem.workflows.study_name import study_name


def left(folder: Path, state: folders.State, settings: str = "same", began_s: float = 1.0, **files: str) -> Path:
    """A folder that an earlier process has left."""
    (folder / ".hydra").mkdir(parents=True)
    Record(settings=settings, state=state, began_s=began_s).write(folder)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_runs_that_ask_for_one_name_in_the_same_moment_all_get_folders_of_their_own(tmp_path):
    def ask(_: int) -> folders.Claim:
        return folders.claim(tmp_path / "day" / "01-02-03-split", is_named=False, settings="same")

    with ThreadPoolExecutor(16) as pool:
        claims = list(pool.map(ask, range(16)))
    assert len({claim.folder for claim in claims}) == 16
    assert {claim.folder.name for claim in claims} == {"01-02-03-split", *(f"01-02-03-split-{n}" for n in range(2, 17))}
    assert all(claim.earlier is None for claim in claims)


def test_of_those_who_ask_for_a_named_folder_at_once_one_gets_it_and_the_others_are_told(tmp_path):
    def ask(_: int) -> folders.Claim | str:
        try:
            return folders.claim(tmp_path / "mine", is_named=True, settings="same")
        except ConfigError as exc:
            return str(exc)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert sum(isinstance(answer, folders.Claim) for answer in answers) == 1
    refused = {answer for answer in answers if isinstance(answer, str)}
    assert refused == {f"{tmp_path}/mine belongs to a run that is still going: name another folder"}


def test_a_named_folder_with_results_is_kept(tmp_path):
    left(tmp_path / "mine", "ok", metrics__json='{"score": 1}')
    with pytest.raises(ConfigError, match="mine holds another run, which is kept: name another folder"):
        folders.claim(tmp_path / "mine", is_named=True, settings="same")
    assert folders.metrics(tmp_path / "mine") == {"score": 1}
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is no folder"):
        folders.claim(tmp_path / "file", is_named=True, settings="same")


def test_a_folder_of_an_older_version_counts_as_a_run(tmp_path):
    (tmp_path / "old" / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "old" / "multirun.yaml").touch()
    (tmp_path / "old" / "0" / "metrics.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds another run"):
        folders.claim(tmp_path / "old", is_named=True, settings="same")


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_an_interrupted_run_goes_on_in_its_folder_with_the_same_settings_only(tmp_path, state):
    left(tmp_path / "mine", state, weights__bin="half")
    with pytest.raises(ConfigError, match="holds another run"):
        folders.claim(tmp_path / "mine", is_named=True, settings="others")
    claim = folders.claim(tmp_path / "mine", is_named=True, settings="same")
    assert claim.earlier is not None
    assert claim.earlier.state == state


def test_a_named_folder_without_results_can_be_used_again(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "output.txt").touch()  # of the shell, say
    assert folders.claim(tmp_path / "log", is_named=True, settings="same").earlier is None
    left(tmp_path / "failed", "failed", "others", error__txt="a typo", run__log="")
    assert folders.claim(tmp_path / "failed", is_named=True, settings="same").earlier is None


def test_the_newest_interrupted_run_of_the_same_settings_is_taken_up_by_one_process_only(tmp_path):
    older = left(tmp_path / "1" / "a-split", "stopped", began_s=1)
    newer = left(tmp_path / "2" / "b-split-2", "running", began_s=2)
    left(tmp_path / "3" / "c-split", "ok", began_s=3)
    left(tmp_path / "3" / "d-split", "failed", began_s=4)
    left(tmp_path / "3" / "e-split", "running", "others", began_s=5)
    pattern = folders.pattern_of(f"{tmp_path}/${{now:%d}}/${{now:%H}}-split")
    claims = [folders.take_up(pattern, "same") for _ in range(3)]
    assert [claim and claim.folder for claim in claims] == [newer, older, None]


def test_a_pattern_holds_what_a_name_can_become():
    assert folders.pattern_of("a[1]/${now:%Y}/${oc.decode:${oc.env:X,1}}-b") == "a[[]1]/*/*-b*"
    assert folders.pattern_of("multirun/ci") is None


@pytest.mark.parametrize("text", ["", '{"score": 0.', "[1]"])
def test_metrics_in_part_are_none(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    assert folders.metrics(tmp_path) is None
    assert folders.ended(tmp_path, is_stopped=True) == "stopped"


def test_what_an_earlier_try_left_is_cleared_but_for_hydras_files(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "outside").mkdir()
    job = tmp_path / "job"
    left(job, "running", run__log="", weights__bin="half")
    (job / "real").mkdir()
    (job / "link").symlink_to(tmp_path / "outside")
    folders.clear(job)
    assert sorted(path.name for path in job.iterdir()) == [".hydra", "run.json", "run.log"]
    assert (tmp_path / "outside").is_dir()


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("task=digits codec=quant4", "split-digits-quant4"),
        ("task=digits codec=quant4,quant8", "split-digits"),
        ("task=digits,disaster codec=quant4 split.point=[a,b]", "split-quant4"),
        ("workflow=points task=digits", "points-digits"),
        ("workflow=report folders=['a','b']", "report"),
        ("experiment=pareto task=digits", "pareto-digits"),
        ("experiment=pareto task=digits codec=quant2", "pareto-digits-quant2"),
    ],
)
def test_a_folders_name_says_what_was_studied(asked, name):
    words = asked.split()
    choices = {"workflow": "split", "task": "digits", "codec": "quant8", "experiment": None}
    choices |= {key: value for key, value in (word.split("=") for word in words) if "," not in value}
    assert study_name(choices, words) == name
