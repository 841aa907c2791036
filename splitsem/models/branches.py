"""The branches of a RepVGG block and the 14 ways γ to run them (arXiv 2411.00838, figure 3).

A block sums up to three branches: D, a 3×3 convolution; K, a 1×1 convolution; I, the identity. Branches of one group
are folded into one convolution; groups run one after the other and their outputs are added.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain


class Branch(StrEnum):
    """One summand of a block."""

    D = "D"
    K = "K"
    I = "I"  # noqa: E741 (the paper's name)


@dataclass(frozen=True)
class Gamma:
    """One way to run a block.

    Attributes:
        index: γ, 0…13, as published.
        groups: the groups of branches that are folded together, in the order of execution.
    """

    index: int
    groups: tuple[frozenset[Branch], ...]

    @property
    def branches(self) -> frozenset[Branch]:
        """The branches that take part; ways with equal branches compute the same function."""
        return frozenset(chain.from_iterable(self.groups))

    @property
    def label(self) -> str:
        """The groups in one line, ``+`` for folded and ``/`` for beside each other: ``(D+K)/I``."""
        parts = ["+".join(b for b in Branch if b in group) for group in self.groups]
        return "/".join(f"({part})" if "+" in part and len(parts) > 1 else part for part in parts)


def _gamma(index: int, *groups: str) -> Gamma:
    return Gamma(index, tuple(frozenset(map(Branch, group)) for group in groups))


GAMMAS: tuple[Gamma, ...] = (
    _gamma(0, "D"),
    _gamma(1, "K"),
    _gamma(2, "I"),
    _gamma(3, "D", "K"),
    _gamma(4, "DK"),
    _gamma(5, "D", "I"),
    _gamma(6, "DI"),
    _gamma(7, "K", "I"),
    _gamma(8, "KI"),
    _gamma(9, "D", "K", "I"),
    _gamma(10, "DK", "I"),
    _gamma(11, "DI", "K"),
    _gamma(12, "KI", "D"),
    _gamma(13, "DKI"),
)


def gamma_at(index: int) -> Gamma:
    """The way of this number. Raises ValueError when there is none."""
    if not 0 <= index < len(GAMMAS):
        raise ValueError(f"γ must be 0…{len(GAMMAS) - 1}, got {index}")
    return GAMMAS[index]


def equivalents(gamma: Gamma, offered: tuple[Gamma, ...] = GAMMAS) -> tuple[Gamma, ...]:
    """Those of ``offered`` that compute the same function as ``gamma``.

    >>> [g.label for g in equivalents(GAMMAS[3])]
    ['D/K', 'D+K']
    """
    return tuple(other for other in offered if other.branches == gamma.branches)


def offered(has_identity: bool) -> tuple[Gamma, ...]:
    """The ways to run a block; without I where the block's input cannot be added to its output.

    >>> [g.index for g in offered(has_identity=False)]
    [0, 1, 3, 4]
    """
    return tuple(g for g in GAMMAS if has_identity or Branch.I not in g.branches)


def without_identity(gamma: Gamma) -> Gamma | None:
    """The same way without the branch I, for a block that has none; None where nothing is left.

    >>> [way.label for way in map(without_identity, GAMMAS) if way]
    ['D', 'K', 'D/K', 'D+K', 'D', 'D', 'K', 'K', 'D/K', 'D+K', 'D/K', 'D/K', 'D+K']
    """
    groups = {group - {Branch.I} for group in gamma.groups} - {frozenset()}
    return next((way for way in GAMMAS if set(way.groups) == groups), None)


def whole_gamma(gammas: Iterable[int], folded: bool) -> int:
    """The offered γ that has all branches, folded into one or beside each other.

    >>> whole_gamma(range(14), folded=True), whole_gamma((0, 1, 3, 4), folded=False), whole_gamma((0,), folded=True)
    (13, 3, 0)
    """
    return max(gammas, key=lambda g: (len(GAMMAS[g].branches), (-1 if folded else 1) * len(GAMMAS[g].groups)))
