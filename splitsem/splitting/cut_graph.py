"""CutGraph: a network with the places where it can be cut; what a graph of torch's and an ONNX file have in common."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import nn

from splitsem import extras
from splitsem.errors import SplitPointError
from splitsem.splitting.cut import Cut
from splitsem.splitting.point import SplitPoint

if TYPE_CHECKING:
    import pandas as pd

Granularity = Literal["layer", "op"]
_Value = TypeVar("_Value", bound=Hashable)


class CutGraph(ABC):
    """The split points of a network, and its head and tail at each of them.

    Attributes:
        points: the offered points; the first is ``input`` (all on the server), the last ``output`` (all on the edge).
        operations: the names of all operations in order, offered or not.
        refused: operations after which no cut is possible, with the reason.
        sample: the network's output for one sample, from a trial; tells its structure.
        is_batch_free: whether the halves take any batch size; else that of the example only.
        device: where the halves are.
        fingerprint: identifies the graph and its weights' names, shapes and types, not their values.
        model: the uncut network.
        granularity: which points are offered.
        continues_exactly: whether ``between`` makes of a head's tensors what a later head makes, bit for bit.
    """

    points: tuple[SplitPoint, ...]
    operations: tuple[str, ...]
    refused: Mapping[str, str]
    sample: Any
    is_batch_free: bool
    device: torch.device
    fingerprint: str
    model: nn.Module
    granularity: str
    continues_exactly: bool = True

    @abstractmethod
    def cut(self, point: SplitPoint | str | int) -> Cut:
        """The network's head and tail at a point. Each call makes new halves."""

    @abstractmethod
    def between(self, start: SplitPoint | str | int, end: SplitPoint | str | int) -> nn.Module:
        """What a machine in the middle of a chain computes: from what crosses at ``start`` to what crosses at ``end``.

        It takes the tensors one by one and returns a tuple, as ``Cut.head`` does: behind ``cut(start).head`` and before
        ``cut(end).tail`` it gives the network, bit for bit. What arrived as bytes goes through ``cut(start).received``.

        Raises:
            SplitPointError: there is no such point, or ``end`` comes before ``start``.
        """

    def in_order(self, start: SplitPoint | str | int, end: SplitPoint | str | int) -> tuple[SplitPoint, SplitPoint]:
        """Both points. Raises SplitPointError where one does not exist or ``end`` comes before ``start``."""
        first, last = self.point(start), self.point(end)
        if last.index < first.index:
            raise SplitPointError(f"{last.name} comes before {first.name}: name the cuts of a chain in their order")
        return first, last

    def __repr__(self) -> str:
        ends = f"{self.points[0].name} … {self.points[-1].name}"
        bottlenecks = sum(point.is_bottleneck for point in self.points)
        return (
            f"{type(self).__name__}({len(self.points)} points, {ends}; {bottlenecks} bottlenecks; {self.fingerprint})"
        )

    def table(self) -> "pd.DataFrame":
        """The offered points, a row each, by name: see ``SplitPoint.row``. Raises ConfigError without pandas."""
        with extras.needed("plots", "a table of split points"):
            import pandas as pd

        return pd.DataFrame([point.row() for point in self.points]).set_index("split_point")

    def point(self, point: SplitPoint | str | int) -> SplitPoint:
        """The point of this name, or of this index (negative ones count from the end).

        Raises:
            SplitPointError: there is no such point; the message lists the valid ones.
        """
        if isinstance(point, SplitPoint):
            point = point.name
        if isinstance(point, int) and -len(self.points) <= point < len(self.points):
            return self.points[point]
        names = [p.name for p in self.points]
        if point in names:
            return self.points[names.index(str(point))]
        if isinstance(point, int):
            raise SplitPointError(f"no split point {point}; valid: 0…{len(names) - 1} ({', '.join(names)})")
        close = difflib.get_close_matches(point, names, n=1)
        why = f" ({self.refused[point]})" if point in self.refused else ""
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise SplitPointError(f"no split point {point!r}{why}{hint} Valid: {', '.join(names)}")


def hook_bytes(
    raw_bytes: Sequence[int],
    live: Sequence[Collection[_Value]],
    given: Collection[_Value],
    size: Callable[[_Value], int],
) -> list[int]:
    """For each cut, what a splitter by hooks sends: also every skip tensor that was alive at an earlier cut.

    Hooks see what modules return, not which of it is read again.

    Args:
        raw_bytes: what crosses at each cut.
        live: the tensors that cross.
        given: those among them that are the network's inputs.
        size: bytes of one of them.
    """
    skips: set[_Value] = set()
    sizes = []
    for number, now in enumerate(map(set, live)):
        is_last = number == len(live) - 1
        sizes.append(raw_bytes[number] + (0 if is_last else sum(map(size, skips - now))))
        later = set() if is_last else set(live[number + 1])
        skips |= (now & later) - set(given)
    return sizes
