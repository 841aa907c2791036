"""Hashes of data files, and the index in the cache folder by which an unchanged file is read one time only."""

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from splitsem.errors import ConfigError
from splitsem.files import locked, make_folder
from splitsem.tasks.task import Task

log = logging.getLogger(__name__)
_RACY_S = 2.0  # a file may change twice within one tick of its clock, so the index leaves out younger files
_BATCH = 1000  # files between two commits, so that an interrupted reading resumes


class _File(NamedTuple):
    """A data file: its name in its folder, its path, and a stamp that changes when the file is written or replaced."""

    name: bytes
    path: bytes
    stamp: str
    size: int
    mtime_s: float


def of_task(task: Task, cache_dir: Path | None, is_needed: bool) -> bytes:
    """A hash of the names and contents of all files that a task reads; empty where they are missing and not needed.

    Args:
        task: says what it reads.
        cache_dir: folder of the index; None reads all files.
        is_needed: whether missing files raise.

    Raises:
        ConfigError: a file is missing or cannot be read.
    """
    paths = [Path(path) for path in task.data_paths()]
    if not all(path.exists() for path in paths):
        if not is_needed:
            return b""
        task.splits()  # downloads what it can, and says best what is missing
        paths = [Path(path) for path in task.data_paths()]
    total = hashlib.sha256()
    for path in paths:
        try:
            total.update(of_path(str(path), cache_dir))
        except FileNotFoundError as exc:
            raise ConfigError(f"{type(task).__name__} reads {exc.filename}, which does not exist") from exc
        except OSError as exc:
            raise ConfigError(f"cannot read the data of {type(task).__name__}: {exc}") from exc
    return total.digest()


def of_path(path: str, cache_dir: Path | None) -> bytes:
    """A hash of the name and content of a file, or of all files below a folder. Raises OSError."""
    files = sorted(_files(os.path.abspath(path)))
    digests = _contents(os.path.abspath(path), files, cache_dir)
    total = hashlib.sha256(f"{len(files)} files\0".encode())
    for file, digest in zip(files, digests, strict=True):
        total.update(file.name + f"\0{file.size}\0".encode() + digest)
    return total.digest()


def _files(path: str) -> Iterator[_File]:
    """The file, or all files below the folder; hidden ones are left out, and links are followed."""
    if not os.path.isdir(path):
        yield _file(os.path.basename(path), path, os.stat(path))
        return
    todo = [("", path, frozenset[str]())]
    while todo:
        prefix, folder, above = todo.pop()
        here = above | {os.path.realpath(folder)}
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    yield _file(prefix + entry.name, entry.path, entry.stat())
                elif os.path.realpath(entry.path) not in here:
                    todo.append((f"{prefix}{entry.name}/", entry.path, here))


def _file(name: str, path: str, facts: os.stat_result) -> _File:
    # Folders that swap their names leave path, time and size of equally large files as they were, but not the inode.
    stamp = f"{facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_size} {facts.st_ino}"
    return _File(os.fsencode(name), os.fsencode(path), stamp, facts.st_size, max(facts.st_mtime, facts.st_ctime))


def _contents(root: str, files: Sequence[_File], cache_dir: Path | None) -> list[bytes]:
    """SHA-256 of each file, from the index where the file has not changed since; the index may be read-only."""
    if cache_dir is None:
        return [_content(file) for file in files]
    with contextlib.suppress(OSError):
        make_folder(cache_dir)
    path = cache_dir / "data_index.sqlite"
    with locked(path):
        try:
            return _indexed(str(path), os.fsencode(root), files)
        except sqlite3.OperationalError as exc:
            log.info("No index of data files at %s (%s): reading all of %s", path, exc, root)
        except sqlite3.DatabaseError as exc:
            log.warning("The index of data files %s is damaged (%s): reading all of %s", path, exc, root)
            with contextlib.suppress(OSError):
                path.replace(f"{path}.damaged")
        return _indexed(":memory:", os.fsencode(root), files)


def _indexed(path: str, root: bytes, files: Sequence[_File]) -> list[bytes]:
    with contextlib.closing(sqlite3.connect(path)) as index:
        index.execute("CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, stamp TEXT, digest BLOB) WITHOUT ROWID")
        rows = index.execute("SELECT path, stamp, digest FROM files WHERE path BETWEEN ? AND ?", (root, root + b"\xff"))
        known = {(path, stamp): digest for path, stamp, digest in rows}
        new = [file for file in files if (file.path, file.stamp) not in known]
        if len(new) > _BATCH:
            log.info("Reading %d new or changed files of %s, of all %d", len(new), os.fsdecode(root), len(files))
        is_writable = True
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            known |= {(file.path, file.stamp): _content(file) for file in batch}
            if not is_writable:
                continue
            settled = [file for file in batch if file.mtime_s < time.time() - _RACY_S]
            rows_of = ((file.path, file.stamp, known[file.path, file.stamp]) for file in settled)
            try:
                index.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows_of)
                index.commit()
            except sqlite3.OperationalError as exc:  # read-only, full, or in use for long
                log.debug("Not kept in the index %s: %s", path, exc)
                is_writable = False
        return [known[file.path, file.stamp] for file in files]


def _content(file: _File) -> bytes:
    with open(file.path, "rb", buffering=0) as opened:
        return hashlib.file_digest(opened, "sha256").digest()
