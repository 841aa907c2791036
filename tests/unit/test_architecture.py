"""The pages say what is there: the packages of the figure, the files that it names, and every link."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

ARCHITECTURE = "docs/architecture.md"
ROOTS = (ROOT, ROOT / "splitsem", ROOT / "device" / "splitsem_device")
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")})
CODE = re.compile(r"^([ \t]*)(`{3,}|~{3,}).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")


def boxes(page: str) -> list[str]:
    """What the boxes of a page's mermaid figure stand for: ``name/`` or ``name.py``, the label's first line."""
    (figure,) = re.findall(r"^```mermaid\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return re.findall(r'^\s*\w+\["([\w./]+)<br>', figure, re.MULTILINE)


def parts(package: Path) -> set[str]:
    """The packages and modules directly in a package's folder, as the figure writes them."""
    packages = {f"{path.relative_to(package).parts[0]}/" for path in package.glob("*/**/*.py")}
    return packages | {path.name for path in package.glob("*.py") if path.name != "__init__.py"}


def named_files(page: str) -> set[str]:
    """The Python files that a page names in inline code."""
    return set(re.findall(r"`([\w/]+\.py)`", CODE.sub("", page)))


def links(page: str) -> list[str]:
    """The files that a page links to or shows, without anchors; code, web addresses and mail are left out."""
    targets = LINK.findall(INLINE_CODE.sub("", CODE.sub("", page)))
    paths = [target.partition("#")[0] for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target)]
    return [path for path in paths if path]


def test_the_figure_has_a_box_for_each_package_and_module_and_no_other():
    drawn = boxes((ROOT / ARCHITECTURE).read_text())
    assert len(drawn) == len(set(drawn)), "a package has two boxes"
    there = parts(ROOT / "splitsem") | {"splitsem_device/"}
    assert sorted(there - set(drawn)) == [], f"{ARCHITECTURE}: the figure lacks these packages or modules"
    assert sorted(set(drawn) - there) == [], f"{ARCHITECTURE}: splitsem/ has no such packages or modules"


def test_each_box_has_a_paragraph():
    page = (ROOT / ARCHITECTURE).read_text()
    assert sorted(re.findall(r"^\*\*`([\w./]+)`\*\* ", page, re.MULTILINE)) == sorted(boxes(page))


def test_the_files_that_the_page_names_are_there():
    files = named_files((ROOT / ARCHITECTURE).read_text())
    assert files
    assert [file for file in files if not any((root / file).is_file() for root in ROOTS)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_points_to_a_file(page):
    missing = [link for link in links(page.read_text()) if not (page.parent / link).exists()]
    assert missing == [], f"{page.relative_to(ROOT)} links to what is not there"


def test_a_missing_package_and_a_box_for_nothing_are_noticed(tmp_path):
    for name in ("codecs", "links"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "__pycache__").mkdir()
    for name in ("__init__.py", "errors.py"):
        (tmp_path / name).touch()
    page = '```mermaid\nflowchart TB\n  codecs["codecs/<br>bytes"]\n  errors["errors.py<br>tree"]\n  a --> b\n```\n'
    assert set(boxes(page)) == {"codecs/", "errors.py"}
    assert parts(tmp_path) - set(boxes(page)) == {"links/"}
    assert boxes(page.replace("codecs/", "plots/"))[0] not in parts(tmp_path)


def test_links_are_found_outside_code_only():
    page = "[a](a.md#top) ![b](b.png) [c](https://c) [d](#here) `[e](e.md)`\n```\n[f](f.md)\n```\n[g\nh](g/h.md 't')"
    assert links(page) == ["a.md", "b.png", "g/h.md"]
