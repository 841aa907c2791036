"""Partitions: who holds which samples — IID, Dirichlet, shards, class groups, by domain — from their labels alone.

Every partition is disjoint and complete: each sample has exactly one holder. A holder is a client of federated
training or a domain; both are called clients here.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitsem.errors import ConfigError

Labels = NDArray[np.int64]
Indices = NDArray[np.int64]
Shares = NDArray[np.float64]  # (classes, clients): which share of a class each client holds; rows sum to 1


def class_counts(labels: ArrayLike, parts: Sequence[Indices]) -> NDArray[np.int64]:
    """How many samples of each class each client holds, shape ``(clients, classes)``.

    >>> class_counts([0, 1, 1, 2], [np.array([0, 1]), np.array([2, 3])])
    array([[1, 1, 0],
           [0, 1, 1]])
    """
    labels = np.asarray(labels, np.int64)
    num_classes = int(labels.max()) + 1
    return np.stack([np.bincount(labels[part], minlength=num_classes) for part in parts])


def split_alike(labels: ArrayLike, counts: NDArray[np.int64], seed: int) -> list[Indices]:
    """Split other samples of the same classes as another data set was split: each client gets its share of each class.

    Args:
        labels: class index of each sample to split, shape ``(n,)``.
        counts: ``class_counts`` of the other data set.
        seed: decides who gets which sample.

    Returns:
        The sorted indices of each client's samples, disjoint and complete; with few samples a client may get none.
    """
    num_clients, num_known = counts.shape
    labels = checked(labels, 1)
    class_sizes = np.bincount(labels, minlength=num_known)
    held = np.ones((len(class_sizes), num_clients))  # all clients share a class that the other data set lacks
    held[:num_known] = np.where(counts.sum(0)[:, None] > 0, counts.T, 1)
    rng = np.random.default_rng(seed)
    return deal(labels, round_shares(held / held.sum(1, keepdims=True), class_sizes, rng), rng)


def checked(labels: ArrayLike, num_clients: int) -> Labels:
    """Labels as int64 ``(n,)``. Raises ValueError unless they are class indices and there is a client to hold them."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(f"labels must be class indices of at least 0, (n,), got {labels.dtype} {labels.shape}")
    if num_clients < 1:
        raise ValueError(f"num_clients must be at least 1, got {num_clients}")
    return labels.astype(np.int64)


def round_shares(shares: Shares, class_sizes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Whole numbers ``(classes, clients)`` near ``shares · class_sizes``, whose rows sum to ``class_sizes``.

    Each class is rounded at a random offset: this is exact on average, and with few samples the clients who get none
    are not always the same.
    """
    offset = rng.random((len(shares), 1))
    ends = np.floor(np.cumsum(shares, axis=1)[:, :-1] * class_sizes[:, None] + offset).astype(np.int64)
    ends = np.minimum(ends, class_sizes[:, None])
    return np.diff(ends, axis=1, prepend=0, append=class_sizes[:, None])


def deal(labels: Labels, counts: NDArray[np.int64], rng: np.random.Generator) -> list[Indices]:
    """Shuffle the samples of each class and deal them by ``counts`` (classes, clients): sorted indices by client."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    holder = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.ravel())
    return [np.sort(order[holder == client]) for client in range(counts.shape[1])]


NUM_DRAWS = 100
ENOUGH_CLASSES = 5


class Partition(Protocol):
    """A rule that gives each sample to one client."""

    def split(self, labels: ArrayLike, num_clients: int) -> list[Indices]:
        """The sorted indices of each client's samples; none is empty.

        Args:
            labels: class index of every sample, at least 0, shape ``(n,)``.
            num_clients: at least 1.

        Raises:
            ConfigError: a client would hold nothing, or less than the rule's minimum.
        """


class Iid:
    """Gives every client a fair sample: shuffles the samples and deals them in equal parts.

    Args:
        seed: seed of the shuffling.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def split(self, labels: ArrayLike, num_clients: int) -> list[Indices]:
        """See ``Partition.split``."""
        order = np.random.default_rng(self.seed).permutation(len(checked(labels, num_clients)))
        return _non_empty([np.sort(part) for part in np.array_split(order, num_clients)], "iid")


class Dirichlet:
    """Uneven labels: client j holds the share p_j of each class, with p ~ Dir(β, …, β).

    Yurochkin et al., ICML 2019 (arXiv 1905.12022); Li et al., ICDE 2022 (arXiv 2102.02079). Small β gives each class to
    few clients, large β approaches IID. Shares are drawn up to 100 times, until every client has ``min_samples``.

    Args:
        beta: β, above 0.
        min_samples: least number of samples a client must hold, at least 1.
        seed: decides the shares and who gets which sample.
    """

    def __init__(self, beta: float, min_samples: int = 1, seed: int = 0) -> None:
        if not 0 < beta < np.inf:
            raise ValueError(f"beta must be above 0, got {beta}")
        if min_samples < 1:
            raise ValueError(f"min_samples must be at least 1, got {min_samples}")
        self.beta, self.min_samples, self.seed = beta, min_samples, seed

    def split(self, labels: ArrayLike, num_clients: int) -> list[Indices]:
        """See ``Partition.split``; the error names β and the client."""
        labels = checked(labels, num_clients)
        rng = np.random.default_rng(self.seed)
        class_sizes = np.bincount(labels)
        for _ in range(NUM_DRAWS):
            # Gamma(β) = Gamma(β + 1) · U^(1/β), in logarithms: where β is small, rng.dirichlet underflows to NaN
            logs = np.log(rng.gamma(self.beta + 1, size=(len(class_sizes), num_clients)))
            logs += np.log(1 - rng.random(logs.shape)) / self.beta
            shares = np.exp(logs - logs.max(1, keepdims=True))
            counts = round_shares(shares / shares.sum(1, keepdims=True), class_sizes, rng)
            if (held := counts.sum(0)).min() >= self.min_samples:
                return deal(labels, counts, rng)
        poorest = int(held.argmin())
        raise ConfigError(
            f"beta={self.beta:g} leaves client {poorest} of {num_clients} with {held[poorest]} samples, below "
            f"min_samples={self.min_samples}, in each of {NUM_DRAWS} draws: raise beta, or take fewer clients"
        )


class Shards:
    """Gives each client few classes: sorts samples by label, cuts them into equal shards, deals the shards at random.

    McMahan et al., AISTATS 2017 (arXiv 1602.05629), with two shards a client.

    Args:
        shards_per_client: at least 1; with classes of one size, a client has about as many classes.
        seed: decides the order within a class and who gets which shard.
    """

    def __init__(self, shards_per_client: int = 2, seed: int = 0) -> None:
        if shards_per_client < 1:
            raise ValueError(f"shards_per_client must be at least 1, got {shards_per_client}")
        self.shards_per_client, self.seed = shards_per_client, seed

    def split(self, labels: ArrayLike, num_clients: int) -> list[Indices]:
        """See ``Partition.split``."""
        labels = checked(labels, num_clients)
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        shards = np.array_split(order, num_clients * self.shards_per_client)
        dealt = rng.permutation(len(shards)).reshape(num_clients, self.shards_per_client)
        parts = [np.sort(np.concatenate([shards[i] for i in mine])) for mine in dealt]
        return _non_empty(parts, f"shards_per_client={self.shards_per_client}")


class ClassGroups:
    """Disjoint class groups: client j holds group j mod (number of groups); holders of one group share its samples.

    With as many groups as clients, no two clients have a class in common; with too few classes for that, several
    clients hold the same classes but never the same samples.

    Args:
        classes_per_client: least size of a group, at least 2; None: as large as disjoint groups can be, but at least 5
            (or all classes), since two are soon told apart.
        groups: instead of ``classes_per_client``, the class indices of each group; every class must be in a group.
        seed: decides who gets which sample.
    """

    def __init__(
        self,
        classes_per_client: int | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        seed: int = 0,
    ) -> None:
        if classes_per_client is not None and groups is not None:
            raise ValueError("classes_per_client and groups are both given; give one of them")
        if classes_per_client is not None and classes_per_client < 2:
            raise ValueError(f"classes_per_client must be at least 2, got {classes_per_client}")
        if groups is not None and (not groups or min(len(set(group)) for group in groups) < 2):
            raise ValueError(f"groups must be lists of at least 2 classes, got {groups}")
        self.classes_per_client, self.groups, self.seed = classes_per_client, groups, seed

    def split(self, labels: ArrayLike, num_clients: int) -> list[Indices]:
        """See ``Partition.split``."""
        labels = checked(labels, num_clients)
        class_sizes = np.bincount(labels)
        groups = self._groups(np.flatnonzero(class_sizes), num_clients)
        holds = np.zeros((len(class_sizes), num_clients))
        for client in range(num_clients):
            holds[groups[client % len(groups)], client] = 1
        shares = holds / np.maximum(holds.sum(1, keepdims=True), 1)
        rng = np.random.default_rng(self.seed)
        return _non_empty(deal(labels, round_shares(shares, class_sizes, rng), rng), "disjoint class groups")

    def _groups(self, classes: NDArray[np.int64], num_clients: int) -> Sequence[NDArray[np.int64]]:
        if self.groups is not None:
            groups = [np.array(sorted(set(group)), np.int64) for group in self.groups[:num_clients]]
            listed = np.concatenate(groups)
            if left_out := sorted(set(classes.tolist()) - set(listed.tolist())):
                raise ConfigError(f"groups of {num_clients} clients leave out the classes {left_out[:10]}")
            if foreign := sorted(set(listed.tolist()) - set(classes.tolist())):
                raise ConfigError(f"groups name {foreign[:10]}, which are none of the {len(classes)} classes")
            return groups
        size = self.classes_per_client or min(max(ENOUGH_CLASSES, len(classes) // num_clients), len(classes))
        if size > len(classes):
            raise ConfigError(f"classes_per_client must be at most the number of classes, {len(classes)}, got {size}")
        return np.array_split(classes, min(num_clients, len(classes) // size))


class ByDomain:
    """Gives each client one domain, or a part of one: client j holds domain j mod (number of domains).

    With fewer clients than domains, client d mod (number of clients) holds domain d.

    Args:
        seed: decides who gets which sample where several clients share a domain.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def split(self, labels: ArrayLike, num_clients: int) -> list[Indices]:
        """See ``Partition.split``; ``labels`` are the samples' domains. The error names a domain that is too small."""
        domains = checked(labels, num_clients)
        rng = np.random.default_rng(self.seed)
        _, domains = np.unique(domains, return_inverse=True)
        num_domains = int(domains.max()) + 1
        parts: list[list[Indices]] = [[] for _ in range(num_clients)]
        for domain in range(num_domains):
            holders = range(domain, num_clients, num_domains) or [domain % num_clients]
            members = rng.permutation(np.flatnonzero(domains == domain))
            if len(members) < len(holders):
                raise ConfigError(
                    f"by domain: {len(members)} samples of domain {domain} cannot be shared by {len(holders)} of "
                    f"{num_clients} clients; take fewer clients, {num_domains} for one a domain"
                )
            for client, part in zip(holders, np.array_split(members, len(holders)), strict=True):
                parts[client].append(part)
        return [np.sort(np.concatenate(part)) for part in parts]


def _non_empty(parts: list[Indices], rule: str) -> list[Indices]:
    for client, part in enumerate(parts):
        if not len(part):
            num_samples = sum(map(len, parts))
            raise ConfigError(
                f"{rule}: client {client} of {len(parts)} gets none of {num_samples} samples; take fewer clients"
            )
    return parts
