"""A fingerprint names a kept artefact by all that determines it: settings, code, versions and data.

* Code: the modules that define the objects' classes and all that these modules import, step by step; C files count
  with the package that they lie in. Comments, docstrings and formatting of Python do not count. Installed packages
  count by their version, the standard library does not.
* Data: names and contents of the files that a task says it reads, and of files that settings name. An index in the
  cache folder keeps the contents' hashes, so that unchanged files are read one time only.
* Networks: their layers as they print themselves, and the shapes of their weights.
"""

import ast
import functools
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import pkgutil
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset

from splitsem.errors import ConfigError
from splitsem.tasks.task import Task
from splitsem.training import data_index

_OWN = ("splitsem", "splitsem_device")
# the door and the exceptions: neither changes a result
_NO_NUMBERS = ("splitsem", "splitsem.errors", "splitsem_device.errors")
_STDLIB = tuple(str(Path(sysconfig.get_path(name)).resolve()) + os.sep for name in ("stdlib", "platstdlib"))
_INSTALLED = {"site-packages", "dist-packages"}
_PLAIN = {bool, int, float, complex, str, bytes, type(None), torch.Tensor, nn.Parameter}
_BARE_MODULE = set(vars(nn.Module())) - {"_modules"}


class _Place(NamedTuple):
    """Where a module is: its file, if it has one, and the folders of its submodules, if it is a package."""

    file: str | None
    folders: Sequence[str] | None


class _Source(NamedTuple):
    """What counts of a source file: a hash of its code, and its imports as ``(dots, module, names)``."""

    digest: bytes
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]


class _Counted(NamedTuple):
    """What counts of a module: a hash of its code, and the installed packages that it imports."""

    digest: bytes
    packages: set[str]


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
    objects = list(objects)
    found = _objects([*objects, *_targets(facts)])
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    closure = _closure(found.modules, without)
    installed = found.packages.union(*(source.packages for source in closure.values()), {"torch"})
    digest.update(json.dumps({name: _version(name) for name in installed}, sort_keys=True).encode())
    for name, source in sorted(closure.items()):
        digest.update(name.encode() + b"\0" + source.digest)
    for network in (thing for thing in objects if isinstance(thing, nn.Module)):
        digest.update(_structure(network).encode())
    for path in sorted(set(_named_files(facts))):
        digest.update(data_index.of_path(path, cache_dir))
    for task in found.tasks:
        digest.update(data_index.of_task(task, cache_dir, is_data_needed))
    return digest.hexdigest()[:20]


def _structure(network: nn.Module) -> str:
    """The layers of a network with their settings, for a constructor may look at more than its arguments."""
    layers = re.sub(r"\bat 0x[0-9a-f]+", "", repr(network))
    return f"{layers}\0" + " ".join(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in network.state_dict().items())


def _named_files(settings: object) -> Iterator[str]:
    """The files that settings name, e.g. weights to start from, and the folders of networks: they may change and keep
    their names."""
    if isinstance(settings, dict):
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            yield from _named_files(value)
    elif isinstance(settings, str):
        path = os.path.abspath(os.path.expanduser(settings))
        if os.path.isfile(path) or os.path.isfile(os.path.join(path, "config.json")):
            yield path


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


def _closure(roots: Iterable[str], without: Sequence[str]) -> dict[str, _Counted]:
    """What counts of each own module that the roots import, directly or not, and of the roots themselves."""
    for name in without:
        _must_be_there(name)
    prefixes = tuple(f"{name}." for name in without)
    found: dict[str, _Counted] = {}
    todo = list(roots)
    asked = {*todo, *_NO_NUMBERS}
    while todo:
        name = todo.pop()
        if not _is_own(name) or (place := _place(name)) is None or name in _NO_NUMBERS:
            continue
        imported = [name.rpartition(".")[0]]  # Python runs the package's own code first
        if place.file is not None:
            source = _source(place.file, name)
            package = name if place.folders is not None else name.rpartition(".")[0]
            for dots, module, names in source.imports:
                base = _absolute(dots, module, package, name)
                imported += [base, *(f"{base}.{one}" for one in names)]
            imported += _bound(name)
            tops = {one.partition(".")[0] for one in imported} - sys.stdlib_module_names - {""}
            found[name] = _Counted(
                source.digest + _c_digest(place), {top for top in tops if not _is_own(top) and _place(top) is not None}
            )
        for one in imported:
            if one and one not in asked and one not in without and not one.startswith(prefixes):
                asked.add(one)
                todo.append(one)
    return found


def _c_digest(place: _Place) -> bytes:
    """What counts of the C files that lie in a package: they are compiled as it is installed."""
    files = sorted(path for folder in place.folders or () for path in Path(folder).glob("*.[ch]"))
    return b"".join(_source(str(path), path.name).digest for path in files)


def _bound(name: str) -> list[str]:
    """The modules of what a user's loaded module holds: some are imported by a name that only running it tells."""
    if name.partition(".")[0] in _OWN or name not in sys.modules:
        return []
    held = list(vars(sys.modules[name]).values())
    names = [thing.__name__ for thing in held if isinstance(thing, types.ModuleType)]
    return names + [str(thing.__module__) for thing in held if isinstance(thing, type | types.FunctionType)]


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
    if top in _OWN:
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


@functools.cache
def _version(top: str) -> str:
    """The version of an installed package, by the name that is imported; the same whether it is loaded or not."""
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        place = _place(top)
        holders = []
        if place is not None and place.file is not None:
            path = Path(place.file).name if place.folders is None else f"{top}/{Path(place.file).name}"
            holders = [one for one in _distributions() if top in _tops(one)] or _listed().get(path, [])
        found = {one.metadata["Name"]: one.version for one in holders}
        if not found:  # a folder that packages share, or one that lists nothing
            found = {name: importlib.metadata.version(name) for name in _shared_names().get(top, [])}
        return ",".join(found[name] for name in sorted(found))


@functools.cache
def _distributions() -> tuple[importlib.metadata.Distribution, ...]:
    return tuple(importlib.metadata.distributions())


@functools.cache
def _shared_names() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@functools.cache
def _listed() -> Mapping[str, list[importlib.metadata.Distribution]]:
    """The distributions by the files that they list: single modules, and what runs first of a package."""
    found: dict[str, list[importlib.metadata.Distribution]] = {}
    for one in _distributions():
        for line in (one.read_text("RECORD") or "").splitlines():
            path = line.partition(",")[0]
            folder, _, name = path.rpartition("/")
            if not folder or (name.startswith("__init__.") and "/" not in folder):
                found.setdefault(path, []).append(one)
    return found


def _tops(distribution: importlib.metadata.Distribution) -> list[str]:
    return (distribution.read_text("top_level.txt") or "").split()


def _source(file: str, name: str) -> _Source:
    """Reads what counts of a module's file. Raises ConfigError when the file cannot be read."""
    try:
        facts = os.stat(file)
        return _read_source(file, (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino))
    except (OSError, SyntaxError, ValueError) as exc:
        raise ConfigError(f"cannot read the code of {name}, which determines what is kept: {exc}") from exc


@functools.lru_cache(maxsize=4096)
def _read_source(file: str, stamp: tuple[int, ...]) -> _Source:
    """Reads what counts of a file that has this stamp; a compiled module counts by its bytes."""
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
