"""LUT: measured, written, read back, and refused with a reason when it does not fit."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from splitsem.cost.lut import Lut, measure_lut, read_lut, write_lut
from splitsem.cost.machines import Local, Machine, Roofline
from splitsem.cost.measure import Timing
from splitsem.errors import ConfigError
from splitsem.split.half import Half, OpCost

OPS = (OpCost("linear", 128, 512),)
LUT = Lut(
    "model-a",
    {"stage1": {"head": Timing(0.002, 0.001, 0.004), "tail": Timing(0.03, 0.02, 0.04)}},
    {"processor": "a processor"},
    "2.14.1",
)


def half(side: Any = "head", point: str = "stage1", fingerprint: str = "model-a") -> Half:
    return Half(side, point, nn.Linear(8, 8), (torch.ones(1, 8),), OPS, fingerprint)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "new folder" / "lut.json"
    write_lut(LUT, path)
    return path


def test_lut_survives_its_file(path: Path) -> None:
    lut = read_lut(path)
    assert (lut.fingerprint, lut.times, lut.machine, lut.torch_version) == (
        LUT.fingerprint,
        LUT.times,
        LUT.machine,
        LUT.torch_version,
    )
    assert [file.name for file in path.parent.iterdir()] == ["lut.json"]


def test_every_machine_takes_its_times_from_its_lut_and_says_so(path: Path) -> None:
    machines: list[Machine] = [
        Roofline(1e9, 1e9, active_w=5.0, idle_w=1.0, lut=str(path)),
        Local(active_w=5.0, idle_w=1.0, lut=str(path)),
    ]
    for machine in machines:
        assert machine.timing == "lut"
        assert machine.time_s(half("head")) == 0.002
        assert machine.time_s(half("tail")) == 0.03
    assert Roofline(1e9, 1e9, active_w=5.0, idle_w=1.0).timing == "roofline"
    assert Local(active_w=5.0, idle_w=1.0).timing == "measured"


def test_lut_of_another_model_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"another model.*'model-a'.*'model-b'.*workflow=profile"):
        read_lut(path).time_s(half(fingerprint="model-b"))


def test_unmeasured_point_is_refused_and_the_measured_ones_are_named(path: Path) -> None:
    with pytest.raises(ConfigError, match="no head time for the split point 'stage9', only for: stage1"):
        read_lut(path).time_s(half(point="stage9"))


def test_every_half_is_measured_once_and_an_empty_one_is_free() -> None:
    nothing = Half("head", "input", nn.Identity(), (torch.ones(1, 8),), (), "model-a")
    halves = [nothing, half("tail", "input"), half("head"), half("tail")]
    seen: list[Half] = []

    def progress() -> Any:
        for each in halves:
            seen.append(each)
            yield each

    lut = measure_lut(progress(), repeats=5, budget_s=0.05)
    assert seen == halves
    assert lut.times["input"]["head"] == Timing(0.0, 0.0, 0.0)
    assert {point: set(sides) for point, sides in lut.times.items()} == {
        "input": {"head", "tail"},
        "stage1": {"head", "tail"},
    }
    assert lut.times["stage1"]["head"].median_s > 0
    assert lut.torch_version == torch.__version__
    assert lut.machine["accelerator"] == "cpu"


def test_measured_lut_of_two_models_or_of_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="one model, got 'model-a' and 'model-b'"):
        measure_lut([half(), half(fingerprint="model-b")], repeats=3)
    with pytest.raises(ConfigError, match="nothing to measure"):
        measure_lut([])


def without(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    inner = changed
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return changed


def with_value(document: dict[str, Any], value: Any, *keys: str) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    inner = changed
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return changed


HEAD = ("points", "stage1", "head_s")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: with_value(d, "splitsem.lut/9", "schema"), "its schema is 'splitsem.lut/9'"),
        (lambda d: with_value(d, "ms", "unit"), "its unit must be 's'"),
        (lambda d: without(d, "fingerprint"), "'fingerprint' is missing"),
        (lambda d: without(d, "points"), "'points' is missing"),
        (lambda d: without(d, *HEAD, "p10"), "point 'stage1', head_s: 'p10' is missing"),
        (lambda d: with_value(d, -0.1, *HEAD, "median"), "point 'stage1', head_s: need 0 <= p10 <= median"),
        (lambda d: with_value(d, float("nan"), *HEAD, "median"), "point 'stage1', head_s: need 0 <= p10"),
        (lambda d: with_value(d, float("inf"), *HEAD, "p90"), "all finite"),
        (lambda d: with_value(d, "0.1", *HEAD, "median"), "median must be a number, got '0.1'"),
        (lambda d: with_value(d, True, *HEAD, "median"), "median must be a number, got True"),
        (lambda d: with_value(d, [], *HEAD), "head_s must be a JSON object, got list"),
        (lambda d: with_value(d, {"middle_s": {}}, "points", "stage1"), r"unknown \['middle_s'\]"),
        (lambda d: with_value(d, 7, "fingerprint"), "fingerprint must be text"),
        (lambda d: [d], "the file must be a JSON object, got list"),
    ],
)
def test_damaged_lut_says_where(path: Path, change: Any, why: str) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ConfigError, match=why):
        read_lut(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_file_that_is_not_json_is_a_config_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the LUT"):
        read_lut(path)


def test_missing_lut_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the LUT"):
        Roofline(1e9, 1e9, active_w=5.0, idle_w=1.0, lut=str(tmp_path / "none.json"))
