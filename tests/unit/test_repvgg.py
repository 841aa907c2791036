"""HyperRepVgg: its published sizes, its units and cuts, what deploying leaves alone, and what it refuses."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from splitsem.models.branches import Branch
from splitsem.models.image_front import ImageFront
from splitsem.models.repvgg import HyperRepVgg
from splitsem.models.repvgg_block import ChannelAffine, DeployedBlock
from splitsem.splitting.graph import SplitGraph
from tests.conftest import ROOT
from tests.repvgg_samples import assert_same_function, narrow, pictures

MILLION_PARAMETERS = {
    "a0": 9.11, "a1": 14.09, "a2": 28.21, "b0": 15.82, "b1": 57.42, "b1g2": 45.78, "b1g4": 39.97, "b2": 89.02,
    "b2g4": 61.76, "b3": 123.09, "b3g4": 83.83,
}  # fmt: skip


def published(variant: str) -> HyperRepVgg:
    """A variant without memory for its weights."""
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose(overrides=[f"+model=repvgg_{variant}"]).model
    with torch.device("meta"):
        return instantiate(cfg, input_shape=(3, 224, 224), output_shape=(1000,))


@pytest.mark.parametrize("variant", MILLION_PARAMETERS)
def test_a_variant_has_the_published_number_of_parameters(variant):
    count = sum(p.numel() for name, p in published(variant).named_parameters() if ".alpha." not in name)
    assert round(count / 1e6, 2) == MILLION_PARAMETERS[variant]


def test_b3_has_the_27_blocks_of_the_published_table_behind_its_stem():
    network = published("b3")
    stages = [f"stage{s}.{b}" for s, number in enumerate((4, 6, 16, 1), 1) for b in range(number)]
    assert network.unit_names == ("stem", *stages, "head")
    assert len(stages) == 27
    without = [name for name, block in zip(network.block_names, network.blocks, strict=True) if not block.has_identity]
    assert without == ["stem", "stage1.0", "stage2.0", "stage3.0", "stage4.0"]


@pytest.mark.parametrize("variant", ["b2g2", "b3g4"])
def test_every_second_block_is_grouped_up_to_the_26th(variant):
    groups = [block.groups for block in published(variant).blocks]
    assert groups == [int(variant[-1]) if i % 2 == 0 and 2 <= i <= 26 else 1 for i in range(28)]


@pytest.mark.parametrize("gamma", [None, 9, 13, 2])
def test_a_cut_is_offered_after_every_unit_and_nowhere_else_in_both_forms(gamma):
    network = narrow(blocks=(1, 2), widths=(8, 8, 8))
    gammas = (0, 0, 0, 2) if gamma == 2 else gamma
    model = HyperRepVgg.deployed(network) if gamma is None else network.deploy(
        gammas if isinstance(gammas, tuple) else network.closest(gammas)
    )  # fmt: skip
    graph = SplitGraph(model, (3, 32, 32))
    assert [p.name for p in graph.points] == ["input", "stem", "stage1.0", "stage2.0", "stage2.1", "output"]
    assert all(len(p.tensors) == 1 for p in graph.points)
    assert [p.tensors[0].shape[1:] for p in graph.points[1:-1]] == [fact.output_shape for fact in network.facts()[:-1]]
    x = pictures()
    for point in graph.points:
        cut = graph.cut(point)
        assert torch.equal(cut.tail(*cut.head(x)), model(x))


@pytest.mark.parametrize("options", [{}, {"groups": 4}, {"image_size": 48}])
def test_the_facts_of_every_unit_are_what_the_graph_counts(options):
    network = narrow(blocks=(2, 2), widths=(8, 8, 16), **options)
    for gammas in [(0, 3, 9, 0, 10), (1, 4, 2, 1, 13), (3, 0, 12, 4, 8), (4, 1, 5, 3, 7)]:
        points = SplitGraph(network.deploy(gammas), (3, 32, 32)).points
        for fact, gamma, before, after in zip(network.facts(), (*gammas, 0), points, points[1:], strict=False):
            ops = after.head_ops[len(before.head_ops) :]
            assert fact.flops[gamma] == sum(op.flops for op in ops), (fact.name, gamma)
            assert fact.bytes[gamma] == sum(op.bytes for op in ops), (fact.name, gamma)


def test_facts_name_the_ways_of_each_unit():
    facts = {fact.name: fact for fact in narrow().facts()}
    assert facts["stem"].gammas == facts["stage2.0"].gammas == (0, 1, 3, 4)
    assert facts["stage2.1"].gammas == tuple(range(14))
    assert facts["head"].gammas == (0,)
    assert facts["stage2.1"].input_shape == facts["stage2.1"].output_shape == facts["stage2.0"].output_shape


def test_groups_run_as_the_cheapest_module_that_computes_them():
    block = narrow(groups=2).unit(4, 9)
    assert isinstance(block, DeployedBlock)
    kinds = {name: (type(part), getattr(part, "kernel_size", None)) for name, part in block.groups.items()}
    assert kinds == {"D": (nn.Conv2d, (3, 3)), "K": (nn.Conv2d, (1, 1)), "I": (ChannelAffine, None)}
    assert [part.groups for part in block.groups.values() if isinstance(part, nn.Conv2d)] == [2, 2]
    assert [type(part) for part in narrow().unit(4, 13).groups.values()] == [nn.Conv2d]


def test_deploying_changes_neither_the_network_nor_the_random_numbers():
    network = narrow("a")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    deployed = network.deploy(network.closest(10))
    assert torch.equal(torch.rand(1), expected)
    with torch.no_grad():
        for parameter in deployed.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_weights_that_change_after_deploying_are_in_the_next_one():
    network, x = narrow(), pictures()
    network.deploy(4)
    with torch.no_grad():
        network.blocks[3].alpha["D"].mul_(2)
    assert_same_function(network.deploy(4), network.with_branches([{Branch.D, Branch.K}] * 8).eval(), x)


def test_a_deployed_network_is_made_of_its_units_and_is_in_eval_mode():
    network, x = narrow(), pictures()
    network.train()
    deployed = network.deploy(network.closest(13))
    assert network.training
    assert not any(module.training for module in deployed.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    seen = x
    for index, unit in enumerate(deployed.units):
        alone = network.unit(index, (*deployed.gammas, 0)[index])(seen)
        seen = unit(seen)
        assert torch.equal(seen, alone)
    assert torch.equal(seen, deployed(x))


def test_a_front_belongs_to_the_stem():
    network = narrow(image_size=16)
    stem = network.deploy(4).units[0]
    assert isinstance(stem.get_submodule("front"), ImageFront)
    assert stem(torch.rand(1, 3, 32, 32)).shape == (1, 8, 16, 16)


def test_one_gamma_for_all_leaves_out_the_identity_where_there_is_none():
    network = narrow()
    with_identity = [block.has_identity for block in network.blocks]
    for gamma, without in {13: 4, 10: 4, 9: 3, 11: 3, 12: 3, 5: 0, 6: 0, 7: 1, 8: 1, 0: 0, 4: 4}.items():
        assert network.closest(gamma) == tuple(gamma if has else without for has in with_identity)


@pytest.mark.parametrize(
    ("gamma", "message"),
    [
        (2, r"stem: γ 2 \(I\) is not possible for all blocks"),
        (17, "γ must be 0…13, got 17"),
        ([0] * 7, r"one for each of the 8 blocks \(stem … stage4.0\), got 7"),
        ([0, 4, 13, 13, 0, 0, 0, 0], r"stage2.0: γ 13 \(D\+K\+I\) needs an identity.*allowed here: 0, 1, 3, 4"),
        ([0, 4, -1, 0, 0, 0, 0, 0], "stage1.1: γ must be 0…13, got -1"),
    ],
)
def test_ways_that_are_not_possible_are_refused_before_any_training(gamma, message):
    with pytest.raises(ValueError, match=message):
        narrow(gamma=gamma)


def test_one_gamma_a_unit_is_one_a_block_and_the_heads_zero():
    network, gammas = narrow(), (0, 4, 13, 3, 9, 1, 2, 0)
    assert network.deploy((*gammas, 0)).gammas == network.deploy(gammas).gammas == gammas
    with pytest.raises(ValueError, match="one for each of the 8 blocks"):
        network.deploy((*gammas, 13))


def test_deploy_is_strict_where_the_setting_is_not():
    with pytest.raises(ValueError, match=r"stem: γ 13 \(D\+K\+I\) needs an identity"):
        narrow().deploy(13)
    with pytest.raises(ValueError, match="head: γ must be 0, since it has no branches; got 4"):
        narrow().unit(8, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (2, 0)}, "blocks must be 1 or more"),
        ({"widths": (8, 8)}, "one for the stem and one for each of the 4 stages"),
        ({"groups": 3}, "groups must divide every width"),
        ({"stem_stride": 4}, "stem_stride must be 1 or 2, got 4"),
        ({"weights": "w.pth"}, "image_size must be given with weights"),
        ({"alpha_keep": 0.0}, r"alpha_keep must be in \(0, 1\], got 0.0"),
        ({"alpha_l1": -1.0}, "alpha_l1 must be 0 or more, got -1.0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        narrow(**options)
