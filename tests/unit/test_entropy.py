"""Entropy stages: exact, as small as promised, and safe."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.topk import TopK
from splitsem.errors import PayloadError
from splitsem_device import entropy, sources
from splitsem_device.entropy import choice
from splitsem_device.entropy.bits import pack_bits, packed_size, unpack_bits
from splitsem_device.entropy.maps import Layout

ENTROPIES = ("none", "zstd", "rans", "context")
Z = torch.randn(1, 16, 24, 24, generator=torch.Generator().manual_seed(0)).relu()


def feature_symbols(bit_width: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Symbols of a smooth, zero-inflated map of channels of different activity."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=shape)
    for _ in range(2):
        smooth = (smooth + np.roll(smooth, 1, -1) + np.roll(smooth, 1, -2) + np.roll(smooth, (1, 1), (-1, -2))) / 2
    active = np.maximum(smooth * rng.uniform(0.3, 1.5, (shape[1], 1, 1)) - 0.4, 0)
    return np.rint(active / active.max() * (2**bit_width - 1)).astype(np.uint8)


def order_0_bytes(symbols: np.ndarray) -> float:
    """Empirical order-0 entropy of all symbols, in bytes."""
    counts = np.bincount(symbols.reshape(-1))
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / symbols.size)).sum() / 8)


@pytest.mark.parametrize("bit_width", range(1, 9))
@pytest.mark.parametrize("num", [1, 7, 8, 9, 1000])
def test_packed_bits_come_back_and_waste_none(bit_width: int, num: int) -> None:
    symbols = np.random.default_rng(0).integers(0, 1 << bit_width, num, dtype=np.uint8)
    packed = pack_bits(symbols, bit_width)
    assert len(packed) == packed_size(num, bit_width) == -(-num * bit_width // 8)
    assert np.array_equal(unpack_bits(memoryview(packed), num, bit_width), symbols)


@pytest.mark.parametrize("stage", ENTROPIES)
@pytest.mark.parametrize("bit_width", [1, 3, 8, 12, 16])
@pytest.mark.parametrize("shape", [(1,), (70,), (2, 3, 5, 7), (1, 40_000), (1, 3, 120, 110), (5, 1, 1)])
def test_symbols_come_back_and_never_cost_more_than_packing(stage: str, bit_width: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    dtype = np.uint8 if bit_width <= 8 else np.uint16
    for symbols in (
        rng.integers(0, 1 << bit_width, np.prod(shape), dtype=dtype),
        np.full(np.prod(shape), (1 << bit_width) - 1, dtype),
    ):
        body = entropy.encode(symbols, shape, bit_width, 1, stage)
        assert len(body) <= packed_size(symbols.size, bit_width) + 2
        assert np.array_equal(entropy.decode(memoryview(body), shape, bit_width, 1), symbols)


@pytest.mark.parametrize(("bit_width", "loss"), [(4, 0.005), (8, 0.005)])
def test_rans_is_near_the_order_0_bound(bit_width: int, loss: float) -> None:
    symbols = feature_symbols(bit_width, (1, 16, 80, 80))
    assert symbols.size >= 100_000
    body = entropy.encode(symbols.reshape(-1), symbols.shape, bit_width, 0, "rans")
    assert len(body) + 24 <= (1 + loss) * order_0_bytes(symbols)  # 24 bytes of header


@pytest.mark.parametrize(
    ("bit_width", "shape", "gain"),
    [(8, (1, 16, 80, 80), 0.07), (8, (1, 16, 24, 24), 0.06), (4, (1, 16, 80, 80), 0.2), (4, (1, 16, 24, 24), 0.14)],
)
def test_contexts_beat_the_order_0_bound(bit_width: int, shape: tuple[int, ...], gain: float) -> None:
    symbols = feature_symbols(bit_width, shape)
    body = entropy.encode(symbols.reshape(-1), shape, bit_width, 0, "context")
    assert len(body) + 24 <= (1 - gain) * order_0_bytes(symbols)


def test_one_dominant_symbol_is_coded_without_overflow() -> None:
    symbols = np.zeros(200_000, np.uint8)
    for rare in (0, 1, 3):
        symbols[:rare] = 255
        body = entropy.encode(symbols, symbols.shape, 8, 0, "rans")
        assert len(body) < 60
        assert np.array_equal(entropy.decode(memoryview(body), symbols.shape, 8, 0), symbols)


def test_every_symbol_rare_but_one_still_gets_a_frequency() -> None:
    symbols = np.concatenate([np.arange(256), np.full(1_000_000, 7)]).astype(np.uint8)
    body = entropy.encode(symbols, symbols.shape, 8, 0, "rans")
    assert np.array_equal(entropy.decode(memoryview(body), symbols.shape, 8, 0), symbols)


@pytest.mark.parametrize("num", [3000, 40_000])
def test_encoding_leaves_its_input_alone_and_is_deterministic(num: int) -> None:
    symbols = np.random.default_rng(0).poisson(3, num).clip(0, 15).astype(np.uint8)
    before = symbols.copy()
    first, second = (entropy.encode(symbols, (num,), 4, 0, "context") for _ in range(2))
    assert first == second
    assert np.array_equal(symbols, before)


def test_a_zstd_frame_of_another_size_is_refused_before_it_is_unpacked() -> None:
    body = entropy.encode(np.zeros(4_000_000, np.uint8), (4_000_000,), 8, 0, "zstd")
    with pytest.raises(PayloadError, match="zstd frame of 10 bytes, got one of 4000000"):
        entropy.decode(memoryview(body), (10,), 8, 0)


@pytest.mark.parametrize("mode", [2, 3, 4, 255])
def test_an_unknown_mode_is_refused_those_of_earlier_coders_too(mode: int) -> None:
    with pytest.raises(PayloadError, match=f"expected entropy mode 0, 1 or 5, got {mode}"):
        entropy.decode(memoryview(bytes((mode, *b"abc"))), (3,), 8, 0)


@pytest.mark.parametrize("bit_width", [1, 2, 4, 5, 8])
@pytest.mark.parametrize(
    "shape", [(1499,), (1500,), (2, 3000), (5, 1, 1200), (1, 7, 40, 30), (3, 5, 1, 9), (9, 700, 1), (1, 2, 3, 2100)]
)
def test_maps_come_back_whatever_their_shape_and_values(bit_width: int, shape: tuple[int, ...]) -> None:
    rng, most, num = np.random.default_rng(2), (1 << bit_width) - 1, int(np.prod(shape))
    smooth = np.cumsum(rng.normal(size=num)) % 40 / 40 * most
    rare = np.where(rng.random(num) < 0.01, rng.integers(0, most + 1, num), most // 2)
    for values in (smooth, rare, np.zeros(num), rng.poisson(most / 8, num).clip(0, most)):
        symbols = values.astype(np.uint8)
        for fill in {0, most // 2, most}:
            body = entropy.encode(symbols, shape, bit_width, fill, "context")
            assert np.array_equal(entropy.decode(memoryview(body), shape, bit_width, fill), symbols)


def test_what_the_neighbours_foretell_is_nearly_free() -> None:
    rows, cols = np.mgrid[:120, :120]
    symbols = np.tile((rows + 2 * cols).astype(np.uint8) // 2, (8, 1, 1))  # a slope: MED is right but at its steps
    coded = {s: entropy.encode(symbols.reshape(-1), symbols.shape, 8, 0, s) for s in ("zstd", "rans", "context")}
    assert 2 * len(coded["context"]) < len(coded["rans"])


def test_planes_that_are_nearly_flat_at_values_of_their_own_cost_little() -> None:
    rng, shape = np.random.default_rng(0), (1, 40, 32, 32)
    symbols = (rng.integers(20, 236, (40, 1, 1)) + rng.integers(-1, 2, shape[1:])).astype(np.uint8)  # log2 3 bits each
    body = entropy.encode(symbols.reshape(-1), shape, 8, 0, "context")
    assert 2 * len(body) < order_0_bytes(symbols)
    assert np.array_equal(entropy.decode(memoryview(body), shape, 8, 0), symbols.reshape(-1))


def test_an_update_whose_layers_differ_in_scale_takes_less_than_its_order_0_bound() -> None:
    scales = np.repeat((1, 30, 4, 12), 5000)
    update = np.random.default_rng(0).laplace(128, scales).round().clip(0, 255).astype(np.uint8)
    body = entropy.encode(update, (10, 2000), 8, 128, "context")
    assert len(body) < 0.95 * order_0_bytes(update)


def test_auto_codes_where_bytes_are_dear_and_packs_where_they_are_cheap() -> None:
    symbols = feature_symbols(8, (1, 16, 24, 24))
    flat, shape = symbols.reshape(-1), symbols.shape
    packed, coded = (entropy.encode(flat, shape, 8, 0, stage) for stage in ("none", "context"))
    assert entropy.encode(flat, shape, 8, 0, "auto", 1e3) == coded
    assert entropy.encode(flat, shape, 8, 0, "auto", 1e15) == packed


def test_auto_weighs_time_against_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_times_s", lambda bit_width: (1e-3, 0.0))  # as long as 1,000 bits at 1 Mbit/s
    symbols = np.zeros(1000, np.uint8)
    symbols[:500] = 1  # 1 bit each
    assert choice.pays(symbols, 3, 1e6)  # saves 2,000
    assert not choice.pays(symbols, 2, 1.1e6)  # saves 1,000
    assert choice.pays(symbols, 2, 0.9e6)


@pytest.mark.parametrize(
    ("rate_bps", "said"), [(None, "auto needs the link's rate"), (0.0, "rate_bps must be positive"), (-1.0, "rate_bps")]
)
def test_auto_without_a_rate_is_refused(rate_bps: float | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Quantise(entropy="auto", rate_bps=rate_bps)


def test_quantise_takes_auto_and_topk_does_not() -> None:
    assert Quantise(entropy="auto", rate_bps=1e3).encode((Z,)) == Quantise(entropy="context").encode((Z,))
    assert Quantise(entropy="auto", rate_bps=1e15).encode((Z,)) == Quantise(entropy="none").encode((Z,))
    with pytest.raises(ValueError, match="entropy must be one of none, zstd, rans, context, got 'auto'"):
        TopK(entropy="auto")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_lines_for_any_processor_make_and_read_the_same_bytes_as_those_for_sse2(tmp_path: Path) -> None:
    made = tmp_path / "any.so"
    files = [file for file in sources.c_files() if file.name.startswith("maps")]
    subprocess.run(["cc", "-std=c11", "-O1", "-U__SSE2__", "-shared", "-fPIC", "-o", made, *files], check=True)
    built, portable = ctypes.CDLL(str(sources.LIBRARY)), ctypes.CDLL(str(made))
    shapes = ((8, (1, 8, 66, 70)), (8, (2, 20, 9, 4)), (6, (1, 4, 30, 31)), (4, (1, 8, 66, 70)), (2, (1, 1, 200, 200)))
    for bit_width, shape in shapes:
        symbols = feature_symbols(bit_width, shape).reshape(-1)
        layout = (*Layout.of(shape), 0, 1 << bit_width)
        bodies = [coded_by(library, symbols, layout) for library in (built, portable)]
        assert bodies[0] == bodies[1]
        back = np.empty_like(symbols)
        assert portable.decode_map(
            bodies[0], *int64s(len(bodies[0])), ctypes.c_void_p(back.ctypes.data), *int64s(*layout)
        )
        assert np.array_equal(back, symbols)


def coded_by(library: ctypes.CDLL, symbols: np.ndarray, layout: tuple[int, ...]) -> bytes:
    """The code of a map in at most 16 times 4 contexts, by one build of the coder."""
    data = ctypes.create_string_buffer(symbols.size)
    library.encode_map.restype = ctypes.c_int64
    size = library.encode_map(ctypes.c_void_p(symbols.ctypes.data), *int64s(*layout, 16, 4), data, *int64s(len(data)))
    return data.raw[:size]


def int64s(*numbers: int) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(number) for number in numbers]
