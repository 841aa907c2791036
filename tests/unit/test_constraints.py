"""The pinned packages install on the oldest Python that pyproject.toml allows."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_pin_takes_the_oldest_python():
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    takes: dict[str, bool] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin = Requirement(line)
        try:
            installed = distribution(pin.name)
        except PackageNotFoundError:  # it belongs to an extra that is not here
            continue
        if installed.version in pin.specifier:
            metadata = installed.metadata
            takes[line] = "Requires-Python" not in metadata or oldest in SpecifierSet(metadata["Requires-Python"])
    assert len(takes) > 100
    assert [pin for pin, fits in takes.items() if not fits] == []
