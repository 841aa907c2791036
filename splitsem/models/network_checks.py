"""Checks of networks: does the library know the name, and does the output have the task's shape?"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import torch
from torch import nn

from splitsem.errors import ConfigError

NUM_SUGGESTIONS = 5


def check_name(name: str, known: Iterable[str], library: str) -> None:
    """Raise ConfigError with the closest names when ``library`` knows no network called ``name``."""
    known = list(known)
    if name not in known:
        close = get_close_matches(name, known, n=NUM_SUGGESTIONS, cutoff=0.5)
        suggestion = (
            f"did you mean {', '.join(close)}?" if close else f"it has e.g. {', '.join(known[:NUM_SUGGESTIONS])}"
        )
        raise ConfigError(f"{library} has no network {name!r} for pictures; {suggestion}")


def check_output(network: nn.Module, name: str, input_shape: Sequence[int], output_shape: Sequence[int]) -> None:
    """Run one sample of zeros through ``network`` and compare the output's real shape with the task's.

    Args:
        network: any network; its mode and buffers are left as they were.
        name: what a user calls it.
        input_shape: shape of one sample.
        output_shape: shape the task needs for one sample.

    Raises:
        ConfigError: the network cannot take such a sample, or gives another shape.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            output = network(torch.zeros(1, *input_shape))
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as exc:
        raise ConfigError(
            f"{name} cannot take inputs of {tuple(input_shape)}: {first_line(exc)}. "
            "Way out for small pictures: let it enlarge them inside, e.g. by model.image_size=224"
        ) from exc
    finally:
        network.train(was_training)
    shape = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != tuple(output_shape):
        raise ConfigError(f"{name} gives {shape} for one sample, but the task needs {tuple(output_shape)}")


def first_line(exc: BaseException) -> str:
    """The first line of an exception's message, or its class's name where it has none."""
    return str(exc).strip().partition("\n")[0].rstrip(".") or type(exc).__name__
