"""Each promise of a codec is told when it is broken."""

import bz2
import gzip
import itertools
import lzma
import pickle
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from splitsem.check import check_codec
from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ContractError, PayloadError
from tests.unit.broken import Overrides, broken, lines


def remember_shape(self: Codec, z: Tensors) -> bytes:
    self.seen = z
    return Identity.encode(self, z)


COUNTER = itertools.count()


def unstable(self: Codec, z: Tensors) -> bytes:
    more = torch.tensor([next(COUNTER)])
    return Identity.encode(self, (*z, more))


class Unframed(Identity):
    is_framed = False

    def decode(self, payload: bytes) -> Tensors:
        try:
            return super().decode(payload)
        except PayloadError as exc:
            raise RuntimeError("not to be seen") from exc


def in_place(self: Codec, z: Tensors) -> bytes:
    payload = Identity.encode(self, z)
    for t in z:
        t.zero_()
    return payload


def only_contiguous(self: Codec, z: Tensors) -> bytes:
    for t in z:
        t.view(-1)
    return Identity.encode(self, z)


def no_inference_tensors(self: Codec, z: Tensors) -> bytes:
    if any(t.is_inference() for t in z):
        raise RuntimeError("inference tensors")
    return Identity.encode(self, z)


def raises(exc: Exception) -> Callable[..., Any]:
    def method(*_: Any) -> Any:
        raise exc

    return method


CODECS: dict[str, tuple[Overrides, str]] = {
    "constructor": ({"__init__": raises(OSError("no disk"))}, "the constructor makes a Codec: raised OSError: no disk"),
    "name": ({"name": ""}, "name is a text that is not empty: got ''"),
    "encoder_bytes": ({"encoder_bytes": -1}, "encoder_bytes is a whole number, 0 or more: got -1"),
    "not bytes": (
        {"encode": lambda self, z: [1]},
        "encode returns bytes, or refuses tensors by a ValueError or ConfigError",
    ),
    "cryptic refusal": (
        {"encode": raises(ValueError("two\nlines"))},
        "of one line: for float32 1×8, refused by ValueError",
    ),
    "crash": (
        {"encode": raises(IndexError("oh"))},
        "for float32 1×8, raised IndexError: oh (and in 10 more of 11 cases)",
    ),
    "nothing": (
        {"encode": raises(ValueError("no"))},
        "encode takes some of the tensors that were tried: it refuses all 11",
    ),
    "shape": (
        {"decode": lambda self, p: tuple(t.reshape(-1) for t in Identity.decode(self, p))},
        "of the same shapes and dtypes, on the CPU: for float32 1×8, got float32 8 (and in 10 more of 11 cases)",
    ),
    "dtype": (
        {"decode": lambda self, p: tuple(t.float() for t in Identity.decode(self, p))},
        "for float16 1×16×8×8, got float32 1×16×8×8 (and in 3 more of 11 cases)",
    ),
    "list": ({"decode": lambda self, p: list(Identity.decode(self, p))}, "got list, not a tuple"),
    "unstable": (
        {"encode": unstable, "decode": lambda self, p: Identity.decode(self, p)[:-1]},
        "the same tensors give the same bytes twice: for float32 1×8, got other bytes",
    ),
    "state": (
        {
            "encode": remember_shape,
            "decode": lambda self, p: tuple(t + 0 * len(self.seen) for t in Identity.decode(self, p)),
        },
        "a fresh codec decodes to the same tensors from the bytes alone: for float32 1×8, raised AttributeError",
    ),
    "input": (
        {"encode": in_place},
        "encode and forward leave their tensors as they are: for float32 1×8, encode changed them",
    ),
    "inference": (
        {"encode": no_inference_tensors},
        "encode works in inference mode: for float32 1×8, raised ContractError",
    ),
    "contiguous": (
        {"encode": only_contiguous},
        "encode takes tensors that are not contiguous: for float32 1×16×8×8, raised",
    ),
    "forward kind": (
        {"forward": lambda self, z: z[:1]},
        "forward gives tensors of the same shapes and dtypes: for float32 1×8 and",
    ),
    "forward": (
        {"forward": lambda self, z: tuple(t * 2 for t in z)},
        "forward gives what decode gives of encode's bytes: for float32 1×8, they differ by up to",
    ),
    "samplewise": (
        {"forward": lambda self, z: tuple(t * (1 + 2e-7) if t.shape[:1] == (3,) else t for t in z)},
        "forward makes of a batch what it makes of each sample alone: for float32 3×4×6×6, they differ",
    ),
    "detached": (
        {"forward": lambda self, z: tuple(t.detach() for t in z)},
        "gradients pass through forward: for float32 1×8, forward's result has no gradient",
    ),
    "rounded": (
        {
            "forward": lambda self, z: tuple(
                t + 0 * (t * 0).round() if not t.is_floating_point() else Flat.apply(t) for t in z
            )
        },
        "it is zero everywhere; pass it straight through where you round",
    ),
    "not finite": (
        {"forward": lambda self, z: tuple(t + (t * 0).sqrt() * 0 if t.is_floating_point() else t for t in z)},
        "gradients pass through forward: for float32 1×8, it is not finite",
    ),
    "protected": (
        {"protected_bytes": lambda self, p: len(p) + 1},
        "protected_bytes is a whole number from 0 to the payload's",
    ),
    "combine": (
        {"local_output": lambda self, z: z[0], "combine": lambda self, local, output: None},
        "combine takes local_output, with and without the server's output: for float32 1×8, got NoneType",
    ),
    "damage": (
        {"decode": lambda self, p: pickle_like(self, p)},
        "damaged payloads raise PayloadError and nothing else: for float32 scalar with no bytes in place of",
    ),
    "decode_all": (
        {"decode_all": lambda self, payloads, snr_db: [None for _ in payloads]},
        "decode_all gives None for a damaged payload and tensors for a whole one: for",
    ),
}


class Flat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 0


def pickle_like(self: Codec, payload: bytes) -> Tensors:
    try:
        return Identity.decode(self, payload)
    except PayloadError as exc:
        raise pickle.UnpicklingError("damaged") from exc


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_that_breaks_a_promise_is_told_which(name: str) -> None:
    overrides, said = CODECS[name]
    told = lines(check_codec, broken(Identity, **overrides))
    assert len(told) == 1, told
    assert said in told[0]


def test_all_broken_promises_are_told_not_only_the_first() -> None:
    told = lines(check_codec, broken(Identity, name=3, encoder_bytes=None, encode=unstable))
    assert [line.partition(":")[0].split(" is ")[0] for line in told[:2]] == ["name", "encoder_bytes"]
    assert len(told) >= 3


def test_the_envelope_of_the_framework_guards_a_codec_without_a_checksum_and_decode_is_tried_without_it() -> None:
    (told,) = lines(check_codec, Unframed)
    assert told.startswith("decode raises PayloadError and nothing else for damaged bytes behind a right checksum")
    assert "for float32 scalar with no bytes in place of" in told
    told = lines(check_codec, broken(Unframed, is_framed=True))
    assert told == [line for line in told if "damaged payloads raise PayloadError and nothing else" in line]


class Packed(Identity):
    """Small maps only, so that no large tensor shows what ``decode`` unpacks; a header of its own before the stream."""

    is_framed = False
    pack, unpack = staticmethod(zlib.compress), staticmethod(zlib.decompress)

    def encode(self, z: Tensors) -> bytes:
        if len(z) > 1 or z[0].dim() != 4 or z[0].numel() > 5000:
            raise ValueError("small maps only")
        return b"HEAD" + self.pack(super().encode(z))

    def decode(self, payload: bytes) -> Tensors:
        try:
            return super().decode(self.unpack(payload[4:]))
        except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError) as exc:
            raise PayloadError("no payload of Packed") from exc


FORMATS = {
    "zlib": (zlib.compress, zlib.decompress),
    "gzip": (gzip.compress, gzip.decompress),
    "bz2": (bz2.compress, bz2.decompress),
    "xz": (lzma.compress, lzma.decompress),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_codec_that_unpacks_without_a_bound_is_told(name: str) -> None:
    pack, unpack = FORMATS[name]
    (told,) = lines(check_codec, broken(Packed, pack=staticmethod(pack), unpack=staticmethod(unpack)))
    assert told.startswith(
        "bytes that unpack to 64 MB raise PayloadError; decode unpacks expected.most_bytes: for float"
    )
    assert f" with {name} of 64 MB of zeros after the content in " in told


def test_a_codec_that_unpacks_with_a_bound_passes() -> None:
    def unpack(self: Packed, packed: bytes) -> bytes:
        return zlib.decompressobj().decompress(packed, self.expected.most_bytes)

    check_codec(broken(Packed, unpack=unpack))


def test_what_leaves_decode_has_its_whole_name() -> None:
    def decode(self: Packed, payload: bytes) -> Tensors:
        return Identity.decode(self, zlib.decompress(payload[4:], bufsize=1))

    told = lines(check_codec, broken(Packed, decode=decode))
    assert "raised zlib.error: Error -5" in told[0]


def test_the_kept_promises_are_there_beside_the_broken_ones() -> None:
    with pytest.raises(ContractError) as caught:
        check_codec(broken(Identity, protected_bytes=lambda self, p: len(p) + 1))
    assert "encode works in inference mode" in caught.value.kept


def test_a_constructor_that_leaves_out_its_base_is_told() -> None:
    (told,) = lines(check_codec, broken(Identity, __init__=lambda self: None))
    assert told == "the constructor makes a Codec: its __init__ does not call super().__init__() before all else"


def test_a_codec_that_bears_wrong_bits_may_not_return_other_shapes() -> None:
    def decode(self: Codec, payload: bytes) -> Tensors:
        z = FixedLength.decode(self, payload)
        return z if payload in self.sent else tuple(t[None] for t in z)

    def encode(self: Codec, z: Tensors) -> bytes:
        payload = FixedLength.encode(self, z)
        SENT.add(payload)
        return payload

    SENT: set[bytes] = set()
    (told,) = lines(check_codec, broken(FixedLength, encode=encode, decode=decode, sent=SENT))
    assert "damaged payloads raise PayloadError and nothing else: for float32" in told
    assert " with bits " in told
    assert "read returned float32" in told
