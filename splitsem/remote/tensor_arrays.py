"""Structures of tensors as structures of numpy arrays and back, without a copy, for ``splitsem_device.arrays``."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitsem.errors import ConfigError
from splitsem.trees import mapped
from splitsem_device.arrays import Bits


def as_arrays(tree: Any) -> Any:
    """The structure with numpy arrays, or ``Bits`` for what numpy lacks, in place of its tensors, which stay shared.

    Raises:
        ConfigError: a tensor is not in this machine's memory, or not a plain one.
    """
    return mapped(_as_array, tree)


def _as_array(tensor: Tensor) -> Any:
    if tensor.device.type != "cpu":
        raise ConfigError(f"a tensor of shape {tuple(tensor.shape)} is on {tensor.device}: give tensor.cpu()")
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise ConfigError(f"a tensor of shape {tuple(tensor.shape)} is sparse or quantised: give tensor.to_dense()")
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.dtype not in _BITS:
        return plain.numpy()
    return Bits(str(plain.dtype).removeprefix("torch."), plain.contiguous().view(_BITS[plain.dtype]).numpy())


_BITS = {torch.bfloat16: torch.uint16, torch.complex32: torch.uint32} | {
    dtype: torch.uint8
    for dtype in (
        torch.float8_e4m3fn,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2,
        torch.float8_e5m2fnuz,
        torch.float8_e8m0fnu,
    )
}


def as_tensors(tree: Any) -> Any:
    """Undo ``as_arrays`` on what ``arrays.unpack`` gives: dicts, lists and tuples of arrays, which stay shared."""
    if isinstance(tree, np.ndarray):
        return torch.from_numpy(tree)
    if isinstance(tree, Bits):
        return torch.from_numpy(tree.bits).view(getattr(torch, tree.dtype))
    if isinstance(tree, dict):
        return {key: as_tensors(part) for key, part in tree.items()}
    return type(tree)(map(as_tensors, tree)) if isinstance(tree, list | tuple) else tree
