"""Every workflow's configuration composes with nothing else on the command line."""

import pytest
from hydra import compose, initialize_config_dir

from tests.conftest import ROOT

WORKFLOWS = sorted(path.stem for path in (ROOT / "conf" / "workflow").glob("*.yaml"))


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_workflow_composes_by_itself_and_names_its_objective(workflow):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [f"workflow={workflow}"])
    assert cfg.workflow.objective
    assert cfg.workflow["_target_"].startswith("splitsem.workflows.")
