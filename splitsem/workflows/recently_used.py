"""Kept: what is costly to make, kept in memory until others are used more."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# A sweep over domains and split points comes back to each domain's network at every point, in an order that the user
# chose: with two places, as there once were, each job of three domains loaded its network again. Ten domains fit. What
# bounds them is memory: a network keeps its task's data (55 MB for Fashion-MNIST) and its weights (0.2 MB to 490 MB of
# RepVGG-B3), so that there are fewer of the large ones.
MOST = 16
MOST_BYTES = 1 << 30


class Kept(Generic[T]):
    """Things by key; the least recently used ones go first.

    Args:
        size: bytes of weights that a thing holds.
        most: at most so many things.
        most_bytes: and together at most so many bytes; the last one used stays, however large.
    """

    def __init__(self, size: Callable[[T], int], most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self.size, self.most, self.most_bytes = size, most, most_bytes
        self._things: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """The thing of this key, made if it is not there."""
        if key not in self._things:
            self._things[key] = make()
        self._things.move_to_end(key)
        while len(self._things) > 1 and (len(self._things) > self.most or self._num_bytes() > self.most_bytes):
            self._things.popitem(last=False)
        return self._things[key]

    def _num_bytes(self) -> int:
        return sum(map(self.size, self._things.values()))
