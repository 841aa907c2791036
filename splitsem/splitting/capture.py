"""capture: a model as a clean graph of operations, without guards, for any batch size where the model allows it."""

import logging
import warnings
from dataclasses import is_dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import _PyTreeInfo
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import flop_registry

from splitsem.errors import ConfigError
from splitsem.splitting.captured import Captured, op_name, storage_roots, written
from splitsem.splitting.example import Example
from splitsem.splitting.nested import contexts_as_marks, lay_open
from splitsem.splitting.refusal import refusal, refused_run, why_free_fails, without_dumps
from splitsem.splitting.symbolic import batches_to_try, describe
from splitsem.splitting.untouched import untouched
from splitsem.splitting.work import op_cost
from splitsem.trees import leaves

log = logging.getLogger(__name__)


def make_functional(graph: fx.Graph) -> None:
    """Turn ``relu_`` into ``relu`` and so on, wherever nothing but the direct result is read afterwards.

    Without this the tail would write into the tensors it was given, and a tensor that arrived as bytes would no longer
    share memory with the one it is a view of. Writes through a view (``x[:, 0] = 0``) stay as they are; no cut is
    offered that would separate the view from its base before such a write.

    Where nothing else reads what is written to, ``node.meta["in_place"]`` keeps the operation for the halves: it needs
    less memory, and keeps strides of dimensions of size 1, which choose kernels, where its twin does not.
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
        in_place, node.target = node.target, twin
        if "context" in node.meta:  # autocast leaves operations in place alone, but not always their twins
            node.meta["context"] = replace(node.meta["context"], autocast=())
        source.replace_all_uses_with(node, delete_user_cb=lambda user, now=now: order[user] > now)
        if list(source.users) == [node] and op_name(source) in _OVERWRITABLE and not _reads_weights(node):
            node.meta["in_place"] = in_place
        sharing[node] = [other for other in family if order[other] >= now]
        group.update(dict.fromkeys(sharing[node], node))


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


def _reads_weights(node: fx.Node) -> bool:
    return any(n.op == "get_attr" for n in node.all_input_nodes)


def _keeps_dtype(node: fx.Node, source: fx.Node) -> bool:
    """Whether the functional twin would give the dtype and shape of the tensor that is written to."""
    value = source.meta["val"]
    others = [n.meta.get("val") for n in node.all_input_nodes]
    return all(
        torch.result_type(value, o) == value.dtype and o.dim() <= value.dim() for o in others if isinstance(o, Tensor)
    )


_TORCHS_OWN = {"aten", "prim", "prims", "torchvision"}
_EXAMPLE_BATCH = 2  # export treats the sizes 0 and 1 as special cases
_CHECKS = {"_assert_scalar", "_assert_async", "_assert_tensor_metadata", "sym_constrain_range",
           "sym_constrain_range_for_size"}  # fmt: skip
# their results are new memory, and no gradient needs them: whatever follows may write there
_OVERWRITABLE = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear",
                 "batch_norm", "instance_norm", "group_norm", "layer_norm", "add", "cat"}  # fmt: skip
_DROPOUTS = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}


def capture(model: nn.Module, example: Example, training: bool = False, why_fixed: str = "") -> Captured:
    """Export ``model`` and tidy its graph up. The model is left in eval mode, and otherwise as it was.

    Args:
        model: takes and returns any structures of tensors.
        example: its inputs.
        training: capture what the model computes in train mode: batch statistics (running ones are updated), dropout.
        why_fixed: why the batch size shall be that of the example; empty: it is free where export lets it.

    Raises:
        ConfigError: the model cannot run on the example, cannot be exported, or returns or computes nothing.
    """
    name = type(model).__name__
    model.eval()
    with untouched(model):
        sample = _run(model, example)
        if not leaves(sample):
            raise ConfigError(f"{name} cannot be split: it returns {type(sample).__name__} without any tensor")
        model.train(training)
        try:
            module, why_fixed = _export(model, example, why_fixed)
        finally:
            model.eval()
    info = module.graph._codegen.pytree_info  # type: ignore[attr-defined]
    lay_open(module, name)
    graph = module.graph
    end = graph.output_node()
    end.args = (tuple(pytree.tree_leaves(end.args[0])),)
    _drop_checks(graph)
    _drop_idle(graph)
    make_functional(graph)
    graph.set_codegen(fx.graph.CodeGen())
    graph.eliminate_dead_code()
    if not any(node.op == "call_function" for node in graph.nodes):
        raise ConfigError(f"{name} cannot be split: it computes nothing")
    if unknown := sorted({str(node.target) for node in graph.nodes if _is_unknown_work(node)}):
        log.warning(
            "%s: the work of %s is not known and counts as one operation an element; tell it by "
            "torch.utils.flop_counter.register_flop_formula", name, ", ".join(unknown)
        )  # fmt: skip
    to_try = batches_to_try(graph)
    _settle(graph)
    takes = None if example.is_one_tensor else _PyTreeInfo(info.orig_args, info.in_spec, None)
    returns = None if isinstance(sample, Tensor) else info.out_spec
    return Captured(module, takes, returns, why_fixed, sample, to_try)


def _settle(graph: fx.Graph) -> None:
    """Put what is known of the values and the operations into the nodes, in place of what torch keeps of the trace."""
    describe(graph)
    for node in graph.nodes:
        if node.op == "call_function":
            node.meta["cost"] = op_cost(node)
    for node in graph.nodes:
        node.meta.pop("val", None)


def _run(model: nn.Module, example: Example) -> Any:
    """The model's output for one sample; for the example as it is where one sample is too few.

    What the model keeps for inputs of these sizes, it keeps now, whatever it ran before: its graph is always the same.
    """
    first, why = example.with_batch(1), None
    for inputs in (first, example) if example.batch > 1 else (first,):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings(), contexts_as_marks():
                warnings.simplefilter("ignore")  # which the user's own calls tell
                sample = model(*inputs.args, **inputs.named)
            _register(sample)
            return sample
        except ConfigError:
            raise
        except Exception as exc:  # noqa: BLE001 (a model may raise anything)
            why = why or exc
    assert why is not None
    raise ConfigError(refused_run(why, model, first.sizes)) from why


def _register(tree: object) -> None:
    """Tell torch the dataclasses and namespaces that a model returns, so that an export can take them apart."""
    if is_dataclass(tree) and not isinstance(tree, type) and type(tree) not in pytree.SUPPORTED_NODES:
        torch.export.register_dataclass(type(tree))
    elif isinstance(tree, SimpleNamespace) and SimpleNamespace not in pytree.SUPPORTED_NODES:
        pytree.register_pytree_node(
            SimpleNamespace,
            lambda space: (list(vars(space).values()), list(vars(space))),
            lambda values, names: SimpleNamespace(**dict(zip(names, values, strict=True))),
            serialized_type_name="types.SimpleNamespace",
        )
    for part in pytree.tree_leaves(tree, is_leaf=lambda node: node is not tree):
        if part is not tree:
            _register(part)


def _export(model: nn.Module, example: Example, why_fixed: str) -> tuple[fx.GraphModule, str]:
    """The exported graph, and why its batch size is that of the example; empty where it is free."""
    why, free_fails = why_fixed, None
    if not why_fixed:
        several = example.with_batch(_EXAMPLE_BATCH)
        try:
            return _exported(model, several, several.free_batch(model.forward)), ""
        except Exception as exc:  # noqa: BLE001 (a model may raise anything, and export whatever its parts raise)
            why, free_fails = why_free_fails(exc), exc
    try:
        fixed = _exported(model, example, None)
    except Exception as exc:  # noqa: BLE001 (what is wrong with any batch size is told)
        first = free_fails or exc
        raise ConfigError(refusal(first, model, example.sizes)) from first
    return fixed, why


def _exported(model: nn.Module, example: Example, free: Any) -> fx.GraphModule:
    contiguous = patch.object(Tensor, "contiguous", _contiguous)
    with warnings.catch_warnings(), torch.enable_grad(), contexts_as_marks(), without_dumps(), contiguous:
        # nn.LSTM and nn.GRU re-assign their own weights while they are traced, and leave them as they were
        warnings.filterwarnings("ignore", message="The tensor attributes? .*assigned during export")
        program = torch.export.export(model, example.args, dict(example.named), strict=False, dynamic_shapes=free)
        module = program.module()
    assert isinstance(module, fx.GraphModule)
    return module


def _is_unknown_work(node: fx.Node) -> bool:
    """Whether the operation is a user's own, and its author gave no formula for its work."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace in _TORCHS_OWN:
        return False
    return node.target.overloadpacket not in flop_registry


def _contiguous(tensor: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """``Tensor.contiguous`` that leaves an operation in the graph where it does nothing, as it may for other inputs."""
    return torch.ops.aten.contiguous.default(tensor, memory_format=memory_format)


def _drop_checks(graph: fx.Graph) -> None:
    """Remove the guards: they look at the whole input, which the tail never sees."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_module" or (node.op == "call_function" and op_name(node) in _CHECKS):
            graph.erase_node(node)


def _drop_idle(graph: fx.Graph) -> None:
    """Remove what changes nothing (dropout in eval mode, ``x[:]``), so that no point equals the one before it."""
    for node in list(graph.nodes):
        if node.op == "call_function" and _is_idle(node):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def _is_idle(node: fx.Node) -> bool:
    name = op_name(node)
    if name == "slice":
        return node.meta["val"].shape == node.all_input_nodes[0].meta["val"].shape and node.args[4:] in ((), (1,))
    return name in _DROPOUTS and node.args[-1] is False
