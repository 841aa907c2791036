"""The core of the device: it codes without anything but numpy and zstandard, and its C code takes nothing on trust."""

import contextlib
import ctypes
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from splitsem_device import compiled, convolutional, entropy, sources
from splitsem_device.entropy import maps
from splitsem_device.errors import ConfigError, PayloadError

DEVICE = Path(__file__).parent.parent
FORBIDDEN = ("torch", "hydra", "omegaconf", "numba", "msgspec", "google.protobuf", "zlib_ng", "splitsem", "scipy")
ALONE = f"""
import sys
for name in {FORBIDDEN}:
    sys.modules[name] = None  # importing it raises ImportError
import numpy as np
from splitsem_device import entropy, framing
from splitsem_device.entropy.bits import packed_size
from splitsem_device.fields import Reader, unseal, seal
head, shape = "0004010806 06".replace(" ", ""), [1, 8, 6, 6]
card = framing.AffineFraming(shape[1:], 3, [head], [shape], 4, [False], 0, "context", [""])
symbols = np.minimum(np.random.default_rng(0).poisson(1, 288), 15).astype(np.uint8)
payload = card.payload(symbols, np.float32([0.5]), np.float32([0]))
body = payload[payload.index(np.float32(0.5).tobytes()) + 4 : -4]
assert np.array_equal(entropy.decode(memoryview(body), (1, 8, 6, 6), 4, 0), symbols)
assert unseal(seal("mine", payload), "mine") == payload
"""


def feature(bit_width: int, shape: tuple[int, ...]) -> np.ndarray:
    """Symbols of a smooth map with many zeros."""
    x = np.random.default_rng(0).normal(size=shape)
    x = np.maximum(x + np.roll(x, 1, -1) + np.roll(x, 1, -2), 0)
    return np.rint(x / x.max() * ((1 << bit_width) - 1)).astype(np.uint8).reshape(-1)


def test_a_payload_is_made_and_read_where_there_is_no_torch():
    environment = {"PYTHONPATH": str(DEVICE), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", ALONE], env=environment, check=True, timeout=60)


@pytest.mark.parametrize(("shape", "bit_width"), [((1, 12, 14, 14), 6), ((1, 40, 56, 56), 8), ((1, 40, 56, 56), 2)])
def test_the_coder_gives_back_its_symbols_from_memory_that_may_not_be_written(shape, bit_width):
    symbols = feature(bit_width, shape)
    symbols.setflags(write=False)
    for stage in ("rans", "context"):
        body = entropy.encode(symbols, shape, bit_width, 0, stage)
        assert len(body) < symbols.size * bit_width / 8
        assert np.array_equal(entropy.decode(memoryview(body), shape, bit_width, 0), symbols)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (2, 3, 0, 5)])
def test_no_symbols_are_coded_too(shape):
    for stage in ("none", "zstd", "rans", "context"):
        body = entropy.encode(np.zeros(0, np.uint8), shape, 8, 0, stage)
        assert entropy.decode(memoryview(body), shape, 8, 0).size == 0


def test_symbols_that_do_not_fit_are_refused_before_c_sees_them():
    symbols = np.arange(16, dtype=np.uint8)
    with pytest.raises(ValueError, match="symbols must be below 8, got 15"):
        maps.encode(symbols, (4, 4), 3, 0)
    with pytest.raises(ValueError, match=r"symbols must fit .*, got uint8 \(15,\)"):
        maps.encode(symbols[1:], (4, 4), 4, 0)
    for fill, bit_width in ((16, 4), (-1, 4), (0, 9), (0, 0)):
        with pytest.raises(ValueError, match=r"(fill|bit_width) must fit"):
            maps.encode(symbols, (4, 4), bit_width, fill)
        with pytest.raises(ValueError, match=r"(fill|bit_width) must fit"):
            maps.decode(memoryview(symbols), (4, 4), bit_width, fill)
    with pytest.raises(ctypes.ArgumentError, match="expected a uint8 array in C order, got int64"):
        maps.encode(symbols.astype(np.int64), (4, 4), 4, 0)
    with pytest.raises(ctypes.ArgumentError, match="C order"):
        maps.encode(np.tile(symbols, 2)[::2], (4, 4), 4, 0)


def test_forged_bodies_are_symbols_or_a_payload_error():
    rng = random.Random(0)
    for shape, bit_width in (((1, 12, 14, 14), 6), ((1, 16, 50, 50), 4)):
        body = maps.encode(feature(bit_width, shape), shape, bit_width, 0)
        for _ in range(400):
            forged = bytearray(body)
            for _ in range(rng.randint(1, 3)):
                forged[rng.randrange(min(len(forged), 60))] = rng.randrange(256)
            with contextlib.suppress(PayloadError):
                assert maps.decode(memoryview(forged), shape, bit_width, 0).max() < 1 << bit_width


def test_the_convolutional_decoder_finds_the_bits_of_a_clean_code():
    assert convolutional.decode(np.ones((50, 2), np.float32), 0o171, 0o133).tolist() == [0] * 50
    with pytest.raises(ValueError, match=r"llrs must be \(steps, 2\)"):
        convolutional.decode(np.ones((50, 3), np.float32), 0o171, 0o133)


def test_a_missing_or_foreign_library_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    path = tmp_path / "libsplitsem.so"
    monkeypatch.setattr(compiled, "LIBRARY", path)
    load = compiled.library.__wrapped__
    with pytest.raises(ConfigError, match=r"are missing, .*: `make setup` builds it"):
        load()
    path.write_text("no library")
    with pytest.raises(ConfigError, match=r"cannot be loaded .*: `make setup` builds it"):
        load()
    monkeypatch.setattr(compiled, "LIBRARY", sources.LIBRARY)
    monkeypatch.setattr(compiled, "digest", lambda: "of other files")
    with pytest.raises(ConfigError, match=r"made of other C files, .*: `make setup` builds it"):
        load()


BUILD = """
import sys
from pathlib import Path
import build_backend

if not build_backend._working_compiler():
    sys.exit("no C compiler here")
build_backend.compile_library(Path(sys.argv[1]))
assert build_backend.get_requires_for_build_wheel() == []
assert build_backend.get_requires_for_build_wheel({"target": "aarch64"}) == ["ziglang"]
build_backend.get_requires_for_build_wheel({"target": "riscv"})
"""


def test_the_build_makes_a_library_that_knows_its_sources(tmp_path):
    """In a process of its own, as a build is: setuptools must be imported before any distutils."""
    path = tmp_path / "libsplitsem.so"
    environment = os.environ | {"PYTHONPATH": str(DEVICE)}
    command = [sys.executable, "-c", BUILD, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if "no C compiler here" in done.stderr or "No module named 'setuptools'" in done.stderr:
        pytest.skip("no C compiler, or no setuptools, here")
    assert "target must be one of x86_64, aarch64, armv7l, got riscv" in done.stderr
    assert (ctypes.c_char * 64).in_dll(ctypes.CDLL(str(path)), "splitsem_sources").value == sources.digest().encode()
