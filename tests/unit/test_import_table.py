"""Tables of other projects: a small one made here, and the published Jetson-TX2 one where its file is given."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.import_table import import_pair, import_table
from splitsem.cost.branch_lut import BranchLut
from splitsem.cost.fits import LinkFit
from splitsem.errors import ConfigError
from splitsem.models.branches import GAMMAS, equivalents
from splitsem.search.exact import Exact
from splitsem.search.objective import latency, t_eff
from splitsem.search.problem import function_equivalent, fused_gammas, measured_problem, only, parallel_gammas
from tests.unit.toy_chain import ToySpec, block_spec, whole_gammas

SPECS = [block_spec("stage1.0", 4, 4, 8, 1), block_spec("stage1.1", 4, 4, 8, 1), block_spec("stage2.0", 4, 8, 8, 2)]
PUBLISHED = os.environ.get("SPLITSEM_TX2_LUT")


def small_table() -> dict[str, Any]:
    """Two blocks of the edge and one of the server; times grow with γ."""
    full = {str(g.index): 1.0 + g.index for g in GAMMAS}
    narrow = {gamma: time if gamma in ("0", "1", "3", "4") else None for gamma, time in full.items()}
    return {"blocks": {"stage1.0@CLIENT": full, "stage1.1@CLIENT": full, "stage2.0@SERVER": narrow}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(small_table()))
    return path


def test_times_are_in_the_unit_that_was_said(path: Path) -> None:
    for unit, seconds in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        lut = import_table(path, "toy", SPECS, unit, "CLIENT")  # type: ignore[arg-type]
        assert lut.to_arrays().time_s[1, 13] == pytest.approx(14 * seconds)
    assert lut.units[0].origin == "published"
    assert lut.units[0].ways[0].repeats == 0
    assert not lut.units[2].ways


def test_a_server_without_times_is_assumed_only_when_a_factor_is_stated(path: Path) -> None:
    link = LinkFit(1e-6, 0.001, 0.0, 2)
    unstated = import_pair(path, "toy", SPECS, "ms", link=link)
    assert [unit.origin for unit in unstated.server.units] == ["published"] * 3
    assert np.isinf(unstated.server.to_arrays().time_s[:2]).all()
    stated = import_pair(path, "toy", SPECS, "ms", server_speedup=4, link=link)
    assert [unit.origin for unit in stated.server.units] == ["assumed", "assumed", "published"]
    edge_s, server_s = stated.edge.to_arrays().time_s, stated.server.to_arrays().time_s
    np.testing.assert_allclose(edge_s[:2], 4 * server_s[:2])
    assert server_s[2, 0] == pytest.approx(1e-3)
    assert np.isinf(edge_s[2]).all()
    assert "divided by 4" in stated.server.machine["assumed"]
    assert stated.link == link


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"stage1.0@CLIENT": {"0": -1.0}}, r"`float` >= 0.0 - at `\$.blocks.stage1.0@CLIENT.0`"),
        ({"stage1.0@CLIENT": {"0": float("nan")}}, r"JSON is malformed: invalid character \(byte \d+\)"),
        ({"stage1.0@CLIENT": {"0": "fast"}}, r"Expected `float \| null`, got `str` - at `\$.blocks.stage1.0@CLIENT.0`"),
        ({"stage1.0@CLIENT": {"14": 1.0}}, "γ must be 0…13, got '14'"),
        ({"stage1.0@CLIENT": {"0": 1.0}}, r"has times for γ \[0\], the model's block offers \[0, 1, 2"),
        ({"stage1.0@CLIENT": 3}, r"Expected `object`, got `int` - at `\$.blocks.stage1.0@CLIENT`"),
        ({"stage9.0@CLIENT": {}}, "has blocks that toy has not, or that were not asked for: stage9.0"),
        ({"stage1.0": {}}, "expected blocks named BLOCK@TIER, got 'stage1.0'"),
    ],
)
def test_a_damaged_table_says_where(path: Path, change: dict[str, Any], why: str) -> None:
    document = small_table()
    document["blocks"] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=why):
        import_table(path, "toy", SPECS, "ms", "CLIENT")


def test_what_is_no_table_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no block of the tier 'GPU', only of: CLIENT, SERVER"):
        import_table(path, "toy", SPECS, "ms", "GPU")
    with pytest.raises(ValueError, match="unit must be one of s, ms, us, got 'min'"):
        import_table(path, "toy", SPECS, "min", "CLIENT")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="speedup must be positive"):
        import_pair(path, "toy", SPECS, "ms", server_speedup=0)
    with pytest.raises(ConfigError, match="cannot read the table"):
        import_table(tmp_path / "none.json", "toy", SPECS, "ms", "CLIENT")
    for text in ("{", "[]", '{"blocks": {}}', "{}"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="is not a table of block@tier"):
            import_table(path, "toy", SPECS, "ms", "CLIENT")


def repvgg_b3_blocks() -> list[ToySpec]:
    specs, width, size = [], 64, 112
    for stage, (depth, out) in enumerate(zip((4, 6, 16, 1), (192, 384, 768, 2560), strict=True), 1):
        for place in range(depth):
            specs.append(block_spec(f"stage{stage}.{place}", width, out, size, 1 if place else 2))
            width, size = out, size if place else size // 2
    return specs


def best_s(lut: BranchLut, equivalent: bool) -> float:
    total_s = 0.0
    for unit in lut.units:
        full = max((GAMMAS[gamma] for gamma in unit.ways), key=lambda g: len(g.branches))
        allowed = [g.index for g in equivalents(full)] if equivalent else list(unit.ways)
        total_s += min(unit.ways[gamma].time.median_s for gamma in allowed)
    return total_s


@pytest.mark.skipif(not PUBLISHED, reason="SPLITSEM_TX2_LUT names no file")
def test_the_published_jetson_tx2_table_has_its_known_totals() -> None:
    assert PUBLISHED
    specs = repvgg_b3_blocks()
    whole = import_pair(PUBLISHED, "repvgg_b3", specs, "ms", server_speedup=10)
    assert [unit.origin for unit in whole.server.units] == ["assumed"] * 26 + ["published"]
    client = whole.edge.select(spec.name for spec in specs[:26])
    totals_s = [
        client.sum_s(whole_gammas(client, folded=False)),
        client.sum_s(whole_gammas(client, folded=True)),
        best_s(client, equivalent=True),
        best_s(client, equivalent=False),
    ]
    assert [round(1e3 * total_s, 1) for total_s in totals_s] == [180.1, 151.1, 150.6, 39.7]


def test_an_imported_table_is_solved_where_it_has_times_and_with_a_server_that_was_stated(path: Path) -> None:
    link = LinkFit(s_per_byte=1e-9, delay_s=1e-6, residual_s=0.0, num_transfers=1)
    edge_only = measured_problem(import_pair(path, "toy", SPECS, "ms", link=link))
    same = function_equivalent(fused_gammas(edge_only))
    found = Exact(latency()).throughput(edge_only, same)
    assert found.split_index == 2  # the third block has no time on the edge, the others none on the server
    assert found.gammas == (9, 9, 3)  # of those with all branches the least number is the fastest here
    assert found.edge_s == pytest.approx(20e-3)
    stated = measured_problem(import_pair(path, "toy", SPECS, "ms", server_speedup=4, link=link))
    everywhere = Exact(latency()).throughput(stated, same)
    assert everywhere.split_index == 0
    assert everywhere.server_s == pytest.approx(20e-3 / 4 + 4e-3)


@pytest.mark.skipif(not PUBLISHED, reason="SPLITSEM_TX2_LUT names no file")
def test_on_the_published_table_the_optimum_beats_the_parallel_network_on_the_edge_and_with_a_stated_server() -> None:
    assert PUBLISHED
    specs, link = repvgg_b3_blocks(), LinkFit(s_per_byte=8e-8, base_s=2e-3, residual_s=0.0, num_transfers=1)
    edge_only = measured_problem(import_pair(PUBLISHED, "repvgg_b3", specs, "ms", link=link))
    exact, fused, parallel = Exact(latency()), fused_gammas(edge_only), parallel_gammas(edge_only)
    same = exact.throughput(edge_only, function_equivalent(fused))
    assert same.split_index == 26
    assert same.edge_s <= 0.151
    assert round(1e3 * exact.throughput(edge_only, only(parallel)).edge_s, 1) == 180.1
    with_server = measured_problem(import_pair(PUBLISHED, "repvgg_b3", specs, "ms", server_speedup=10, link=link))
    values = [
        Exact(t_eff()).throughput(with_server, allowed).value
        for allowed in (only(parallel), only(fused), function_equivalent(fused), None)
    ]
    assert values == sorted(values, reverse=True)
    assert values[2] < t_eff()(same, 0)
