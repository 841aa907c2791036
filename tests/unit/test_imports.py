"""Imports and files: no circle of imports, few names that stand twice, no file too long; `make lint` has the layers."""

import graphlib
import sys
from collections import Counter
from pathlib import Path

import grimp
import pytest

from tests.conftest import ROOT

FILES = [
    path
    for folder in ("splitsem", "device/splitsem_device")
    for path in (ROOT / folder).rglob("*.py")
    if not path.name.endswith("_pb2.py")
]
EVERYWHERE = ("__init__", "__main__", "errors")  # each distribution has its errors
MOST_TWICE = 8
MOST_LINES = 400


def circle(package: str) -> list[str]:
    """Modules that import each other in a circle, in functions and for type checkers too; empty where none do."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=False, cache_dir=None)
    try:
        graphlib.TopologicalSorter(
            {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
        ).prepare()
    except graphlib.CycleError as exc:
        return list(exc.args[1])
    return []


@pytest.mark.parametrize("package", ["splitsem", "splitsem_device"])
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    assert circle(package) == []


def test_what_a_board_needs_imports_nothing_of_splitsem() -> None:
    graph = grimp.build_graph("splitsem_device", include_external_packages=True, cache_dir=None)
    external = {module for module in graph.modules if module.partition(".")[0] != "splitsem_device"}
    allowed = {"google", "grpc", "numpy", "zstandard", "zlib_ng"}  # google: protobuf
    assert {module.partition(".")[0] for module in external} - sys.stdlib_module_names == allowed


@pytest.mark.parametrize(
    "back",
    [
        "from circular import first",
        "def f():\n    from circular.first import g",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import circular.first",
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(back: str, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "circular"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "first.py").write_text("import circular.second\n")
    (folder / "second.py").write_text(f"{back}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(circle("circular")) == {"circular.first", "circular.second"}


def test_few_base_names_stand_twice() -> None:
    counts = Counter(path.stem for path in FILES if path.stem not in EVERYWHERE)
    twice = sorted(name for name, count in counts.items() if count > 1)
    assert len(twice) <= MOST_TWICE, f"name one of these files by what it alone does: {', '.join(twice)}"


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}
