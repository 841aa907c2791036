"""Every partition is disjoint, complete, repeatable and what its name says."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from splitsem.errors import ConfigError
from splitsem.tasks.partitions import (
    ByDomain,
    ClassGroups,
    Dirichlet,
    Iid,
    Partition,
    Shards,
    class_counts,
    split_alike,
)

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
RULES = {
    "iid": lambda seed: Iid(seed),
    "dirichlet": lambda seed: Dirichlet(0.5, seed=seed),
    "shards": lambda seed: Shards(2, seed),
    "class groups": lambda seed: ClassGroups(seed=seed),
    "by domain": lambda seed: ByDomain(seed),
}


@settings(deadline=None, max_examples=60)
@given(
    rule=st.sampled_from(sorted(RULES)),
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=200),
    num_clients=st.integers(1, 20),
    seed=st.integers(0, 3),
)
def test_each_sample_has_exactly_one_client_and_no_client_is_empty(rule, labels, num_clients, seed):
    try:
        parts = RULES[rule](seed).split(labels, num_clients)
    except ConfigError:
        assume(False)
    assert len(parts) == num_clients
    assert min(map(len, parts)) > 0
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert all((np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize("rule", RULES)
def test_the_same_seed_gives_the_same_partition_and_another_seed_another_one(rule):
    one, same, other = (RULES[rule](seed).split(LABELS, 20) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_iid_clients_have_equal_shares():
    assert {len(part) for part in Iid().split(LABELS, 7)} <= {600 // 7, 600 // 7 + 1}


def test_small_beta_concentrates_classes_and_large_beta_approaches_iid():
    def concentration(beta: float) -> float:
        counts = [class_counts(LABELS, Dirichlet(beta, seed=s).split(LABELS, 5)) for s in range(5)]
        return float(np.mean([(c / c.sum(0)).max(0).mean() for c in counts]))  # share of a class at its main client

    few, some, many = (concentration(beta) for beta in (0.05, 1.0, 1000.0))
    assert few > 0.85 > some > 0.3 > many
    assert many == pytest.approx(1 / 5, abs=0.02)


def test_dirichlet_shares_have_the_means_and_variances_of_the_distribution():
    num_clients, beta, labels = 4, 0.7, np.repeat(np.arange(400), 200)
    shares = class_counts(labels, Dirichlet(beta).split(labels, num_clients)) / 200
    variance = (1 / num_clients) * (1 - 1 / num_clients) / (num_clients * beta + 1)
    assert np.abs(shares.mean(1) - 1 / num_clients).max() < 4 * np.sqrt(variance / 400)
    assert shares.var() == pytest.approx(variance, rel=0.15)


@pytest.mark.parametrize("beta", [0.1, 0.7, 5.0])
def test_the_share_of_a_client_has_the_beta_distribution_that_dirichlet_gives_it(beta):
    num_clients, labels = 4, np.repeat(np.arange(400), 1000)
    shares = class_counts(labels, Dirichlet(beta).split(labels, num_clients)) / 1000
    exact = stats.beta(beta, (num_clients - 1) * beta)
    for client in range(num_clients):
        steps = np.sort(np.minimum(shares[client] + 1e-3, 1))  # rounded up or down by less than one sample
        below = np.sort(np.maximum(shares[client] - 1e-3, 0))
        ranks = np.arange(1, 401) / 400
        assert max((ranks - exact.cdf(steps)).max(), (exact.cdf(below) - ranks + 1 / 400).max()) < 1.95 / np.sqrt(400)


def test_each_shard_goes_to_each_client_equally_often():
    labels, draws = np.arange(10), 2000
    holds = np.mean([class_counts(labels, Shards(2, seed).split(labels, 5)) for seed in range(draws)], axis=0)
    assert np.abs(holds - 1 / 5).max() < 4 * np.sqrt(1 / 5 * 4 / 5 / draws)


def test_dirichlet_keeps_its_minimum_or_names_beta_and_the_client():
    assert min(map(len, Dirichlet(0.3, min_samples=25).split(LABELS, 10))) >= 25
    with pytest.raises(ConfigError, match=r"beta=0\.01 leaves client \d+ of 100 with \d+ samples.*raise beta"):
        Dirichlet(0.01).split(LABELS, 100)


def test_beta_so_small_that_gamma_variates_underflow_still_gives_each_class_to_one_client():
    counts = class_counts(LABELS, Dirichlet(1e-6).split(LABELS, 2))
    assert ((counts == 0) | (counts == 60)).all()


def test_shards_leave_each_client_few_classes():
    counts = class_counts(LABELS, Shards(2).split(LABELS, 10))
    assert (counts.sum(1) == 60).all()
    assert (counts > 0).sum(1).max() <= 4  # a shard crosses at most one border of classes here


def test_class_groups_are_disjoint_where_there_are_classes_enough():
    counts = class_counts(LABELS, ClassGroups(classes_per_client=2).split(LABELS, 5))
    assert ((counts > 0).sum(0) == 1).all()
    assert ((counts > 0).sum(1) == 2).all()


def test_clients_of_one_class_group_share_its_samples_evenly():
    counts = class_counts(LABELS, ClassGroups(classes_per_client=2).split(LABELS, 10))
    assert ((counts > 0).sum(1) == 2).all()
    assert set(counts[counts > 0]) == {30}
    np.testing.assert_array_equal(counts[:5] > 0, counts[5:] > 0)


def test_by_default_a_group_has_at_least_five_classes_and_a_hundred_of_a_thousand():
    assert ((class_counts(LABELS, ClassGroups().split(LABELS, 10)) > 0).sum(1) == 5).all()
    many = np.repeat(np.arange(1000), 2)
    assert ((class_counts(many, ClassGroups().split(many, 10)) > 0).sum(1) == 100).all()


def test_groups_can_be_given_and_must_cover_all_classes():
    counts = class_counts(LABELS, ClassGroups(groups=[[0, 1, 2], [2, 3, 4, 5, 6, 7, 8, 9]]).split(LABELS, 2))
    assert counts[0].tolist() == [60, 60, 30, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(ConfigError, match=r"leave out the classes \[9\]"):
        ClassGroups(groups=[[0, 1, 2], [3, 4, 5, 6, 7, 8]]).split(LABELS, 2)
    with pytest.raises(ConfigError, match=r"groups name \[10\]"):
        ClassGroups(groups=[range(11)]).split(LABELS, 1)


def test_by_domain_gives_each_client_one_domain_or_a_part_of_one():
    domains = LABELS % 3
    for client, part in enumerate(ByDomain().split(domains, 7)):
        assert set(domains[part]) == {client % 3}
    assert [sorted(set(domains[part])) for part in ByDomain().split(domains, 2)] == [[0, 2], [1]]


def test_clients_of_one_domain_share_it_evenly_and_a_domain_that_is_too_small_is_named():
    domains = LABELS % 3
    sizes = [len(part) for part in ByDomain().split(domains, 9)]
    assert all(max(sizes[d::3]) - min(sizes[d::3]) <= 1 for d in range(3))
    with pytest.raises(ConfigError, match=r"1 samples of domain 0 cannot be shared by 3 of 5 clients.* 2 for one a"):
        ByDomain().split([7, 9, 9], 5)


@pytest.mark.parametrize("rule", ["iid", "dirichlet", "class groups"])
def test_other_samples_are_split_alike(rule):
    train = class_counts(LABELS, RULES[rule](0).split(LABELS, 10))
    few = np.tile(np.arange(10), 12)
    parts = split_alike(few, train, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(few)))
    assert np.abs(class_counts(few, parts) - train / 5).max() < 1  # rounded to a neighbouring whole number


def test_rounding_few_samples_does_not_always_starve_the_same_clients():
    even = np.ones((10, 3), np.int64)
    got = sum(
        class_counts(np.repeat(np.arange(3), 5), split_alike(np.repeat(np.arange(3), 5), even, s)) for s in range(40)
    )
    assert np.abs(got.sum(1) / 40 - 1.5).max() < 0.5


BAD = [
    (lambda: Dirichlet(0.0), "beta must be above 0, got 0.0"),
    (lambda: Dirichlet(float("nan")), "beta must be above 0, got nan"),
    (lambda: Dirichlet(1.0, min_samples=0), "min_samples must be at least 1, got 0"),
    (lambda: Shards(0), "shards_per_client must be at least 1, got 0"),
    (lambda: ClassGroups(1), "classes_per_client must be at least 2, got 1"),
    (lambda: ClassGroups(2, groups=[[0, 1]]), "both given"),
    (lambda: ClassGroups(groups=[[0, 0]]), "lists of at least 2 classes"),
    (lambda: Iid().split([], 2), "labels must be class indices"),
    (lambda: Iid().split([0.5], 1), "labels must be class indices"),
    (lambda: Iid().split([0], 0), "num_clients must be at least 1, got 0"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("rule", [Iid(), Shards(1), ClassGroups(2)])
def test_a_client_that_would_be_empty_is_named(rule: Partition):
    with pytest.raises(ConfigError, match=r"client \d of 5 gets none of 3 samples"):
        rule.split([0, 1, 1], 5)


def test_more_classes_a_client_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="at most the number of classes, 10, got 11"):
        ClassGroups(11).split(LABELS, 2)
