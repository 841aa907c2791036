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
from splitsem.splitting.half import Half, OpCost

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
PLACE = r"\$.points.stage1.head_s"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: with_value(d, "splitsem.lut/9", "schema"), "its schema is 'splitsem.lut/9'"),
        (lambda d: with_value(d, "ms", "unit"), "its unit must be 's'"),
        (lambda d: without(d, "schema"), "missing required field `schema`"),
        (lambda d: without(d, "unit"), "missing required field `unit`"),
        (lambda d: without(d, "fingerprint"), "missing required field `fingerprint`"),
        (lambda d: without(d, "points"), "missing required field `points`"),
        (lambda d: without(d, *HEAD, "p10"), rf"missing required field `p10` - at `{PLACE}`"),
        (lambda d: with_value(d, -0.1, *HEAD, "median"), rf"need 0 <= p10 <= median.* - at `{PLACE}`"),
        (lambda d: with_value(d, float("nan"), *HEAD, "median"), r"JSON is malformed: invalid character \(byte \d+\)"),
        (lambda d: with_value(d, float("inf"), *HEAD, "p90"), r"JSON is malformed: invalid character \(byte \d+\)"),
        (lambda d: with_value(d, "0.1", *HEAD, "median"), rf"Expected `float`, got `str` - at `{PLACE}.median`"),
        (lambda d: with_value(d, True, *HEAD, "median"), rf"Expected `float`, got `bool` - at `{PLACE}.median`"),
        (lambda d: with_value(d, [], *HEAD), rf"Expected `object.*`, got `array` - at `{PLACE}`"),
        (lambda d: with_value(d, None, *HEAD), rf"Expected `object.*`, got `null` - at `{PLACE}`"),
        (
            lambda d: with_value(d, {"middle_s": {}}, "points", "stage1"),
            r"`middle_s` - at `\$.points.stage1`",
        ),
        (lambda d: with_value(d, {"head_s": 1}, "points", "layer1.0"), r"`int` - at `\$.points.layer1.0.head_s`"),
        (lambda d: with_value(d, 7, "machine", "cores"), r"got `int` - at `\$.machine.cores`"),
        (lambda d: with_value(d, 7, "fingerprint"), r"Expected `str`, got `int` - at `\$.fingerprint`"),
        (lambda d: [d], "Expected `object`, got `array`"),
    ],
)
def test_damaged_lut_says_where(path: Path, change: Any, why: str) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ConfigError, match=why):
        read_lut(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"x":' + b"[" * 100_000])
def test_file_that_is_not_json_is_a_config_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"(cannot read the|is not a whole) LUT"):
        read_lut(path)


def test_a_number_beyond_all_numbers_is_refused_with_its_place(path: Path) -> None:
    path.write_text(path.read_text().replace("0.004", "1e999"))
    with pytest.raises(ConfigError, match=rf"out of range - at `{PLACE}.p90`"):
        read_lut(path)


def test_the_file_is_written_as_ever(path: Path) -> None:
    assert path.read_text() == (
        '{\n "schema": "splitsem.lut/1",\n "unit": "s",\n "fingerprint": "model-a",\n "torch": "2.14.1",\n'
        ' "machine": {\n  "processor": "a processor"\n },\n "points": {\n  "stage1": {\n'
        '   "head_s": {\n    "median": 0.002,\n    "p10": 0.001,\n    "p90": 0.004\n   },\n'
        '   "tail_s": {\n    "median": 0.03,\n    "p10": 0.02,\n    "p90": 0.04\n   }\n  }\n }\n}\n'
    )


def test_missing_lut_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the LUT"):
        Roofline(1e9, 1e9, active_w=5.0, idle_w=1.0, lut=str(tmp_path / "none.json"))
