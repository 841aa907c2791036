"""node_names: friendly, unique names for the nodes of a graph, safe on a command line without quotes."""

import re
from collections import Counter
from collections.abc import Sequence

from torch import fx

from splitsem.split.capture import op_name

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
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        if _RESERVED.fullmatch(name):
            name = f"model.{name}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}@{seen[name]}")
    return names


def _inside(node: fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = stack[-1][0] if stack else ""
    operation = op_name(node).strip("_")
    return f"{path}.{operation}" if path else operation
