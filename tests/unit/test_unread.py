"""What the command line gives and nothing reads is refused, with the setting that does what was meant."""

import logging
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from splitsem import files
from splitsem.errors import SettingError
from splitsem.workflows import sweep, unread
from splitsem.workflows.mistakes import told
from tests.conftest import ROOT

JOINT = ("workflow=joint", "task=digits", "model=cnn")
DRONE = "hardware/machine@hardware.edge=jetson_tx2"


def composed(*overrides: str) -> DictConfig:
    sweep.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", list(overrides), return_hydra_config=True)


def checked(*overrides: str) -> None:
    cfg = composed(*overrides)
    unread.check(cfg, cfg.hydra.overrides.task, cfg.hydra.runtime.choices)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["hardware/machine@edge=jetson_tx2"],
            "nothing reads hardware/machine@edge=jetson_tx2: give hardware/machine@hardware.edge=jetson_tx2 or "
            "hardware/machine@hardware.server=jetson_tx2",
        ),
        (["hardware/machine=jetson_tx2"], "give hardware/machine@hardware.edge=jetson_tx2 or "),
        (
            ["codec@trainer.gradient=quant4"],
            "did you mean codec@trainer.gradient_codec=quant4? There are codec, codec@ref",
        ),
        (["codec@codec.inner=quant4"], "+ adds it: +codec@codec.inner=quant4"),
        (["optimise=exact"], "nothing reads optimise=exact: optimise is for workflow=joint"),
        (["federated/strategy=fedavg"], "federated/strategy is for workflow=federated and workflow=splitfed"),
        (["partition=iid"], "partition is for workflow=federated and workflow=splitfed and task=domains"),
        (["mine=iid"], "there is no setting mine"),
        (["+codec=quant4"], "an option of codec is chosen already: give codec=quant4, without +"),
        (
            ["+hardware.edge.active_w=9"],
            "hardware.edge.active_w is there already: give hardware.edge.active_w=VALUE, without +",
        ),
        (["+hardware/machine@edge=jetson_tx2"], "that nothing reads: give hardware/machine@hardware.edge=jetson_tx2"),
        (["+hardware/machine=jetson_tx2"], "that nothing reads: give hardware/machine@hardware.edge=jetson_tx2"),
        (["+optimise=exact"], "+optimise=exact adds an option that nothing reads: optimise is for workflow=joint"),
        (["hardware.edge=jetson_tx2"], "an option is chosen by hardware/machine@hardware.edge=jetson_tx2"),
        (["references.png=webp"], "an option is chosen by codec@references.png=webp"),
        ([*JOINT, DRONE], f"{DRONE} is not used, since workflow=joint measures this machine: add workflow.times=hard"),
        ([*JOINT, "hardware.server.active_w=300"], "hardware.server.active_w=300 is not used"),
        ([*JOINT, "hardware=tx2_desktop"], "hardware=tx2_desktop is not used"),
        (
            [*JOINT, "hardware.chain=[jetson_tx2,local]", DRONE],
            f"hardware.chain is in place of edge and server: leave out {DRONE}",
        ),
    ],
)
def test_what_nothing_reads_is_refused_with_what_was_meant(overrides: list[str], said: str) -> None:
    with pytest.raises(Exception) as raised:
        checked(*overrides)
    line = told(raised.value)
    assert line
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "overrides",
    [
        [DRONE, "hardware.edge.lut=null"],
        [*JOINT, DRONE, "workflow.times=hardware"],
        [*JOINT, "hardware.chain=[jetson_tx2,local]"],
        ["+codec@references.mine=quant4", "+note=a", "codec@trainer.gradient_codec=quant4"],
        ["trainer.gradient_codec=quant4"],
        ["+codec@codec.inner=quant4"],  # a class may take a codec as its argument; its constructor says whether
        ["+hardware/machine@mine=local", "workflow._target_=my_package.workflow.run"],
    ],
)
def test_what_is_read_or_may_be_passes(overrides: list[str]) -> None:
    checked(*overrides)


def test_an_option_without_a_class_is_told_with_what_its_file_has() -> None:
    cfg = composed("codec=quant4")
    cfg.codec = {"target": "my_package.Codec"}
    with pytest.raises(
        SettingError, match="codec=quant4: the option's file must name a class as _target_:, and has ta"
    ):
        unread.check(cfg, [], cfg.hydra.runtime.choices)


def test_machines_of_a_workflow_that_takes_none_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    unread._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        checked("workflow=points", "hardware=local")
        checked("workflow=points", "hardware=local")
        checked("workflow=points")
    assert [record.message for record in caplog.records] == [
        "hardware=local changes nothing here: this workflow takes no machines of the group hardware"
    ]


def test_a_misspelt_file_of_settings_is_told_with_the_nearest_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unread._warn.cache_clear()
    own = tmp_path / "task" / "settings"
    own.mkdir(parents=True)
    (tmp_path / "task" / "mine.yaml").touch()
    for name in ("digits_defalt", "digits_default", "mine_cnn", "zzz"):
        (own / f"{name}.yaml").touch()
    with caplog.at_level(logging.WARNING):
        unread.check_files([str(tmp_path), str(files.CONF)])
    first, second = (record.message for record in caplog.records)
    assert first.endswith(
        "digits_defalt.yaml: such a file is named TASK_OPTION.yaml; did you mean digits_default.yaml?"
    )
    assert second.endswith(
        "zzz.yaml: such a file is named TASK_OPTION.yaml; the options are of task, and of model, trainer or workflow"
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "codec.seed=1",  # stands for any argument that the constructor has and the file lacks
            "codec.seed is not in the file of the option, but its class takes it: +codec.seed=1 adds it",
        ),
        ("codec.sed=1", "codec has no setting sed: did you mean seed? There are size, seed"),
    ],
)
def test_an_argument_that_the_file_lacks_is_told_with_its_plus(override: str, said: str) -> None:
    with pytest.raises(Exception) as raised:
        composed("codec=quant8", "~codec", "+codec._target_=tests.unit.test_unread.OfTwo", "+codec.size=1", override)
    line = told(raised.value)
    assert line
    assert said in line


class OfTwo:
    def __init__(self, size: int, seed: int = 0) -> None: ...
