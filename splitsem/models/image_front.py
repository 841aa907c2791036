"""What surrounds a ready-made network: the front that fits pictures to it, and checks of its name and output."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.detections import NUM_COLUMNS
from splitsem.errors import ConfigError, ModelError
from splitsem.network import check_input, main_tensor, reason
from splitsem.trees import call, leaves

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFront(nn.Module):
    """``(resize(x) repeated to 3 channels − mean) / std`` for pictures ``x`` in [0, 1].

    It is part of the network, so that at the point ``input`` the picture itself crosses the cut.

    Args:
        input_shape: ``(channels, height, width)`` of one picture, 1 or 3 channels.
        mean: per-channel mean that the network was trained with.
        std: per-channel standard deviation that the network was trained with.
        image_size: height and width that the network shall see, or None to leave the picture's.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        image_size: int | None = None,
    ) -> None:
        if len(input_shape) != 3 or input_shape[0] not in (1, 3):
            raise ValueError(f"input_shape must be (1 or 3, height, width), got {tuple(input_shape)}")
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        super().__init__()
        self.picture_size = (input_shape[1], input_shape[2])
        self.network_size = self.picture_size if image_size is None else (image_size, image_size)
        # Not persistent: the state dict keeps the network's original keys.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, 1 or 3, height, width) → (batch, 3, *network_size)."""
        if self.network_size != self.picture_size:
            x = resized(x, self.network_size)
        return (x.expand(-1, 3, -1, -1) - self.mean) / self.std


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures or maps ``(batch, channels, height, width)`` at this height and width; unchanged where they have it."""
    if tuple(x.shape[2:]) == size:
        return x
    # Antialiasing changes nothing when a picture grows.
    return F.interpolate(x, size, mode="bilinear", antialias=True)


def attach(front: ImageFront, network: nn.Module) -> None:
    """Let ``network`` see its pictures through ``front``.

    A forward pre-hook does it, not a wrapper: the network's modules and weights keep their own names (``layer1.0``),
    and torch.export traces the hook like any other code.
    """
    network.add_module("front", front)
    network.register_forward_pre_hook(_through_front)


def front_of(network: nn.Module) -> ImageFront | None:
    """The front that was attached to ``network``; None where there is none."""
    front = dict(network.named_children()).get("front")
    return front if isinstance(front, ImageFront) else None


def _through_front(network: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    front = network.get_submodule("front")
    return (front(*args),)


NUM_SUGGESTIONS = 5
_LARGER = (16, 32, 64, 96, 128, 224, 299, 384)


def check_name(name: str, known: Iterable[str], library: str) -> None:
    """Raise ModelError with the closest names when ``library`` knows no network called ``name``."""
    known = list(known)
    if name not in known:
        close = get_close_matches(name, known, n=NUM_SUGGESTIONS, cutoff=0.5)
        suggestion = (
            f"did you mean {', '.join(close)}?" if close else f"it has e.g. {', '.join(known[:NUM_SUGGESTIONS])}"
        )
        raise ModelError(f"{library} has no network {name!r} for pictures; {suggestion}")


def check_output(network: nn.Module, name: str, x: Any, output_shape: Sequence[int]) -> None:
    """Run one sample through ``network`` and compare the output's real shape with the task's.

    Args:
        network: any network; its mode and buffers are left as they were.
        name: what a user calls the network.
        x: a batch of one sample.
        output_shape: shape the task needs for one sample; empty where it takes a structure of tensors.

    Raises:
        ModelError: the network cannot take such a sample, or gives another shape, or several tensors.
    """
    if isinstance(x, Tensor):
        check_input(network, name)
    was_training = network.training
    network.eval()
    try:
        made = _try(network, x)
        if not output_shape:
            return
        output = main_tensor(made, network, name)
    except ConfigError:
        raise
    except Exception as exc:  # a network of a user may raise anything
        sizes = " and ".join(str(tuple(tensor.shape[1:])) for tensor in leaves(x))
        remedy = _way_out(network, x.shape[1:]) if isinstance(x, Tensor) else ""
        raise ModelError(f"{name} cannot take inputs of {sizes}: {reason(exc)}{remedy}") from exc
    finally:
        network.train(was_training)
    shape = tuple(output.shape[1:])
    if shape != tuple(output_shape):
        needed = tuple(output_shape)
        raise ModelError(f"{name} gives {shape} for one sample, but the task needs {needed}{_made_by(needed)}")


def _made_by(output_shape: tuple[int, ...]) -> str:
    """Which networks give such an output, where the shape tells."""
    if len(output_shape) == 2 and output_shape[1] == NUM_COLUMNS:
        return ", which are boxes: take a detector, e.g. model=detector or torchvision's ssdlite320_mobilenet_v3_large"
    return ", a map of classes: take e.g. model=unet or model=segformer" if len(output_shape) == 3 else ""


def _try(network: nn.Module, x: Any) -> object:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return call(network, x)


def _way_out(network: nn.Module, input_shape: Sequence[int]) -> str:
    """What to do where a larger input would do, found by trying; empty where none does."""
    channels, *sizes = input_shape
    for larger in (size for size in _LARGER if sizes and size > max(sizes)):
        try:
            _try(network, torch.zeros(1, channels, *(larger for _ in sizes)))
        except Exception:  # noqa: BLE001 (a network of a user may raise anything)
            continue
        takes = (channels, *(larger for _ in sizes))
        if front_of(network):
            return f". It takes {takes}: let it enlarge its pictures, by the model's image_size={larger}"
        return f". It takes {takes}: give it a task with larger inputs, or enlarge them in its forward"
    return ""


def first_line(exc: BaseException) -> str:
    """The first line of an exception's message, or its class's name where it has none."""
    return str(exc).strip().partition("\n")[0].rstrip(".") or type(exc).__name__
