"""Cuts anywhere in a graph: the optimum equals trying every set of operations that can run first, and is exact."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitsem.cost.machines import Roofline
from splitsem.errors import ConfigError, SplitPointError
from splitsem.search.min_cut import Sending, best_anywhere, crossing_bytes, part_times_s, stages_of
from splitsem.search.objective import cycle, energy, latency, t_eff
from splitsem.splitting.anywhere import Part
from splitsem.splitting.graph import SplitGraph

pytest.importorskip("scipy")
OBJECTIVES = (latency(), cycle(), t_eff(0.5), energy(6.4, 2.7, 1e-6))


class Branches(nn.Module):
    """A branch that is dear on the edge comes first; then one that makes the large input small."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.AvgPool2d(8)
        self.dear = nn.Sequential(nn.Conv2d(3, 256, 5, padding=2), nn.ReLU(), nn.Conv2d(256, 8, 5, padding=2))
        self.narrow = nn.Conv2d(3, 8, 8, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.dear(self.small(x)) + self.narrow(x)


class Writes(nn.Module):
    """Writes through a view into what another operation reads before and another one after."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        before = y.sum(dim=1)
        y[:, 0] = 0
        return before + y.sum(dim=1)


def random_parts(seed: int) -> tuple[list[Part], np.ndarray, np.ndarray, list[Sending]]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 8))
    needs = [frozenset[int]()] + [
        frozenset({0, *(int(k) for k in rng.choice(range(k), int(rng.integers(1, 3))))}) for k in range(1, n)
    ]
    reads = [
        frozenset(k for k in range(n) if place in needs[k] and (place or k == 1 or rng.random() < 0.5))
        for place in range(n)
    ]
    parts = [
        Part(
            f"op{k}", needs[k], (), int(rng.integers(1, 100)), reads[k],
            stays=k > 0 and bool(reads[k]) and rng.random() < 0.2, is_result=not reads[k],
        )
        for k in range(n)
    ]  # fmt: skip
    edge_s, server_s = rng.uniform(0, 0.02, n), rng.uniform(0, 0.01, n)
    edge_s[0] = server_s[0] = 0.0
    sendings = [
        Sending(
            codec=f"codec{k}", ratio=ratio, encode_s_per_byte=1e-6 * k, decode_s_per_byte=1e-6 * k,
            busy_s_per_byte=float(rng.uniform(1e-5, 3e-4)), fixed_busy_s=1e-3, delay_s=2e-3, answer_s=1e-3,
        )
        for k, ratio in enumerate((1.0, 0.25))
    ]  # fmt: skip
    return parts, edge_s, server_s, sendings


def allowed(parts: list[Part], head: tuple[bool, ...]) -> bool:
    ordered = all(head[before] for part, inside in zip(parts, head, strict=True) if inside for before in part.needs)
    staying = [part for part, inside in zip(parts, head, strict=True) if inside and part.stays]
    return ordered and all(head[reader] for part in staying for reader in part.readers)


@pytest.mark.parametrize("seed", range(60))
def test_the_best_cut_equals_trying_every_set_of_operations(seed: int) -> None:
    parts, edge_s, server_s, sendings = random_parts(seed)
    objective = OBJECTIVES[seed % len(OBJECTIVES)]
    values = {}
    for head in product((True, False), repeat=len(parts) - 1):
        inside = (True, *head)
        if allowed(parts, inside):
            for by in sendings:
                stages = stages_of(parts, inside, edge_s, server_s, by)
                raw = 0.0 if all(inside) else crossing_bytes(parts, inside)
                values[inside, by.codec] = (float(objective(stages, by.ratio * raw)), stages.latency_s)
    found = best_anywhere(parts, edge_s, server_s, sendings, objective)
    assert found.value == pytest.approx(min(value for value, _ in values.values()), rel=1e-6)
    bound = sorted(latency_s for _, latency_s in values.values())[len(values) // 3] * 1.001
    bounded = best_anywhere(parts, edge_s, server_s, sendings, objective, latency_s=bound)
    within = min(value for value, latency_s in values.values() if latency_s <= bound)
    assert bounded.value == pytest.approx(within, rel=1e-6)
    with pytest.raises(ConfigError, match="no cut with any of the codecs keeps a latency"):
        best_anywhere(parts, edge_s, server_s, sendings, objective, latency_s=-1.0)


def test_a_cut_that_is_no_split_point_can_be_the_best_and_is_exact() -> None:
    graph = SplitGraph(Branches().eval(), (3, 64, 64), granularity="op")
    parts = graph.parts()
    edge_s = part_times_s(parts, Roofline(1e9, 1e9, 5.0, 1.0))
    server_s = part_times_s(parts, Roofline(1e12, 1e11, 5.0, 1.0))
    by = Sending(codec="identity", ratio=1.0, busy_s_per_byte=1e-6)
    best = best_anywhere(parts, edge_s, server_s, [by], latency())
    assert best.head == {"input", "small", "narrow"}
    assert not best.is_prefix
    assert best.raw_bytes == 4 * (3 + 8) * 8 * 8
    places = [part.name for part in parts]
    order = [stages_of(parts, np.arange(len(parts)) <= k, edge_s, server_s, by).latency_s for k in range(len(places))]
    assert best.value < min(order)
    cut, x = graph.cut_anywhere(best.head), torch.rand(3, 3, 64, 64)
    assert cut.point.raw_bytes == best.raw_bytes
    assert torch.equal(cut.tail(*cut.head(x)), graph.cut("output").head(x)[0])
    assert cut.fingerprint != graph.fingerprint  # another order: a LUT of this one is refused


def test_every_split_point_is_a_set_of_operations_with_the_same_bytes_and_times() -> None:
    graph = SplitGraph(Branches().eval(), (3, 64, 64), granularity="op")
    parts, machine = graph.parts(), Roofline(1e9, 1e9, 5.0, 1.0)
    times_s = part_times_s(parts, machine)
    names = [part.name for part in parts]
    for point in graph.points[:-1]:
        head = [k <= names.index(point.name) for k in range(len(parts))]
        assert crossing_bytes(parts, head) == point.raw_bytes
        stages = stages_of(parts, head, times_s, times_s, Sending(codec="identity", ratio=1.0))
        halves = graph.cut(point).halves()
        assert (stages.edge_s, stages.server_s) == pytest.approx(tuple(map(machine.time_s, halves)))


def test_operations_that_write_keep_their_order() -> None:
    graph = SplitGraph(Writes(), (4, 5), granularity="op")
    parts = graph.parts()
    x = torch.rand(2, 4, 5)
    whole = graph.cut("output").head(x)[0]
    writer = next(k for k, part in enumerate(parts) if "fill" in part.name or "copy" in part.name)
    sums = [k for k, part in enumerate(parts) if part.name.startswith("sum")]
    assert sums[0] in ancestors(parts, writer)
    assert writer in ancestors(parts, sums[1])
    cut = graph.cut_anywhere([parts[k].name for k in (*ancestors(parts, writer), writer)])
    assert torch.equal(cut.tail(*cut.head(x)), whole)


def ancestors(parts: tuple[Part, ...], place: int) -> set[int]:
    found: set[int] = set()
    todo = [place]
    while todo:
        new = parts[todo.pop()].needs - found
        found |= new
        todo += new
    return found


@pytest.mark.parametrize(
    ("head", "said"), [(["dear.0"], "has conv2d and lacks avg_pool2d"), (["nowhere"], "no operation 'nowhere'")]
)
def test_an_impossible_head_is_refused_in_a_line(head: list[str], said: str) -> None:
    graph = SplitGraph(Branches().eval(), (3, 64, 64), granularity="op")
    with pytest.raises(SplitPointError, match=said):
        graph.cut_anywhere(head)
