"""make_functional: replace in-place operations, which could reach across a cut, by ones that make a new tensor."""

import torch
from torch import Tensor, fx


def storage_roots(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """For every node the first node whose memory it may share (itself when it makes new memory)."""
    roots: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        source = _aliased(node)
        roots[node] = roots[source] if source is not None else node
    return roots


def written(node: fx.Node) -> list[fx.Node]:
    """The tensors that an operation writes to in place; most operations write to none."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    values = [
        node.args[i] if i < len(node.args) else node.kwargs.get(arg.name) for i, arg in enumerate(schema.arguments)
    ]
    return [
        value
        for arg, value in zip(schema.arguments, values, strict=True)
        if arg.alias_info is not None and arg.alias_info.is_write and isinstance(value, fx.Node)
    ]


def make_functional(graph: fx.Graph) -> None:
    """Turn ``relu_`` into ``relu`` and so on, wherever nothing but the direct result is read afterwards.

    Without this the tail would write into the tensors it was given, and a tensor that arrived as bytes would no longer
    share memory with the one it is a view of. Writes through a view (``x[:, 0] = 0``) stay as they are; no cut is
    offered that would separate the view from its base before such a write.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    sharing: dict[fx.Node, list[fx.Node]] = {}
    group: dict[fx.Node, fx.Node] = storage_roots(graph)
    for node, root in group.items():
        sharing.setdefault(root, []).append(node)
    for node in list(graph.nodes):
        targets, twin = written(node), _functional(node)
        if len(targets) != 1 or twin is None or targets[0] is not node.args[0]:
            continue
        source = targets[0]
        if source.op == "get_attr" or not _keeps_dtype(node, source):
            continue
        now = order[node]
        family = sharing[group[source]]
        older = [other for other in family if order[other] < now and other is not source]
        if any(order[user] > now for other in older for user in other.users):
            continue
        node.target = twin
        source.replace_all_uses_with(node, delete_user_cb=lambda user, now=now: order[user] > now)
        sharing[node] = [other for other in family if order[other] >= now]
        group.update(dict.fromkeys(sharing[node], node))


def _aliased(node: fx.Node) -> fx.Node | None:
    """The argument whose memory the node's result may share."""
    if node.op != "call_function":
        return None
    schema = getattr(node.target, "_schema", None)
    first = node.args[0] if node.args else None
    if isinstance(first, list | tuple):
        first = first[0] if first else None
    if not isinstance(first, fx.Node):
        return None
    shares = schema is None or any(out.alias_info is not None for out in schema.returns)
    return first if shares else None


def _functional(node: fx.Node) -> torch._ops.OpOverload | None:
    """``aten.relu.default`` for ``aten.relu_.default``; None when there is no such twin."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return None
    name = target._schema.name.rpartition("::")[2]
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(getattr(torch.ops, target.namespace), name[:-1], None)
    return getattr(packet, target._overloadname, None)


def _keeps_dtype(node: fx.Node, source: fx.Node) -> bool:
    """Whether the functional twin would give the dtype and shape of the tensor that is written to."""
    value = source.meta["val"]
    others = [n.meta.get("val") for n in node.all_input_nodes]
    return all(
        torch.result_type(value, o) == value.dtype and o.dim() <= value.dim() for o in others if isinstance(o, Tensor)
    )
