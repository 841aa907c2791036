"""FixedLength: what a wrong bit does, what it cannot do, and what the mappings and orders are for."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitsem.codecs import tolerant
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.quantise import Quantise
from splitsem.errors import PayloadError
from splitsem_device.entropy.bits import pack_symbols, unpack_symbols

Z = torch.linspace(0, 3.75, 64).reshape(1, 4, 4, 4)  # ReLU-like: the zero point is 0
FEW = settings(deadline=None, max_examples=60, derandomize=True)


def with_flipped_bit(payload: bytes, bit: int) -> bytes:
    """The payload with one wrong bit, counted from the end of its header."""
    damaged = bytearray(payload)
    damaged[tolerant.header_bytes(payload) + bit // 8] ^= 0x80 >> bit % 8
    return bytes(damaged)


@pytest.mark.parametrize("order", ["symbols", "planes"])
@pytest.mark.parametrize("bit_width", [1, 3, 4, 8, 11])
def test_a_wrong_bit_moves_one_value_by_a_power_of_two_steps(bit_width: int, order: str) -> None:
    codec = FixedLength(bit_width, clipping="minmax", order=order)
    payload = codec.encode((Z,))
    (clean,) = codec.decode(payload)
    step = 3.75 / (2**bit_width - 1)
    for bit in range(0, bit_width * 64, 7):
        (damaged,) = codec.decode(with_flipped_bit(payload, bit))
        changes = ((damaged - clean).abs() / step).flatten()
        significance = bit_width - 1 - (bit // 64 if order == "planes" else bit % bit_width)
        assert changes.count_nonzero() == 1
        assert changes.max().item() == pytest.approx(2**significance, rel=1e-3)


def test_gray_neighbours_differ_in_one_bit() -> None:
    codec = FixedLength(4, clipping="minmax", mapping="gray")
    z = torch.arange(16.0)[None]
    symbols = unpack_symbols(tolerant.unpack(codec.encode((z,)), codec.codec_id)[0].body, 16, 4)
    assert [int(a ^ b).bit_count() for a, b in pairwise(symbols)] == [1] * 15


def test_the_same_values_arrive_as_from_the_entropy_coded_quantiser() -> None:
    for mapping in ("natural", "gray"):
        (fixed,) = (codec := FixedLength(5, mapping=mapping)).decode(codec.encode((Z,)))
        assert torch.equal(fixed, Quantise(5)((Z,))[0])


def test_integers_and_scales_are_protected_and_symbols_are_not() -> None:
    codec = FixedLength(8)
    payload = codec.encode((Z, torch.arange(5), torch.tensor([True])))
    assert len(payload) - codec.protected_bytes(payload) == 64
    (_, integers, _) = codec.decode(payload[:-64] + bytes(64))
    assert integers.tolist() == [0, 1, 2, 3, 4]


def test_a_decoder_reads_every_setting_from_the_bytes() -> None:
    payload = FixedLength(3, "channel", mapping="gray", order="planes").encode((Z,))
    assert torch.equal(FixedLength(8).decode(payload)[0], Quantise(3, "channel")((Z,))[0])


@FEW
@given(data=st.data())
def test_any_damage_is_a_payload_error_or_tensors_of_the_shape(data: st.DataObject) -> None:
    payload = bytearray(FixedLength(4).encode((Z, torch.arange(3))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
    try:
        z_hat = FixedLength().decode(bytes(payload))
    except PayloadError:
        return
    assert [t.shape for t in z_hat] == [Z.shape, (3,)]
    assert z_hat[0].isfinite().all()


@FEW
@given(
    bit_width=st.integers(1, 16),
    values=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=40),
    as_planes=st.booleans(),
)
def test_packing_is_undone_by_unpacking(bit_width: int, values: list[int], as_planes: bool) -> None:
    symbols = np.array(values, np.uint16) & (2**bit_width - 1)
    packed = pack_symbols(symbols, bit_width, as_planes)
    assert np.array_equal(unpack_symbols(packed, len(values), bit_width, as_planes), symbols)
    with pytest.raises(PayloadError, match="bytes of"):
        unpack_symbols(packed + b"x", len(values), bit_width, as_planes)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"mapping": "random"}, "mapping must be one of natural, gray, got 'random'"),
        ({"order": "rows"}, "order must be one of symbols, planes, got 'rows'"),
        ({"bit_width": 17}, "bit_width must be 1…16, got 17"),
    ],
)
def test_bad_settings_are_named(settings_: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FixedLength(**settings_)
