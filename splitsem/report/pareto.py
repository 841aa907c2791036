"""The Pareto front: the points that no other point dominates."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(points: ArrayLike, maximise: Sequence[bool] | None = None) -> NDArray[np.bool_]:
    """Mark the points that no other point dominates.

    ``a`` dominates ``b`` when it is at least as good in every objective and better in one. Equal points do not
    dominate each other, so ties are all on the front. A point with a NaN is never on the front and beats nobody.

    Args:
        points: one row a point and one column an objective, shape ``(n, d)``; an array or a DataFrame.
        maximise: for each objective, whether more is better; by default all are maximised.

    Returns:
        A mask of shape ``(n,)``.

    Raises:
        ValueError: ``points`` is not two-dimensional, or ``maximise`` does not name every objective.

    >>> pareto_front([[1, 9], [2, 8], [1, 8], [2, 8]])
    array([ True,  True, False,  True])
    >>> pareto_front([[1, 9], [2, 8], [1, 8]], maximise=[True, False])
    array([False,  True, False])
    """
    values = np.array(points, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"points must have shape (n, d), got {values.shape}")
    if maximise is not None:
        if len(maximise) != values.shape[1]:
            raise ValueError(f"maximise must name all {values.shape[1]} objectives, got {len(maximise)}")
        values = np.where(np.asarray(maximise, dtype=bool), values, -values)
    mask = np.zeros(len(values), dtype=bool)
    if values.shape[1] == 0:
        return mask
    index = np.flatnonzero(~np.isnan(values).any(axis=1))
    index = index[np.argsort(-values[index, 0], kind="stable")]  # strong points first: they remove the most
    values = values[index]
    cursor = 0
    while cursor < len(values):
        current = values[cursor]
        keep = (values > current).any(axis=1) | (values == current).all(axis=1)
        values, index = values[keep], index[keep]
        cursor = int(keep[:cursor].sum()) + 1
    mask[index] = True
    return mask
