"""layer_cuts, unit_cuts: the few cuts of a graph that a user wants to see, out of all that are possible."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import fx

from splitsem.errors import ConfigError
from splitsem.split.capture import op_name
from splitsem.split.flops import CONVOLUTIONS, PRODUCTS, RECURRENT

_MIN_WORK = 0.01  # share of the model's operations
_HEAVY = CONVOLUTIONS | PRODUCTS | RECURRENT | {"embedding", "grid_sampler", "deform_conv2d"}
_HEAVY_PREFIXES = ("max_pool", "avg_pool", "adaptive_", "upsample_", "_upsample")


@dataclass(frozen=True)
class Candidate:
    """A possible cut: after data node ``k``, which sends ``raw_bytes`` and leaves ``head_flops`` to the head."""

    k: int
    raw_bytes: int
    head_flops: float
    is_batched: bool
    ends_module: bool


@runtime_checkable
class HasUnits(Protocol):
    """A model that is a chain of named modules and shall be cut between them only.

    Attributes:
        unit_names: the paths of the modules, in the order in which they run; the last one makes the output.
    """

    unit_names: tuple[str, ...]


def is_heavy(node: fx.Node) -> bool:
    """Whether the operation starts a layer: convolution, matrix product, attention, recurrence, pooling, resizing."""
    name = op_name(node)
    return name in _HEAVY or name.startswith(_HEAVY_PREFIXES)


def layer_cuts(nodes: Sequence[fx.Node], candidates: Sequence[Candidate], total_flops: float) -> list[Candidate]:
    """One cut a layer: a heavy operation and the cheap ones that follow it, cut where the fewest bytes cross.

    Among equally small places those where the batch stays the first dimension win, then the last one at which a module
    ends: conv → batch norm → relu is cut after the relu, a pre-norm transformer block before the next block's norm. A
    layer gets no point of its own when it neither sends fewer bytes than the point before nor adds 1 % of the model's
    operations to the head (the inside of a squeeze-and-excitation branch, say). ``input`` and ``output`` are always
    offered; what comes before the first heavy operation (a normalisation) belongs to ``input``, what follows the last
    one to ``output``, unless fewer bytes cross in between.

    Args:
        nodes: all data nodes of the graph, in order.
        candidates: the possible cuts in order, ``input`` first and ``output`` last.
        total_flops: the whole model's operations.
    """
    layer_of = []
    layer = 0
    for node in nodes:
        layer += is_heavy(node)
        layer_of.append(layer)
    first, *middle, last = candidates
    best: dict[int, Candidate] = {0: first}
    for candidate in middle:
        rival = best.get(layer_of[candidate.k])
        if rival is None or _rank(candidate) <= _rank(rival):
            best[layer_of[candidate.k]] = candidate
    kept = [first]
    for number, candidate in best.items():
        added = candidate.head_flops - kept[-1].head_flops
        worth_it = number > 0 and added >= _MIN_WORK * total_flops
        if worth_it or candidate.raw_bytes < kept[-1].raw_bytes:
            kept.append(candidate)
    if len(kept) > 1 and layer_of[kept[-1].k] == layer_of[last.k] and kept[-1].raw_bytes >= last.raw_bytes:
        kept.pop()
    return [*kept, last]


def unit_cuts(names: Sequence[str], candidates: Sequence[Candidate], units: Sequence[str]) -> list[Candidate]:
    """``input``, then the cut after each of ``units``: cut λ leaves λ units to the head.

    Args:
        names: of all data nodes of the graph; a module's is that of the node that ends it.
        candidates: the possible cuts in order, ``input`` first and ``output`` last.
        units: paths of modules, in order; the last one makes the output.

    Raises:
        ConfigError: the model cannot be cut after one of them.
    """
    first, *middle, last = candidates
    after = {names[candidate.k]: candidate for candidate in middle}
    for unit in units[:-1]:
        if unit not in after:
            raise ConfigError(f"the model names {unit!r} as a unit, but cannot be cut after it")
    return [first, *(after[unit] for unit in units[:-1]), last]


def _rank(candidate: Candidate) -> tuple[int, bool, bool]:
    return candidate.raw_bytes, not candidate.is_batched, not candidate.ends_module
