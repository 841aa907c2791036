"""The tensors of a network that travel in federated training: which, in what order, and as one payload."""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from splitsem.codecs import wire
from splitsem.codecs.codec import Codec
from splitsem.codecs.half import HalfPrecision
from splitsem.codecs.identity import Identity
from splitsem.codecs.quantise import Quantise
from splitsem.errors import PayloadError
from splitsem.federated.flower import Array, ArrayRecord

State = dict[str, Tensor]
Statistics = Literal["shared", "local"]
_FINE = Quantise(8, entropy="rans")


class Layout:
    """What both ends know about a network's state without sending it.

    Args:
        model: the network; only names, shapes and dtypes of its state matter.
        statistics: ``shared`` sends the running statistics of normalisation layers as weights are sent; ``local``
            leaves them, and the layers' counters, where they are.
        only: names of a part of the network, whose other tensors are nobody's business here; None for all of it.

    Attributes:
        names: of the tensors that travel, in the network's order.
        own: of those that stay at each end.
        counters: of the travelling tensors that hold integers.
        statistics: of the travelling tensors that are running statistics.
        scalars: of the travelling tensors that have no dimension.
        fingerprint: of names, shapes and dtypes of what travels.
        raw_bytes: size of what travels as it lies in memory.
    """

    def __init__(
        self, model: nn.Module, statistics: Statistics = "shared", only: Collection[str] | None = None
    ) -> None:
        if statistics not in get_args(Statistics):
            raise ValueError(f"statistics must be one of {', '.join(get_args(Statistics))}, got {statistics!r}")
        state = {name: t for name, t in model.state_dict().items() if only is None or name in only}
        running = [name for name in _running_statistics(model) if name in state]
        self.own = frozenset(running if statistics == "local" else ())
        self.names = tuple(name for name in state if name not in self.own)
        self._like = {name: (tuple(state[name].shape), state[name].dtype) for name in self.names}
        self.counters = frozenset(name for name in self.names if not state[name].is_floating_point())
        self.statistics = frozenset(running) - self.own - self.counters
        self.scalars = frozenset(name for name in self.names if state[name].ndim == 0)
        self.fingerprint = hashlib.sha256(repr(sorted(self._like.items())).encode()).hexdigest()[:16]
        self.raw_bytes = sum(state[name].nbytes for name in self.names)

    @property
    def num_weights(self) -> int:
        """How many elements travel."""
        return sum(math.prod(shape) for shape, _ in self._like.values())

    def dtype(self, name: str) -> torch.dtype:
        """Of one tensor that travels."""
        return self._like[name][1]

    def of(self, model: nn.Module) -> State:
        """The network's tensors that travel, copied to the CPU."""
        state = model.state_dict()
        return {name: state[name].detach().to("cpu", copy=True) for name in self.names}

    def encode(self, codec: Codec, state: State) -> bytes:
        """The size of one payload, it, and the payload of the statistics if they have their own.

        Every tensor is one sample of its payload. A network is of no use while its statistics lag behind its weights,
        so a coarse or sparse codec is not for them: they travel in 8 bits. Raises ValueError for what the codec cannot
        represent.
        """
        fine = self._sent_in_8_bits(codec)
        main = codec.encode(tuple(state[name].unsqueeze(0) for name in self.names if name not in fine))
        rest = _FINE.encode(tuple(state[name].unsqueeze(0) for name in self.names if name in fine)) if fine else b""
        return wire.varint(len(main)) + main + rest

    def decode(self, codec: Codec, payload: bytes) -> State:
        """Undo ``encode``. Raises PayloadError for damage, another network's tensors, NaN and infinities."""
        fine = self._sent_in_8_bits(codec)
        reader = wire.Reader(payload)
        tensors = list(codec.decode(bytes(reader.take(reader.varint("payload size", len(payload)), "payload"))))
        names = [name for name in self.names if name not in fine]
        if fine:
            tensors += _FINE.decode(bytes(reader.rest()))
            names += [name for name in self.names if name in fine]
        reader.finish()
        if len(tensors) != len(names):
            raise PayloadError(f"expected {len(names)} tensors, got {len(tensors)}")
        by_name = {name: tensor.squeeze(0) for name, tensor in zip(names, tensors, strict=True)}
        state = {name: by_name[name] for name in self.names}
        self.check(state)
        return state

    def _sent_in_8_bits(self, codec: Codec) -> frozenset[str]:
        return frozenset() if isinstance(codec, Identity | HalfPrecision) else self.statistics

    def check(self, state: State) -> None:
        """Raise PayloadError unless these are finite tensors of this network."""
        if set(state) != set(self.names):
            raise PayloadError(f"expected the tensors of network {self.fingerprint}, got others")
        for name, (shape, dtype) in self._like.items():
            tensor = state[name]
            if tuple(tensor.shape) != shape or tensor.dtype is not dtype:
                raise PayloadError(f"expected {name} {shape} {dtype}, got {tuple(tensor.shape)} {tensor.dtype}")
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise PayloadError(f"expected finite values in {name}, got NaN or infinity")

    def difference(self, new: State, old: State) -> State:
        """What has to be sent for ``new`` to one who has ``old``: deltas; the new values of counters."""
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


def _running_statistics(model: nn.Module) -> list[str]:
    """Names of the buffers of batch and instance normalisation layers."""
    return [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, _NormBase)
        for name, _ in module.named_buffers(recurse=False)
    ]
