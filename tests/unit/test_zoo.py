"""The zoo: lists of networks are read and refused clearly; a network's row says what its cuts are and do."""

import copy
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import nn

from splitsem.errors import ConfigError
from splitsem.placement import Placement
from splitsem.report.terminal import WIDTH
from splitsem.report.zoo_report import bottlenecks, family_table
from splitsem.splitting.graph import SplitGraph
from splitsem.workflows import zoo, zoo_list
from splitsem.workflows.zoo_list import COMMITTED, Entry
from splitsem.workflows.zoo_network import FIELDS, Row, Trial, check, compared, described

CPU = Placement("cpu")


class Narrow(nn.Sequential):
    """Two convolutions and a classifier: narrower after the second than at the input."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=4), nn.Flatten(), nn.Linear(36, 5)
        )


class Noisy(Narrow):
    def forward(self, x):
        return super().forward(x + torch.rand(()))


class Broken(Narrow):
    def forward(self, x):
        raise RuntimeError("no such\nthing")


def entry(module: str, given: object = (3, 12, 12)) -> Entry:
    given = list(given) if isinstance(given, tuple) else given
    return Entry(module.lower(), "family", "tests", {"_target_": f"tests.unit.test_zoo.{module}"}, given)


def row_of(each: Entry) -> Row:
    rows: list[Row] = []
    with torch.no_grad():
        check(each, CPU, rows.append)
    return rows[-1]


def test_a_network_is_exact_at_every_point_and_its_row_says_where_it_narrows():
    row = row_of(entry("Narrow"))
    assert (row["is_exact"], row["max_diff"], row["reason"]) == ("yes", 0.0, "")
    assert set(row) <= set(FIELDS)
    assert row["num_points"] > 2
    assert row["num_bottlenecks"] >= 1
    assert row["smallest_share"] == pytest.approx(36 / (3 * 12 * 12), abs=1e-4)
    assert row["cut_s"] >= 0


def test_the_two_ends_count_as_points_but_never_as_bottlenecks():
    graph = SplitGraph(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).eval(), (8,))
    row = described(graph)
    assert row["num_bottlenecks"] == sum(p.is_bottleneck for p in graph.points[1:-1]) < len(graph.points) - 1


def test_halves_that_differ_from_the_whole_are_found_and_named():
    whole = Narrow().eval()
    x = torch.rand(1, 3, 12, 12)
    other = copy.deepcopy(whole)
    graph = SplitGraph(other, (3, 12, 12))
    with torch.no_grad():
        trial = Trial("batch 1", 1, [x], {}, {"": whole(x)}, is_plain=True)
        other[4].bias += 0.5
        row = compared(whole, graph, [trial])
    assert row["is_exact"] == "no"
    assert row["max_diff"] == pytest.approx(0.5, abs=1e-5)
    assert row["reason"].startswith("cut at input, batch 1: max |diff| 0.5")


@pytest.mark.parametrize(
    ("each", "reason"),
    [
        (entry("Broken"), "no such"),
        (entry("Noisy"), "gives other results from run to run"),
        (entry("Nowhere"), "has no Nowhere"),
        (entry("CPU"), "is a Placement"),
    ],
)
def test_a_network_that_cannot_be_cut_has_the_reason_in_one_line_and_no_verdict(each, reason):
    row = row_of(each)
    assert reason in row["reason"]
    assert "\n" not in row["reason"]
    assert "is_exact" not in row


def test_inputs_have_the_shapes_and_types_of_the_list():
    args, kwargs = entry("Narrow").example(3)
    assert [tuple(x.shape) for x in args] == [(3, 3, 12, 12)]
    assert not kwargs
    args, kwargs = entry("Narrow", {"ids": {"shape": [7], "below": 5}, "picture": [3, 4, 4]}).example(2)
    assert args == []
    assert kwargs["ids"].shape == (2, 7)
    assert kwargs["ids"].dtype == torch.int64
    assert int(kwargs["ids"].max()) < 5
    assert kwargs["picture"].shape == (2, 3, 4, 4)
    assert len(entry("Narrow", [[2], [3]]).example(1)[0]) == 2


def test_the_committed_list_has_200_networks_and_each_says_what_it_takes():
    entries = zoo_list.read(COMMITTED)
    assert len(entries) >= 200
    assert sum(each.source == "timm" for each in entries) >= 80
    for each in entries:
        args, kwargs = each.example(1)
        assert args or kwargs, each.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "must hold a list"),
        ("- {network: a}", "network 1 must have network (a name), _target_ and input"),
        ("- {network: a, _target_: m.A, input: []}", "input must be a shape"),
        ("- {network: a, _target_: m.A, input: {shape: [3], below: 0}}", "input must be a shape"),
        (
            "- {network: a, _target_: m.A, input: [3]}\n- {network: a, _target_: m.B, input: [3]}",
            "names a more than once",
        ),
        ("- {", "is not YAML"),
    ],
)
def test_a_wrong_list_is_refused_in_one_line(text, said, tmp_path: Path):
    path = tmp_path / "list.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        zoo_list.read(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_are_chosen_by_name_or_family_and_a_pattern_without_any_is_refused():
    entries = [Entry(name, family, "s", {}, [3]) for name, family in [("a1", "A"), ("a2", "A"), ("b1", "B")]]
    assert [each.name for each in zoo_list.chosen(entries, ["a1", "B"])] == ["a1", "b1"]
    assert [each.name for each in zoo_list.chosen(entries, ["A"])] == ["a1", "a2"]
    assert zoo_list.chosen(entries, None) == entries
    with pytest.raises(ConfigError, match="fits none"):
        zoo_list.chosen(entries, ["resnet"])
    with pytest.raises(ConfigError, match="no regular expression"):
        zoo_list.chosen(entries, ["("])


def test_an_interrupted_run_knows_its_whole_rows_and_drops_half_of_one(tmp_path: Path):
    path = tmp_path / "results.csv"
    for name in ("a", "b"):
        zoo._append(path, {"network": name, "reason": 'it said "no", twice'})
    path.write_text(path.read_text() + "c,half")
    assert zoo._done(path) == {"a", "b"}
    zoo._append(path, {"network": "c"})
    assert list(pd.read_csv(path)["network"]) == ["a", "b", "c"]


def sample_rows() -> pd.DataFrame:
    rows = [
        {"network": f"net{i}", "family": f"family{i % 7}", "num_points": 5 + i, "num_bottlenecks": i % 3,
         "smallest_share": 0.01 * 2**i, "first_flops_share": 0.1 * i if i % 3 else None, "cut_s": 1.0, "check_s": 2.0,
         "is_exact": "yes", "reason": ""}
        for i in range(10)
    ]  # fmt: skip
    rows.append({"network": "refused", "family": "other", "is_exact": "", "reason": "a reason [with brackets] " * 9})
    return pd.DataFrame(rows)


def test_the_table_is_at_most_100_columns_wide_and_says_why_a_network_is_not_cut(capsys):
    Console(width=WIDTH).print(family_table(sample_rows()))
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= WIDTH
    assert "11 networks: 10 cut inside, 10 exact at every point" in printed
    assert "refused: a reason [with brackets]" in printed


def test_the_figure_has_a_row_for_each_family_that_was_cut_and_a_dot_for_each_network():
    figure = bottlenecks(sample_rows())
    labels = [text.get_text() for ax in figure.axes for text in ax.get_yticklabels() if "family" in text.get_text()]
    assert sorted(labels) == [f"family{i} ({2 if i < 3 else 1})" for i in range(7)]
    assert sum(len(dots.get_offsets()) for ax in figure.axes[:2] for dots in ax.collections) == 10
    assert "6 of 10 networks" in figure.texts[0].get_text()
    for few in (1, 2, 4):  # a refused one alone, then one column of families only
        assert bottlenecks(sample_rows().tail(few)).texts


def refusing() -> nn.Module:
    raise ConfigError("its file is missing: get it")


def test_what_a_builder_of_splitsem_refuses_is_told_as_it_is():
    made = Entry("mine", "f", "tests", {"_target_": "tests.unit.test_zoo.refusing"}, [3])
    assert row_of(made)["reason"] == "its file is missing: get it"
