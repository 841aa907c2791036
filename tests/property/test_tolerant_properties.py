"""The tolerant wire format: wrong bits pass in bodies and never in the header; forged headers stay bounded."""

import binascii

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitsem.codecs import tolerant, wire
from splitsem.codecs.tolerant import TolerantPart
from splitsem.errors import PayloadError

ID = 200
QUICK = settings(deadline=None, max_examples=100, derandomize=True)

parts = st.lists(
    st.builds(
        TolerantPart,
        st.sampled_from((torch.float32, torch.float16, torch.int64)),
        st.lists(st.integers(1, 9), max_size=4).map(tuple),
        st.binary(min_size=8, max_size=20),
        st.binary(max_size=90),
    ),
    max_size=3,
)


@QUICK
@given(sent=parts)
def test_what_is_packed_is_unpacked(sent: list[TolerantPart]) -> None:
    assert tolerant.unpack(tolerant.pack(ID, sent), ID) == sent


@QUICK
@given(sent=parts, data=st.data())
def test_wrong_bits_in_bodies_change_those_bits_only(sent: list[TolerantPart], data: st.DataObject) -> None:
    payload = bytearray(tolerant.pack(ID, sent))
    header = tolerant.header_bytes(payload)
    bodies = b"".join(part.body for part in sent)
    assert payload[header:] == bodies
    if bodies:
        at = data.draw(st.integers(0, len(bodies) - 1))
        payload[header + at] ^= 1 << data.draw(st.integers(0, 7))
        received = tolerant.unpack(bytes(payload), ID)
        assert [part._replace(body=b"") for part in received] == [part._replace(body=b"") for part in sent]
        got = b"".join(part.body for part in received)
        assert [i for i, (a, b) in enumerate(zip(bodies, got, strict=True)) if a != b] == [at]


@QUICK
@given(sent=parts, data=st.data())
def test_any_burst_of_up_to_two_bytes_in_the_header_is_a_payload_error(
    sent: list[TolerantPart], data: st.DataObject
) -> None:
    payload = bytearray(tolerant.pack(ID, sent))
    at = data.draw(st.integers(0, tolerant.header_bytes(payload) - 2))
    wrong = data.draw(st.integers(1, 0xFFFF)).to_bytes(2, "big")
    payload[at] ^= wrong[0]
    payload[at + 1] ^= wrong[1]
    with pytest.raises(PayloadError):
        tolerant.unpack(bytes(payload), ID)


@QUICK
@given(sent=parts, cut=st.integers(1, 40), more=st.binary(min_size=1, max_size=9))
def test_a_payload_of_another_length_is_a_payload_error(sent: list[TolerantPart], cut: int, more: bytes) -> None:
    payload = tolerant.pack(ID, sent)
    for wrong in (payload[:-cut], payload + more):
        with pytest.raises(PayloadError):
            tolerant.unpack(wrong, ID)


@QUICK
@given(content=st.binary(max_size=60), count=st.integers(0, 3), bodies=st.binary(max_size=40))
def test_a_forged_header_is_a_payload_error_or_announces_no_more_than_came(
    content: bytes, count: int, bodies: bytes
) -> None:
    header = tolerant.MAGIC + bytes((wire.VERSION, ID, count)) + content
    forged = header + binascii.crc_hqx(header, 0).to_bytes(2, "little") + bodies
    try:
        received = tolerant.unpack(forged, ID)
    except PayloadError:
        return
    elements = sum(torch.Size(part.shape).numel() for part in received)
    assert elements <= wire.ELEMENTS_PER_BYTE * len(forged)


def test_a_small_payload_has_a_small_header() -> None:
    sent = [TolerantPart(torch.float32, (1, 8, 4, 4), b"", bytes(48))]
    assert tolerant.header_bytes(tolerant.pack(ID, sent)) == 14


def test_each_kind_of_payload_is_refused_by_the_reader_of_the_other() -> None:
    checked = wire.pack(ID, [wire.Part(torch.float32, (2,), bytes(8))])
    with pytest.raises(PayloadError, match="starts with b'sT'"):
        tolerant.unpack(checked, ID)
    with pytest.raises(PayloadError, match="starts with b'sS'"):
        wire.unpack(tolerant.pack(ID, [TolerantPart(torch.float32, (2,), b"", bytes(8))]), ID)


def test_another_codec_and_another_version_are_named() -> None:
    payload = tolerant.pack(ID, [TolerantPart(torch.float32, (2,), b"", bytes(8))])
    with pytest.raises(PayloadError, match="number 201, got one of codec number 200"):
        tolerant.unpack(payload, ID + 1)
    header = bytearray(payload[: tolerant.header_bytes(payload) - 2])
    header[2] = 9
    with pytest.raises(PayloadError, match="version 1, got 9"):
        tolerant.unpack(bytes(header) + binascii.crc_hqx(header, 0).to_bytes(2, "little") + bytes(8), ID)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (TolerantPart(torch.complex64, (2,), b"", bytes(8)), "real numbers"),
        (TolerantPart(torch.float32, (0, 2), b"", bytes(8)), "no empty one"),
        (TolerantPart(torch.float32, (64, 64), b"", bytes(3)), "give the shape of the code"),
    ],
)
def test_what_cannot_cross_is_refused(part: TolerantPart, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tolerant.pack(ID, [part])
