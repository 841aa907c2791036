"""Folding: every way γ to run a block computes what the branches it names compute, for every layout and group."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from splitsem.models.branches import GAMMAS, equivalents
from splitsem.models.repvgg import HyperRepVgg
from tests.conftest import ROOT
from tests.repvgg_samples import assert_same_function, lived_in, narrow, pictures

VARIANTS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("repvgg_*.yaml"))


def ways(network: HyperRepVgg, gamma: int) -> tuple[int, ...]:
    """``gamma`` where a block has an identity; elsewhere the closest way, D where nothing is left of it."""
    return network.closest(gamma) if gamma != 2 else tuple(2 if block.has_identity else 0 for block in network.blocks)


def only(network: HyperRepVgg, gammas: tuple[int, ...]) -> HyperRepVgg:
    """The training form with the branches that ``gammas`` name and no others: batch norm and α as torch runs them."""
    return network.with_branches([GAMMAS[gamma].branches for gamma in gammas]).eval()


@pytest.mark.parametrize(("layout", "groups"), [("a", 1), ("b", 1), ("b", 2), ("b", 4)])
def test_every_gamma_computes_what_its_branches_compute_in_training_form(layout, groups):
    network, x = narrow(layout, groups), pictures(1, size=16)
    for branches in {gamma.branches for gamma in GAMMAS}:
        same = [gamma.index for gamma in GAMMAS if gamma.branches == branches]
        reference = only(network, ways(network, same[0]))
        for gamma in same:
            assert_same_function(network.deploy(ways(network, gamma)), reference, x)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_way_of_its_own_for_every_block_computes_what_its_branches_compute(groups):
    network, x = narrow("b", groups), pictures(1, size=16)
    generator = torch.Generator().manual_seed(groups)
    for _ in range(3):
        rows = [block.gammas for block in network.blocks]
        gammas = tuple(row[int(torch.randint(len(row), (), generator=generator))].index for row in rows)
        assert_same_function(network.deploy(gammas), only(network, gammas), x)


def test_ways_with_other_branches_compute_something_else():
    network, x = narrow(), pictures()
    outputs = {gamma: network.deploy(ways(network, gamma))(x) for gamma in range(len(GAMMAS))}
    for gamma in GAMMAS:
        same = {way.index for way in equivalents(gamma)}
        scale = outputs[gamma.index].abs().max()
        for other in range(len(GAMMAS)):
            assert ((outputs[other] - outputs[gamma.index]).abs().max() <= 1e-4 * scale) == (other in same)


@pytest.mark.slow  # the full widths: hundreds of millions of weights are folded
@pytest.mark.parametrize("variant", VARIANTS)
def test_equivalent_ways_agree_at_a_variants_full_width(variant):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose(overrides=[f"+model={variant}"]).model
    torch.manual_seed(0)
    network = lived_in(instantiate(cfg, input_shape=(3, 32, 32), output_shape=(1000,)))
    x = pictures()
    for gamma in (13, 4):
        reference = only(network, network.closest(gamma))
        for way in equivalents(GAMMAS[gamma]):
            assert_same_function(network.deploy(network.closest(way.index)), reference, x)
