"""symbolic: the sizes of an exported graph, which torch keeps as formulas, as plain functions of the batch size."""

from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from splitsem.splitting.captured import Affine, Size, Traced
from splitsem.splitting.contexts import bodies

_LARGEST_BATCH = 256  # at which a guard of the export is tried
_MOST_BATCHES = 4


def describe(graph: fx.Graph) -> None:
    """Put ``traced`` into the ``meta`` of each node, of nested graphs too, from the export's own ``val`` there."""
    _describe(graph, _Batch(_batch_symbols(graph)))


def batches_to_try(graph: fx.Graph) -> tuple[int, ...]:
    """3, and batch sizes for which a guard does not hold that the export put up and dropped."""
    symbols, nodes = _batch_symbols(graph), _batch_nodes(graph)
    if not symbols or nodes[0].shape_env is None:
        return (3,)
    env, symbol = nodes[0].shape_env, symbols[0]
    top = env.var_to_range[symbol].upper if symbol in env.var_to_range else None
    broken = {int(top) + 2} if top is not None and top.is_Integer else set()
    for expr in {guard.expr for guard in env.guards if guard.expr.free_symbols == {symbol}}:
        numbers = {int(number) + step for number in expr.atoms() if number.is_Integer for step in (-1, 0, 1, 2)}
        tried = sorted(number for number in numbers | {3, 4, 5} if 2 < number <= _LARGEST_BATCH)
        broken |= {number for number in tried if expr.subs(symbol, number) == False}  # noqa: E712 (sympy's own false)
    return tuple(sorted({3, *(number for number in broken if number <= _LARGEST_BATCH)})[:_MOST_BATCHES])


class _Batch:
    """The batch size of an exported graph, and every other size as a function of it.

    Args:
        symbols: those that stand for the batch size in the graph's shapes; none where that is fixed.
    """

    def __init__(self, symbols: Sequence[sympy.Symbol]) -> None:
        self.symbol = symbols[0] if symbols else sympy.Symbol("batch")
        self._others = dict.fromkeys(symbols[1:], self.symbol)
        self._found: dict[sympy.Expr, Size] = {}

    def size(self, size: Any) -> Size:
        """The size as a function of the batch size."""
        if isinstance(size, int):
            return Size((0, int(size)), int(size), int(size))
        expr: sympy.Expr = size.node.expr
        if expr not in self._found:
            own = expr.subs(self._others)
            self._found[expr] = Size(self._affine(own), self._at(own, 1), self._at(own, 2))
        return self._found[expr]

    def tensor(self, tensor: Tensor) -> Traced:
        """What is known of a traced tensor."""
        is_strided = tensor.layout is torch.strided
        return Traced(
            sizes=tuple(map(self.size, tensor.shape)),
            strides=tuple(map(self.size, tensor.stride())) if is_strided else (),
            dtype=tensor.dtype,
            layout=tensor.layout,
            is_contiguous=is_strided and tensor.is_contiguous(),
        )

    def _at(self, expr: sympy.Expr, batch: int) -> int | None:
        value = expr.subs(self.symbol, batch)
        return int(value) if value.is_Integer else None

    def _affine(self, expr: sympy.Expr) -> Affine | None:
        if expr.is_Integer:
            return 0, int(expr)
        if expr == self.symbol:
            return 1, 0
        if expr.free_symbols != {self.symbol} or not expr.is_polynomial(self.symbol):
            return None
        poly = sympy.Poly(expr, self.symbol)
        if poly.degree() > 1 or not all(c.is_Integer for c in poly.all_coeffs()):
            return None
        a, b = poly.all_coeffs()
        return int(a), int(b)


def _batch_nodes(graph: fx.Graph) -> list[Any]:
    """torch's own form of the first size of each input tensor, where it is free."""
    values = [node.meta["val"] for node in graph.nodes if node.op == "placeholder"]
    sizes: list[Any] = [size for value in values if isinstance(value, Tensor) for size in value.shape[:1]]
    return [size.node for size in sizes if isinstance(size, torch.SymInt)]


def _batch_symbols(graph: fx.Graph) -> list[sympy.Symbol]:
    return [node.expr for node in _batch_nodes(graph)]


def _describe(graph: fx.Graph, batch: _Batch) -> None:
    for node in graph.nodes:
        node.meta["traced"] = _described(node.meta.get("val"), batch)
        for body in bodies(node):
            _describe(body, batch)


def _described(value: object, batch: _Batch) -> Any:
    if isinstance(value, Tensor):
        return batch.tensor(value)
    if isinstance(value, torch.SymInt):
        return batch.size(value)
    if isinstance(value, list | tuple):
        return [_described(part, batch) for part in value]
    return value if isinstance(value, bool | int | float | str) else None
