"""The wire format: what it carries, what it costs, what it refuses."""

import zlib

import pytest
import torch

from splitsem.codecs import wire
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.errors import PayloadError
from splitsem_device.fields import Pieces


def with_checksum(content: bytes) -> bytes:
    """Content with a right CRC32 behind it."""
    return content + zlib.crc32(content).to_bytes(4, "little")


def test_header_of_one_four_dimensional_tensor_stays_below_24_bytes() -> None:
    z = torch.rand(1, 32, 56, 56)
    assert len(Identity().encode((z,))) - z.numel() * 4 < 24
    assert len(Quantise(8, entropy="none").encode((z,))) - z.numel() <= 25  # with the scale and the coder's byte


def test_payload_is_bytes() -> None:
    assert type(Identity().encode((torch.zeros(1),))) is bytes


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (1, 2, 3, 4), (1,) * 15])
def test_shapes_come_back(shape: tuple[int, ...]) -> None:
    (z,) = Identity().decode(Identity().encode((torch.ones(shape),)))
    assert z.shape == shape


def test_no_tensor_at_all_is_a_payload() -> None:
    assert Identity().decode(Identity().encode(())) == ()


def test_non_contiguous_tensors_travel() -> None:
    z = torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2)[::2]
    assert torch.equal(Identity().decode(Identity().encode((z,)))[0], z)


@pytest.mark.parametrize("z", [torch.zeros(0, 3), torch.zeros(2, dtype=torch.complex64), torch.zeros((1,) * 16)])
def test_what_cannot_cross_is_refused_by_the_sender(z: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="crossing tensors"):
        Identity().encode((z,))


def test_another_codec_s_payload_is_refused_by_name() -> None:
    with pytest.raises(PayloadError, match=r"expected a payload of codec identity \(1\), got one of codec half_prec"):
        Identity().decode(HalfPrecision().encode((torch.zeros(2),)))


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [(0, 0, "starts with"), (2, 9, "version 1, got 9"), (3, 200, "number 200"), (5, 0xF1, "dtype code below")],
)
def test_unknown_magic_version_codec_and_dtype_are_named(position: int, value: int, message: str) -> None:
    content = bytearray(Identity().encode((torch.zeros(2),))[:-4])
    content[position] = value
    with pytest.raises(PayloadError, match=message):
        Identity().decode(with_checksum(bytes(content)))


def test_any_single_damaged_byte_is_noticed() -> None:
    payload = Quantise(4).encode((torch.rand(1, 2, 5, 5),))
    for k in range(len(payload)):
        damaged = bytearray(payload)
        damaged[k] ^= 0x10
        with pytest.raises(PayloadError):
            Quantise(4).decode(bytes(damaged))


@pytest.mark.parametrize("size", range(0, 60, 7))
def test_truncation_is_noticed(size: int) -> None:
    with pytest.raises(PayloadError):
        Identity().decode(Identity().encode((torch.zeros(20),))[:size])


@pytest.mark.parametrize("codec_id", list(wire.CodecId))
def test_forty_bytes_that_claim_a_billion_elements_are_refused(codec_id: int) -> None:
    shape = b"".join(map(wire.varint, (1, 1000, 1000, 1000)))
    body = bytes(12)
    for claim in (shape, wire.varint(1) * 3 + wire.varint(1 << 27)):
        content = wire.MAGIC + bytes((wire.VERSION, codec_id, 1, 4)) + claim + wire.varint(len(body)) + body
        with pytest.raises(PayloadError, match=r"expected (shapes|.* bytes of padding)"):
            wire.unpack(with_checksum(content), codec_id)


def test_a_constant_tensor_is_padded_to_what_its_size_may_be_claimed_with() -> None:
    z = torch.zeros(1, 16, 128, 128)
    payload = Quantise(8).encode((z,))
    assert z.numel() / wire.ELEMENTS_PER_BYTE <= len(payload) <= z.numel() / wire.ELEMENTS_PER_BYTE + 30
    assert torch.equal(Quantise(8).decode(payload)[0], z)


@pytest.mark.parametrize("stride", [1, 2, 7, 100, 10_000])
def test_a_payload_in_pieces_is_the_payload(stride: int) -> None:
    z = (torch.rand(2, 3, 5), torch.arange(6).reshape(2, 3), torch.rand(2, 1) > 0.5)
    for codec in (Identity(), Quantise(4), HalfPrecision()):
        payload = codec.encode(z)
        pieces = Pieces([payload[k : k + stride] for k in range(0, len(payload), stride)])
        assert bytes(pieces) == payload
        assert all(map(torch.equal, codec.decode(pieces), codec.decode(payload)))


@pytest.mark.parametrize("stride", [1, 7, 100])
def test_damage_in_pieces_is_noticed(stride: int) -> None:
    payload = Identity().encode((torch.rand(1, 4, 4),))
    for k in range(len(payload)):
        for damaged in (payload[:k], payload[:k] + bytes((payload[k] ^ 1,)) + payload[k + 1 :]):
            with pytest.raises(PayloadError):
                Identity().decode(Pieces([damaged[i : i + stride] for i in range(0, len(damaged), stride)] or [b""]))


def test_decoded_tensors_share_no_memory_with_the_payload() -> None:
    z = torch.rand(1, 16)
    payload = bytearray(Identity().encode((z,)))
    for received in (payload, memoryview(payload), Pieces([memoryview(payload)[:20], memoryview(payload)[20:]])):
        before = bytes(payload)
        Identity().decode(received)[0].zero_()
        assert bytes(payload) == before
