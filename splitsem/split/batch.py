"""Sizes that depend on the batch: read the symbolic shapes of an exported graph."""

import sympy
import torch
from torch import Tensor
from torch.fx import Node

Affine = tuple[int, int]


class Batch:
    """The batch size of an exported graph, and every other size as a function of it.

    Args:
        symbol: the sympy symbol that stands for the batch size in the graph's shapes.
    """

    def __init__(self, symbol: sympy.Symbol) -> None:
        self.symbol = symbol
        self._affine: dict[sympy.Expr, Affine | None] = {}

    def affine(self, size: int | torch.SymInt) -> Affine | None:
        """``(a, b)`` such that ``size = a·batch + b``; None when the size is not of that form (or depends on data)."""
        if not isinstance(size, torch.SymInt):
            return 0, int(size)
        expr = size.node.expr
        if expr not in self._affine:
            self._affine[expr] = self._solve(expr)
        return self._affine[expr]

    def _solve(self, expr: sympy.Expr) -> Affine | None:
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

    def size(self, size: int | torch.SymInt, batch: int = 1) -> int | None:
        """The number that ``size`` is at this batch size; None when it depends on the data."""
        line = self.affine(size)
        if line is not None:
            return line[0] * batch + line[1]
        value = size.node.expr.subs(self.symbol, batch)  # type: ignore[union-attr]
        return int(value) if value.is_Integer else None

    def shape(self, value: Tensor, batch: int = 1) -> tuple[int, ...] | None:
        """The shape of a traced tensor at this batch size; None when it depends on the data."""
        sizes = [self.size(size, batch) for size in value.shape]
        return None if None in sizes else tuple(sizes)  # type: ignore[arg-type]

    def varies(self, value: object) -> bool:
        """Whether a traced value (an integer or a tensor's shape) changes with the batch size."""
        sizes = value.shape if isinstance(value, Tensor) else (value,)
        return any(isinstance(s, torch.SymInt) and self.affine(s) != (0, self.size(s)) for s in sizes)


def value_of(node: Node) -> object:
    """What the node made when the model was traced: a fake tensor, a symbolic number, a tuple, or None."""
    return node.meta.get("val")
