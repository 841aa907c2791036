"""A fingerprint names a kept artefact by all that determines it: settings, code, versions and data.

* Code: the modules that define the objects' classes and all that these modules import, step by step. Comments,
  docstrings and formatting do not count. Installed packages count by their version, the standard library does not.
* Data: names and contents of the files that a task says it reads. An index in the cache folder keeps the contents'
  hashes, so that unchanged files are read one time only.
"""

import ast
import functools
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import logging
import os
import pkgutil
import sqlite3
import sys
import sysconfig
import time
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import torch
from torch import nn
from torch.utils.data import Dataset

from splitsem.errors import ConfigError
from splitsem.tasks.task import Task

log = logging.getLogger(__name__)
_OWN = "splitsem"
_NO_NUMBERS = (_OWN, f"{_OWN}.errors")  # the package's door and its exceptions: neither changes a result
_STDLIB = tuple(str(Path(sysconfig.get_path(name)).resolve()) + os.sep for name in ("stdlib", "platstdlib"))
_INSTALLED = {"site-packages", "dist-packages"}
_PLAIN = {bool, int, float, complex, str, bytes, type(None), torch.Tensor, nn.Parameter}
_BARE_MODULE = set(vars(nn.Module())) - {"_modules"}
_RACY_S = 2.0  # a file may change twice within one tick of its clock, so the index leaves out younger files
_BATCH = 1000  # files between two commits, so that an interrupted reading resumes


class _Place(NamedTuple):
    """Where a module is: its file, if it has one, and the folders of its submodules, if it is a package."""

    file: str | None
    folders: Sequence[str] | None


class _Source(NamedTuple):
    """What counts of a source file: a hash of its code, and its imports as ``(dots, module, names)``."""

    digest: bytes
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]


class _File(NamedTuple):
    """A data file: its name in its folder, its path, and a stamp that changes when the file is written or replaced."""

    name: bytes
    path: bytes
    stamp: str
    size: int
    mtime_s: float


class _Objects(NamedTuple):
    """What some objects are made of: the names of own modules, installed packages, and the tasks among them."""

    modules: set[str]
    packages: set[str]
    tasks: list[Task]


def fingerprint(
    facts: dict[str, Any],
    objects: Iterable[object] = (),
    *,
    without: Sequence[str] = (),
    cache_dir: Path | None = None,
    is_data_needed: bool = True,
) -> str:
    """A name for what ``facts``, the code of ``objects`` and the data of the tasks among them determine.

    Args:
        facts: settings as plain values; what they name by ``_target_`` counts as if it stood in ``objects``.
        objects: tasks, networks, codecs and whatever else takes part; classes, functions, modules, or dotted names of
            modules. What they hold counts with them.
        without: dotted names of modules and packages whose imports do not count; ``objects`` count even so.
        cache_dir: where the index of the data's contents is kept; None reads all data files each time.
        is_data_needed: False: missing data do not count, for uses that train nothing. True: missing data raise.

    Raises:
        ConfigError: a module or a data file that must be there is missing or cannot be read.
    """
    found = _objects([*objects, *_targets(facts)])
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    versions = {name: _version(name) for name in found.packages | {"torch"}}
    digest.update(json.dumps(versions, sort_keys=True).encode())
    for name, source in sorted(_closure(found.modules, without).items()):
        digest.update(name.encode() + b"\0" + source)
    for task in found.tasks:
        digest.update(_data(task, cache_dir, is_data_needed))
    return digest.hexdigest()[:20]


def modules(objects: Iterable[object], without: Sequence[str] = ()) -> list[str]:
    """The names of all modules whose code counts for ``objects``. Arguments and errors are those of ``fingerprint``."""
    return sorted(_closure(_objects(objects).modules, without))


def _objects(objects: Iterable[object]) -> _Objects:
    """The modules, packages and tasks of the objects and of all that the objects hold."""
    found = _Objects(set(), set(), [])
    todo: list[object] = []
    for thing in objects:
        if isinstance(thing, str):
            _must_be_there(thing)
            found.modules.add(thing)
        elif isinstance(thing, types.ModuleType):
            found.modules.add(thing.__name__)
        else:
            todo.append(thing)
            found.tasks.extend([thing] if isinstance(thing, Task) else [])
    given = set(map(id, todo))
    seen: set[int] = set()
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, Dataset | torch.Tensor):  # earlier calls decide what is loaded
            continue
        seen.add(id(thing))
        cls = thing if isinstance(thing, type) else type(thing)
        # An array or table that a task loads does not determine the task; a picture's transform does.
        is_part = id(thing) in given or callable(thing) or _is_own(cls.__module__)
        names = [c.__module__ for c in cls.__mro__] if is_part else []
        names += [thing.__module__ or "builtins"] if isinstance(thing, types.FunctionType) else []
        for name in names:
            if _is_own(name):
                found.modules.add(name)
            elif (top := name.partition(".")[0]) not in sys.stdlib_module_names:
                found.packages.add(top)
        todo += _held(thing, cls)
    return found


def _targets(settings: object) -> Iterator[object]:
    """The classes and functions that settings name, for a function may leave no trace in what it makes."""
    if isinstance(settings, dict):
        if isinstance(name := settings.get("_target_"), str):
            try:
                yield pkgutil.resolve_name(name)
            except (ImportError, AttributeError, ValueError) as exc:
                raise ConfigError(f"_target_ {name} must be the name of a class or function: {exc}") from exc
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            yield from _targets(value)


def _held(thing: object, cls: type) -> Iterable[object]:
    """The parts of an object that may be code: a container's items, and an own or callable object's attributes."""
    if isinstance(thing, dict):
        return _held(list(thing.values()), list)
    if isinstance(thing, list | tuple | set | frozenset):
        return thing if not set(map(type, thing)) <= _PLAIN else ()
    if isinstance(thing, types.MethodType):
        return thing.__self__, thing.__func__
    if isinstance(thing, functools.partial):
        return thing.func, *thing.args, *thing.keywords.values()
    if isinstance(thing, type | types.FunctionType) or not (callable(thing) or _is_own(cls.__module__)):
        return ()
    hidden = _BARE_MODULE if isinstance(thing, nn.Module) else ()
    return [value for name, value in getattr(thing, "__dict__", {}).items() if name not in hidden]


def _closure(roots: Iterable[str], without: Sequence[str]) -> dict[str, bytes]:
    """The digest of each own module that the roots import, directly or not, and of the roots themselves."""
    for name in without:
        _must_be_there(name)
    prefixes = tuple(f"{name}." for name in without)
    found: dict[str, bytes] = {}
    todo = list(roots)
    asked = {*todo, *_NO_NUMBERS}
    while todo:
        name = todo.pop()
        if not _is_own(name) or (place := _place(name)) is None or name in _NO_NUMBERS:
            continue
        imported = [name.rpartition(".")[0]]  # Python runs the package's own code first
        if place.file is not None:
            source = _source(place.file, name)
            found[name] = source.digest
            package = name if place.folders is not None else name.rpartition(".")[0]
            for dots, module, names in source.imports:
                base = _absolute(dots, module, package, name)
                imported += [base, *(f"{base}.{one}" for one in names)]
        for one in imported:
            if one and one not in asked and one not in without and not one.startswith(prefixes):
                asked.add(one)
                todo.append(one)
    return found


def _absolute(dots: int, module: str, package: str, importer: str) -> str:
    try:
        return importlib.util.resolve_name("." * dots + module, package) if dots else module
    except ImportError as exc:
        raise ConfigError(f"{importer} imports {'.' * dots}{module}, which is above its top package") from exc


def _must_be_there(name: str) -> None:
    place = _place(name)
    if place is None or (place.file is None and place.folders is None):
        raise ConfigError(f"{name} must be the name of a module whose code counts, but there is none of this name")


def _is_own(name: str) -> bool:
    """Whether a module is splitsem's or the user's, and not an installed one or the standard library's."""
    top = name.partition(".")[0]
    if top == _OWN:
        return True
    if top in sys.builtin_module_names or (place := _place(top)) is None:
        return False
    paths = [*(place.folders or ()), *([place.file] if place.file else [])]
    return bool(paths) and not any(_is_installed(path) for path in paths)


@functools.lru_cache(maxsize=4096)
def _is_installed(path: str) -> bool:
    return not _INSTALLED.isdisjoint(Path(path).parts) or str(Path(path).resolve()).startswith(_STDLIB)


def _place(name: str) -> _Place | None:
    """Where a module is, or would be if it were imported. Nothing is imported, since an import may take seconds."""
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None)
    if loaded is not None and spec is None:
        return _Place(getattr(loaded, "__file__", None), getattr(loaded, "__path__", None))
    parent = name.rpartition(".")[0]
    if spec is None and not parent:
        spec = importlib.util.find_spec(name) if name else None
    elif spec is None:
        package = _place(parent)
        if package is None or package.folders is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, package.folders)
    if spec is None:
        return None
    return _Place(spec.origin if spec.has_location else None, spec.submodule_search_locations)


def _version(top: str) -> str:
    """The version of an installed package, by the name that is imported."""
    version = getattr(sys.modules.get(top), "__version__", None)
    if version is not None:
        return str(version)
    names = importlib.metadata.packages_distributions().get(top, [])
    return ",".join(importlib.metadata.version(name) for name in sorted(set(names)))


def _source(file: str, name: str) -> _Source:
    """Reads what counts of a module's file. Raises ConfigError when the file cannot be read."""
    try:
        facts = os.stat(file)
        return _read_source(file, facts.st_mtime_ns, facts.st_size)
    except (OSError, SyntaxError, ValueError) as exc:
        raise ConfigError(f"cannot read the code of {name}, which determines what is kept: {exc}") from exc


@functools.lru_cache(maxsize=4096)
def _read_source(file: str, mtime_ns: int, size: int) -> _Source:
    """Reads what counts of a file of this time and size; a compiled module counts by its bytes."""
    content = Path(file).read_bytes()
    if not file.endswith((".py", ".pyw")):
        return _Source(hashlib.sha256(content).digest(), ())
    with warnings.catch_warnings(action="ignore"):  # Python warns of strange escapes itself when it imports the file
        tree = ast.parse(content)
    imports = tuple(dict.fromkeys(_imports(tree)))
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [one for one in body if not _is_text(one)]
    return _Source(hashlib.sha256(ast.dump(tree).encode()).digest(), imports)


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a string and nothing else, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(node: ast.AST) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """All imports of a tree, also in functions; imports for type checkers alone are left out."""
    if isinstance(node, ast.Import):
        yield from ((0, alias.name, ()) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.level, node.module or "", tuple(alias.name for alias in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name = node.args[0].value
        if called in ("import_module", "__import__") and isinstance(name, str):
            module = name.lstrip(".")
            yield len(name) - len(module), module, ()
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in (getattr(node.test, "id", ""), getattr(node.test, "attr", "")):
        children = node.orelse
    for child in children:
        yield from _imports(child)


def _data(task: Task, cache_dir: Path | None, is_needed: bool) -> bytes:
    """A hash of the names and contents of all files that the task reads."""
    paths = [Path(path) for path in task.data_paths()]
    if not all(path.exists() for path in paths):
        if not is_needed:
            return b""
        task.splits()  # downloads what it can, and says best what is missing
        paths = [Path(path) for path in task.data_paths()]
    total = hashlib.sha256()
    for path in paths:
        try:
            files = sorted(_files(os.path.abspath(path)))
            digests = _contents(os.path.abspath(path), files, cache_dir)
        except FileNotFoundError as exc:
            raise ConfigError(f"{type(task).__name__} reads {exc.filename}, which does not exist") from exc
        except OSError as exc:
            raise ConfigError(f"cannot read the data of {type(task).__name__}: {exc}") from exc
        total.update(f"{len(files)} files\0".encode())
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
    """SHA-256 of each file, from the index where the file has not changed since."""
    if cache_dir is None:
        return [_content(file) for file in files]
    cache_dir.mkdir(parents=True, exist_ok=True)
    path = cache_dir / "data_index.sqlite"
    with filelock.FileLock(f"{path}.lock"):
        index = sqlite3.connect(path)
        try:
            return _indexed(index, os.fsencode(root), files)
        except sqlite3.DatabaseError as exc:
            raise ConfigError(f"the index of data files {path} is damaged ({exc}); delete it") from exc
        finally:
            index.close()


def _indexed(index: sqlite3.Connection, root: bytes, files: Sequence[_File]) -> list[bytes]:
    index.execute("CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, stamp TEXT, digest BLOB) WITHOUT ROWID")
    rows = index.execute("SELECT path, stamp, digest FROM files WHERE path BETWEEN ? AND ?", (root, root + b"\xff"))
    known = {(path, stamp): digest for path, stamp, digest in rows}
    new = [file for file in files if (file.path, file.stamp) not in known]
    if len(new) > _BATCH:
        log.info("Reading %d new or changed files of %s, of all %d", len(new), os.fsdecode(root), len(files))
    for start in range(0, len(new), _BATCH):
        batch = new[start : start + _BATCH]
        known |= {(file.path, file.stamp): _content(file) for file in batch}
        settled = [file for file in batch if file.mtime_s < time.time() - _RACY_S]
        rows_of = ((file.path, file.stamp, known[file.path, file.stamp]) for file in settled)
        index.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows_of)
        index.commit()
    return [known[file.path, file.stamp] for file in files]


def _content(file: _File) -> bytes:
    with open(file.path, "rb", buffering=0) as opened:
        return hashlib.file_digest(opened, "sha256").digest()
