"""The tensors of a network that travel in federated training: which, in what order, and as one payload."""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from splitsem.codecs import wire
from splitsem.codecs.codec import Codec
from splitsem.codecs.expected import Expected, Kind
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.errors import PayloadError
from splitsem.federated.flower import Array, ArrayRecord


class Joined(NamedTuple):
    """Tensors of one dtype that lie end to end.

    Attributes:
        names: names of the tensors, in order; at least one.
        shapes: shapes of the tensors.
        dtype: dtype of all these tensors.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    @classmethod
    def by_dtype(cls, tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> "list[Joined]":
        """One Joined for each dtype of ``tensors`` (name to shape and dtype), in order of first appearance."""
        groups: dict[torch.dtype, list[str]] = {}
        for name, (_, dtype) in tensors.items():
            groups.setdefault(dtype, []).append(name)
        return [cls(tuple(names), tuple(tensors[name][0] for name in names), d) for d, names in groups.items()]

    @property
    def num_values(self) -> int:
        """Number of elements."""
        return sum(map(math.prod, self.shapes))

    def join(self, state: Mapping[str, Tensor]) -> Tensor:
        """The tensors end to end, ``(num_values,)``."""
        return torch.cat([state[name].reshape(-1) for name in self.names])

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Undo ``join``; views where the shapes allow it."""
        parts = values.split([math.prod(shape) for shape in self.shapes])
        return {n: part.reshape(shape) for n, shape, part in zip(self.names, self.shapes, parts, strict=True)}

    def check(self, values: Tensor) -> None:
        """Raise PayloadError unless ``values`` can be these tensors: ``(num_values,)``, their dtype, finite."""
        if values.dim() != 1 or len(values) != self.num_values or values.dtype is not self.dtype:
            got = f"{tuple(values.shape)} {values.dtype}"
            raise PayloadError(f"expected {self.num_values} values {self.dtype} of {self.names[0]} …, got {got}")
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise PayloadError(f"expected finite values in {self.names[0]} …, got NaN or infinity")


def to_blocks(values: Tensor, most: int) -> Tensor:
    """Rows of equal length, at most ``most``, the last row filled up with zeros: ``(blocks, length)``.

    >>> to_blocks(torch.arange(1, 6), 2)
    tensor([[1, 2],
            [3, 4],
            [5, 0]])
    """
    num_blocks, length = _blocks(len(values), most)
    return F.pad(values, (0, num_blocks * length - len(values))).reshape(num_blocks, length)


def _blocks(num_values: int, most: int) -> tuple[int, int]:
    num_blocks = -(-num_values // most)
    return num_blocks, -(-num_values // num_blocks)


def from_blocks(blocks: Tensor, num_values: int) -> Tensor:
    """Undo ``to_blocks``, ``(num_values,)``. Raises PayloadError when so many values do not make these blocks."""
    values = blocks.reshape(-1)
    if blocks.dim() != 2 or not 0 <= len(values) - num_values < len(blocks):
        raise PayloadError(f"expected {num_values} values in blocks, got {tuple(blocks.shape)}")
    return values[:num_values]


State = dict[str, Tensor]
Statistics = Literal["shared", "local"]
_FINE = HalfPrecision()


class Layout:
    """What both ends know about a network's state without sending it.

    The tensors travel joined end to end: first the *weights* (floating-point tensors of two or more dimensions), then
    the rest (biases, normalisation layers and their running statistics, counters), each by dtype.

    Args:
        model: the network; only names, shapes and dtypes of its state matter.
        statistics: ``shared`` sends the running statistics of normalisation layers; ``local`` leaves them, and the
            layers' counters, where they are.
        block_values: most consecutive weights in one sample of the codec; each sample has a range or a share of kept
            values of its own (the buckets of QSGD: Alistarh et al., NeurIPS 2017, arXiv 1610.02132).
        only: names of the tensors to consider, for a part of the network; None for the whole network.

    Attributes:
        names: names of the tensors that travel, in the network's order.
        own: names of the tensors that stay at each end.
        counters: names of the travelling tensors that hold integers.
        statistics: names of the travelling tensors that are running statistics.
        scalars: names of the travelling tensors that have no dimension.
        fingerprint: fingerprint of names, shapes and dtypes of the tensors that travel.
        raw_bytes: size in memory of the tensors that travel.
    """

    def __init__(
        self,
        model: nn.Module,
        statistics: Statistics = "shared",
        block_values: int = 2048,
        only: Collection[str] | None = None,
    ) -> None:
        if block_values < 1:
            raise ValueError(f"block_values must be at least 1, got {block_values}")
        if statistics not in get_args(Statistics):
            raise ValueError(f"statistics must be one of {', '.join(get_args(Statistics))}, got {statistics!r}")
        state = {name: t for name, t in model.state_dict().items() if only is None or name in only}
        running = [name for name in _running_statistics(model) if name in state]
        self.own = frozenset(running if statistics == "local" else ())
        self.names = tuple(name for name in state if name not in self.own)
        self._like = {name: (tuple(state[name].shape), state[name].dtype) for name in self.names}
        self.counters = frozenset(name for name in self.names if not state[name].is_floating_point())
        self.statistics = frozenset(running) - self.own - self.counters
        self.block_values = block_values
        self._joined, self._num_of_weights = self._in_order()
        self.scalars = frozenset(name for name in self.names if state[name].ndim == 0)
        self.fingerprint = hashlib.sha256(repr(sorted(self._like.items())).encode()).hexdigest()[:16]
        self.raw_bytes = sum(state[name].nbytes for name in self.names)

    def _in_order(self) -> tuple[list[Joined], int]:
        """All joined tensors, those of weights first, and how many of the joined tensors are weights."""
        not_weights = self.counters | self.statistics
        is_weight = {name: name not in not_weights and len(shape) > 1 for name, (shape, _) in self._like.items()}
        weights, rest = (
            Joined.by_dtype({name: like for name, like in self._like.items() if is_weight[name] is of_weights})
            for of_weights in (True, False)
        )
        return [*weights, *rest], len(weights)

    @property
    def num_weights(self) -> int:
        """Number of elements that travel."""
        return sum(math.prod(shape) for shape, _ in self._like.values())

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of one tensor that travels."""
        return self._like[name][1]

    def of(self, model: nn.Module) -> State:
        """The network's tensors that travel, copied to the CPU."""
        state = model.state_dict()
        return {name: state[name].detach().to("cpu", copy=True) for name in self.names}

    def join(self, state: State) -> list[Tensor]:
        """The tensors end to end, as a few long tensors."""
        return [joined.join(state) for joined in self._joined]

    def split(self, values: Sequence[Tensor]) -> State:
        """Undo ``join``."""
        by_name: State = {}
        for joined, part in zip(self._joined, values, strict=True):
            by_name |= joined.split(part)
        return {name: by_name[name] for name in self.names}

    def encode(self, codec: Codec, values: Sequence[Tensor]) -> bytes:
        """The size of the weights' payload, the weights' payload, and the payload of all other tensors.

        The other tensors, a few percent of a network, travel as float16, or unchanged with ``identity``, because a
        network is of no use while its statistics lag behind its weights. Raises ValueError for what the codec cannot
        represent.

        Args:
            codec: codec of the weights.
            values: joined tensors.
        """
        weights, rest = values[: self._num_of_weights], values[self._num_of_weights :]
        main = codec.payload(tuple(to_blocks(part, self._most(codec, len(part))) for part in weights))
        return wire.varint(len(main)) + main + _for_rest(codec).payload(tuple(part[None] for part in rest))

    def decode(self, codec: Codec, payload: bytes) -> list[Tensor]:
        """Undo ``encode``. Raises PayloadError for damage, another network's tensors, NaN and infinities."""
        reader = wire.Reader(payload)
        main = bytes(reader.take(reader.varint("payload size", len(payload)), "payload"))
        of_weights, of_rest = self._joined[: self._num_of_weights], self._joined[self._num_of_weights :]
        rest = Expected(tuple((joined.dtype, (1, joined.num_values)) for joined in of_rest))
        blocks = [
            *codec.read(main, Expected(tuple(self._coded(codec, joined) for joined in of_weights))),
            *_for_rest(codec).read(bytes(reader.rest()), rest),
        ]
        values = [from_blocks(part, joined.num_values) for part, joined in zip(blocks, self._joined, strict=True)]
        for joined, part in zip(self._joined, values, strict=True):
            joined.check(part)
        return values

    def _most(self, codec: Codec, num_values: int) -> int:
        return num_values if isinstance(codec, Identity | HalfPrecision) else self.block_values

    def _coded(self, codec: Codec, joined: Joined) -> Kind:
        """What the codec gets of the joined tensors, see ``to_blocks``."""
        return joined.dtype, _blocks(joined.num_values, self._most(codec, joined.num_values))

    def check(self, state: State) -> None:
        """Raise PayloadError unless ``state`` holds finite tensors of this network."""
        if set(state) != set(self.names):
            raise PayloadError(f"expected the tensors of network {self.fingerprint}, got others")
        for name, (shape, dtype) in self._like.items():
            tensor = state[name]
            if tuple(tensor.shape) != shape or tensor.dtype is not dtype:
                raise PayloadError(f"expected {name} {shape} {dtype}, got {tuple(tensor.shape)} {tensor.dtype}")
        for joined, values in zip(self._joined, self.join(state), strict=True):
            joined.check(values)

    def difference(self, new: State, old: State) -> State:
        """What an end that has ``old`` needs to get ``new``: deltas; for counters, the new values."""
        return {name: new[name] if name in self.counters else new[name] - old[name] for name in self.names}

    def add(self, old: State, difference: State) -> State:
        """Undo ``difference``."""
        return {n: difference[n] if n in self.counters else old[n] + difference[n] for n in self.names}


def to_record(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Named tensors as Flower's arrays."""
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in state.items()})


def from_record(record: ArrayRecord) -> State:
    """Undo ``to_record``. Raises PayloadError for arrays that are not numpy's."""
    try:
        return {name: torch.from_numpy(array.numpy()) for name, array in record.items()}
    except (TypeError, ValueError, EOFError) as exc:
        raise PayloadError(f"expected arrays of numpy, got something else: {exc}") from exc


def weighted_mean(states: Iterable[State], weights: Iterable[float]) -> State:
    """Mean of each tensor, summed in float64; integers are rounded."""
    states, weights = list(states), list(weights)
    total = sum(weights)
    mean = {}
    for name, like in states[0].items():
        summed = sum(state[name].double() * (weight / total) for state, weight in zip(states, weights, strict=True))
        assert isinstance(summed, Tensor)
        mean[name] = summed.to(like.dtype) if like.is_floating_point() else summed.round().to(like.dtype)
    return mean


def _for_rest(codec: Codec) -> Codec:
    return codec if isinstance(codec, Identity) else _FINE


def _running_statistics(model: nn.Module) -> list[str]:
    """Names of the buffers of batch and instance normalisation layers."""
    return [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, _NormBase)
        for name, _ in module.named_buffers(recurse=False)
    ]
