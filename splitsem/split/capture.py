"""capture: export a model to a clean operation graph: one input, one output tensor, batch size free, no guards."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from splitsem.errors import ConfigError
from splitsem.split.inplace import make_functional

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
    """The device of the model's weights, and their floating-point type; CPU and float32 when there are none."""
    weights = [*model.parameters(), *model.buffers()]
    device = weights[0].device if weights else torch.device("cpu")
    dtype = next((w.dtype for w in weights if w.is_floating_point()), torch.float32)
    return device, dtype


def capture(model: nn.Module, input_shape: tuple[int, ...], training: bool = False) -> fx.GraphModule:
    """Export ``model`` and tidy its graph up; the weights are the model's own tensors. Leaves it in eval mode.

    A model with ``nn.MultiheadAttention`` switches torch's fused attention path off for the process
    (``torch.backends.mha``), so that the whole model and its halves stay equal bit for bit.

    Args:
        model: takes one floating-point tensor ``(batch, *input_shape)``; returns one tensor, or a mapping with the
            key ``"out"`` (torchvision's segmentation models).
        input_shape: shape of one sample, without the batch.
        training: capture what the model computes in train mode: batch statistics (running ones are updated), dropout.

    Raises:
        ConfigError: the model cannot be exported, fixes its batch size, or returns more than one tensor.
    """
    model.train(training)
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        # its fused kernel runs only in the whole model and without gradients, and rounds differently from the graph
        torch.backends.mha.set_fastpath_enabled(False)
    device, dtype = home_of(model)
    example = torch.rand(_EXAMPLE_BATCH, *input_shape, device=device, dtype=dtype)
    name = type(model).__name__
    try:
        with warnings.catch_warnings():
            # nn.LSTM and nn.GRU re-assign their own weights while they are traced, and leave them as they were
            warnings.filterwarnings("ignore", message="The tensor attributes? .*assigned during export")
            program = torch.export.export(model, (example,), strict=False, dynamic_shapes=({0: Dim.DYNAMIC},))
            graph_module = program.module()
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, NotImplementedError) as exc:
        reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        raise ConfigError(
            f"{name} cannot be split: torch.export failed on an input of shape (batch, "
            f"{', '.join(map(str, input_shape))}): {reason}"
        ) from exc
    finally:
        model.eval()
    assert isinstance(graph_module, fx.GraphModule)
    graph = graph_module.graph
    _keep_one_output(graph, program, name)
    _drop_checks(graph)
    _drop_idle(graph)
    make_functional(graph)
    graph.set_codegen(fx.graph.CodeGen())
    graph.eliminate_dead_code()
    if not any(node.op == "call_function" for node in graph.nodes):
        raise ConfigError(f"{name} cannot be split: it computes nothing")
    return graph_module


def _keep_one_output(graph: fx.Graph, program: ExportedProgram, name: str) -> None:
    """Replace whatever structure the model returns by its one tensor."""
    end = graph.output_node()
    leaves = pytree.tree_leaves(end.args[0])
    spec = program.call_spec.out_spec
    value = pytree.tree_unflatten(leaves, spec) if spec is not None else leaves
    if isinstance(value, Mapping):
        value = value["out"] if "out" in value else list(value.values())
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if not isinstance(value, fx.Node) or not isinstance(value.meta.get("val"), Tensor):
        raise ConfigError(
            f"{name} cannot be split: it must return one tensor (or a mapping with the key 'out'), "
            f"got {len(leaves)} values; wrap it in a module that returns the one you want"
        )
    end.args = (value,)


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
