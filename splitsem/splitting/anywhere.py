"""Cuts anywhere in a graph: a network's operations as a partial order, and an order in which a given head is first.

A split point is a place in *one* order of computation. Where a network branches, other sets of operations can run on
the edge too: any set that holds, with each operation, all that this one needs. Such a set is a prefix of another order.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import fx

from splitsem.errors import SplitPointError
from splitsem.splitting.flow import Flow
from splitsem.splitting.half import OpCost


@dataclass(frozen=True)
class Part:
    """One operation of a network that computes on its data, or one of the network's input tensors.

    Attributes:
        name: as in ``SplitGraph.operations``; ``input`` for the last of the input's tensors.
        needs: places of the parts that must come before it.
        costs: what it computes, with the weights that are first made for it; none for inputs and views.
        raw_bytes: of what it makes, for one sample, float32 for floating point.
        readers: places of the parts that read what it makes; it is sent once for all of them.
        stays: whether what it makes cannot cross, so that all its readers are on its side.
        is_result: whether the network returns what it makes.
        weight_bytes: of the weights that no part before it needs.
    """

    name: str
    needs: frozenset[int]
    costs: tuple[OpCost, ...]
    raw_bytes: int
    readers: frozenset[int]
    stays: bool
    is_result: bool
    weight_bytes: int = 0


def needs_of(flow: Flow) -> list[frozenset[int]]:
    """For each data node the places of the data nodes that must come before it.

    Those that it reads, those whose sizes it reads, and what reads or writes the memory that it writes or reads.
    """
    found: list[set[int]] = []
    for k, node in enumerate(flow.data):
        seen: set[fx.Node] = set()
        todo, needs = list(node.all_input_nodes), set() if k <= flow.first else set(range(flow.first + 1))
        while todo:
            one = todo.pop()
            if one in flow.at:
                needs.add(flow.at[one])
            elif one not in seen:
                seen.add(one)
                todo += one.all_input_nodes
        found.append(needs)
    for places in flow.written_places():  # reads and writes of one memory keep their order
        for before, after in pairwise(places):
            found[after].add(before)
    return [frozenset(needs) for needs in found]


def reordered(flow: Flow, head: Collection[int]) -> tuple[Flow, dict[fx.Node, fx.Node]]:
    """The same network in an order in which these places of ``flow.data`` come first, and each node's copy there.

    Raises:
        SplitPointError: one of them needs another operation that is not among them.
    """
    wanted, needs = {*range(flow.first + 1), *head}, needs_of(flow)
    for k in sorted(wanted):
        lacking = needs[k] - wanted
        if lacking:
            raise SplitPointError(
                f"the head has {flow.data[k].name} and lacks {flow.data[min(lacking)].name}, which that needs"
            )
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}

    def make(node: fx.Node) -> None:
        if node not in made:
            for needed in node.all_input_nodes:
                make(needed)
            made[node] = graph.node_copy(node, made.__getitem__)

    nodes = list(flow.module.graph.nodes)
    first = [node for node in nodes if node.op in ("placeholder", "get_attr")]
    for node in [*first, *(flow.data[k] for k in sorted(wanted)), *nodes]:
        if node.op != "output":
            make(node)
    graph.node_copy(flow.module.graph.output_node(), made.__getitem__)
    if flow.captured.takes is not None:
        graph.set_codegen(flow.module.graph._codegen)
    return Flow(replace(flow.captured, module=fx.GraphModule(flow.module, graph)), flow.training), made
