"""kept_graph: a captured graph as a file, so that a later process needs no export and no trial runs.

A safetensors file: its metadata holds the graph as JSON, its tensors what the graph reads beside the model's weights.
It is read without running code from it: names must be names, and operations are looked up among torch's and
``operator``'s. What was read is compared with the model, bit for bit, on one sample; costs, which
that does not show, have a checksum.
"""

import hashlib
import json
import logging
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import astuple
from functools import reduce
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, fx, nn
from torch.fx.graph import _PyTreeInfo
from torch.utils import _pytree as pytree

from splitsem.errors import ConfigError
from splitsem.files import write_whole
from splitsem.network import reason
from splitsem.splitting.captured import Captured, Size, Traced
from splitsem.splitting.contexts import PLAIN, Context, attribute
from splitsem.splitting.example import Example
from splitsem.splitting.flow import Flow, Proven
from splitsem.splitting.half import OpCost, OpShape
from splitsem.splitting.layout import Trial
from splitsem.splitting.untouched import untouched
from splitsem.trees import by_path

log = logging.getLogger(__name__)

_FORM = 3
_SEED = 20_477  # of what a network draws in both runs
_KINDS = torch.dtype, torch.layout, torch.memory_format
_TORCHS: dict[str, Any] = {str(value): value for value in vars(torch).values() if isinstance(value, _KINDS)}
_OPERATORS = {"getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "eq", "ne", "lt", "le", "gt",
              "ge"}  # fmt: skip


class _UnkeptError(Exception):
    """The graph holds something that has no form as JSON."""


def write(proven: Proven, model: nn.Module, path: Path) -> None:
    """Write the graph, whole or not at all; a graph with branches, loops or objects of its own is not written.

    Args:
        proven: the graph.
        model: the model that it was captured of, whose weights are named, not written.
        path: of the file.

    Raises:
        OSError: it cannot be written.
    """
    names = {id(tensor): name for name, tensor in _tensors(model)}
    own: dict[str, Tensor] = {}
    captured = proven.flow.captured
    try:
        facts = {
            "form": _FORM,
            "torch": torch.__version__,
            "nodes": [_node(node, captured.module, names, own) for node in captured.module.graph.nodes],
            "takes": captured.takes and [captured.takes.orig_args, _spec(captured.takes.in_spec)],
            "returns": captured.returns and _spec(captured.returns),
            "why_fixed": captured.why_fixed,
        }
        text = json.dumps(facts)
    except (_UnkeptError, TypeError) as exc:
        log.debug("%s: its graph is not kept: %s", type(model).__name__, exc)
        return
    tensors = {name: tensor.detach().cpu() for name, tensor in own.items()}
    if not all(tensor.is_contiguous() for tensor in tensors.values()):
        return  # a file has no strides, and kernels go by them
    write_whole(safetensors.torch.save(tensors, {"graph": text, "sha256": _checksum(text)}), path)


def read(path: Path, model: nn.Module, example: Example) -> Proven:
    """The graph of ``model`` that ``write`` left, over the weights of this model.

    Raises:
        ConfigError: the file is damaged, of another version of torch, or of a model that computes something else.
        FileNotFoundError: there is none.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata["sha256"] != _checksum(metadata["graph"]):
                raise ConfigError(f"{path} was damaged or changed since it was written (checksum)")
            facts = json.loads(metadata["graph"])
            if (facts["form"], facts["torch"]) != (_FORM, torch.__version__):
                raise ConfigError(f"{path} is of another version")
            device = next((tensor.device for _, tensor in _tensors(model)), torch.device("cpu"))
            held = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return _proven(facts, model, held, example)
    except FileNotFoundError:
        raise
    except (
        safetensors.SafetensorError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as exc:
        raise ConfigError(f"{path} holds no graph of this {type(model).__name__}: {reason(exc)}") from exc


def _checksum(text: str) -> str:
    """Of all facts: a changed output is seen when the graph runs, a changed cost is not."""
    return hashlib.sha256(text.encode()).hexdigest()


def _proven(facts: Mapping[str, Any], model: nn.Module, held: Mapping[str, Tensor], example: Example) -> Proven:
    graph, made, root, weights = fx.Graph(), dict[str, fx.Node](), dict[str, Tensor](), dict(_tensors(model))
    for kept in facts["nodes"]:
        args, kwargs = (_decoded(kept[part], made) for part in ("args", "kwargs"))
        target: Any = kept["target"]
        _check_names(kept["name"], *kwargs)
        if kept["op"] == "call_function":
            target = _operation(target)
        elif kept["op"] in ("placeholder", "output", "get_attr"):
            _check_names(*target.split("."))
        else:
            raise ValueError(f"unknown kind of node {kept['op']}")
        if kept["op"] == "get_attr":
            root[target] = held[target] if kept["weight"] is None else weights[kept["weight"]]
        node = graph.create_node(kept["op"], target, tuple(args), kwargs, kept["name"])
        made[node.name] = node
        node.meta |= _decoded_meta(kept["meta"])
    _check_names(*(facts["takes"][0] if facts["takes"] else ()))
    takes = facts["takes"] and _PyTreeInfo(facts["takes"][0], pytree.treespec_loads(facts["takes"][1]), None)
    returns = facts["returns"] and pytree.treespec_loads(facts["returns"])
    module = fx.GraphModule(root, graph)
    one = example if facts["why_fixed"] else example.with_batch(1)
    own, trial = one.copied(), Trial(module)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), untouched(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which the user's own calls tell
        torch.random.default_generator.manual_seed(_SEED)  # others are not put back
        results = trial.run(*pytree.tree_leaves(one.copied().in_order(takes)))
        torch.random.default_generator.manual_seed(_SEED)  # others are not put back
        sample = model(*own.args, **own.named)
    found = results[0] if returns is None else pytree.tree_unflatten(list(results), returns)
    if not _are_equal(by_path(found), by_path(sample)):
        raise ValueError("it gives another output than the network does")
    return Proven(Flow(Captured(module, takes, returns, facts["why_fixed"], sample)), one, trial.found)


def _check_names(*names: str) -> None:
    """Raise ValueError for what is no name: fx writes names into the Python source of a module."""
    for name in names:
        if not name.isidentifier() and not name.isdigit():  # modules of nn.Sequential are numbers
            raise ValueError(f"{name!r} is no name")


def _are_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether tensors of the same places are the same, bit for bit; NaN is NaN."""
    if ours.keys() != theirs.keys():
        return False
    pairs = [(tensor, theirs[path]) for path, tensor in ours.items()]
    return all(
        a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in pairs
    )


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _node(node: fx.Node, module: nn.Module, names: Mapping[int, str], own: dict[str, Tensor]) -> dict[str, Any]:
    kept: dict[str, Any] = {"op": node.op, "name": node.name, "target": node.target, "meta": _meta(node)}
    if node.op == "call_function":
        kept["target"] = _named(node.target)
    elif node.op == "get_attr":
        value = attribute(module, str(node.target))
        if not isinstance(value, Tensor):
            raise _UnkeptError(f"{node.target} is a {type(value).__name__}")
        kept["weight"] = names.get(id(value))
        if kept["weight"] is None:
            own[str(node.target)] = value
    kept["args"], kept["kwargs"] = _encoded(list(node.args)), _encoded(dict(node.kwargs))
    return kept


def _spec(spec: pytree.TreeSpec) -> str:
    try:
        text = pytree.treespec_dumps(spec)
    except (NotImplementedError, TypeError, ValueError) as exc:
        raise _UnkeptError(f"a structure of its own: {exc}") from exc
    if "types.SimpleNamespace" in text:  # which a capture alone makes known to torch
        raise _UnkeptError("it returns a SimpleNamespace")
    return text


def _named(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return f"{target._schema.name}.{target._overloadname}"
    name = str(getattr(target, "__name__", ""))
    if name in _OPERATORS and getattr(operator, name) is target:
        return name
    raise _UnkeptError(f"it calls {target}")


def _operation(name: str) -> Callable[..., Any]:
    namespace, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    if not rest and name not in _OPERATORS:
        raise ValueError(f"unknown operation {name}")
    found: Any = reduce(getattr, (namespace, packet, overload), torch.ops) if rest else getattr(operator, name)
    if rest and not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"unknown operation {name}")
    return found


def _encoded(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list):
        return [_encoded(part) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [_encoded(part) for part in value]}
    if isinstance(value, dict):
        return {"dict": {str(key): _encoded(part) for key, part in value.items()}}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if str(value) in _TORCHS:
        return {"torch": str(value)}
    raise _UnkeptError(f"an argument is a {type(value).__name__}")


def _decoded(value: Any, made: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_decoded(part, made) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "node":
        return made[held]
    if kind == "tuple":
        return tuple(_decoded(part, made) for part in held)
    if kind == "dict":
        return {key: _decoded(part, made) for key, part in held.items()}
    return torch.device(held) if kind == "device" else _TORCHS[held]


def _meta(node: fx.Node) -> dict[str, Any]:
    kept: dict[str, Any] = {"traced": _encoded_value(node.meta.get("traced"))}
    if cost := node.meta.get("cost"):
        kept["cost"] = astuple(cost)
    if (context := node.meta.get("context", PLAIN)) != PLAIN:
        kept["context"] = [context.no_grad, [[kind, dtype and str(dtype), on] for kind, dtype, on in context.autocast]]
    if "in_place" in node.meta:
        kept["in_place"] = _named(node.meta["in_place"])
    if stack := node.meta.get("nn_module_stack"):
        kept["stack"] = {call: path for call, (path, _) in stack.items()}
    return kept


def _decoded_meta(kept: Mapping[str, Any]) -> dict[str, Any]:
    meta: dict[str, Any] = {"traced": _decoded_value(kept["traced"])}
    if "cost" in kept:
        name, flops, moved, steps, kernel_bytes, kind, shape = kept["cost"]
        meta["cost"] = OpCost(name, flops, moved, steps, kernel_bytes, kind, OpShape(*shape))
    if "context" in kept:
        no_grad, states = kept["context"]
        meta["context"] = Context(no_grad, tuple((kind, dtype and _TORCHS[dtype], on) for kind, dtype, on in states))
    if "in_place" in kept:
        meta["in_place"] = _operation(kept["in_place"])
    if "stack" in kept:
        meta["nn_module_stack"] = {call: (path, None) for call, path in kept["stack"].items()}
    return meta


def _encoded_value(value: Any) -> Any:
    if isinstance(value, Traced):
        return {"tensor": [value.sizes, value.strides, str(value.dtype), str(value.layout), value.is_contiguous]}
    if isinstance(value, Size):
        return {"size": value}
    return [_encoded_value(part) for part in value] if isinstance(value, list) else value


def _decoded_value(kept: Any) -> Any:
    if isinstance(kept, list):
        return [_decoded_value(part) for part in kept]
    if not isinstance(kept, dict):
        return kept
    if "size" in kept:
        return _size(kept["size"])
    sizes, strides, dtype, layout, is_contiguous = kept["tensor"]
    kinds = _TORCHS[dtype], _TORCHS[layout]
    return Traced(tuple(map(_size, sizes)), tuple(map(_size, strides)), *kinds, is_contiguous)


def _size(kept: Any) -> Size:
    line, of_one, of_two = kept
    return Size(line and (line[0], line[1]), of_one, of_two)
