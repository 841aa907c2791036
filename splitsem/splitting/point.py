"""SplitPoint: what is known of a place to cut a model, how such places are named, and which of them are offered."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import torch
from torch import fx

from splitsem.errors import ConfigError
from splitsem.splitting.captured import op_name
from splitsem.splitting.contexts import BRANCHES, LOOPS
from splitsem.splitting.half import CONVOLUTIONS, PRODUCTS, RECURRENT, OpCost


@dataclass(frozen=True)
class TensorSpec:
    """One crossing tensor: its shape for batch 1 and its dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        kind = "" if self.dtype is torch.float32 else f" {str(self.dtype).removeprefix('torch.')}"
        return "x".join(map(str, self.shape)) + kind


@dataclass(frozen=True, repr=False)
class SplitPoint:
    """A cut after one node of the graph.

    Attributes:
        name: friendly name, e.g. ``layer1.0``; ``input`` and ``output`` are the ends.
        index: number (λ) of the point among the offered points, from 0 = ``input``.
        tensors: every tensor that crosses, in the order in which the head returns them.
        raw_bytes: float32 size of the crossing tensors for one sample (other dtypes at their own size).
        hook_bytes: what a splitter by module hooks would send: also skip tensors that nothing reads any more.
        head_ops: cost of the head's operations for one sample.
        tail_ops: cost of the tail's operations for one sample.
        head_param_bytes: size of the parameters and buffers that only the head needs.
        tail_param_bytes: size of the parameters and buffers that only the tail needs.
        is_bottleneck: whether ``raw_bytes`` is below the input's.
        is_batched: whether dimension 0 of every crossing tensor is the batch, so that a batch can be taken apart.
    """

    name: str
    index: int
    tensors: tuple[TensorSpec, ...]
    raw_bytes: int
    hook_bytes: int
    head_ops: tuple[OpCost, ...]
    tail_ops: tuple[OpCost, ...]
    head_param_bytes: int
    tail_param_bytes: int
    is_bottleneck: bool
    is_batched: bool

    def __repr__(self) -> str:
        crossing = " + ".join(map(str, self.tensors)) or "nothing"
        return (
            f"SplitPoint({self.index} {self.name!r}: {crossing} cross, {self.raw_bytes:,} bytes raw; "
            f"head {self.head_flops / 1e6:,.1f}, tail {self.tail_flops / 1e6:,.1f} MFLOP)"
        )

    def row(self) -> dict[str, Any]:
        """What is known of the point, as a row of a table: numbers and texts only."""
        return {
            "split_index": self.index,
            "split_point": self.name,
            "num_tensors": len(self.tensors),
            "shapes": " ".join("x".join(map(str, tensor.shape)) for tensor in self.tensors),
            "raw_bytes": self.raw_bytes,
            "hook_bytes": self.hook_bytes,
            "head_flops": self.head_flops,
            "tail_flops": self.tail_flops,
            "head_param_bytes": self.head_param_bytes,
            "tail_param_bytes": self.tail_param_bytes,
            "is_bottleneck": self.is_bottleneck,
        }

    @property
    def head_flops(self) -> float:
        """Floating-point operations of the head for one sample."""
        return sum(op.flops for op in self.head_ops)

    @property
    def tail_flops(self) -> float:
        """Floating-point operations of the tail for one sample."""
        return sum(op.flops for op in self.tail_ops)


_RESERVED = re.compile(r"input|output|null|none|true|false|inf|nan|\d.*", re.IGNORECASE)


def modules_ending(nodes: Sequence[fx.Node]) -> list[list[str]]:
    """For each node, the paths of the modules whose forward ends with it, outermost first (the model itself left out).

    Each call of a module that is used several times counts by itself.
    """
    last = {call: node for node in nodes for call in node.meta.get("nn_module_stack", {})}
    return [
        [path for call, (path, _) in node.meta.get("nn_module_stack", {}).items() if last[call] is node and path]
        for node in nodes
    ]


def node_names(nodes: Sequence[fx.Node]) -> list[str]:
    """A name for each node: the outermost module that ends there, else the module it is in and the operation.

    A name that occurs again gets ``@2``, ``@3`` … A name that Hydra would not read as text (``0``, ``1.0``, ``null``)
    or that would hide the points ``input`` and ``output`` is put under ``model.``.
    """
    seen: Counter[str] = Counter()
    names = []
    for node, ending in zip(nodes, modules_ending(nodes), strict=True):
        name = ending[0] if ending else _inside(node)
        names.append(unique(readable(name), seen))
    return names


def readable(name: str) -> str:
    """A name that Hydra reads as text, and that hides neither ``input`` nor ``output``."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return f"model.{name}" if _RESERVED.fullmatch(name) else name


def unique(name: str, seen: Counter[str]) -> str:
    """The name, which counts as seen from now on; a repetition with its number."""
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}@{seen[name]}"


def _inside(node: fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = stack[-1][0] if stack else ""
    operation = op_name(node).strip("_")
    return f"{path}.{operation}" if path else operation


_MIN_WORK = 0.01  # share of the model's operations
_HEAVY = CONVOLUTIONS | PRODUCTS | RECURRENT | BRANCHES | LOOPS | {"embedding", "grid_sampler", "deform_conv2d"}
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


def layer_cuts(heavy: Sequence[bool], candidates: Sequence[Candidate], total_flops: float) -> list[Candidate]:
    """One cut a layer: a heavy operation and the cheap ones that follow it, cut where the fewest bytes cross.

    Among places with equally few bytes, a place where the batch stays the first dimension wins, then the last place at
    which a module ends: conv → batch norm → relu is cut after the relu, a pre-norm transformer block before the next
    block's norm. A layer gets no point of its own when it neither sends fewer bytes than the point before nor adds 1 %
    of the model's operations to the head (the inside of a squeeze-and-excitation branch, say). ``input`` and ``output``
    are always offered; operations before the first heavy one (a normalisation) belong to ``input``, operations after
    the last heavy one to ``output``, unless fewer bytes cross in between.

    Args:
        heavy: whether each data node of the graph, in order, starts a layer, see ``is_heavy``.
        candidates: the possible cuts in order, ``input`` first and ``output`` last.
        total_flops: the whole model's operations.
    """
    layer_of = list(accumulate(heavy))
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
        names: names of all data nodes of the graph; a module has the name of the node that ends it.
        candidates: the possible cuts in order, ``input`` first and ``output`` last.
        units: paths of modules, in order; the last one makes the output.

    Raises:
        ConfigError: the model cannot be cut after one of the units.
    """
    first, *middle, last = candidates
    after = {names[candidate.k]: candidate for candidate in middle}
    for unit in units[:-1]:
        if unit not in after:
            raise ConfigError(f"the model names {unit!r} as a unit, but cannot be cut after it")
    return [first, *(after[unit] for unit in units[:-1]), last]


def _rank(candidate: Candidate) -> tuple[int, bool, bool]:
    return candidate.raw_bytes, not candidate.is_batched, not candidate.ends_module
