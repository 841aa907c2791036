"""Every workflow's configuration composes with nothing else on the command line."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
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
    sweeper = OmegaConf.to_container(cfg.hydra.sweeper, resolve=False)
    listed = [job.split()[0].removeprefix("codec=") for job in sweeper.get("jobs", ()) if job.startswith("codec=")]
    swept = str((sweeper["params"] or {}).get("codec", "identity")).split(",")
    for codec in (*listed, *swept):
        assert (ROOT / "conf" / "codec" / f"{codec}.yaml").exists(), codec
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        for job in sweeper.get("jobs", ()):
            compose("config", [f"experiment={experiment}", *job.split()])


@pytest.mark.parametrize(
    ("overrides", "target"),
    [
        (["task=digits"], "StagedCnn"),
        (["task=disaster"], "UNet"),
        (["task=netqos"], "LstmForecaster"),
        (["task=disaster", "model=cnn"], "StagedCnn"),
        (["task=detection"], "AnchorFreeDetector"),
        (["task=detection", "model=torchvision", "model.name=ssd300_vgg16"], "torchvision_model"),
        (["task=disaster", "workflow=joint"], "UNet"),
        (["task=digits", "workflow=joint"], "HyperRepVgg"),
        (["task=digits", "workflow=joint", "model=lstm"], "LstmForecaster"),
        (["experiment=joint_domains"], "HyperRepVgg"),
        (["task=domains", "task@task.base=digits"], "StagedCnn"),
    ],
)
def test_the_command_line_goes_before_the_task_and_the_task_before_the_workflow(overrides, target):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", overrides)
    assert cfg.model["_target_"].endswith(target)


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        ([], [["codec=a", "codec.b=1"], ["codec=c"]]),
        (
            ["seed=0,1"],
            [
                ["codec=a", "codec.b=1", "seed=0"],
                ["codec=a", "codec.b=1", "seed=1"],
                ["codec=c", "seed=0"],
                ["codec=c", "seed=1"],
            ],
        ),
        (["codec=d,e"], [["codec=d"], ["codec=e"]]),
    ],
)
def test_listed_jobs_are_swept_with_all_else_unless_the_command_line_names_their_keys(arguments, jobs):
    name = "hydra_plugins.listed_sweeper.ListedSweeper"  # Hydra loads its plugins itself, a second time
    sweeper = Plugins.instance().class_name_to_class[name](None, {}, ["codec=a codec.b=1", "codec=c"])
    overrides = OverridesParser.create().parse_overrides(arguments)
    assert sweeper.split_arguments(overrides, None) == [jobs]
    assert [len(batch) for batch in sweeper.split_arguments(overrides, 1)] == [1] * len(jobs)


def test_a_listed_job_goes_before_what_the_workflow_sweeps():
    name = "hydra_plugins.listed_sweeper.ListedSweeper"
    make = Plugins.instance().class_name_to_class[name]
    sweeper = make(None, {"split.point": "a,b", "seed": "0,1"}, ["codec=c split.point=d"])
    assert sweeper._parse_config() == ["seed=0,1"]
