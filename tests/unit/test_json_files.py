"""JSON files: written whole, and refused with the place of what is wrong, whatever the keys."""

import json
from math import inf, nan
from pathlib import Path
from typing import Any

import msgspec
import pytest
from omegaconf import OmegaConf

from splitsem.errors import ConfigError
from splitsem.json_files import Amount, JsonFile, decode, parse, write_text
from splitsem.workflows.job import _write
from splitsem.workflows.result import Result


class Leaf(msgspec.Struct):
    amount: Amount


class Tree(JsonFile, kw_only=True):
    trees: dict[str, dict[int, list[Leaf]]]


def document(leaf: Any, name: str = "the oak", number: str = "7", **more: Any) -> dict[str, Any]:
    fine = {"0": [{"amount": 0}], "1": []}
    return {"schema": "tree/1", "trees": {"birch": fine, name: {**fine, number: [{"amount": 1}, leaf]}} | more}


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        ({"amount": -1}, "Expected `float` >= 0.0 - at `$.trees.the oak.7[1].amount`"),
        ({"amount": True}, "Expected `float`, got `bool` - at `$.trees.the oak.7[1].amount`"),
        ({}, "Object missing required field `amount` - at `$.trees.the oak.7[1]`"),
    ],
)
def test_the_path_of_a_damaged_value_has_all_its_keys(leaf: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        decode(json.dumps(document(leaf, ash={"9": [leaf]})), Tree)
    assert str(caught.value) == said


def test_a_key_that_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match=r"Expected `int`, got `str` - at `\$.trees.the oak.seven`"):
        decode(json.dumps(document({"amount": 1}, number="seven")), Tree)


def test_a_key_that_stands_twice_does_not_hide_the_damage() -> None:
    text = '{"schema": "tree/1", "trees": {"elm": {"1": [{"amount": -1}], "1": []}}}'
    with pytest.raises(ValueError, match=r"Expected `float` >= 0.0"):
        decode(text, Tree)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "bush/1", "trees": 1}, "its schema is 'bush/1'"),
        ({"schema": 1}, r"Expected `str`, got `int` - at `\$.schema`"),
        ({"unit": "ms", "trees": 1}, "its unit must be 's', got 'ms'"),
    ],
)
def test_the_kind_of_file_is_checked_first(change: dict[str, Any], said: str) -> None:
    text = json.dumps(document({"amount": 1}) | change)
    with pytest.raises(ConfigError, match=f"here is not a whole tree of schema 'tree/1': {said}") as caught:
        parse(text, "here", "tree", "tree/1", Tree, lambda tree: tree)
    assert "\n" not in str(caught.value)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.json"
    for text in ("{}\n", '{"ä": 1}\n'):
        write_text(text, path)
        assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]


def test_a_runs_files_hold_null_for_what_json_cannot_say(tmp_path: Path) -> None:
    _write(
        Result({"distortion_mse": inf, "score": 1.0}, {}, [{"train_loss": nan}], ""),
        tmp_path,
        OmegaConf.create({"style": "screen", "formats": ["png"]}),
    )
    assert msgspec.json.decode((tmp_path / "metrics.json").read_bytes()) == {"distortion_mse": None, "score": 1.0}
    assert msgspec.json.decode((tmp_path / "history.json").read_bytes()) == [{"train_loss": None}]
