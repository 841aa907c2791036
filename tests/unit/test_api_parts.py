"""The parts joined by hand: networks as graphs, codecs by name; objects are told in one line."""

import pytest
import torch

import splitsem
from splitsem.codecs.quantise import Quantise
from splitsem.errors import ConfigError
from splitsem.models.cnn import StagedCnn


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return splitsem.split(StagedCnn((1, 8, 8), (10,)), torch.rand(2, 1, 8, 8))


def test_a_network_goes_through_a_cut_as_bytes(graph):
    x = torch.rand(1, 1, 8, 8)
    cut = graph.cut("stage2")
    codec = splitsem.codec("quant8", entropy="context")
    payload = codec.encode(cut.head(x))
    assert isinstance(payload, bytes)
    y = cut.tail(*codec.decode(payload))
    whole = cut.tail(*cut.head(x))
    assert torch.allclose(y, whole, atol=0.1)
    assert not torch.equal(y, whole)


def test_the_table_has_a_row_a_point(graph):
    table = graph.table()
    assert list(table.index) == [point.name for point in graph.points]
    assert table.loc["stage2", "raw_bytes"] == graph.point("stage2").raw_bytes


def test_objects_are_told_in_one_short_line(graph):
    told = [repr(graph), *map(repr, graph.points), repr(graph.cut("stage1")), repr(splitsem.codec("quant4"))]
    assert all("\n" not in line and len(line) < 200 for line in told)
    assert "stage2" in repr(graph.point("stage2"))
    assert "4" in told[-1]


def test_a_codec_has_its_options_settings_unless_others_are_given():
    codec = splitsem.codec("quant4", clipping="minmax")
    assert isinstance(codec, Quantise)
    assert (codec.bit_width, codec.clipping) == (4, "minmax")


def test_a_learned_codec_is_built_for_a_cut(graph):
    with pytest.raises(ConfigError, match=r"cut=graph\.cut"):
        splitsem.codec("semanticnn")
    codec = splitsem.codec("semanticnn", cut=graph.cut("stem"))
    assert codec.is_learned


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("nosuch", {}, "no such codec"),
        ("quant8", {"bit_widht": 3}, "bit_width"),
        ("quant8", {"bit_width": 99}, "99"),
        ("quant8", {"bit_width": "many"}, "quant8"),
    ],
)
def test_mistakes_are_told_in_one_line(name, settings, said):
    with pytest.raises(ConfigError, match=said) as failed:
        splitsem.codec(name, **settings)
    assert "\n" not in str(failed.value)


def test_what_is_no_network_is_one_line():
    with pytest.raises(splitsem.errors.ConfigError, match=r"nn\.Module .*got a function"):
        splitsem.split(lambda x: x, (3,))


def test_settings_in_a_list_are_one_line():
    with pytest.raises(splitsem.errors.ConfigError, match="one by one"):
        splitsem.run(["task=digits"])


@pytest.mark.parametrize("flag", ["--config-dir=my_conf", "-m"])
def test_a_flag_among_the_settings_is_told_with_its_argument(flag):
    with pytest.raises(ConfigError, match=r'give config_dir="FOLDER", in place of -m call sweep'):
        splitsem.sweep(flag, "codec=mine")
