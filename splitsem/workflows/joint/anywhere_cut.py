"""workflow.cuts=anywhere: the best set of operations that no split point cuts off, as one more cut of the table.

The set is found by estimates (a codec is a ratio and seconds per raw byte; operations add up). Then it is cut, timed
and scored by real bytes like every split point, and competes by what was measured.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from splitsem.cost.layers import measure_layers
from splitsem.cost.machines import ByOperation, Machine
from splitsem.json_files import write_text
from splitsem.links.link import Link
from splitsem.search.min_cut import AnyCut, Sending, best_anywhere, part_times_s
from splitsem.search.objective import Objective
from splitsem.search.problem import Floats
from splitsem.splitting.cut import Cut
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.point import SplitPoint
from splitsem.workflows.joint.base import as_text
from splitsem.workflows.joint.tiers import Tier


class OneMoreCut(CutGraph):
    """A graph with one cut more, which is no point of its order and is numbered behind all of them.

    Args:
        graph: the graph.
        extra: of the same network.
        alone: whether the extra cut is the only point.
    """

    continues_exactly = False  # the extra cut has another order

    def __init__(self, graph: CutGraph, extra: Cut, alone: bool = False) -> None:
        for name in ("operations", "refused", "sample", "is_batch_free", "device", "fingerprint", "model"):
            setattr(self, name, getattr(graph, name))
        self.granularity, self._graph, self._extra = graph.granularity, graph, extra
        self.points = (extra.point,) if alone else (*graph.points[:-1], extra.point, graph.points[-1])

    def cut(self, point: SplitPoint | str | int) -> Cut:
        """See CutGraph."""
        name = self.point(point).name
        return self._extra if name == self._extra.point.name else self._graph.cut(name)

    def between(self, start: SplitPoint | str | int, end: SplitPoint | str | int) -> Any:
        """See CutGraph; of the graph's own points."""
        return self._graph.between(start, end)


def best_set(
    graph: SplitGraph,
    rows: pd.DataFrame,
    tiers: tuple[Tier, Tier],
    machines: Sequence[Machine],
    link: Link,
    objective: Objective,
) -> AnyCut:
    """The set of operations of least estimated value.

    Args:
        graph: the network.
        rows: of the table, those whose codec may be chosen and keeps the constraint.
        tiers: edge and server.
        machines: edge and server where they are modelled; else none. Where a machine does not model operations one by
            one, they are timed here, and scaled to the tier's time of the whole network.
        link: asked for the times of two payloads.
        objective: what is minimised.
    """
    here: Floats | None = None
    times: list[Floats] = []
    for tier, machine, whole in zip(tiers, machines or (None, None), ("output", "input"), strict=True):
        if isinstance(machine, ByOperation):
            found = part_times_s(graph.parts(), machine)
        else:
            here = _measured_s(graph) if here is None else here
            found = here
        times.append(found * (tier.time_s[whole] / found.sum()))
    return best_anywhere(graph.parts(), times[0], times[1], _sendings(rows, tiers, link), objective)


def _measured_s(graph: SplitGraph) -> Floats:
    layers = measure_layers(graph, budget_s=2.0)
    took_s = {cost.name: timing.median_s for cost, timing in zip(layers.costs, layers.times, strict=True)}
    return np.array([sum(took_s.get(cost.name, 0.0) for cost in part.costs) for part in graph.parts()])


def _sendings(rows: pd.DataFrame, tiers: tuple[Tier, Tier], link: Link) -> list[Sending]:
    """Each codec by its medians over the split points, and the link as a line through two sizes."""
    sent = rows[(rows["split_point"] != "output") & (rows["raw_bytes"] > 0)].copy()
    sizes = [round(float(sent["payload_bytes"].min())), round(float(sent["payload_bytes"].max())) + 1]
    low, high = (link.send(bytes(size)) for size in sizes)
    per_byte = max(0.0, (high.link_busy_s - low.link_busy_s) / (sizes[1] - sizes[0]))
    edge, server = tiers
    found = []
    for codec, some in sent.groupby("codec", sort=False):
        per_raw = {name: float((some[name] / some["raw_bytes"]).median()) for name in ("payload_bytes", *_CODING)}
        found.append(
            Sending(
                codec=str(codec),
                ratio=per_raw["payload_bytes"],
                encode_s_per_byte=edge.coding * per_raw["encode_s"],
                decode_s_per_byte=server.coding * per_raw["decode_s"],
                busy_s_per_byte=per_byte,
                fixed_busy_s=max(0.0, low.link_busy_s - per_byte * sizes[0]),
                delay_s=low.link_s - low.link_busy_s,
                answer_s=float(some["answer_s"].median()),
            )
        )
    return found


_CODING = ("encode_s", "decode_s")


@dataclass(frozen=True)
class BestSet:
    """The set of operations of least estimated value, and its cut.

    Attributes:
        graph: the network.
        found: the set.
        cut: named by what is in it; None where a split point has the same head.
    """

    graph: SplitGraph
    found: AnyCut
    cut: Cut | None

    @classmethod
    def of(cls, graph: SplitGraph, found: AnyCut) -> "BestSet":
        """Cut the network there, where no split point does."""
        names = [part.name for part in graph.parts()]
        offered = {frozenset(names[: names.index(p.name) + 1]) for p in graph.points if p.name in names}
        if found.head in offered or found.head == frozenset(names):
            return cls(graph, found, None)
        cut = graph.cut_anywhere(found.head)
        digest = hashlib.sha256("\n".join(sorted(found.head)).encode()).hexdigest()[:8]
        point = replace(cut.point, name=f"anywhere-{digest}", index=len(graph.points))
        return cls(graph, found, replace(cut, point=point, fingerprint=graph.fingerprint))

    @property
    def name(self) -> str | None:
        """Of the cut's point; None where it is a split point."""
        return None if self.cut is None else self.cut.point.name

    def words(self, objective: Objective) -> str:
        """What became of the search, in a line."""
        if self.cut is None:
            return "cuts anywhere: by the estimates the best set of operations is that of a split point"
        return (
            f"cuts anywhere: {self.name} has {len(self.found.head)} operations on the edge, which no split point cuts "
            f"off; estimated {self.found.value:.4g} {objective.unit} with {self.found.sending.codec}, "
            "measured as every other row (anywhere.json)"
        )

    def write(self, folder: Path) -> None:
        """Leave ``anywhere.json``, the operations of the head, where there is a cut."""
        if self.cut is not None:
            write_text(as_text({"name": self.name, "head": sorted(self.found.head)}), folder / "anywhere.json")
