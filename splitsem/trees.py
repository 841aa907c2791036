"""trees: nested structures of tensors, as networks take and return them, and as batches of samples hold them.

A structure is a tensor, or mappings, lists, tuples, named tuples, dataclasses and simple namespaces, nested as they may
be. What is neither a structure nor a tensor (None, a number, a text) stays as it is.
"""

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from splitsem.errors import ConfigError


def leaves(tree: object) -> list[Tensor]:
    """All tensors of a structure, in order."""
    return [tensor for _, tensor in _walk(tree, "")]


def by_path(tree: object) -> dict[str, Tensor]:
    """All tensors of a structure by their paths: ``['out']``, ``.logits``, ``[0]``; ``""`` for a tensor itself."""
    return dict(_walk(tree, ""))


def mapped(change: Callable[[Tensor], Any], tree: Any) -> Any:
    """The same structure with ``change`` of each tensor in its place."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, types.SimpleNamespace):
        return types.SimpleNamespace(**{key: mapped(change, part) for key, part in vars(tree).items()})
    if isinstance(tree, Mapping):
        changed = {key: mapped(change, part) for key, part in tree.items()}
        return changed if type(tree) is dict else type(tree)(**changed)
    if hasattr(tree, "_fields"):
        return type(tree)(*(mapped(change, part) for part in tree))
    if is_dataclass(tree) and not isinstance(tree, type):
        return type(tree)(**{field.name: mapped(change, getattr(tree, field.name)) for field in fields(tree)})
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(change, part) for part in tree)
    return tree


def filled(tree: Any, tensors: Sequence[Tensor]) -> Any:
    """The structure with these tensors, in order, in place of its own."""
    todo = iter(tensors)
    return mapped(lambda _: next(todo), tree)


def num_samples(tree: object) -> int:
    """The batch size: the first dimension of the first tensor. Raises ConfigError where there is no tensor."""
    first = next(_walk(tree, ""), None)
    if first is None:
        raise ConfigError(f"expected tensors with the batch in dimension 0, got {type(tree).__name__} without any")
    return len(first[1])


def of_samples(output: Any, number: int) -> Any:
    """A network's output, every tensor of which has a row for each of so many samples. Raises ConfigError otherwise."""
    for path, tensor in by_path(output).items():
        if not tensor.dim() or len(tensor) != number:
            raise ConfigError(
                f"the network's output{' ' * bool(path)}{path} has the shape {tuple(tensor.shape)} for a batch of "
                f"{number}; every tensor that it returns must have the batch in dimension 0, a row for each sample"
            )
    return output


def rows(tree: Any) -> list[Any]:
    """Each sample of a batch by itself, as a batch of one."""
    return sliced(tree, [1] * num_samples(tree))


def sliced(tree: Any, sizes: Sequence[int]) -> list[Any]:
    """The batch in parts of these sizes, which add up to its own."""
    if isinstance(tree, Tensor):
        return list(tree.split(list(sizes)))
    parts = [tensor.split(list(sizes)) for tensor in leaves(tree)]
    return [filled(tree, tensors) for tensors in zip(*parts, strict=True)]


def joined(trees: Sequence[Any]) -> Any:
    """One batch of several, which have the same structure."""
    if len(trees) == 1:
        return trees[0]
    if isinstance(trees[0], Tensor):
        return torch.cat(list(trees))
    return filled(trees[0], [torch.cat(tensors) for tensors in zip(*map(leaves, trees), strict=True)])


def call(network: Callable[..., Any], x: Any) -> Any:
    """The network's output for a batch as a data set gives it; see ``arguments``."""
    args, named = arguments(x)
    return network(*args, **named)


def arguments(x: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """How a network gets a batch: a mapping by name, a tuple or list by position, anything else as the only input."""
    if isinstance(x, Mapping):
        return (), x
    return (x if isinstance(x, list | tuple) else (x,)), {}


def is_same(tree: object, other: object) -> bool:
    """Whether two structures have the same tensors in the same places, bit for bit."""
    ours, theirs = by_path(tree), by_path(other)
    return ours.keys() == theirs.keys() and all(
        ours[path].dtype == theirs[path].dtype and torch.equal(ours[path], theirs[path]) for path in ours
    )


def _walk(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
        return
    parts: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        parts = [(f".{key}" if is_dataclass(value) else f"[{key!r}]", part) for key, part in value.items()]
    elif hasattr(value, "_fields"):
        parts = [(f".{key}", getattr(value, key)) for key in value._fields]
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [(f".{field.name}", getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, list | tuple):
        parts = [(f"[{i}]", part) for i, part in enumerate(value)]
    elif isinstance(value, types.SimpleNamespace):
        parts = [(f".{key}", part) for key, part in vars(value).items()]
    for step, part in parts:
        yield from _walk(part, path + step)
