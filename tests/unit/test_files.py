"""Files of ours: whole, readable by others, and no training lost to a disk that does not play along."""

import errno
import os
import stat
from pathlib import Path

import filelock
import pytest
from torch import nn

from splitsem import files
from splitsem.errors import ConfigError
from splitsem.json_files import write_text
from splitsem.training import kept_weights


def full(content: bytes, path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_files_may_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o022)
    try:
        kept_weights.save(nn.Linear(2, 2), tmp_path / "w.safetensors", [], 0.0)
        write_text("{}", tmp_path / "folder" / "a.json")
    finally:
        os.umask(before)
    for path in (tmp_path / "w.safetensors", tmp_path / "folder" / "a.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not list(tmp_path.rglob("*.part"))


def test_what_cannot_be_written_whole_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_text("old", path)
    monkeypatch.setattr(os, "replace", lambda *_: full(b"", path))
    with pytest.raises(OSError, match="No space"):
        write_text("new", path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def _linked(tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    return tmp_path / "link"


def _file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "below"


@pytest.mark.parametrize("place", [lambda _: Path("/dev/null"), _linked, _file])
def test_something_else_in_place_of_the_cache_is_told_before_a_training(tmp_path, place):
    with pytest.raises(ConfigError, match=r"must be a folder, but .* name another folder"):
        kept_weights.fit_or_load(nn.Linear(2, 2), "key", place(tmp_path), lambda: pytest.fail("trained"))


@pytest.mark.parametrize(
    "trouble", [OSError(errno.ENOLCK, "No locks"), PermissionError(13, "no"), NotImplementedError()]
)
def test_weights_are_read_and_trained_without_locks(tmp_path, monkeypatch, trouble):
    def refuse(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    made = kept_weights.fit_or_load(nn.Linear(2, 2), "key", tmp_path, lambda: [{"val_score": 1.0}])
    again = kept_weights.fit_or_load(nn.Linear(2, 2), "key", tmp_path, lambda: pytest.fail("trained"))
    assert (made.from_cache, again.from_cache, again.path) == (False, True, made.path)


def test_processes_that_cannot_lock_the_cache_take_turns_beside_their_results(tmp_path):
    """So that the jobs of a sweep train once, also where the cache can be read only."""
    (tmp_path / "key.safetensors.lock").mkdir()
    spare, tried = tmp_path / "run" / "weights", []

    def train() -> list[dict[str, float]]:
        with files.locked(spare / "key.safetensors", waits=False) as is_free:
            tried.append(is_free)
        return []

    kept_weights.fit_or_load(nn.Linear(2, 2), "key", tmp_path, train, spare)
    assert tried == [False]


def test_a_lock_that_is_a_folder_does_no_harm(tmp_path):
    (tmp_path / "key.safetensors.lock").mkdir()
    kept_weights.fit_or_load(nn.Linear(2, 2), "key", tmp_path, list)
    assert kept_weights.fit_or_load(nn.Linear(2, 2), "key", tmp_path, lambda: pytest.fail("trained")).from_cache


def test_reading_kept_weights_writes_nothing(tmp_path, monkeypatch):
    kept_weights.save(nn.Linear(2, 2), tmp_path / "key.safetensors", [], 0.0)
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda *_, **__: pytest.fail("locked"))
    kept_weights.fit_or_load(nn.Linear(2, 2), "key", tmp_path, lambda: pytest.fail("trained"))
    assert os.listdir(tmp_path) == ["key.safetensors"]


def test_what_the_cache_cannot_keep_is_kept_beside_the_results(tmp_path, monkeypatch, caplog):
    write = files.write_whole
    monkeypatch.setattr(
        kept_weights,
        "write_whole",
        lambda content, path: (full if path.parent.name == "cache" else write)(content, path),
    )
    network, spare = nn.Linear(2, 2), tmp_path / "run" / "weights"
    made = kept_weights.fit_or_load(network, "key", tmp_path / "cache", list, spare)
    assert made.path == spare / "key.safetensors"
    assert kept_weights.load(network, made.path).from_cache
    assert "No space left on device" in caplog.text
    assert f"Kept in {made.path.parent} instead" in caplog.text
    assert kept_weights.fit_or_load(network, "key", tmp_path / "cache", list, spare).from_cache
    kept_weights.fit_or_load(network, "other", tmp_path / "cache", list, spare)
    assert [caplog.text.count(said) for said in ("Not kept", "Kept in")] == [1, 1]  # one store, one warning


def test_a_folder_in_place_of_the_weights_file_costs_no_training(tmp_path):
    (tmp_path / "key.safetensors").mkdir()
    made = kept_weights.fit_or_load(nn.Linear(2, 2), "key", tmp_path, list)
    assert made.path.is_file()


def test_weights_of_another_network_leave_the_network_as_it_was(tmp_path):
    kept_weights.save(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)), tmp_path / "w.safetensors", [], 0.0)
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = network[0].weight.clone()
    with pytest.raises(ConfigError, match=r"another network: 1\.\w+ is \(3.* there and \(2.* here"):
        kept_weights.load(network, tmp_path / "w.safetensors")
    assert (network[0].weight == before).all()


def test_no_message_tells_to_delete_a_file():
    for path in (Path(files.__file__).parent).rglob("*.py"):
        assert "delete it" not in path.read_text(), path


def test_who_does_not_wait_is_told_that_another_holds_the_file(tmp_path):
    with files.locked(tmp_path / "a") as first, files.locked(tmp_path / "a", waits=False) as second:
        assert (first, second) == (True, False)
    with files.locked(tmp_path / "a", waits=False) as third:
        assert third
