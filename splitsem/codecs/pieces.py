"""Pieces: a payload as it arrived, in several stretches of memory, read without copying it together first."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import overload


class Pieces:
    """Bytes in several stretches; behaves like their concatenation where a payload is read.

    Args:
        stretches: in order, at least one, none of them empty.

    >>> pieces = Pieces([b"abc", b"defg"])
    >>> len(pieces), pieces[3], bytes(pieces[1:3]), bytes(pieces[2:5]), bytes(pieces)
    (7, 100, b'bc', b'cde', b'abcdefg')
    """

    def __init__(self, stretches: Iterable[bytes | memoryview]) -> None:
        self._views = [memoryview(stretch).toreadonly() for stretch in stretches]
        self._ends = list(accumulate(len(view) for view in self._views))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> memoryview: ...

    def __getitem__(self, key: int | slice) -> int | memoryview:
        """One byte, or some: a read-only view where one stretch has them all, else a writable one of a fresh copy."""
        if isinstance(key, int):
            return next(self.views(key, key + 1))[0]
        start, stop, step = key.indices(len(self))
        if step != 1:
            raise ValueError(f"step must be 1, got {step}")
        found = list(self.views(start, stop))
        return found[0] if len(found) == 1 else memoryview(bytearray().join(found))

    def __bytes__(self) -> bytes:
        return b"".join(self._views)

    def views(self, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes from ``start`` up to ``stop``, stretch by stretch."""
        index = bisect_right(self._ends, start)
        while start < stop:
            offset = self._ends[index] - len(self._views[index])
            yield self._views[index][start - offset : stop - offset]
            start = self._ends[index]
            index += 1


Payload = bytes | memoryview | Pieces
