"""The best cut of a network that is no chain: any set of operations that can run first, by mixed-integer programming.

DADS (Hu et al., INFOCOM 2019) finds the cut of least latency as a minimum s–t cut, with an extra vertex for each tensor
that several operations read, so that it is sent once. The same graph as a linear programme has an integral optimum; the
slowest stage, budgets and the cost of sending anything at all make it mixed-integer, and HiGHS solves it exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import ArrayLike

from splitsem import extras
from splitsem.cost.machines import ByOperation
from splitsem.errors import ConfigError
from splitsem.search.objective import Objective, Stages
from splitsem.search.problem import Floats
from splitsem.splitting.anywhere import Part


@dataclass(frozen=True, kw_only=True)
class Sending:
    """What a codec and a link take, as a share of the raw bytes that cross; an estimate but for measured cuts.

    Attributes:
        codec: its name.
        ratio: bytes on the wire for each raw byte.
        encode_s_per_byte: seconds of the edge for each raw byte.
        decode_s_per_byte: seconds of the server for each raw byte.
        busy_s_per_byte: seconds of the link for each byte on the wire.
        fixed_busy_s: seconds of the link for any payload.
        delay_s: seconds of a payload on its way beyond those.
        answer_s: the answer's way back where the server makes it.
    """

    codec: str
    ratio: float
    encode_s_per_byte: float = 0.0
    decode_s_per_byte: float = 0.0
    busy_s_per_byte: float = 0.0
    fixed_busy_s: float = 0.0
    delay_s: float = 0.0
    answer_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AnyCut:
    """A cut anywhere in a graph.

    Attributes:
        head: names of the operations on the edge.
        is_prefix: whether they are first in the network's own order, so that a split point cuts there too.
        sending: with which codec.
        stages: what one sample takes.
        raw_bytes: that cross.
        value: of the objective.
    """

    head: frozenset[str]
    is_prefix: bool
    sending: Sending
    stages: Stages
    raw_bytes: float
    value: float


def part_times_s(parts: Sequence[Part], machine: ByOperation) -> Floats:
    """Seconds of each part on a machine that models operations one by one."""
    return np.array([sum(machine.op_s(cost) for cost in part.costs) for part in parts])


def stages_of(parts: Sequence[Part], in_head: ArrayLike, edge_s: Floats, server_s: Floats, by: Sending) -> Stages:
    """What one sample takes with these parts on the edge; all on the edge sends nothing."""
    head = np.asarray(in_head, dtype=bool)
    if head.all():
        return Stages(edge_s=float(edge_s.sum()), link_busy_s=0.0, link_delay_s=0.0, server_s=0.0)
    raw = crossing_bytes(parts, head)
    return Stages(
        edge_s=float(edge_s[head].sum()) + by.encode_s_per_byte * raw,
        link_busy_s=by.fixed_busy_s + by.busy_s_per_byte * by.ratio * raw,
        link_delay_s=by.delay_s,
        server_s=float(server_s[~head].sum()) + by.decode_s_per_byte * raw,
        answer_s=by.answer_s,
    )


def crossing_bytes(parts: Sequence[Part], in_head: ArrayLike) -> float:
    """Raw bytes of the tensors that the head makes and the tail or the caller reads, each once."""
    head = np.asarray(in_head, dtype=bool)
    return float(
        sum(
            part.raw_bytes
            for k, part in enumerate(parts)
            if head[k] and (part.is_result or any(not head[reader] for reader in part.readers))
        )
    )


def best_anywhere(
    parts: Sequence[Part],
    edge_s: Floats,
    server_s: Floats,
    sendings: Sequence[Sending],
    objective: Objective,
    latency_s: float = inf,
    limit_s: float = 60.0,
) -> AnyCut:
    """The cut and codec of least value over all sets of operations that can run first.

    Args:
        parts: of ``SplitGraph.parts``; its inputs are always on the edge.
        edge_s: seconds of each part on the edge, ``(n,)``.
        server_s: seconds of each part on the server, ``(n,)``.
        sendings: the codecs over the link.
        objective: what is minimised.
        latency_s: what one sample may take at most.
        limit_s: seconds of the solver for each codec.

    Raises:
        ConfigError: scipy is missing, no cut keeps ``latency_s``, or the solver does not end in time.
    """
    found = [_solved(parts, edge_s, server_s, by, objective, latency_s, limit_s) for by in sendings]
    best = min((one for one in found if one is not None), key=lambda one: one.value, default=None)
    if best is None:
        raise ConfigError(f"no cut with any of the codecs keeps a latency of {latency_s:g} s: allow more")
    return best


def _solved(
    parts: Sequence[Part],
    edge_s: Floats,
    server_s: Floats,
    by: Sending,
    objective: Objective,
    latency_s: float,
    limit_s: float,
) -> AnyCut | None:
    with extras.needed("plots", "a cut anywhere in a graph"):
        from scipy.optimize import Bounds, LinearConstraint, milp

    n = len(parts)
    inputs = [k for k, part in enumerate(parts) if not part.needs]
    x, y, stays_home, pace = slice(0, n), slice(n, 2 * n), 2 * n, 2 * n + 1  # in head, crosses, all on the edge, cycle
    size = 2 * n + 2
    raw = np.array([part.raw_bytes for part in parts], dtype=float)
    edge_row, server_row, link_row = (np.zeros(size) for _ in range(3))
    edge_row[x], edge_row[y] = edge_s, by.encode_s_per_byte * raw
    server_row[x], server_row[y] = -server_s, by.decode_s_per_byte * raw
    server_all = float(server_s.sum())
    link_row[y], link_row[stays_home] = by.busy_s_per_byte * by.ratio * raw, -by.fixed_busy_s
    latency_row = edge_row + server_row + link_row
    latency_row[stays_home] -= by.delay_s + by.answer_s
    latency_all = server_all + by.fixed_busy_s + by.delay_s + by.answer_s
    goal = objective.latency * latency_row + objective.edge * edge_row
    goal[y] += objective.byte * by.ratio * raw
    goal[pace] = objective.cycle
    rows: list[tuple[dict[int, float], float]] = []  # coefficients · variables ≥ bound
    for k, part in enumerate(parts):
        rows += [({before: 1.0, k: -1.0}, 0.0) for before in part.needs]
        rows.append(({k: 1.0, stays_home: -1.0}, 0.0))
        if part.stays:
            rows += [({reader: 1.0, k: -1.0}, 0.0) for reader in part.readers]
            continue
        rows += [({n + k: 1.0, k: -1.0, reader: 1.0}, 0.0) for reader in part.readers]
        if part.is_result:
            rows.append(({n + k: 1.0, k: -1.0, stays_home: 1.0}, 0.0))
    matrix, least = _sparse(rows, size)
    dense = [np.eye(1, size, pace)[0] - row for row in (edge_row, server_row, link_row)]
    constraints = [LinearConstraint(matrix, least, inf)]
    if objective.cycle:
        constraints.append(LinearConstraint(np.array(dense), [0.0, server_all, by.fixed_busy_s], inf))
    if latency_s < inf:
        constraints.append(LinearConstraint(latency_row[None, :], -inf, latency_s - latency_all))
    low, high = np.zeros(size), np.ones(size)
    low[inputs], high[pace] = 1.0, inf
    whole = np.zeros(size)
    whole[x] = whole[stays_home] = 1
    found = milp(
        goal,
        constraints=constraints,
        bounds=Bounds(low, high),
        integrality=whole,
        options={"time_limit": limit_s, "mip_rel_gap": 1e-9},
    )
    if found.status == 2:
        return None
    if found.status != 0:
        raise ConfigError(f"the cut of {n} operations with {by.codec} was not solved in {limit_s:g} s: {found.message}")
    head = np.round(found.x[x]).astype(bool)
    if not head.all() and found.x[stays_home] > 0.5:
        head[:] = True
    stages = stages_of(parts, head, edge_s, server_s, by)
    crossing = 0.0 if head.all() else crossing_bytes(parts, head)
    return AnyCut(
        head=frozenset(part.name for part, inside in zip(parts, head, strict=True) if inside),
        is_prefix=bool((np.diff(head.astype(int)) <= 0).all()),
        sending=by,
        stages=stages,
        raw_bytes=crossing,
        value=float(objective(stages, by.ratio * crossing)),
    )


def _sparse(rows: Sequence[tuple[dict[int, float], float]], size: int):  # type: ignore[no-untyped-def]
    from scipy.sparse import csr_array

    entries = [(i, j, value) for i, (row, _) in enumerate(rows) for j, value in row.items()]
    at, columns, values = (np.array(each) for each in zip(*entries, strict=True))
    return csr_array((values, (at, columns)), shape=(len(rows), size)), np.array([bound for _, bound in rows])
