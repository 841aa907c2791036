"""What is in an answer: readers of the bytes that travel back, without torch. ``splitsem.tasks.answer`` uses them too.

A reader also makes the answer of a network's output, for a device that has the whole network: ``of_output``.
"""

import zlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem_device.errors import PayloadError

Array = NDArray[Any]
_ZLIB_LEVEL = 6
_ZLIB_BYTES = 64
_FULL = 65_535
NUM_COLUMNS = 6  # of a box: x1, y1, x2, y2, score, class


class Classes(NamedTuple):
    """The most likely classes, the likeliest first: one or two bytes each.

    Attributes:
        num_classes: that the network tells apart.
        most: how many of them are sent.
    """

    num_classes: int
    most: int

    def read(self, answer: bytes | memoryview) -> NDArray[np.int64]:
        """The classes, ``(most,)``. Raises PayloadError."""
        return _indices(answer, self.most, self.num_classes)

    def of_output(self, output: Array) -> bytes:
        """The answer of logits ``(1, num_classes)``; the first of equal ones counts as the likelier."""
        order = np.argsort(-output.reshape(-1), kind="stable")[: self.most]
        return order.astype(index_dtype(self.num_classes)).tobytes()


class ClassMap(NamedTuple):
    """The most likely class of each place of a map, compressed by zlib.

    Attributes:
        output_shape: ``(classes, height, width)``, or any number of dimensions behind.
    """

    output_shape: Sequence[int]

    def read(self, answer: bytes | memoryview) -> NDArray[np.int64]:
        """The classes, ``(height, …)``. Raises PayloadError."""
        num = prod(self.output_shape[1:])
        expected = num * index_dtype(self.output_shape[0]).itemsize
        if len(answer) > (most := expected + expected // 64 + _ZLIB_BYTES):  # zlib adds 5 bytes for each 16 KB, and 6
            raise PayloadError(
                f"expected a class map of {expected} bytes in at most {most} compressed ones, got {len(answer)}"
            )
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(answer, expected + 1)  # no more than is needed, whatever arrives
        except zlib.error as exc:
            raise PayloadError(f"expected a class map, got damaged bytes ({exc})") from exc
        if not unpacker.eof or unpacker.unused_data:
            raise PayloadError(f"expected a class map of {expected} bytes, got another size")
        return _indices(content, num, self.output_shape[0]).reshape(self.output_shape[1:])

    def of_output(self, output: Array) -> bytes:
        """The answer of logits ``(1, classes, height, …)``."""
        return self.of_classes(output[0].argmax(axis=0))

    def of_classes(self, classes: Array) -> bytes:
        """The answer of the class of each place."""
        return zlib.compress(classes.astype(index_dtype(self.output_shape[0])).tobytes(), _ZLIB_LEVEL)


class Values(NamedTuple):
    """All values of the output in float32, as they are.

    Attributes:
        output_shape: shape of the output for one sample.
    """

    output_shape: Sequence[int]

    def read(self, answer: bytes | memoryview) -> NDArray[np.float32]:
        """The values, ``output_shape``, of memory of their own. Raises PayloadError."""
        expected = 4 * prod(self.output_shape)
        if len(answer) != expected:
            raise PayloadError(f"expected {expected} bytes of values, got {len(answer)}")
        return np.frombuffer(answer, "<f4").astype(np.float32).reshape(self.output_shape)

    def of_output(self, output: Array) -> bytes:
        """The answer of an output ``(1, *output_shape)``."""
        return output.astype("<f4").tobytes()


class Tensors(NamedTuple):
    """All tensors of an output that is a structure, one after the other.

    Attributes:
        shapes: by path, of each tensor, with the batch of one.
        dtypes: by path, numpy's name of the dtype of each.
    """

    shapes: Mapping[str, Sequence[int]]
    dtypes: Mapping[str, str]

    def read(self, answer: bytes | memoryview) -> dict[str, Array]:
        """The tensors by their paths, of memory of their own. Raises PayloadError."""
        sizes = {path: prod(shape) * self._dtype(path).itemsize for path, shape in self.shapes.items()}
        if len(answer) != sum(sizes.values()):
            raise PayloadError(f"expected {sum(sizes.values())} bytes of tensors, got {len(answer)}")
        found, at, view = {}, 0, memoryview(answer)
        for path, size in sizes.items():
            content = np.frombuffer(view[at : at + size], np.uint8).copy()
            found[path] = content.view(self._dtype(path)).reshape(self.shapes[path])
            at += size
        return found

    def of_output(self, *outputs: Array) -> bytes:
        """The answer of the tensors in order."""
        return b"".join(
            np.ascontiguousarray(one).astype(self._dtype(path), copy=False).tobytes()
            for path, one in zip(self.shapes, outputs, strict=True)
        )

    def _dtype(self, path: str) -> np.dtype[Any]:
        return np.dtype(self.dtypes[path]).newbyteorder("<")


class BoxRows(NamedTuple):
    """The boxes of a picture: corners in 65,535ths of its longer side, scores in 65,535ths, class numbers.

    Attributes:
        size: height and width of the network's input in pixels.
        num_classes: that the network tells apart.
        most: rows of the network's output.
    """

    size: Sequence[int]
    num_classes: int
    most: int

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(
            [("corners", "<u2", 4), ("score", "<u2"), ("class", "u1" if self.num_classes <= 256 else "<u2")]
        )

    def read(self, answer: bytes | memoryview) -> NDArray[np.float32]:
        """The boxes ``(n, 6)``: x1, y1, x2, y2 in pixels of the network's input, score, class. Raises PayloadError."""
        size, step = self._dtype.itemsize, max(self.size) / _FULL
        if len(answer) % size or len(answer) > self.most * size:
            raise PayloadError(f"expected at most {self.most} boxes of {size} bytes each, got {len(answer)} bytes")
        rows = np.frombuffer(answer, self._dtype)
        made = np.concatenate([rows["corners"] * step, rows["score"][:, None] / _FULL, rows["class"][:, None]], axis=1)
        height, width = self.size
        if len(rows) and not (
            (made[:, [0, 2]] <= width + step / 2).all()
            and (made[:, [1, 3]] <= height + step / 2).all()
            and _has_area(rows["corners"]).all()
            and rows["score"].min() > 0
            and rows["class"].max() < self.num_classes
        ):
            raise PayloadError(
                f"expected boxes with an area, within {height}x{width} pixels, of {self.num_classes} classes and scored"
            )
        return made.astype(np.float32)

    def of_output(self, output: Array) -> bytes:
        """The answer of detections ``(1, most, 6)``."""
        rows = output.reshape(-1, NUM_COLUMNS).astype(np.float64)
        rows = rows[(rows[:, 4] > 0) & np.isfinite(rows).all(1)]
        (height, width), step = self.size, max(self.size) / _FULL
        made = np.empty(len(rows), self._dtype)
        made["corners"] = np.rint(rows[:, :4].clip(0, (width, height, width, height)) / step)
        made["score"] = np.rint(rows[:, 4].clip(0, 1) * _FULL).clip(1)
        made["class"] = rows[:, 5].clip(0, self.num_classes - 1)
        return made[_has_area(made["corners"])].tobytes()


Reader = Classes | ClassMap | Values | Tensors | BoxRows
_KINDS: dict[str, type[Reader]] = {
    "classes": Classes,
    "class map": ClassMap,
    "values": Values,
    "tensors": Tensors,
    "boxes": BoxRows,
}


def to_card(reader: Reader) -> dict[str, Any]:
    """A reader as plain values, for a JSON file."""
    return {"kind": next(name for name, kind in _KINDS.items() if isinstance(reader, kind)), **reader._asdict()}


def of_card(card: Mapping[str, Any]) -> Reader:
    """Undo ``to_card``. Raises ValueError for a kind that this version does not know, or other fields."""
    facts = {name: value for name, value in card.items() if name != "kind"}
    kind = _KINDS.get(str(card.get("kind")))
    if kind is None or facts.keys() != set(kind._fields):
        raise ValueError(f"an answer is one of {', '.join(_KINDS)} with its fields, got {card.get('kind')!r}")
    return kind(**facts)


def index_dtype(num_classes: int) -> np.dtype[np.unsignedinteger]:
    """The dtype in which class numbers travel."""
    return np.dtype("u1") if num_classes <= 256 else np.dtype("<u2") if num_classes <= 65_536 else np.dtype("<u4")


def _indices(content: bytes | memoryview, num: int, num_classes: int) -> NDArray[np.int64]:
    dtype = index_dtype(num_classes)
    if len(content) != num * dtype.itemsize:
        raise PayloadError(f"expected {num} classes in {num * dtype.itemsize} bytes, got {len(content)} bytes")
    indices = np.frombuffer(content, dtype).astype(np.int64)
    if num and indices.max() >= num_classes:
        raise PayloadError(f"expected classes 0…{num_classes - 1}, got {indices.max()}")
    return indices


def _has_area(corners: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Whether each box ``(n, 4)`` ends right of and below where it begins."""
    return np.all(corners[:, 2:] > corners[:, :2], axis=1)
