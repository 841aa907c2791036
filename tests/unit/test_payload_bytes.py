"""Payloads stay as they are: their bytes were recorded, and an old payload is read by today's code."""

import hashlib
import itertools
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.codecs.topk import TopK
from splitsem.errors import ContractError, PayloadError
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames, Pipeline
from splitsem.splitting.graph import SplitGraph


def sparse_map(num_channels: int) -> Tensor:
    """A map ``(1, num_channels, 6, 6)`` of multiples of 1/64, many of them zero; exact on every machine."""
    return ((torch.arange(num_channels * 36) * 37 % 251 - 100).clamp_min(0).float() / 64).reshape(1, num_channels, 6, 6)


Z = (sparse_map(8), torch.arange(5)[None], sparse_map(3).bfloat16())
RECORDED = [  # bytes, and the first 16 digits of their SHA-256; zstd's depend on its version, so it is not here
    (Identity(), 1435, "a7b7d6c082d24014"),
    (HalfPrecision(), 859, "329510b54e59d4f4"),
    (Quantise(1, entropy="none"), 127, "8863d845bca7abee"),
    (Quantise(4, entropy="none"), 276, "0e218e2580ba9429"),
    (Quantise(8, entropy="none"), 474, "0bbf1ba03fe308f6"),
    (Quantise(1, entropy="rans"), 127, "8863d845bca7abee"),
    (Quantise(4, entropy="rans"), 256, "15188a9d7f1bd1fe"),
    (Quantise(8, entropy="rans"), 398, "10fe349eca7dce59"),
    (Quantise(1, entropy="context"), 120, "0b7c55c1030436af"),
    (Quantise(4, entropy="context"), 226, "2bced73b06bb8f17"),
    (Quantise(8, entropy="context"), 370, "6a0b9a0e8fe527c0"),
    (Quantise(8, "channel"), 386, "308e27b29228ef53"),
    (TopK(0.1), 238, "befcd30335aeb7d0"),
    (TopK(0.25, bit_width=4), 452, "a6a97ea3b33ae5ed"),
    (FixedLength(3), 225, "41660ea5da666d0d"),
]


class Sum(Codec):
    """A codec of three methods, for a tensor of whole numbers below 256."""

    def forward(self, z: Tensors) -> Tensors:
        return z

    def encode(self, z: Tensors) -> bytes:
        return bytes(map(int, z[0].flatten().tolist()))

    def decode(self, payload: bytes) -> Tensors:
        return (torch.tensor(list(payload)),)


@pytest.mark.parametrize(("codec", "num_bytes", "sha256"), RECORDED, ids=lambda value: getattr(value, "name", ""))
def test_a_built_in_codec_makes_the_recorded_bytes(codec: Codec, num_bytes: int, sha256: str) -> None:
    payload = codec.payload(Z)
    assert len(payload) == num_bytes
    assert hashlib.sha256(payload).hexdigest()[:16] == sha256
    assert payload == codec.encode(Z)


def test_the_envelope_has_the_recorded_bytes() -> None:
    payload = Sum().payload((torch.tensor([1, 2, 255]),))
    assert payload.hex() == "7345010353756d0102ff" + payload[-4:].hex()
    assert Sum().read(payload)[0].tolist() == [1, 2, 255]


def test_any_damage_to_an_envelope_is_a_payload_error() -> None:
    payload = Sum().payload((torch.arange(40),))
    damaged = [payload[:end] for end in range(len(payload))] + [payload + b"\0", b""]
    for place, bit in itertools.product(range(len(payload)), (1, 128)):
        damaged.append(payload[:place] + bytes((payload[place] ^ bit,)) + payload[place + 1 :])
    for received in damaged:
        with pytest.raises(PayloadError):
            Sum().read(received)


def test_the_payload_of_another_codec_is_refused_by_name() -> None:
    class Other(Sum):
        pass

    payload = Other().payload((torch.arange(4),))
    with pytest.raises(PayloadError, match="expected a payload of codec Sum, got one of codec Other"):
        Sum().read(payload)
    with pytest.raises(PayloadError, match="expected a payload of codec Sum"):
        Sum().read(Identity().payload(Z))


def test_a_pipeline_refuses_two_codecs_whose_random_weights_differ() -> None:
    class Random(Sum):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("key", torch.rand(4))

    graph = SplitGraph(torch.nn.Linear(4, 2).eval(), (4,))
    with pytest.raises(ContractError, match="must have equal weights"):
        Pipeline(graph.cut("input"), Random(), Random(), SimulatedLink(1e6, 0.0, 0.0))


def _raise(*_: object) -> bytes:
    raise RuntimeError("odd")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encode": lambda self, z: [1]}, "encode must return bytes, got list"),
        ({"encode": _raise}, r"encode raised RuntimeError \(odd\)"),
        ({"encode": lambda self, z: os.urandom(8)}, "encode must give the same bytes for the same tensors"),
        ({"decode": lambda self, payload: None}, "decode must return a tuple of tensors, got None"),
        (
            {"decode": lambda self, payload: (torch.zeros(2),)},
            r"decode must give back float32\[1, 4\], got",
        ),
    ],
)
def test_a_broken_promise_is_told_by_the_pipeline_that_meets_it(changes: dict[str, Any], told: str) -> None:
    broken = type("Broken", (Sum,), changes)
    graph = SplitGraph(torch.nn.Linear(4, 2).eval(), (4,))
    pipeline = Pipeline(graph.cut("input"), broken(), broken(), SimulatedLink(1e6, 0.0, 0.0))
    with pytest.raises(ContractError, match=f"Broken breaks the contract of a codec: {told}"):
        pipeline.run(torch.ones(1, 4), Frames())


def test_a_link_that_reports_nothing_is_told_by_the_pipeline() -> None:
    class Silent(SimulatedLink):
        def send(self, payload: bytes, protected_bytes: int | None = None) -> None: ...

    graph = SplitGraph(torch.nn.Linear(4, 2).eval(), (4,))
    pipeline = Pipeline(graph.cut("input"), Identity(), Identity(), Silent(1e6, 0.0, 0.0))
    with pytest.raises(
        ContractError, match="Silent breaks the contract of a link: send must return a LinkReport, got N"
    ):
        pipeline.run(torch.ones(1, 4), Frames())
