"""SharedFeatures: what heads make of a sweep's samples moves on from cut to cut, and is not made anew for each."""

import logging
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import nn

from splitsem.pipeline import Features, features
from splitsem.splitting.cut import Cut
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.point import SplitPoint

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Names a batch of samples.

    Attributes:
        network: names the network and all that determines which samples it gets, and in which batches.
        split: of the data.
        number: of the batch in the split.
    """

    network: str
    split: str
    number: int


class _Held(NamedTuple):
    point: SplitPoint
    made: list[Features]
    num_bytes: int


class SharedFeatures:
    """The features of batches at the last cut that each was asked for.

    For a later cut only the operations between the two run, so that a sweep over cuts in their order runs the network
    once, whatever the number of cuts; for an earlier cut it begins anew. Features are what the head itself makes of the
    batch, bit for bit (``CutGraph.between``). Nobody may write to them.

    Args:
        most_bytes: how much is kept. Of what does not fit, the batch stays at the cut where it is, and what follows
            runs again for each later cut.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.num_bytes = most_bytes, 0
        self._held: OrderedDict[tuple[Batch, bool], _Held] = OrderedDict()
        self._is_told = False
        self._parts: tuple[CutGraph | None, dict[tuple[int, int], nn.Module | None]] = None, {}

    @torch.inference_mode()
    def at(self, graph: CutGraph, cut: Cut, batch: Batch, x: Any) -> list[Features]:
        """What ``pipeline.features(cut, x)`` gives.

        Args:
            graph: of the network.
            cut: of this graph.
            batch: names ``x``.
            x: the batch, for where nothing of it is kept.
        """
        place = batch, cut.point.is_batched  # samples that go alone may differ from the same in a batch by a bit
        held = self._held.get(place)
        if held is not None and held.point.index == cut.point.index:
            self._held.move_to_end(place)
            return held.made
        part = self._between(graph, held.point, cut.point) if held is not None else None
        if held is None or part is None:
            made = features(cut, x)
        else:
            made = [Features(part(*group.z), group.num_samples) for group in held.made]
        self._keep(place, _Held(cut.point, made, _num_bytes(made)))
        return made

    def _between(self, graph: CutGraph, first: SplitPoint, then: SplitPoint) -> nn.Module | None:
        if then.index < first.index or not graph.continues_exactly:
            return None
        if self._parts[0] is not graph:
            self._parts = graph, {}
        parts, ends = self._parts[1], (first.index, then.index)
        if ends not in parts:
            for others in [others for others in parts if others[1] != then.index]:  # of earlier jobs
                del parts[others]
            parts[ends] = graph.between(first, then)
        return parts[ends]

    def _keep(self, place: tuple[Batch, bool], held: _Held) -> None:
        """Put a batch at its new cut, where there is room: those of other networks go before it, the oldest first."""
        before = self._held.pop(place, None)
        self.num_bytes -= before.num_bytes if before else 0
        for other in [other for other in self._held if other[0].network != place[0].network]:
            if self.num_bytes + held.num_bytes <= self.most_bytes:
                break
            self.num_bytes -= self._held.pop(other).num_bytes
        kept = held if self.num_bytes + held.num_bytes <= self.most_bytes else before
        if kept is not held and self.most_bytes and not self._is_told:
            self._is_told = True
            log.warning(
                "Features at %s take more than the memory for them, %d MB: operations before it run again for each "
                "later cut; give workflow.features_mb more, or 0",
                held.point.name,
                self.most_bytes // 10**6,
            )
        if kept is not None:
            self._held[place] = kept
            self.num_bytes += kept.num_bytes


def _num_bytes(made: list[Features]) -> int:
    """The memory that features hold; a view holds all that it is a view of."""
    held = {z.untyped_storage().data_ptr(): z.untyped_storage().nbytes() for group in made for z in group.z}
    return sum(held.values())
