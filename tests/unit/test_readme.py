"""The README: read in a minute, so that its length and the width of its lines are bounded, and its order is kept."""

import hashlib
import re
import tomllib

import yaml

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 110] == []


def test_the_picture_comes_first_then_demo_test_examples_library_peers_cite_and_licence():
    places = [
        README.index(text)
        for text in (
            "accuracy_throughput.png",
            "make demo",
            "make test",
            "task=photos",
            "make loopback",
            "make federated",
            "import splitsem",
            "beside its peers",
            "## Cite",
            "## Licence",
        )
    ]
    assert places == sorted(places)


def test_each_claim_of_the_table_links_to_where_it_is_shown():
    table = README.partition("beside its peers")[2].partition("## Read on")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    assert [row for row in rows if not re.search(r"\[[^]]+\]\((docs|experiments)/", row)] == []


def test_the_library_takes_eight_lines():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in block.splitlines() if line]) <= 9


APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the licence's text as apache.org has it."""


def test_the_licence_is_the_same_everywhere():
    for folder in (ROOT, ROOT / "device"):
        assert hashlib.sha256((folder / "LICENSE").read_bytes()).hexdigest() == APACHE_2
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert tomllib.loads((ROOT / "flower_app" / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
    assert "[Apache-2.0](LICENSE)" in README


def test_the_citation_is_that_of_this_release():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert f"version = {{{cited['version']}}}" in README
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
