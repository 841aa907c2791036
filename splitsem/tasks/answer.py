"""AnswerCoder: what a task needs of a network's output, as bytes. An answer is what travels back to the edge.

The two ends agree on the coder beforehand and a transport checks what it carries, so an answer has no header.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from splitsem.trees import by_path, filled, leaves, mapped, rows
from splitsem_device import answer_reader
from splitsem_device.answer_reader import index_dtype


class AnswerCoder(ABC):
    """Turns the network's output for one sample into the bytes of an answer, and back.

    Both ends build equal coders; ``name`` tells them apart.

    Attributes:
        drawn_as: what the answer looks like in a gallery. An output is drawn as values unless it is logits
            ``(classes,)`` or ``(classes, height, width)``, or boxes as in ``splitsem.detections``.
        reader: reads the answers where there is no torch; None: such a device leaves them as bytes.
    """

    drawn_as: ClassVar[Literal["classes", "class map", "boxes", "values"]] = "values"
    reader: answer_reader.Reader | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """What the answer is, with what both ends must know of it, e.g. ``classes(1 of 10)``."""

    @abstractmethod
    def encode(self, output: Any) -> bytes:
        """The answer's bytes, from the network's output for one sample, ``(1, *output_shape)``, on any device."""

    @abstractmethod
    def decode(self, answer: bytes | memoryview) -> Any:
        """What the user is after, for one sample, on the CPU. Raises PayloadError for bytes that are no such answer."""

    @abstractmethod
    def as_output(self, answer: Any) -> Any:
        """An output ``(1, *output_shape)``, float32, of which ``encode`` makes this answer: what a metric takes."""


class TopClasses(AnswerCoder):
    """The most likely classes, the likeliest first: one or two bytes each.

    Args:
        num_classes: that the network tells apart.
        most: how many of them are sent.
    """

    drawn_as = "classes"
    reader: answer_reader.Classes

    def __init__(self, num_classes: int, most: int = 1) -> None:
        if not 1 <= most <= num_classes:
            raise ValueError(f"most must be 1…{num_classes}, got {most}")
        self.num_classes, self.most = num_classes, most
        self.reader = answer_reader.Classes(num_classes, most)

    @property
    def name(self) -> str:
        """See AnswerCoder."""
        return f"classes({self.most} of {self.num_classes})"

    def encode(self, output: Tensor) -> bytes:
        """See AnswerCoder."""
        return output.reshape(-1).topk(self.most).indices.cpu().numpy().astype(index_dtype(self.num_classes)).tobytes()

    def decode(self, answer: bytes | memoryview) -> Tensor:
        """The classes, ``(most,)`` int64. Raises PayloadError."""
        return torch.from_numpy(self.reader.read(answer))

    def as_output(self, answer: Tensor) -> Tensor:
        """See AnswerCoder: ``most`` for the likeliest class, …, 1 for the last one sent, 0 for all others."""
        output = torch.zeros(1, self.num_classes)
        output[0, answer] = torch.arange(self.most, 0, -1, dtype=torch.float32)
        return output


class ClassMap(AnswerCoder):
    """The most likely class of each place of a map, compressed by zlib.

    Args:
        output_shape: ``(classes, height, width)`` of the network's output, or any number of dimensions behind.
    """

    drawn_as = "class map"
    reader: answer_reader.ClassMap

    def __init__(self, output_shape: Sequence[int]) -> None:
        self.output_shape = tuple(output_shape)
        if len(self.output_shape) < 2:
            raise ValueError(f"output_shape must be (classes, height, …), got {self.output_shape}")
        self.reader = answer_reader.ClassMap(list(self.output_shape))

    @property
    def name(self) -> str:
        """See AnswerCoder."""
        return f"class map{self.output_shape}".replace(" ", "")

    def encode(self, output: Tensor) -> bytes:
        """See AnswerCoder."""
        return self.reader.of_classes(likeliest(output)[0].cpu().numpy())

    def decode(self, answer: bytes | memoryview) -> Tensor:
        """The classes, ``(height, …)`` int64. Raises PayloadError."""
        return torch.from_numpy(self.reader.read(answer))

    def as_output(self, answer: Tensor) -> Tensor:
        """See AnswerCoder: 1 for the class of each place, 0 for all others."""
        output = torch.zeros(self.output_shape)
        return output.scatter_(0, answer.unsqueeze(0), 1.0).unsqueeze(0)


class Values(AnswerCoder):
    """All values of the output in float32, as they are: a forecast, or what a user wants raw.

    Args:
        output_shape: shape of the output for one sample.
    """

    reader: answer_reader.Values

    def __init__(self, output_shape: Sequence[int]) -> None:
        self.output_shape = tuple(output_shape)
        self.reader = answer_reader.Values(list(self.output_shape))

    @property
    def name(self) -> str:
        """See AnswerCoder."""
        return f"values{self.output_shape}".replace(" ", "")

    def encode(self, output: Tensor) -> bytes:
        """See AnswerCoder."""
        return output.detach().float().cpu().numpy().astype("<f4").tobytes()

    def decode(self, answer: bytes | memoryview) -> Tensor:
        """The values, ``output_shape`` float32. Raises PayloadError."""
        return torch.from_numpy(self.reader.read(answer))

    def as_output(self, answer: Tensor) -> Tensor:
        """See AnswerCoder."""
        return answer.unsqueeze(0)


class AllTensors(AnswerCoder):
    """All tensors of an output that is a structure, as they are, one after the other.

    Args:
        output: the network's output for one sample.
    """

    reader: answer_reader.Tensors

    def __init__(self, output: Any) -> None:
        self.like = mapped(lambda tensor: torch.empty_like(tensor, device="meta"), output)
        tensors = by_path(self.like)
        self.reader = answer_reader.Tensors(
            {path: list(t.shape) for path, t in tensors.items()}, {path: _numpy_name(t) for path, t in tensors.items()}
        )

    @property
    def name(self) -> str:
        """See AnswerCoder."""
        parts = [
            f"{path}{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for path, t in by_path(self.like).items()
        ]
        return f"tensors({', '.join(parts)})"

    def encode(self, output: Any) -> bytes:
        """See AnswerCoder."""
        return b"".join(
            t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for t in leaves(output)
        )

    def decode(self, answer: bytes | memoryview) -> Any:
        """The structure, of batch 1. Raises PayloadError."""
        read = self.reader.read(answer)
        tensors = [torch.from_numpy(read[path]).view(like.dtype) for path, like in by_path(self.like).items()]
        return filled(self.like, tensors)

    def as_output(self, answer: Any) -> Any:
        """See AnswerCoder."""
        return answer


def raw_coder(output: Any) -> AnswerCoder:
    """What carries all of an output: ``Values`` of a tensor, ``AllTensors`` of a structure."""
    return Values(output.shape[1:]) if isinstance(output, Tensor) else AllTensors(rows(output)[0])


def likeliest(output: Tensor) -> Tensor:
    """The class of the largest value, ``(batch, …)`` int64, of ``(batch, classes, …)``; the first one of several.

    This is ``argmax(dim=1)``, which takes eleven times as long on a CPU, since the classes of a place lie far apart.
    """
    return output.max(dim=1).indices


def _numpy_name(tensor: Tensor) -> str:
    """Numpy's name of the dtype; numpy has no bfloat16, whose bits are read as whole numbers."""
    return "uint16" if tensor.dtype is torch.bfloat16 else str(tensor.dtype).removeprefix("torch.")
