"""most_important: which branches of which blocks stay when only a share of them is kept."""

from collections.abc import Mapping, Sequence

from splitsem.models.branches import Branch


def most_important(importance: Sequence[Mapping[Branch, float]], share: float) -> tuple[frozenset[Branch], ...]:
    """The branches to keep, block by block: the most important ones of the network, one a block at the least.

    Args:
        importance: block → branch → importance.
        share: of all branches, to be kept, in (0, 1]; where that is fewer than there are blocks, each keeps one.

    >>> most_important([{Branch.D: 1.0, Branch.K: 3.0}, {Branch.D: 0.1, Branch.K: 0.2}], share=0.75)
    (frozenset({<Branch.K: 'K'>, <Branch.D: 'D'>}), frozenset({<Branch.K: 'K'>}))

    Raises:
        ValueError: the share is outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    kept = [{max(row, key=row.__getitem__)} for row in importance]
    others = [(row[b], index, b) for index, row in enumerate(importance) for b in row if b not in kept[index]]
    num_more = round(share * sum(map(len, importance))) - len(kept)
    for _, index, branch in sorted(others, key=lambda other: -other[0])[: max(0, num_more)]:
        kept[index].add(branch)
    return tuple(map(frozenset, kept))
