"""Postprocess: what follows a captured network as it is, and its work, counted in one run of it."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from splitsem.errors import ConfigError
from splitsem.splitting.half import OpCost
from splitsem.splitting.point import TensorSpec
from splitsem.trees import leaves

_UNCOUNTED = {"empty", "empty_like", "empty_strided", "detach", "lift_fresh", "_local_scalar_dense"}


class Postprocess:
    """What follows a network wherever the network ends.

    The work is counted as ``half.op_cost`` does: products by torch's formulas, anything else as an operation for each
    element of its largest tensor; each tensor read or made once an operation. The number of operations may depend on
    the data, so that the cost is an estimate even for the same machine.

    Args:
        module: see ``network.HasPostprocess``.
        sample: what the network returns for one sample.

    Attributes:
        sample: what it returned.
        tensor: what it returns for one sample.
        raw_bytes: the size of that.
        cost: all its operations as one that takes many launches.
        weight_bytes: of its parameters and buffers.

    Raises:
        ConfigError: it does not return one tensor.
    """

    def __init__(self, module: nn.Module, sample: Any) -> None:
        self.module, counter = module, _Counter()
        with torch.no_grad(), torch.random.fork_rng(devices=[]), counter:
            output = module(sample)
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"the postprocess {type(module).__name__} must return one tensor, got {type(output).__name__}"
            )
        self.sample, self.tensor = output, TensorSpec(tuple(output.shape), output.dtype)
        self.raw_bytes = _bytes(output)
        self.cost = OpCost("postprocess", counter.flops, counter.bytes, steps=max(1, counter.num_operations))
        self.weight_bytes = sum(map(_bytes, module.state_dict().values()))


class _Counter(TorchDispatchMode):
    """Adds up arithmetic and memory traffic of what runs inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.bytes, self.num_operations = 0.0, 0.0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        outputs, inputs = leaves(made), leaves((list(args), kwargs or {}))
        is_view = any(out.alias_info is not None and not out.alias_info.is_write for out in func._schema.returns)
        if is_view or func._schema.name.rpartition("::")[2] in _UNCOUNTED or not outputs:
            return made
        self.num_operations += 1
        self.bytes += sum(_bytes(tensor) for tensor in (*inputs, *outputs))
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=made)
        else:
            self.flops += max(prod(tensor.shape) for tensor in (*inputs, *outputs))
        return made


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
