"""The file of a kept reference: it gives back what was written, and whatever else is in its place is told."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from splitsem.errors import ConfigError
from splitsem.workflows import references
from splitsem.workflows.evaluation import Evaluation

DRAWS = {"test": np.linspace(0, 1, 9, dtype=np.float32), "val": np.ones(9, np.float32)}
FOUND = Evaluation({"score": 0.5, "encode_s": 1e-3, "coding_drift": 0.02, "measured_at": "2026-11-30 01:00"}, DRAWS)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "webp.safetensors"
    references._write(FOUND, path)
    return path


def test_what_is_read_is_what_was_written(kept: Path) -> None:
    metrics, draws = references._read(kept)
    assert metrics == FOUND.metrics
    assert draws.keys() == DRAWS.keys()
    assert all((draws[name] == DRAWS[name]).all() for name in DRAWS)


def test_any_changed_or_missing_byte_is_told(kept: Path) -> None:
    whole = kept.read_bytes()
    spoilt = [whole[:end] for end in (0, 7, 8, 100, len(whole) - 1)] + [b"PK\3\4", b"{}" * 40]
    spoilt += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    for content in spoilt:
        kept.write_bytes(content)
        with contextlib.suppress(ConfigError):  # else: a byte of the file's own layout that changes nothing
            metrics, draws = references._read(kept)
            assert metrics == FOUND.metrics
            assert all((draws[name] == DRAWS[name]).all() for name in DRAWS)
    kept.write_bytes(whole[:-1])
    with pytest.raises(ConfigError, match="is damaged"):
        references._read(kept)


def test_times_that_something_else_disturbed_are_not_kept(tmp_path: Path) -> None:
    references._write(FOUND._replace(metrics=FOUND.metrics | {"coding_drift": 2.0}), tmp_path / "cold.safetensors")
    assert list(tmp_path.iterdir()) == []
