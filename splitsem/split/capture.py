"""capture: a model as a clean graph of operations, with one input, one output tensor, any batch size and no guards."""

import logging
import warnings
from dataclasses import replace

import sympy
import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import flop_registry

from splitsem.errors import ConfigError
from splitsem.network import check_input, main_tensor
from splitsem.split.nested import contexts_as_marks, lay_open
from splitsem.split.refusal import refusal, without_dumps

log = logging.getLogger(__name__)

Affine = tuple[int, int]


class Batch:
    """The batch size of an exported graph, and every other size as a function of it.

    Args:
        symbol: the sympy symbol that stands for the batch size in the graph's shapes.
    """

    def __init__(self, symbol: sympy.Symbol) -> None:
        self.symbol = symbol
        self._affine: dict[sympy.Expr, Affine | None] = {}

    def affine(self, size: int | torch.SymInt) -> Affine | None:
        """``(a, b)`` such that ``size = a·batch + b``; None when the size is not of that form (or depends on data)."""
        if not isinstance(size, torch.SymInt):
            return 0, int(size)
        expr = size.node.expr
        if expr not in self._affine:
            self._affine[expr] = self._solve(expr)
        return self._affine[expr]

    def _solve(self, expr: sympy.Expr) -> Affine | None:
        if expr.is_Integer:
            return 0, int(expr)
        if expr == self.symbol:
            return 1, 0
        if expr.free_symbols != {self.symbol} or not expr.is_polynomial(self.symbol):
            return None
        poly = sympy.Poly(expr, self.symbol)
        if poly.degree() > 1 or not all(c.is_Integer for c in poly.all_coeffs()):
            return None
        a, b = poly.all_coeffs()
        return int(a), int(b)

    def size(self, size: int | torch.SymInt, batch: int = 1) -> int | None:
        """The number that ``size`` is at this batch size; None when it depends on the data."""
        line = self.affine(size)
        if line is not None:
            return line[0] * batch + line[1]
        value = size.node.expr.subs(self.symbol, batch)  # type: ignore[union-attr]
        return int(value) if value.is_Integer else None

    def shape(self, value: Tensor, batch: int = 1) -> tuple[int, ...] | None:
        """The shape of a traced tensor at this batch size; None when it depends on the data."""
        sizes = [self.size(size, batch) for size in value.shape]
        return None if None in sizes else tuple(sizes)  # type: ignore[arg-type]

    def varies(self, value: object) -> bool:
        """Whether a traced value (an integer or a tensor's shape) changes with the batch size."""
        sizes = value.shape if isinstance(value, Tensor) else (value,)
        return any(isinstance(s, torch.SymInt) and self.affine(s) != (0, self.size(s)) for s in sizes)


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
        if "context" in node.meta:  # autocast leaves operations in place alone, but not always their twins
            node.meta["context"] = replace(node.meta["context"], autocast=())
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


_TORCHS_OWN = {"aten", "prim", "prims", "torchvision"}
_EXAMPLE_BATCH = 2  # export treats the sizes 0 and 1 as special cases
_CHECKS = {"_assert_scalar", "_assert_async", "_assert_tensor_metadata", "sym_constrain_range",
           "sym_constrain_range_for_size"}  # fmt: skip
_DROPOUTS = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}


def op_name(node: fx.Node) -> str:
    """The operation without namespace and overload: ``conv2d`` for ``aten.conv2d.default``."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return str(schema.name).rpartition("::")[2]
    return str(getattr(node.target, "__name__", node.target))


def home_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The placement and floating-point type of the model's weights; CPU and float32 for a model without weights."""
    weights = [*model.parameters(), *model.buffers()]
    device = weights[0].device if weights else torch.device("cpu")
    dtype = next((w.dtype for w in weights if w.is_floating_point()), torch.float32)
    return device, dtype


def capture(model: nn.Module, input_shape: tuple[int, ...], training: bool = False) -> fx.GraphModule:
    """Export ``model`` and tidy its graph up; the weights are the model's own tensors. The model is left in eval mode.

    A model with ``nn.MultiheadAttention`` switches torch's fused attention path off for the process
    (``torch.backends.mha``), so that the whole model and its halves stay equal bit for bit.

    Args:
        model: takes one floating-point tensor ``(batch, *input_shape)``; returns one tensor, or a structure with one
            main tensor (see ``network.main_tensor``).
        input_shape: shape of one sample, without the batch.
        training: capture what the model computes in train mode: batch statistics (running ones are updated), dropout.

    Raises:
        ConfigError: the model cannot be exported, fixes its batch size, or returns several tensors.
    """
    name = type(model).__name__
    check_input(model, name)
    model.train(training)
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        # its fused kernel runs only in the whole model and without gradients, and rounds differently from the graph
        torch.backends.mha.set_fastpath_enabled(False)
    device, dtype = home_of(model)
    example = torch.rand(_EXAMPLE_BATCH, *input_shape, device=device, dtype=dtype)
    try:
        graph_module = _exported(model, example, name)
    except ConfigError:
        raise
    except Exception as exc:  # a model may raise anything, and export whatever its parts raise
        raise ConfigError(refusal(exc, model, input_shape)) from exc
    finally:
        model.eval()
    lay_open(graph_module, name)
    graph = graph_module.graph
    end = graph.output_node()
    end.args = tuple(pytree.tree_leaves(end.args[0]))
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
    return graph_module


def _is_unknown_work(node: fx.Node) -> bool:
    """Whether the operation is a user's own, and its author gave no formula for its work."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace in _TORCHS_OWN:
        return False
    return node.target.overloadpacket not in flop_registry


def _exported(model: nn.Module, example: Tensor, name: str) -> fx.GraphModule:
    hook = model.register_forward_hook(lambda _, args, output: main_tensor(output, model, name))
    try:
        with warnings.catch_warnings(), torch.enable_grad(), contexts_as_marks(), without_dumps():
            # nn.LSTM and nn.GRU re-assign their own weights while they are traced, and leave them as they were
            warnings.filterwarnings("ignore", message="The tensor attributes? .*assigned during export")
            program = torch.export.export(model, (example,), strict=False, dynamic_shapes=({0: Dim.DYNAMIC},))
            graph_module = program.module()
    finally:
        hook.remove()
    assert isinstance(graph_module, fx.GraphModule)
    return graph_module


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
