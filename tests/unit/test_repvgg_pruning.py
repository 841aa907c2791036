"""α: importance, what is kept, what takes no part, and what learns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from splitsem.errors import ConfigError
from splitsem.models.branches import Branch
from splitsem.models.repvgg import DeployedRepVgg, HyperRepVgg
from splitsem.models.repvgg_units import most_important
from splitsem.tasks.digits import Digits
from splitsem.training.fit import Fit
from tests.repvgg_samples import assert_same_function, narrow, pictures

ROWS = st.lists(st.dictionaries(st.sampled_from(list(Branch)), st.floats(0, 1e6), min_size=1), min_size=1, max_size=9)


@settings(max_examples=50, deadline=None)
@given(ROWS, st.floats(0.01, 1))
def test_the_share_that_is_kept_is_the_most_important_and_no_block_is_empty(rows, share):
    kept = most_important(rows, share)
    assert sum(map(len, kept)) == max(round(share * sum(map(len, rows))), len(rows))
    assert all(branches and branches <= row.keys() for branches, row in zip(kept, rows, strict=True))
    dropped = [value for row, k in zip(rows, kept, strict=True) for b, value in row.items() if b not in k]
    extra = [value for row, k in zip(rows, kept, strict=True) for value in sorted(row[b] for b in k)[:-1]]
    assert not dropped or not extra or max(dropped) <= min(extra)
    assert all(max(row, key=row.__getitem__) in k for row, k in zip(rows, kept, strict=True))


def test_importance_is_alpha_per_giga_operation_at_the_real_input_shape():
    network = narrow()
    block = network.blocks[4]  # stage2.1: 12 channels at 8×8, after two halvings
    with torch.no_grad():
        for name, value in {"D": -0.5, "K": 0.25, "I": 2.0}.items():
            block.alpha[name].fill_(value)
    flops = {"D": 2 * 9 * 12 * 12 * 64, "K": 2 * 12 * 12 * 64, "I": 12 * 64}
    expected = {"D": 0.5 / flops["D"] * 1e9, "K": 0.25 / flops["K"] * 1e9, "I": 2 / flops["I"] * 1e9}
    assert network.importance()[4] == pytest.approx(expected)


def test_pruned_branches_take_no_part_in_either_form():
    network, x = narrow("b", groups=2, alpha_keep=0.5), pictures()
    masked = network.deployed()
    network.gamma = network.closest(9)
    deployed = network.deployed()
    assert isinstance(masked, HyperRepVgg)
    assert isinstance(deployed, DeployedRepVgg)
    active = [set(block.active) for block in masked.blocks]
    assert [set(map(Branch, "".join(unit.groups))) for unit in deployed.units[:-1]] == active
    assert sum(map(len, active)) == round(0.5 * sum(len(block.alpha) for block in network.blocks))
    assert_same_function(deployed, masked, x)
    assert all(len(block.active) == len(block.alpha) for block in network.blocks)


def test_a_gamma_of_which_nothing_was_kept_is_refused_with_the_block():
    kept = [{Branch.D}] * 8
    with pytest.raises(ValueError, match=r"stem: γ 1 \(K\) has no branch left: only D is not pruned"):
        narrow().with_branches(kept).deploy(1)
    with pytest.raises(ValueError, match=r"stage2.0: branches to keep must be one or more of D, K"):
        narrow().with_branches([*kept[:3], {Branch.I}, *kept[4:]])


def test_with_frozen_weights_only_alpha_moves_and_statistics_stay():
    network = narrow()
    network.learn(weights=False, alpha=True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    (F.cross_entropy(network(pictures()), torch.tensor([0, 1])) + network.regularisation()).backward()
    optimiser.step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if ".alpha." in name}


def test_alpha_stays_one_where_it_is_not_trained():
    network = HyperRepVgg((3, 8, 8), (5,), (1,), (4, 4), is_alpha_trained=False)
    network.train()(torch.rand(4, 3, 8, 8)).sum().backward()
    assert all(block.alpha[b].grad is None and block.alpha[b] == 1 for block in network.blocks for b in block.active)
    assert isinstance(network.blocks[0].branches["D"][0].weight.grad, torch.Tensor)


def test_training_pulls_alpha_down_by_the_l1_term():
    """The same short training, with and without the term."""

    def total_alpha(alpha_l1: float) -> float:
        torch.manual_seed(0)
        task = Digits(seed=0)
        options = {"blocks": (1,), "widths": (4, 4), "stem_stride": 1, "alpha_l1": alpha_l1}
        network = HyperRepVgg(task.input_shape, task.output_shape, **options)
        fit = Fit(1, 64, 0.01, 0.0, gradient_clip_norm=1e6, limit_train_batches=8)
        fit.run(network, task, torch.device("cpu"), seed=0)
        return sum(alpha.item() for block in network.blocks for alpha in block.alpha.values())

    assert total_alpha(1.0) < total_alpha(0.0) - 0.1


def test_the_term_is_beta_times_the_sum_of_what_takes_part():
    network = narrow(alpha_l1=0.5)
    with torch.no_grad():
        for block in network.blocks:
            for alpha in block.alpha.values():
                alpha.fill_(-2.0)
    num = sum(len(block.alpha) for block in network.blocks)
    assert network.regularisation().item() == pytest.approx(0.5 * 2 * num)
    assert network.with_branches([{Branch.D}] * 8).regularisation().item() == pytest.approx(0.5 * 2 * 8)
    assert isinstance(network.deploy(4), nn.Module)


def test_after_the_weights_alpha_learns_alone_for_its_own_epochs():
    task = Digits(seed=0)
    options = {"blocks": (1,), "widths": (4, 4), "stem_stride": 1, "alpha_l1": 10.0}
    fit = Fit(1, 64, 0.01, 0.0, gradient_clip_norm=1e6, limit_train_batches=4)

    def trained(alpha_epochs: int) -> tuple[HyperRepVgg, list[dict[str, float]]]:
        torch.manual_seed(0)
        network = HyperRepVgg(task.input_shape, task.output_shape, **options, alpha_epochs=alpha_epochs)
        if not alpha_epochs:
            network.learn(weights=True, alpha=False)
        return network, fit.run(network, task, torch.device("cpu"), seed=0)

    (without, one), (network, three) = trained(0), trained(2)
    assert (len(one), len(three)) == (1, 3)
    states = [(name, without.state_dict()[name], tensor) for name, tensor in network.state_dict().items()]
    assert all(torch.equal(before, after) for name, before, after in states if ".alpha." not in name)
    assert all(before == 1 and after < 0.99 for name, before, after in states if ".alpha." in name)
    assert not network.training
    assert {p.requires_grad for name, p in network.named_parameters() if ".alpha." not in name} == {True}


def test_alpha_epochs_need_an_alpha_that_is_trained():
    with pytest.raises(ValueError, match="alpha_epochs must be 0 or more, got -1"):
        narrow(alpha_epochs=-1)
    with pytest.raises(ValueError, match="alpha_epochs must be 0 with is_alpha_trained=false"):
        narrow(alpha_epochs=1, is_alpha_trained=False)


def test_a_batch_larger_than_the_data_is_all_of_them_and_no_batch_at_all_is_refused(caplog):
    network, task = HyperRepVgg((1, 8, 8), (10,), (1,), (4, 4)), Digits(seed=0)
    num = len(task.splits().train)
    fit = Fit(1, 4096, 0.01, 0.0, 1.0)
    with caplog.at_level("INFO"):
        assert len(fit.run(network, task, torch.device("cpu"), seed=0)) == 1
    assert f"trainer.batch_size=4096: taking the {num} samples that there are" in caplog.text
    assert fit.total_steps(task) == 1
    with pytest.raises(ConfigError, match=r"limit_train_batches=0.01 of 16 batches leaves none"):
        Fit(1, num // 16, 0.01, 0.0, 1.0, limit_train_batches=0.01).run(network, task, torch.device("cpu"), seed=0)
