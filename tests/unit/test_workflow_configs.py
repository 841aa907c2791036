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


@pytest.mark.parametrize(
    ("overrides", "batch_size", "local_epochs"),
    [
        (["task=digits"], 32, 1),
        (["task=disaster"], 8, 8),
        (["task=disaster", "trainer.batch_size=16", "federated.local_epochs=2"], 16, 2),
    ],
)
@pytest.mark.parametrize("workflow", ["federated", "splitfed"])
def test_what_a_client_trains_in_a_round_suits_the_task(workflow, overrides, batch_size, local_epochs):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [f"workflow={workflow}", *overrides])
    assert (cfg.trainer.batch_size, cfg.trainer.max_epochs) == (batch_size, local_epochs)
    assert cfg.federated.local_epochs == local_epochs


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_an_experiment_composes_and_sweeps_over_options_that_there_are(experiment):
    if experiment == "slurm":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra slurm is not installed")
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [f"experiment={experiment}"], return_hydra_config=True)
    params = OmegaConf.to_container(cfg.hydra.sweeper.params or OmegaConf.create(), resolve=False)
    for codec in str(params.get("codec", "identity")).split(","):
        assert (ROOT / "conf" / "codec" / f"{codec}.yaml").exists(), codec
