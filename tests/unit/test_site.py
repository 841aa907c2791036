"""The site's made pages: each option explained, each name and message there, every page in the navigation."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from scripts.site import api_page, errors_page, markdown, metrics_page, option_files, options_page
from splitsem import errors
from tests.conftest import ROOT
from tests.unit.test_architecture import ARCHITECTURE, boxes

NAV = yaml.safe_load(re.sub(r"!!python/\S+", "", (ROOT / "mkdocs.yml").read_text()))["nav"]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return options_page.pages()


def test_each_setting_has_a_meaning():
    missing = options_page.without_meaning()
    assert missing == [], "say it in a comment beside the setting in conf/, or in the constructor's docstring"


def test_each_option_and_setting_stands_on_its_groups_page(pages):
    for group, found in options_page.options().items():
        page = pages[f"{group.partition('/')[0]}.md"]
        for option in found:
            assert group == "config" or f"| `{option.path.stem}` |" in page, option.path
            for setting in option.settings if group != "experiment" else ():
                assert f"| `{options_page.full_name(group, option, setting)}` |" in page


def test_each_group_has_a_page_in_the_navigation(pages):
    (reference,) = [section["Reference"] for section in NAV if "Reference" in section]
    (listed,) = [entry["Options"] for entry in reference if isinstance(entry, dict)]
    assert {f"reference/options/{page}" for page in pages} == set(listed), "mkdocs.yml: name the group's page in nav"


def test_what_is_given_in_a_unit_says_which():
    rows = [
        row
        for group, found in options_page.options().items()
        for option in found
        for row in options_page.rows(group, option)
    ]
    assert len({row.name for row in rows}) > 300
    units = {row.name.rpartition(".")[2]: row.unit for row in rows}
    assert (units["rtt_s"], units["bandwidth_bps"], units["active_w"]) == ("s", "bit/s", "W")
    lacking = {name for name, unit in units.items() if re.search(r"_(s|bytes|bps|hz|j|w|db)$", name) and not unit}
    assert lacking == set()


def test_the_metrics_of_every_table_and_of_workflows_are_explained():
    page = metrics_page.metrics_page()
    assert re.search(r"\| `latency_s` \| [^|]+ \| s \| `edge_s \+", page)  # a narrow screen has the meaning first
    assert "| `edge_s + link_s + server_s + answer_s` |" in page
    assert metrics_page.known("measured_tail_p95_s")
    assert metrics_page.known("codec.bit_width")  # a column that is a setting
    assert not metrics_page.known("latency")
    assert set(metrics_page.FORMULAS) <= set(metrics_page.METRICS)


@pytest.mark.parametrize("name", api_page.offered())
def test_each_name_that_is_offered_has_a_docstring_and_a_place(name):
    dotted = api_page.offered()[name]
    assert f"::: {dotted}\n" in api_page.api_page()
    module, _, attribute = dotted.rpartition(".")
    found = _definition(module, attribute)
    assert ast.get_docstring(found), f"{dotted} has no docstring"


def _definition(module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    """The class or function, where a module passes it on, too."""
    root = ROOT / "device" if module.startswith("splitsem_device") else ROOT
    for node in ast.parse((root / f"{module.replace('.', '/')}.py").read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and any(alias.asname == name for alias in node.names):
            return _definition(str(node.module), name)
    raise AssertionError(f"{module} has no {name}")


def test_each_code_stands_on_the_page_with_its_remedy_and_each_message_below_its_code():
    source = "".join(path.read_text() for root in errors_page.SOURCES for path in root.rglob("*.py"))
    used = set(re.findall(r'"(E-[A-Z-]+)"', source))
    assert used == set(errors_page.ENTRIES), "scripts/site/errors_page.py: say what the code means and what to do"
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    assert {kind.__name__: kind.code for kind in classes} | {"ValueError": "E-SETTING"} == errors_page.codes()
    assert len({kind.code for kind in classes}) == len(classes)
    page = errors_page.errors_page()
    below = page.partition("## E-SESSION\n")[2].partition("\n## ")[0]
    assert "is not open on this server: open its plan again" in below
    assert page.count("\n| ") > 700


def test_the_tree_of_exceptions_says_their_codes():
    drawn = dict(re.findall(r"(\w+Error) +(E-[A-Z-]+)", errors.__doc__ or ""))
    assert drawn | {"ValueError": "E-SETTING"} == errors_page.codes()


def test_each_decision_has_an_answer_of_one_sentence():
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        title, answer = markdown.answer(path.read_text())
        assert title
        assert 20 < len(answer) < 400, f"{path.name}: begin with **Decision.** and one sentence, not {answer!r}"


def test_an_unnamed_page_comes_to_its_section(monkeypatch):
    pytest.importorskip("mkdocs")
    from scripts.site import hooks

    nav = [{"Tutorials": []}, {"How-to": ["a.md"]}, {"Reference": []}, {"Explanation": [{"Decisions": []}]}]
    hooks.filled(nav, ["a.md", "new.md", "tutorials/first.md", "decisions/x.md"])
    assert nav == [
        {"Tutorials": ["tutorials/first.md"]},
        {"How-to": ["a.md", "new.md"]},
        {"Reference": []},
        {"Explanation": [{"Decisions": ["decisions/x.md"]}]},
    ]


def test_each_page_has_a_place_of_its_own_in_the_navigation():
    pytest.importorskip("mkdocs")
    from scripts.site import hooks

    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    unnamed = {page for page in pages - set(hooks._named(NAV)) if not page.startswith("decisions/")}
    assert unnamed == set(), "mkdocs.yml: name the page in its group; at the end of a long list nobody finds it"


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs" / "how-to").glob("*.md")))
def test_a_how_to_is_read_at_one_sitting(page: str):
    assert 20 <= len((ROOT / "docs" / "how-to" / page).read_text().splitlines()) <= 60


def test_a_page_asks_nothing_of_the_web(monkeypatch):
    pytest.importorskip("mkdocs")
    from types import SimpleNamespace

    from scripts.site import hooks

    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/a.md"))
    shown = hooks.on_post_page('<script src="https://unpkg.com/iframe-worker/shim">', page, None)
    assert shown == '<script src="../assets/frame-worker.js">'
    assert (ROOT / "docs" / "assets" / "frame-worker.js").is_file()


def test_comments_beside_above_below_and_in_the_first_lines_are_found(tmp_path: Path):
    file = tmp_path / "option.yaml"
    file.write_text(
        "# What it is.\n# rate_s: from a data sheet\n#   [published].\n_target_: x.Y\nrate_s: 1.0\na: 2 # beside\n"
        "# above\nb: [1, 2]\nc: null # first\n  # second\nd:\n  inner: 3 # of d\n"
    )
    option = option_files.read(file)
    assert (option.summary, option.target) == ("What it is.", "x.Y")
    assert {setting.name: setting.comment or setting.note for setting in option.settings} == {
        "rate_s": "from a data sheet [published].",
        "a": "beside",
        "b": "above",
        "c": "first second",
        "d.inner": "of d",
    }


def test_links_lead_to_the_sites_places_and_code_stays():
    text = "[a](../README.md#x) `[b](../README.md)`\n```\n[c](../README.md)\n```\n[d](https://d)"
    got = markdown.relinked(text, ROOT / "docs" / "zoo.md", "how/zoo.md", lambda path: "index.md")
    assert got == text.replace("[a](../README.md#x)", "[a](../index.md#x)", 1)


def test_the_layered_figure_has_all_boxes():
    page = (ROOT / ARCHITECTURE).read_text()
    drawn = markdown.with_layers(page)
    assert "```mermaid" not in drawn
    assert re.findall(r"<b>(.+?)</b>", drawn) == boxes(page)
    assert "Arrows: `__main__.py` → `workflows/`, " in drawn  # as code: else Markdown makes the name bold


def test_the_search_finds_a_code_of_an_error_by_the_page_that_explains_it():
    pytest.importorskip("mkdocs")
    from scripts.site import hooks

    assert hooks.BOOSTS.keys() <= hooks.made().keys()
    assert hooks.BOOSTS["reference/errors.md"] > 1
