"""The study of a real film: bytes are real bitstreams', tiles lose half a step at most, tables say who needs more."""

import importlib
import sys
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from splitsem.codecs.picture import Jpeg, Png
from tests.conftest import ROOT

av = pytest.importorskip("av", reason="PyAV is not installed")


@pytest.fixture
def study(monkeypatch):
    """Imports a script of the study by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "real" / "pedestrians"))
    names = ("sequences", "tiles", "curves")
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def moving():
    """Six pictures of a square that moves over noise."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(90, 110, (64, 96, 3), np.uint8)] * 6
    pictures = [picture.copy() for picture in pictures]
    for number, picture in enumerate(pictures):
        picture[20:40, 10 + 4 * number : 30 + 4 * number] = (200, 40, 40)
    return pictures


def test_files_are_counted_without_a_header_and_decoded(study, moving):
    sequences = study("sequences")
    coded = sequences.as_files(moving, Png())
    assert all(np.array_equal(a, b) for a, b in zip(coded.pictures, moving, strict=True))
    small, large = (sequences.as_files(moving, Jpeg(quality)).num_bytes for quality in (10, 90))
    assert small < large < coded.num_bytes


@pytest.mark.parametrize("is_grey", [False, True])
def test_h265_decodes_every_picture_and_a_still_ground_costs_less_between_pictures(study, moving, is_grey):
    pictures = [picture[..., 0].copy() for picture in moving] if is_grey else moving
    sequences = study("sequences")
    if "libx265" not in av.codecs_available:
        pytest.skip("PyAV is built without libx265")
    intra, inter = (sequences.as_h265(20, is_intra)(pictures) for is_intra in (True, False))
    assert inter.num_bytes < 0.7 * intra.num_bytes
    for coded in (intra, inter):
        assert [picture.shape for picture in coded.pictures] == [picture.shape for picture in pictures]
        errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(coded.pictures, pictures, strict=True)]
        assert max(errors) < 8
    assert sequences.as_h265(40, True)(pictures).num_bytes < intra.num_bytes


def test_tiles_lose_half_a_step_at_most_and_are_one_picture(study):
    tiles_of = study("tiles").Tiles
    z = torch.rand(1, 12, 5, 7) * 3 - 1
    tiles = tiles_of([z])
    picture = tiles.picture(z)
    assert picture.shape == (3 * 5, 4 * 7)
    step = (tiles.high - tiles.low) / 255
    assert (tiles.feature(picture) - z).abs().max() <= step / 2 + 1e-6
    outside = tiles.feature(tiles.picture(z * 10))
    assert outside.min() >= tiles.low - 1e-6
    assert outside.max() <= tiles.high + 1e-6


def test_frames_are_shrunk_and_a_film_that_ends_early_is_one_line(study, tmp_path, moving):
    with av.open(str(tmp_path / "film.avi"), "w") as film:
        stream = film.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in moving:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode(None))
    frames = study("sequences").frames
    taken = list(frames(tmp_path / "film.avi", 2, 3, 48))
    assert [picture.shape for picture in taken] == [(32, 48, 3)] * 3
    with pytest.raises(SystemExit, match="ends before frame 9"):
        list(frames(tmp_path / "film.avi", 2, 8, 48))


def test_the_table_compares_bytes_at_equal_agreement(study):
    agreement = [0.6, 0.8, 0.96, 0.995]
    kinds = {name: 1000 for name in ("JPEG", "WebP", "H.265 intra", "H.265 inter")}
    rows = [
        {"codec": name, "cut": "input", "knob": k, "bytes_per_frame": least * 2**k, "agreement": a}
        for name, least in kinds.items()
        for k, a in enumerate(agreement)
    ]
    rows += [r | {"codec": "quant", "cut": "pool7", "bytes_per_frame": 1.5 * r["bytes_per_frame"]} for r in rows[:4]]
    curves = study("curves")
    frame = pd.DataFrame(rows)
    line = next(line for line in curves.table(frame).splitlines() if line.startswith("| quant"))
    assert line == "| quant | pool7 | 12,000 | 6,000 | +50 % | +50 % | +50 % | +50 % | — |"
    assert len(curves.drawn(frame).axes) == 1
