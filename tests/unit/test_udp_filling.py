"""What takes the place of missing bytes changes no value beside them; where that cannot be, nothing does."""

import pytest
import torch

from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.errors import PayloadError
from splitsem.remote.udp.filling import filled, gaps_between


def with_gap(payload: bytes, start: int, length: int) -> bytearray:
    return bytearray(payload[:start] + bytes(length) + payload[start + length :])


def features() -> torch.Tensor:
    return torch.randn(1, 4, 20, 20, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("codec", [Identity(), HalfPrecision(), FixedLength(8), FixedLength(4, mapping="gray"),
                                   FixedLength(6, granularity="channel"), FixedLength(3)])  # fmt: skip
def test_missing_symbols_are_zero_and_the_others_as_sent(codec):
    z = features()
    payload = codec.payload((z,))
    start, length = len(payload) // 2, len(payload) // 4
    whole = filled(with_gap(payload, start, length), [(start, length)])
    (expected,), (got,) = codec.read(payload), codec.read(whole)
    is_zero = (got == 0).flatten()
    assert 0.2 < is_zero.float().mean() < 0.45
    assert (got != expected).flatten()[~is_zero].sum() <= 2  # symbols of which a part came
    first = int(is_zero.nonzero()[0])
    changed = (got != expected).flatten().nonzero().flatten()
    assert first - 2 <= changed.min()
    assert changed.max() - changed.min() <= 0.26 * z.numel() + 4


def test_missing_planes_cost_precision_and_not_the_value():
    codec, z = FixedLength(8, order="planes"), features().abs()
    payload = codec.payload((z,))
    start = len(payload) // 2  # the four least significant planes
    (got,) = codec.read(filled(with_gap(payload, start, len(payload) - start), [(start, len(payload) - start)]))
    assert (got - z).abs().max() < 0.13 * z.max()


@pytest.mark.parametrize("codec", [Identity(), FixedLength(8)])
@pytest.mark.parametrize("start", [0, 3, 8])
def test_a_gap_in_the_header_cannot_be_filled(codec, start):
    payload = codec.payload((features(),))
    assert filled(with_gap(payload, start, 100), [(start, 100)]) is None


def test_entropy_coded_payloads_cannot_be_filled():
    payload = Quantise(8).payload((features(),))
    assert filled(with_gap(payload, 200, 100), [(200, 100)]) is None


def test_what_is_whole_stays_as_it_is_even_if_it_is_no_payload():
    assert filled(bytearray(b"anything"), []) == b"anything"
    assert filled(bytearray(b"anything"), [(2, 2)]) is None
    assert filled(bytearray(), [(0, 5000)]) is None


def test_a_gap_in_the_checksum_alone_is_mended():
    payload = Identity().payload((features(),))
    whole = filled(with_gap(payload, len(payload) - 4, 4), [(len(payload) - 4, 4)])
    assert whole == payload


def test_a_small_payload_that_claims_a_huge_tensor_takes_no_memory_for_its_zeros():
    payload = bytearray(FixedLength(8).payload((torch.ones(1, 1, 32, 32),)))
    huge = FixedLength(1).payload((torch.ones(1, 1, 1024, 1024),))
    body = len(huge) - FixedLength(1).protected_bytes(huge)
    with pytest.raises(PayloadError):
        FixedLength.zero_bodies(huge[:-1])
    assert len(FixedLength.zero_bodies(huge)) == body
    assert len(FixedLength.zero_bodies(bytes(payload))) == 1024


@pytest.mark.parametrize(
    ("places", "gaps"),
    [
        ([0, 1, 2], []),
        ([], [(0, 10)]),
        ([0], [(4, 6)]),
        ([1], [(0, 4), (8, 2)]),
        ([0, 1], [(8, 2)]),
    ],
)
def test_gaps_are_what_no_piece_covers(places, gaps):
    pieces = {0: b"0123", 1: b"4567", 2: b"89"}
    assert gaps_between({place: pieces[place] for place in places}, 10, 4) == gaps
