"""Settings are checked before work: each wrong one is told in one line, whatever it is."""

import functools
import math

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from torch import nn

from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError, ContractError, SplitSemError
from splitsem.workflows import sweep
from splitsem.workflows.codec_offers import offers
from splitsem.workflows.mistakes import must_be_given, told
from splitsem.workflows.settings import RULES, check, in_words
from tests.conftest import ROOT

GROUPS = ("codec", "transport", "hardware", "task", "model", "answer", "device", "workflow", "hardware/machine")
CHOICES = [
    *(f"{group}={path.stem}" for group in GROUPS[:-1] for path in sorted((ROOT / "conf" / group).glob("*.yaml"))),
    *(f"task=detection task/source={path.stem}" for path in sorted((ROOT / "conf" / "task" / "source").glob("*.yaml"))),
    *(
        f"workflow=federated federated/{group}={path.stem}"
        for group in ("strategy", "optimizer", "privacy", "rate_controller")
        for path in sorted((ROOT / "conf" / "federated" / group).glob("*.yaml"))
    ),
    *(f"workflow=joint optimise={path.stem}" for path in sorted((ROOT / "conf" / "optimise").glob("*.yaml"))),
]


@functools.cache
def kept(*overrides: str) -> DictConfig:
    sweep.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", list(overrides))


def composed(*overrides: str) -> DictConfig:
    return kept(*overrides).copy()


def leaves(node: DictConfig, where: str = ""):
    for name in node:
        if not OmegaConf.is_missing(node, name) and isinstance(inner := node[name], DictConfig):
            yield from leaves(inner, f"{where}{name}.")
        else:
            yield f"{where}{name}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Flower imports
@pytest.mark.parametrize("workflow", sorted(path.stem for path in (ROOT / "conf" / "workflow").glob("*.yaml")))
def test_what_comes_with_a_workflow_passes(workflow):
    check(composed(f"workflow={workflow}"))


OBJECTIVE = "optimise.objective._target_=splitsem.search.objective"
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**63, -(2**63), 10**30]),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, 5e-324]),
    st.text(max_size=8).filter(lambda text: "$" not in text),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=2),
)


@given(st.sampled_from(CHOICES), st.data(), WRONG)
@settings(max_examples=100, deadline=None)
def test_any_value_of_any_setting_passes_or_is_told_in_one_line(choice, data, value):
    cfg = composed(*choice.split())
    OmegaConf.set_struct(cfg, False)
    names = [name for name in leaves(cfg) if not name.endswith("_target_") and not name.startswith("tracking.")]
    OmegaConf.update(cfg, data.draw(st.sampled_from(names)), value, merge=False)
    try:
        check(cfg)
    except SplitSemError as exc:
        line = told(exc)
        assert line
        assert "\n" not in line
        assert len(line) < 600


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["codec.bit_width=1.5"], "codec.bit_width must be a whole number, got 1.5"),
        (["split.index=1.5"], "split.index must be a whole number of at least 0, or null, got 1.5"),
        (["split.index=-1"], "split.index must be a whole number of at least 0, or null, got -1"),
        (["split.index=stage1"], "split.index must be a whole number of at least 0, or null, got 'stage1'"),
        (["workflow.num_samples=0"], "workflow.num_samples must be a whole number of at least 1, or null, got 0"),
        (["workflow.num_samples=-5"], "workflow.num_samples must be a whole number of at least 1, or null, got -5"),
        (["trainer.learning_rate=nan"], "trainer.learning_rate must be a finite number, got nan"),
        (["trainer.batch_size=true"], "trainer.batch_size must be a whole number, got True"),
        (["trainer.limit_train_batches=0"], "trainer: limit_train_batches must be "),
        (["seed=-1"], "seed must be a whole number of at least 0 and below 4294967296, got -1"),
        (["workflow=federated", "federated.rounds=0"], "federated.rounds must be a whole number of at least 1, got 0"),
        (
            ["transport=grpc", "transport.target=edge"],
            "an address must be host:port with a port of 0…65535, got 'edge'",
        ),
        (["transport=grpc", "transport.bind=127.0.0.1:99999"], "port of 0…65535, got '127.0.0.1:99999'"),
        (["transport.bandwidth_bps=-1"], "transport: bandwidth_bps must be positive and finite, got -1"),
        (
            ["transport.bandwidth_bps=fast"],
            "transport.bandwidth_bps must be a number",
        ),  # not codec.rate_bps, which has it
        (["transport=trace"], "transport.path must be given"),
        (["references.webp.quality=[10,300]"], "quality must be 1…100, got 300"),
        (["+model.width=3"], "model (splitsem.models.cnn.StagedCnn) has no setting width: did you mean widths?"),
        (["model._target_=nowhere.Net"], "model._target_=nowhere.Net: there is no module nowhere"),
        (["model._target_=tests_broken_module.Net"], "tests_broken_module cannot be imported: SyntaxError: "),
        (["codec.entropy=zip"], "codec: entropy must be one of"),
        (["workflow=joint", f"{OBJECTIVE}.cycle"], "There are none; '~optimise.objective.omega' takes it out"),
        (
            ["workflow=joint", f"{OBJECTIVE}.energy", "~optimise.objective.omega"],
            "optimise.objective needs active_w and idle_w: give +optimise.objective.active_w=VALUE +",
        ),
        (["hardware.edge.lut=/nowhere.json"], "cannot read the LUT '/nowhere.json'"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(overrides, said, tmp_path, monkeypatch):
    (tmp_path / "tests_broken_module.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = composed(*overrides)
    with pytest.raises(ConfigError) as raised:
        check(cfg)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "said", "code"),
    [
        (
            ["codec.bitwidth=4"],
            "codec has no setting bitwidth: did you mean bit_width? There are bit_width,",
            "E-SETTING",
        ),
        (["codc=quant8"], "there is no setting codc: did you mean codec? There are", "E-SETTING"),
        (["codec=quan8"], "codec has no option quan8: did you mean quant8? There are adjscc,", "E-OPTION"),
        (["trainer=digits"], "trainer=digits is no more: give trainer=default", "E-RENAMED"),
        (["seed.x=1"], "seed.x is no setting: seed is a value", "E-SETTING"),
        (
            ["exit.threshold=0.9"],
            "exit.threshold is no setting of the exit that is chosen; it is a setting of exit=confidence [",
            "E-SETTING",
        ),
        (["codec=quant4", "codec.keep_ratio=0.1"], "rate_bps; it is a setting of codec=topk [", "E-SETTING"),
        (["workflow=report", "workflow.folders=[a]"], "a setting of workflow=report, as folders=… [", "E-SETTING"),
        (["codec=quant9"], "codec has no option quant9: did you mean quant8? There are adjscc,", "E-OPTION"),
        (["hardware=pi4"], "hardware has no option pi4: did you mean pi4_desktop? There are", "E-OPTION"),
        (
            ["a=[1"],
            "settings are NAME=VALUE without spaces, and lists and braces need quotes: 'NAME=[1,2]'",
            "E-SYNTAX",
        ),
        (["digits"], "cannot read digits: settings are NAME=VALUE", "E-SYNTAX"),
        (["split.point=a,b"], "split.point=a,b are several values: add -m to run each, or give one list", "E-SYNTAX"),
        (["transport=null"], "Got NoneType: choose an option by GROUP=OPTION", "E-OPTION"),
        (["seed=${nope}"], "Interpolation key 'nope' not found", "E-SETTING"),
    ],
)
def test_a_typo_is_told_with_the_nearest_name_and_a_code(overrides, said, code):
    with pytest.raises(Exception) as raised:
        check(composed(*overrides))
    line = told(raised.value)
    assert line
    assert said in line
    assert "\n" not in line
    assert line.endswith(f" [{code}]")
    assert "+codec" not in line


@pytest.mark.parametrize(
    ("override", "name", "said"),
    [
        ("transport=trace", "transport.path", "transport.path=…, e.g. transport.path=FILE"),
        ("model=torchvision", "model.name", "model.name=…, e.g. model.name=resnet18"),
        ("task=imagefolder", "task.root", "task.root=…; conf/task/imagefolder.yaml says what it is"),
        ("workflow=report", "folders", "folders=…, of sweeps; their names alone, without folders=, do as well"),
    ],
)
def test_what_must_be_given_has_an_example_its_meaning_or_its_file(override, name, said, monkeypatch):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [override], return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    assert must_be_given(name) == f"{name} must be given: {said}"


class NoSuper(nn.Module):
    def __init__(self):
        pass


def test_a_constructor_that_leaves_out_that_of_its_base_is_told():
    cfg = composed()
    cfg.codec = {"_target_": "tests.unit.test_settings.NoSuper"}
    with pytest.raises(
        ConfigError, match=r"codec: the __init__ of tests.unit.test_settings.NoSuper must call super\(\)"
    ):
        check(cfg)


def test_so_is_that_of_a_codec_that_joint_may_choose(monkeypatch):
    mine = {"_target_": "tests.unit.test_settings.Unmade"}
    monkeypatch.setattr("splitsem.workflows.codec_offers.codec_option", lambda name, where: mine)
    with pytest.raises(ContractError, match=r"Unmade breaks the contract of a codec: __init__ must call super\(\)"):
        offers(OmegaConf.create(["mine"]))


class Unmade(Identity):
    def __init__(self):
        pass


def test_an_option_of_ones_own_is_told_with_the_folder_that_has_it(tmp_path, monkeypatch):
    (tmp_path / "my_conf" / "codec").mkdir(parents=True)
    (tmp_path / "my_conf" / "codec" / "mine.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as raised:
        composed("codec=mine")
    assert "; my_conf/codec/mine.yaml is found by --config-dir=my_conf [E-OPTION]" in told(raised.value)


def test_a_sweep_over_exits_is_told_how_its_jobs_are_listed(monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", "-m"])
    with pytest.raises(Exception) as raised:
        composed("exit=none", "exit.max_loss=0.1")
    assert """experiment=early_exit 'hydra.sweeper.jobs=["exit=none","exit.max_loss=0.03"]' -m""" in told(raised.value)


def test_a_group_lists_its_options():
    with pytest.raises(Exception) as raised:
        composed("answer=list")
    assert told(raised.value) == "answer: raw, task"


def test_a_fault_of_the_program_is_no_mistake_of_its_user():
    assert told(KeyError("x")) is None


def test_every_rule_is_of_a_setting_that_there_is():
    named = {
        name
        for workflow in (path.stem for path in (ROOT / "conf" / "workflow").glob("*.yaml"))
        for name in leaves(composed(f"workflow={workflow}"))
    }
    assert {rule for rule in RULES if rule not in named and not any(n.startswith(f"{rule}.") for n in named)} == set()


def test_every_rule_can_be_said():
    assert all("something else" not in in_words(rule) for rule in RULES.values())


def test_a_rule_with_a_pattern_says_it():
    assert in_words(RULES["hardware.save"]) == "text of letters, digits, - and _, or null"
