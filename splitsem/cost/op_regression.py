"""Seconds of operations that were never measured on a machine, from those that were.

Operations are grouped by which code runs. In each group a line in calls, FLOPs, bytes and weights that are laid out
anew, without negative slopes, is fitted to relative errors; what it leaves is learned by a Gaussian process over the
logarithms of the operation's sizes (Rasmussen and Williams, 2006, algorithm 2.1). Near operations that were measured,
the process corrects the line; far from them, the line remains.

On a CPU, torch takes a matrix product for a small convolution of one sample, and oneDNN for the others
(``ConvParams::use_mkldnn`` in ATen/native/Convolution.cpp). In such a product the pixels are the rows. Where they fill
no whole vectors, a call takes as long as if it laid the weights out anew: at 3 × 3 pixels three times as long as at
4 × 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitsem import extras
from splitsem.splitting.half import CONVOLUTIONS, RECURRENT, OpCost

Floats = NDArray[np.float64]
ANY = "any"
_MIN_OF_A_GROUP = 8  # operations, below which a group has no line of its own
_MOST_OF_A_GROUP = 1200  # operations that a process looks at; the others are in the line alone
_LEAST_S = 1e-7  # no operation is quicker than a clock tells
_SMALL, _SMALL_WINDOW = 20_480, 9  # elements that a convolution reads, and its window, up to which it is a product
_VECTOR = 16  # rows that fill whole vectors, of the longest there are
_ALIGNED = 3.0  # octaves by which full vectors are unlike others
_PRODUCTS = {"pointwise", "small convolution"}
_PERMUTED = " permuted"


@dataclass(frozen=True)
class Regression:
    """How much the process trusts what it saw; chosen on networks whose errors are not reported.

    Attributes:
        length: octaves in an operation's sizes within which times are alike.
        spread: by how much (log) times may differ from the line.
        noise: by how much (log) equal operations differ.
    """

    length: float = 4.0
    spread: float = 0.4
    noise: float = 0.1


def group_of(op: OpCost) -> str:
    """What an operation does, as far as it decides which code runs.

    >>> from splitsem.splitting.half import OpShape
    >>> group_of(OpCost("a", 1.0, 65536.0, kernel_bytes=2048.0, kind="conv2d", shape=OpShape(64, 32, 16)))
    'pointwise'
    """
    if op.kind in RECURRENT:
        return op.kind
    if op.kind == "linear" and op.shape.rows == 1:  # reading the weights takes the time
        return "vector"
    return (_convolution(op) if op.kind in CONVOLUTIONS else op.kind or ANY) + _PERMUTED * op.shape.permuted


def _convolution(op: OpCost) -> str:
    shape = op.shape
    if shape.groups > 1:
        return "depthwise" if shape.depth == shape.window else "grouped"
    read = (op.bytes - op.kernel_bytes) / 4 - shape.rows * shape.columns  # elements, where they are float32
    if shape.window == 1:
        if shape.rows == 1:
            return "pixel"
        return "pointwise" if read < 1.5 * shape.rows * shape.depth else "strided"
    return "small convolution" if read <= _SMALL + shape.columns and shape.window <= _SMALL_WINDOW else "convolution"


def _is_aligned(op: OpCost) -> bool:
    """Whether the rows of a convolution that is a matrix product fill whole vectors."""
    return op.shape.rows % _VECTOR == 0 and group_of(op) in _PRODUCTS


def features(op: OpCost) -> list[float]:
    """Logarithms (base 2) of an operation's sizes, and whether vectors are full."""
    sizes = (op.flops, op.bytes, op.kernel_bytes, *op.shape, op.steps)
    return [*(float(np.log2(1 + size)) for size in sizes), _ALIGNED * _is_aligned(op)]


def terms(op: OpCost) -> list[float]:
    """What a line adds up: a call, its steps, FLOPs, bytes, weights, and weights laid out anew for broken vectors."""
    laid_out = 0.0 if _is_aligned(op) else op.kernel_bytes
    return [1.0, float(op.steps), op.flops, op.bytes, op.kernel_bytes, laid_out]


@dataclass(frozen=True, eq=False)
class _Group:
    """One fitted group.

    Attributes:
        slopes: of ``terms``, ``(6,)``.
        seen: features of what the process knows, ``(n, 11)``; empty where there is none.
        weights: of each of them, ``(n,)``.
        least_s: no operation of the group took less.
    """

    slopes: Floats
    seen: Floats
    weights: Floats
    least_s: float


class OpRegression:
    """Predicts operations from measured ones.

    Args:
        ops: measured operations.
        times_s: their seconds, ``(n,)``.
        settings: of the process.

    Raises:
        ValueError: there are fewer than eight operations, or not as many times.
        ConfigError: scipy is missing.
    """

    def __init__(self, ops: Sequence[OpCost], times_s: Sequence[float], settings: Regression | None = None) -> None:
        if len(ops) != len(times_s) or len(ops) < _MIN_OF_A_GROUP:
            raise ValueError(
                f"a regression needs {_MIN_OF_A_GROUP} operations or more, each with a time, got {len(ops)} operations "
                f"and {len(times_s)} times"
            )
        self.settings = settings or Regression()
        taken_s = np.maximum(np.asarray(times_s, dtype=float), _LEAST_S)
        by_group: dict[str, list[int]] = {ANY: list(range(len(ops)))}
        for place, op in enumerate(ops):
            by_group.setdefault(group_of(op), []).append(place)
        self.groups: Mapping[str, _Group] = {
            name: self._fitted([ops[k] for k in places], taken_s[places], learns=name != ANY)
            for name, places in by_group.items()
            if len(places) >= _MIN_OF_A_GROUP
        }

    def _known_group(self, op: OpCost) -> str:
        """The operation's group, else that of memory in order, else that of all."""
        name = group_of(op)
        return next((one for one in (name, name.removesuffix(_PERMUTED)) if one in self.groups), ANY)

    def _fitted(self, ops: Sequence[OpCost], times_s: Floats, *, learns: bool) -> _Group:
        with extras.needed("plots", "a machine that predicts"):
            from scipy.optimize import nnls

        table = np.array([terms(op) for op in ops])
        scale = table.max(axis=0)
        scale[scale == 0] = 1.0
        slopes = nnls(table / scale / times_s[:, None], np.ones(len(ops)))[0] / scale
        least_s = float(times_s.min())
        if not learns:
            return _Group(slopes, np.empty((0, len(features(ops[0])))), np.empty(0), least_s)
        chosen = np.arange(len(ops))
        if len(chosen) > _MOST_OF_A_GROUP:
            chosen = np.linspace(0, len(ops) - 1, _MOST_OF_A_GROUP).round().astype(int)
        seen = np.array([features(ops[int(k)]) for k in chosen])
        left = np.log(times_s[chosen] / np.maximum(table[chosen] @ slopes, least_s))
        kernel = self._alike(seen, seen) + self.settings.noise**2 * np.eye(len(seen))
        return _Group(slopes, seen, np.linalg.solve(kernel, left), least_s)

    def _alike(self, one: Floats, other: Floats) -> Floats:
        squares = ((one[:, None, :] - other[None, :, :]) ** 2).sum(axis=2)
        alike: Floats = self.settings.spread**2 * np.exp(-squares / (2 * self.settings.length**2))
        return alike

    def times_s(self, ops: Sequence[OpCost]) -> Floats:
        """Predicted seconds of each operation, ``(n,)``; 0 for one that neither computes nor moves a byte."""
        found = np.zeros(len(ops))
        by_group: dict[str, list[int]] = {}
        for place, op in enumerate(ops):
            if op.flops or op.bytes:
                by_group.setdefault(self._known_group(op), []).append(place)
        for name, places in by_group.items():
            group, some = self.groups[name], [ops[k] for k in places]
            line_s = np.maximum(np.array([terms(op) for op in some]) @ group.slopes, group.least_s)
            if len(group.seen):
                known = self._alike(np.array([features(op) for op in some]), group.seen)
                line_s = line_s * np.exp(known @ group.weights)
            found[places] = line_s
        return found


def fit_whole(sums_s: Sequence[float], counts: Sequence[int], whole_s: Sequence[float]) -> tuple[float, float]:
    """``whole ≈ factor · sum + each · count``, by least relative squares, neither negative.

    A network takes more than its operations: between them, Python and views of tensors take their time.

    Args:
        sums_s: of each network's operations.
        counts: how many operations each has.
        whole_s: of each network.
    """
    with extras.needed("plots", "a machine that predicts"):
        from scipy.optimize import nnls

    wanted = np.asarray(whole_s, dtype=float)
    table = np.column_stack([sums_s, counts]) / wanted[:, None]
    factor, each_s = nnls(table, np.ones(len(wanted)))[0]
    return float(factor), float(each_s)
