"""A model that is deployed after training: one training for all its forms; the one asked for is scored and cut."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from splitsem.errors import ConfigError
from splitsem.models.repvgg import DeployedRepVgg, HyperRepVgg
from splitsem.workflows import assemble
from splitsem.workflows.recently_used import Kept
from tests.conftest import ROOT
from tests.repvgg_samples import assert_same_function

SMALL = ["model=repvgg_tiny", "model.blocks=[1,2]", "model.widths=[8,8,8]"]
SHRUNK = ["task=digits", *SMALL, "device=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def settings(cache: Path, *overrides: str):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", [*SHRUNK, f"cache_dir={cache}", *overrides])


def test_all_ways_and_shares_come_from_one_training(cache):
    plain = assemble.network(settings(cache))
    assert isinstance(plain.model, HyperRepVgg)
    x, keys = torch.rand(3, 1, 8, 8), {plain.key}
    for overrides in (
        ["model.gamma=13"],
        ["model.gamma=[0,1,4,10]"],
        ["model.gamma=9", "model.alpha_keep=0.6"],
    ):
        network = assemble.network(settings(cache, *overrides))
        assert network.trained.from_cache
        assert isinstance(network.model, DeployedRepVgg)
        assert [p.name for p in network.graph.points] == [p.name for p in plain.graph.points]
        keys.add(network.key)
    assert len(keys) == 4
    assert len(list(cache.rglob("*.safetensors"))) == 1
    assert_same_function(assemble.network(settings(cache, "model.gamma=13")).model, plain.model, x)


def test_what_changes_the_training_is_trained_again(cache):
    assemble.network(settings(cache))
    before = len(list(cache.rglob("*.safetensors")))
    assert not assemble.network(settings(cache, "model.alpha_l1=0.5")).trained.from_cache
    assert len(list(cache.rglob("*.safetensors"))) == before + 1


def test_training_over_a_link_starts_from_the_form_that_trains(cache):
    network = assemble.initial_network(settings(cache, "model.gamma=4"))
    assert isinstance(network.model, HyperRepVgg)


def test_a_stage_for_alpha_is_cached_with_the_weights_and_refused_where_there_is_none(cache):
    given = ("model.alpha_epochs=1", "model.alpha_l1=0.01")
    first = assemble.whole(settings(cache, *given))
    again = assemble.fresh_network(settings(cache, *given, "model.gamma=13"))
    assert (first.trained.from_cache, again.trained.from_cache) == (False, True)
    assert len(first.trained.history) == len(again.trained.history) == 2
    for initial in (assemble.initial_network, assemble.initial_model):
        with pytest.raises(ConfigError, match=r"split\.run has no further epochs for α"):
            initial(settings(cache, *given))


def test_networks_that_a_sweep_comes_back_to_are_kept_as_memory_allows():
    made: list[str] = []

    def asked(kept: Kept, keys: str) -> int:
        made.clear()
        for key in keys:
            assert kept.get(key, lambda key=key: made.append(key) or key) == key  # type: ignore[misc]
        return len(made)

    assert asked(Kept(lambda _: 1), "abcabcabc") == 3
    assert asked(Kept(lambda _: 1, most=2), "abcabc") == 6
    assert asked(Kept(lambda _: 60, most_bytes=100), "abab") == 4
    assert asked(Kept(lambda _: 600, most_bytes=100), "aaa") == 1
    assert asked(Kept(lambda _: 1, most=2), "abacab") == 4  # b is the least recently used when c comes
