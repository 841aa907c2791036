"""Digests: the same command is known again, and anything that may change a result makes another."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from splitsem.workflows import digests
from tests.conftest import ROOT


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        loader = GlobalHydra.instance().config_loader()
        return loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def plain() -> DictConfig:
    return composed("codec=quant2,quant4")


@pytest.mark.parametrize("other", ["tracking=none", "tracking.uri=http://there", "resume=false"])
def test_where_runs_are_logged_changes_no_command(plain, other):
    assert digests.of_sweep(composed("codec=quant2,quant4", other)) == digests.of_sweep(plain)


@pytest.mark.parametrize("other", [("codec=quant4,quant2",), ("codec=quant2,quant4", "seed=1")])
def test_another_setting_or_order_is_another_command(plain, other):
    assert digests.of_sweep(composed(*other)) != digests.of_sweep(plain)


def test_changed_code_is_another_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("net", "helper"):
        (tmp_path / "my_nets").mkdir(exist_ok=True)
        (tmp_path / "my_nets" / f"{name}.py").write_text("x = 1\n")
    cfg = composed("model=custom", "model._target_=my_nets.net.Net")
    before = digests.of_run(cfg)
    assert digests.of_run(cfg) == before
    (tmp_path / "my_nets" / "helper.py").write_text("x = 2\n")
    assert digests.of_run(cfg) != before


def test_the_options_names_count_for_a_job_but_not_how_it_is_launched():
    cfg = DictConfig({"seed": 1})
    one = digests.of_job(cfg, {"task": "digits", "hydra/launcher": "basic"})
    assert digests.of_job(cfg, {"task": "digits", "hydra/launcher": "joblib"}) == one
    assert digests.of_job(cfg, {"task": "disaster", "hydra/launcher": "basic"}) != one


@pytest.mark.parametrize(
    ("overrides", "is_repeatable"),
    [
        ([], True),
        (["codec.bit_width=shuffle(2,4,8)"], False),
        (["experiment=pareto"], True),
        (["experiment=pareto", "hydra.sweeper.sampler.seed=null"], False),
        (["experiment=pareto", "hydra.sweeper.storage=sqlite:///study.db"], False),
        (["experiment=three_way"], True),
    ],
)
def test_a_sweep_whose_jobs_are_drawn_at_random_is_known(overrides, is_repeatable):
    assert digests.is_repeatable(composed(*overrides)) is is_repeatable
