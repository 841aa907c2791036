"""What Hydra composes to check a sweep, its jobs take: the same configuration as if it were composed again."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from splitsem.workflows import composed_once
from tests.conftest import ROOT

JOBS = [["task=digits", "split.point=stage1"], ["task=digits", "split.point=stage2"]]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConfigLoaderImpl]:
    """Hydra's loader; what composes is as before when the test ends."""
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", ConfigLoaderImpl.load_sweep_config)
    monkeypatch.setattr(Sweeper, "validate_batch_is_legal", Sweeper.validate_batch_is_legal)
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        found = GlobalHydra.instance().hydra
        assert found is not None
        yield found.config_loader  # type: ignore[misc]


def _sweep(loader: ConfigLoaderImpl, *overrides: str) -> tuple[DictConfig, Any]:
    config = loader.load_configuration("config", ["task=digits", *overrides], RunMode.MULTIRUN)
    sweeper = SimpleNamespace(hydra_context=SimpleNamespace(config_loader=loader), config=config)
    return config, sweeper


def _counted(loader: ConfigLoaderImpl, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    composed, load = [], loader.load_configuration

    def count(config_name: str, overrides: list[str], **kwargs: Any) -> DictConfig:
        composed.append(" ".join(overrides))
        return load(config_name, overrides, **kwargs)

    monkeypatch.setattr(loader, "load_configuration", count)
    return composed


@pytest.mark.parametrize(
    ("jobs", "num_composed"),
    [
        (JOBS, 1),
        ([[*job, codec] for job in JOBS for codec in ("codec=quant2", "codec=quant8")], 2),
        ([["codec=quant8", "codec.bit_width=3", "seed=1"], ["codec=quant8", "codec.bit_width=4", "seed=null"]], 1),
        (
            [["seed=1", "task=digits", "transport.rtt_s=1e-3"], ["seed=2", "task=digits", "transport.rtt_s='${seed}'"]],
            1,
        ),
        ([["plots.formats=[pdf]", "seed=1"], ["plots.formats=[svg]", "seed=2"]], 2),
        ([["+note=a", "split.point=stage1"], ["+note=b", "split.point=stage1"]], 2),
        (
            [
                ["hardware/machine@hardware.edge=raspberry_pi_4", "seed=1"],
                ["hardware/machine@hardware.edge=local", "seed=1"],
            ],
            2,
        ),
    ],
)
def test_each_job_is_composed_once_and_few_from_the_files(
    loader: ConfigLoaderImpl, monkeypatch: pytest.MonkeyPatch, jobs: list[list[str]], num_composed: int
) -> None:
    config, sweeper = _sweep(loader)
    wanted = [loader.load_sweep_config(config, job) for job in jobs]
    composed_once.compose_once(config)
    composed = _counted(loader, monkeypatch)
    Sweeper.validate_batch_is_legal(sweeper, jobs)
    found = [loader.load_sweep_config(config, job) for job in jobs]
    assert len(composed) == num_composed
    for ours, theirs in zip(found, wanted, strict=True):
        assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(theirs)
        for path in ("", "hydra", "hydra.overrides.task", "split", "transport"):
            nodes = (OmegaConf.select(one, path) if path else one for one in (ours, theirs))
            assert len({(OmegaConf.is_readonly(node), OmegaConf.is_struct(node)) for node in nodes}) == 1
        assert str(ours.hydra.sweep.dir) == str(theirs.hydra.sweep.dir)
        assert jobs is not JOBS or str(ours.hydra.sweep.dir) == str(config.hydra.sweep.dir)


def test_a_setting_that_is_not_there_is_refused_as_by_hydra(loader: ConfigLoaderImpl) -> None:
    config, sweeper = _sweep(loader)
    composed_once.compose_once(config)
    with pytest.raises(ConfigCompositionException, match=r"(?s)Could not override 'sed'.*\+sed=2"):
        Sweeper.validate_batch_is_legal(sweeper, [["seed=1"], ["sed=2"]])


def test_two_equal_jobs_share_no_configuration(loader: ConfigLoaderImpl) -> None:
    config, sweeper = _sweep(loader)
    composed_once.compose_once(config)
    Sweeper.validate_batch_is_legal(sweeper, [JOBS[0], JOBS[0]])
    first, second = (loader.load_sweep_config(config, JOBS[0]) for _ in range(2))
    first.seed = 7
    assert second.seed != 7


def test_jobs_of_other_processes_compose_as_hydra_does(loader: ConfigLoaderImpl) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    before = ConfigLoaderImpl.load_sweep_config
    composed_once.compose_once(_sweep(loader)[0])  # of an earlier sweep of this process
    assert ConfigLoaderImpl.load_sweep_config is not before
    composed_once.compose_once(_sweep(loader, "hydra/launcher=joblib")[0])
    assert ConfigLoaderImpl.load_sweep_config is before
