"""Every workflow's configuration composes with nothing else on the command line."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.conftest import ROOT

WORKFLOWS = sorted(path.stem for path in (ROOT / "conf" / "workflow").glob("*.yaml"))


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_workflow_composes_by_itself_and_names_its_objective(workflow):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [f"workflow={workflow}"])
    assert cfg.workflow.objective
    assert cfg.workflow["_target_"].startswith("splitsem.workflows.")


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_an_experiment_composes_and_sweeps_over_options_that_there_are(experiment):
    if experiment == "slurm":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra slurm is not installed")
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [f"experiment={experiment}"], return_hydra_config=True)
    params = OmegaConf.to_container(cfg.hydra.sweeper.params or OmegaConf.create(), resolve=False)
    for codec in str(params.get("codec", "identity")).split(","):
        assert (ROOT / "conf" / "codec" / f"{codec}.yaml").exists(), codec
