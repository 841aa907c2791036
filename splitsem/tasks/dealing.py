"""Dealing samples: from each client's share of each class to the samples that it holds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
        labels: of the samples to split, shape ``(n,)``.
        counts: who has what there, as from ``class_counts``.
        seed: of who gets which sample.

    Returns:
        The sorted indices of each client's samples, disjoint and complete; a client may get none where there are few.
    """
    num_clients, num_known = counts.shape
    labels = checked(labels, 1)
    class_sizes = np.bincount(labels, minlength=num_known)
    held = np.ones((len(class_sizes), num_clients))  # a class that is new belongs to all alike
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

    Rounded at a random offset for each class: on average exact, and with few samples it is not always the same
    clients who go away empty.
    """
    offset = rng.random((len(shares), 1))
    ends = np.floor(np.cumsum(shares, axis=1)[:, :-1] * class_sizes[:, None] + offset).astype(np.int64)
    ends = np.minimum(ends, class_sizes[:, None])
    return np.diff(ends, axis=1, prepend=0, append=class_sizes[:, None])


def deal(labels: Labels, counts: NDArray[np.int64], rng: np.random.Generator) -> list[Indices]:
    """The samples of each class, shuffled and dealt by ``counts`` (classes, clients); each client's, sorted."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    holder = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.ravel())
    return [np.sort(order[holder == client]) for client in range(counts.shape[1])]
