"""What a sweeper optimises: never a score on the test split."""

import pytest
import yaml

from tests.conftest import ROOT

TEST_SCORES = {"score", "accuracy"}


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "workflow").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_sweeper_chooses_by_the_test_split(path):
    settings = yaml.safe_load(path.read_text())
    objective = settings.get("workflow", settings)["objective"]
    assert objective
    assert not TEST_SCORES & set(objective)
