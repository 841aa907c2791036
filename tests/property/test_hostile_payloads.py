"""What a stranger sends costs little, whatever it claims: header first, bounded time, bounded memory, PayloadError."""

import contextlib
import io
import random
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hostile_payloads import TIME_BAR, OwnCodec, attack, targets
from splitsem.check import check_codec
from splitsem.check.forgery import forge
from splitsem.codecs import wire
from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.expected import Expected
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.learned.bottleneck import Bottleneck
from splitsem.codecs.learned.crbq import CrBq
from splitsem.codecs.learned.entropic_student import EntropicStudent
from splitsem.codecs.learned.klt import Klt
from splitsem.codecs.learned.prior_codec import PriorCodec
from splitsem.codecs.picture import Jpeg, Pixels, Png, Webp
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.codecs.topk import TopK
from splitsem.errors import ContractError, PayloadError
from splitsem.tasks.answer import ClassMap
from splitsem_device import entropy
from splitsem_device.entropy import maps
from splitsem_device.fields import Field, join, join_tolerant, seal, varint

TARGETS = targets()
SMALL = [name for name in TARGETS if not name.endswith(("KB", "MB"))]
Z = (torch.linspace(-1, 1, 8 * 14 * 14).reshape(1, 8, 14, 14),)
PLAIN = (Identity(), HalfPrecision(), Quantise(), TopK(), FixedLength())


@pytest.mark.parametrize("name", SMALL)
def test_forged_payloads_behind_right_checksums_are_bounded(name: str) -> None:
    outcome = attack(TARGETS[name], 200, seed=len(name))
    assert outcome.faults == []
    assert outcome.time_ratio <= TIME_BAR
    assert outcome.grown_bytes <= 4 * TARGETS[name].num_bytes + (16 << 20)


def refused_s(codec: Codec, payload: bytes, expected: Expected, match: str) -> float:
    """Least CPU seconds of three refusals."""
    taken = []
    for _ in range(3):
        began = time.thread_time()
        with pytest.raises(PayloadError, match=match):
            codec.read(payload, expected)
        taken.append(time.thread_time() - began)
    return min(taken)


@pytest.mark.parametrize("codec", PLAIN, ids=lambda codec: codec.name)
def test_tensors_that_are_not_expected_are_refused_before_they_are_decoded(codec: Codec) -> None:
    payload = codec.payload((torch.zeros(1, 64, 256, 256),))
    for expected in (Expected.like(Z), Expected(Expected.like(Z).tensors, max_batch=4)):
        assert refused_s(codec, payload, expected, r"expected float32\[1, 8, 14, 14\], got float32") < 2e-3


def test_262_kilobytes_that_claim_all_that_a_payload_may_hold_cost_nothing() -> None:
    head = wire.tensor_head(torch.float32, (1, 1 << 28))
    payload = join(wire.CodecId.QUANTISE, [Field(head, 1 << 28, b"\7" + struct.pack("<f", 1.0) + b"\2")])
    assert len(payload) > 262_000
    assert refused_s(Quantise(), payload, Expected.like(Z), "expected float32") < 2e-3


def test_a_payload_of_many_more_tensors_than_expected_is_refused_by_their_number() -> None:
    fields = [Field(wire.tensor_head(torch.int8, ()), 1, b"\0")] * wire.MAX_TENSORS
    for codec, made in ((Identity(), join(1, fields)), (FixedLength(), join_tolerant(7, fields))):
        assert refused_s(codec, made, Expected.like(Z), "expected 1 tensors, got 16384") < 1e-3
    with pytest.raises(PayloadError, match="tensor count of at most 16384"):
        Identity().decode(join(1, [*fields, fields[0]]))
    with pytest.raises(ValueError, match="at most 16384 tensors"):
        Identity().encode((torch.zeros(1),) * (wire.MAX_TENSORS + 1))


@pytest.mark.parametrize("codec", PLAIN, ids=lambda codec: codec.name)
def test_a_body_larger_than_any_encoder_makes_is_refused_unread(codec: Codec) -> None:
    (z,) = Z
    head, body = wire.tensor_head(z.dtype, tuple(z.shape)), bytes(20 << 20)
    join_all = join_tolerant if isinstance(codec, FixedLength) else join
    payload = join_all(codec.codec_id, [Field(head, z.numel(), body)])
    assert refused_s(codec, payload, Expected.like(Z), "expected at most [0-9]+ bytes for float32") < 5e-3


def test_a_batch_is_taken_up_to_its_limit() -> None:
    expected = Expected(Expected.like(Z).tensors, max_batch=3, place=" at split point stem")
    for codec in PLAIN:
        (z_hat,) = codec.read(codec.payload((Z[0].repeat(3, 1, 1, 1),)), expected)
        assert z_hat.shape == (3, 8, 14, 14)
        with pytest.raises(PayloadError, match="expected a batch of at most 3 samples, got 4"):
            codec.read(codec.payload((Z[0].repeat(4, 1, 1, 1),)), expected)
        with pytest.raises(PayloadError, match=r"expected float32\[1, 8, 14, 14\] at split point stem, got float64"):
            codec.read(codec.payload((Z[0].double(),)), expected)


@pytest.mark.parametrize("cls", [Bottleneck, CrBq, EntropicStudent, Klt])
def test_a_learned_codec_refuses_samples_and_sizes_before_its_network_runs(cls: type) -> None:
    codec = cls(tensor_shape=(8, 14, 14)).eval()
    payload, expected = codec.payload((Z[0].repeat(64, 1, 1, 1),)), Expected.like(Z)
    codec.decoder.forward = None  # would be called
    assert refused_s(codec, payload, expected, r"expected float32\[1, 8, 14, 14\], got float32\[64") < 2e-3
    shape = (1, codec.num_values) if cls is CrBq else (1,)
    field = Field(wire.tensor_head(torch.float32, shape), 1, bytes(20 << 20))
    made = (join if issubclass(cls, PriorCodec) else join_tolerant)(codec.codec_id, [field])
    assert refused_s(codec, made, expected, "expected .* bytes for 1") < 5e-3


def test_what_is_expected_holds_for_the_codec_that_reads_and_in_its_thread_only() -> None:
    codec, other = Identity(), Identity()
    with codec.expecting(Expected.like(Z)):
        assert codec.expected.num_tensors == 1
        assert other.expected.num_tensors is None
    assert codec.expected.num_tensors is None


# entropy coders


@pytest.mark.parametrize("bit_width", [1, 4, 8])
def test_damaged_codes_of_maps_are_symbols_or_a_payload_error(bit_width: int) -> None:
    rng = random.Random(bit_width)
    for shape in ((700,), (1, 9, 14, 14), (1, 24, 28, 28)):
        values = np.random.default_rng(0).poisson(2, shape).clip(0, (1 << bit_width) - 1).astype(np.uint8)
        body = maps.encode(values.reshape(-1), shape, bit_width, 0)
        for _ in range(60):
            forged = bytearray(body)
            for _ in range(rng.randint(1, 3)):
                forged[rng.randrange(rng.choice((12, len(forged))))] = rng.randrange(256)
            for given in (forged, forged[: rng.randrange(len(forged))], forged + bytes(rng.randint(1, 3))):
                with contextlib.suppress(PayloadError):
                    assert maps.decode(memoryview(given), shape, bit_width, 0).max() < 1 << bit_width


def test_a_code_of_a_map_is_taken_whole_only() -> None:
    symbols = np.random.default_rng(0).poisson(2, 9000).astype(np.uint8)
    body = maps.encode(symbols, (9000,), 4, 0)
    for given in (body[:-2], body[:-1], body + b"\0", body + b"\0\0", b"", body[:5]):
        with pytest.raises(PayloadError, match="expected a whole code of 9000 symbols"):
            maps.decode(memoryview(given), (9000,), 4, 0)


def test_levels_that_no_encoder_makes_are_refused() -> None:
    head = maps.encode(np.zeros(9000, np.uint8), (9000,), 4, 0)
    assert head[0] == 0  # one level of either kind: a half byte each
    many = "97" + 31 * "0" + "87" + 15 * "0"  # 32 levels times 16: 512 contexts
    for halves in ("f050", "7f000", "0f010", many, "1f0ff"):  # 81 levels; steps outside; 17 levels
        forged = bytes.fromhex(halves + "0" * (len(halves) % 2)) + head[1:]
        with pytest.raises(PayloadError, match="expected a whole code"):
            maps.decode(memoryview(forged), (9000,), 4, 0)


def test_more_gaps_than_an_encoder_writes_are_refused() -> None:
    shape = (1, 100_000)
    gaps = entropy.encode(np.zeros(50_000, np.uint8), (50_000,), 8, 0, "none")
    positions = varint(50_000) + gaps
    body = b"\4" + varint(len(positions)) + positions + bytes(4 * 50_000)
    with pytest.raises(PayloadError, match="number of gaps of at most 12893"):
        TopK().decode(join(wire.CodecId.TOP_K, [Field(wire.tensor_head(torch.float32, shape), 100_000, body)]))


@pytest.mark.parametrize("bit_width", [1, 3, 8, 11, 16])
@pytest.mark.parametrize("order", ["symbols", "planes"])
def test_symbols_of_fixed_length_are_unpacked_in_little_memory(bit_width: int, order: str) -> None:
    codec = FixedLength(bit_width, order=order)
    z = (torch.rand(1, 200_003),)
    payload = codec.payload(z)
    assert torch.equal(codec.read(payload)[0], codec(z)[0])
    tracemalloc.start()
    codec.read(payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2.5 * 4 * 200_003 + (1 << 20) * 1.5


# pictures


def picture(width: int = 64, height: int = 48) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def saved(kind: str, image: Image.Image | None = None, **settings: object) -> bytes:
    if image is None:
        image = Image.fromarray((picture()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def of_file(codec: Codec, data: bytes) -> bytes:
    head = wire.tensor_head(torch.float32, (1, 3, 48, 64))
    return join(codec.codec_id, [Field(head, 3 * 48 * 64, varint(len(data)) + data)])


def progressive_of_many_scans() -> bytes:
    data = saved("JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    return data[:-2] + data[scan:-2] * 20 + data[-2:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, colour: int = 2, depth: int = 8, interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", 64, 48, depth, colour, 0, 0, interlace)
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")))


PIXELS = zlib.compress(bytes(48 * (1 + 3 * 64)))
FRAMES = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
FORGED: dict[str, tuple[Codec, bytes]] = {
    "progressive": (Jpeg(), saved("JPEG", progressive=True)),
    "progressive, many scans": (Jpeg(), progressive_of_many_scans()),
    "two scans": (Jpeg(), saved("JPEG")[:-2] + saved("JPEG")[saved("JPEG").rindex(b"\xff\xda") :]),
    "comments": (Jpeg(), saved("JPEG")[:2] + b"\xff\xfe\0\2" * 3000 + saved("JPEG")[2:]),
    "full chroma": (Jpeg(), saved("JPEG", subsampling=0)),
    "restarts": (Jpeg(), saved("JPEG", restart_marker_blocks=1)),
    "CMYK": (Jpeg(), saved("JPEG", Image.new("CMYK", (64, 48)))),
    "grey": (Jpeg(), saved("JPEG", Image.new("L", (64, 48)))),
    "a huge JPEG": (Jpeg(), saved("JPEG", Image.new("RGB", (3000, 3000)))),
    "a PNG for a JPEG": (Jpeg(), saved("PNG")),
    "text": (Png(), png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000))), chunk(b"IDAT", PIXELS))),
    "interlaced": (Png(), png(chunk(b"IDAT", PIXELS), interlace=1)),
    "sixteen bits": (Png(), png(chunk(b"IDAT", PIXELS), depth=16)),
    "alpha": (Png(), saved("PNG", Image.new("RGBA", (64, 48)))),
    "tiny chunks": (Png(), png(*(chunk(b"IDAT", PIXELS[k : k + 1]) for k in range(len(PIXELS))))),
    "no pixels": (Png(), png(chunk(b"IDAT", zlib.compress(b"")))),
    "animated PNG": (Png(), saved("PNG", FRAMES[0], save_all=True, append_images=FRAMES[1:])),
    "a huge PNG": (Png(), saved("PNG", Image.new("RGB", (3000, 3000)))),
    "animated WebP": (Webp(), saved("WEBP", FRAMES[0], save_all=True, append_images=FRAMES[1:])),
    "metadata": (Webp(), saved("WEBP", exif=b"Exif\0\0" + bytes(500))),
    "a second chunk": (Webp(), saved("WEBP") + b"JUNK" + bytes(4)),
    "a huge WebP": (Webp(), saved("WEBP", Image.new("RGB", (3000, 3000)))),
    "too few pixels": (Pixels(), bytes(48 * 64)),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_file_that_no_encoder_here_writes_is_refused_before_it_is_decoded(name: str) -> None:
    codec, data = FORGED[name]
    assert refused_s(codec, of_file(codec, data), Expected.like((picture(),)), "expected") < 5e-3


@pytest.mark.parametrize("codec", [Jpeg(), Jpeg(1), Jpeg(100), Png(), Webp(), Webp(lossless=True), Pixels()], ids=repr)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 48), (300, 400)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_an_encoder_writes_is_read(codec: Codec, size: tuple[int, int], channels: int) -> None:
    for z in (picture(*size)[:, :channels].repeat(5, 1, 1, 1), torch.zeros(2, channels, *size)):
        assert torch.equal(codec.read(codec.payload((z,)), Expected.like((z,)))[0], codec((z,))[0])


# answers


def test_an_answer_longer_than_any_map_of_its_size_is_refused_unread() -> None:
    coder = ClassMap((4, 8, 8))
    blocks = b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * 1_000_000
    began = time.thread_time()
    with pytest.raises(PayloadError, match="class map of 64 bytes in at most 129 "):
        coder.decode(blocks)
    assert time.thread_time() - began < 1e-3
    for classes in (4, 300):  # random classes do not compress
        output = torch.rand(1, classes, 64, 64)
        assert torch.equal(
            ClassMap((classes, 64, 64)).decode(ClassMap((classes, 64, 64)).encode(output)), output[0].argmax(0)
        )


# a codec of one's own


class Unbounded(OwnCodec):
    """Unpacks whatever comes."""

    def decode(self, payload: bytes) -> Tensors:
        """See Codec."""
        return Identity().decode(zlib.decompress(payload))


def test_a_codec_that_unpacks_whatever_comes_is_told_so_by_the_check() -> None:
    check_codec(OwnCodec)
    with pytest.raises(ContractError) as told:
        check_codec(Unbounded)
    assert "a payload of larger tensors than expected raises PayloadError" in str(told.value)
    assert "MB, allowed are 16" in str(told.value)


def test_a_bomb_for_a_codec_of_ones_own_is_refused_in_the_memory_of_what_is_expected() -> None:
    bomb = seal("OwnCodec", zlib.compress(bytes(200 << 20)))
    tracemalloc.start()
    with pytest.raises(PayloadError):
        OwnCodec().read(bomb, Expected.like(Z))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    with pytest.raises(PayloadError, match="expected a payload of at most"):
        OwnCodec().read(seal("OwnCodec", bytes(1 << 20)), Expected.like(Z))


def test_other_tensors_or_errors_from_a_strangers_bytes_are_payload_errors() -> None:
    codec = OwnCodec()
    with pytest.raises(PayloadError, match=r"decode must give back float32\[1, 8, 14, 14\], got float32\[2\]"):
        codec.read(codec.payload((torch.zeros(2),)), Expected.like(Z))
    with pytest.raises(PayloadError, match="decode raised error on undamaged bytes"):
        Unbounded().read(seal("Unbounded", b"no zlib at all"), Expected.like(Z))


def test_a_seed_forges_the_same_payload_again() -> None:
    payload = Quantise().payload(Z)
    first, second = ([forge(payload, [payload], random.Random(seed)) for seed in range(40)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 30
