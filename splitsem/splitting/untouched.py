"""untouched: what a network keeps between its calls is put back after a trial, whatever the trial changed."""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size, types.ModuleType,
          types.FunctionType, types.MethodType, types.BuiltinFunctionType, type)  # fmt: skip
_DEEPEST = 8  # what lies deeper, in a data set or a trainer that a network knows, is no state of the network


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back all attributes of the model's modules at the end: also lists and objects in them, and tensors' values.

    Networks keep anchors for a shape, counters, positions. What a trial leaves there must not reach a user's later
    calls; a capture would leave sizes that are symbols.
    """
    kept = _Kept()
    for module in model.modules():
        kept.keep(module)
    try:
        yield
    finally:
        kept.put_back()


class _Kept:
    """What objects held when they were seen; each object once."""

    def __init__(self) -> None:
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._held: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()

    def keep(self, value: Any, depth: int = 0) -> None:
        """Keep what ``value`` holds, and what its parts hold."""
        if isinstance(value, _PLAIN) or id(value) in self._seen or depth > _DEEPEST:
            return
        self._seen.add(id(value))
        if isinstance(value, Tensor):
            # a parameter that a trial writes to is not known; a buffer is small, so that a copy costs little
            if not isinstance(value, nn.Parameter):
                self._tensors.append((value, value.detach().clone()))
        elif isinstance(value, dict | list | set):
            self._held.append((value, value.copy()))
            for part in value.values() if isinstance(value, dict) else value:
                self.keep(part, depth + 1)
        elif isinstance(value, tuple):
            for part in value:
                self.keep(part, depth + 1)
        elif isinstance(getattr(value, "__dict__", None), dict):
            self.keep(vars(value), depth + 1)

    def put_back(self) -> None:
        """Let all objects hold again what they held."""
        for holder, held in self._held:
            if isinstance(holder, list):
                holder[:] = held
            elif holder != held if isinstance(holder, set) else _differ(holder, held):
                holder.clear()
                holder.update(held)
        with torch.no_grad():
            for tensor, copy in self._tensors:
                if not torch.equal(tensor, copy):  # batch normalisation writes statistics without a new version
                    tensor.copy_(copy)


def _differ(left: dict[Any, Any], right: dict[Any, Any]) -> bool:
    """Whether two dictionaries hold other objects, or in another order."""
    return list(left) != list(right) or any(left[key] is not right[key] for key in left)
