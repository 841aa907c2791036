"""Roofline, heat maps of branches, and the γ map: what is drawn is what the tables say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from splitsem.models.branches import GAMMAS
from splitsem.report.joint_figures import branch_importance, cut_front, gamma_map, hyper_weights
from splitsem.report.roofline_figure import roofline


def drawn(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def table() -> pd.DataFrame:
    """Three units in all their ways; γ 2 has no arithmetic."""
    index, gamma = (grid.ravel() for grid in np.mgrid[:3, :14])
    intensity = np.where(gamma == 2, 0.0, 0.1 + gamma)
    columns = {"unit_index": index, "gamma": gamma, "flop_per_byte": intensity, "flops_per_s": 1e9 + index + gamma}
    return pd.DataFrame(columns).assign(unit=[f"u{i}" for i in index], branches="DKI")


def test_every_unit_and_way_with_arithmetic_is_a_mark_below_its_roof() -> None:
    ax = drawn(roofline(table(), 4e10, 1e10)).axes[0]
    lines = {str(line.get_gid()): line for line in ax.get_lines()}
    marks = [line for line in ax.get_lines() if line.get_gid() == "way"]
    wanted = table().query("gamma != 2")[["flop_per_byte", "flops_per_s"]]
    assert sorted(tuple(mark.get_xydata()[0]) for mark in marks) == sorted(map(tuple, wanted.to_numpy()))  # type: ignore
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    np.testing.assert_allclose(lines["knee"].get_xdata(), 4.0)
    np.testing.assert_allclose(lines["roof"].get_ydata()[1:], 4e10)
    np.testing.assert_allclose(lines["roof"].get_ydata()[0], 1e10 * lines["roof"].get_xdata()[0])
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [f"{g.index}: {g.label}" for g in GAMMAS if g.index != 2]


def test_all_ways_and_a_unit_without_branches_look_different() -> None:
    head = pd.DataFrame([{"unit": "head", "unit_index": 3, "branches": "", "gamma": 0, "flops_per_s": 1e9}])
    ax = roofline(pd.concat([table(), head]).assign(flop_per_byte=1.0), 4e10, 1e10).axes[0]
    legend = ax.get_legend()
    assert legend is not None
    looks = {(h.get_marker(), h.get_fillstyle(), h.get_markerfacecolor()) for h in legend.legend_handles}  # type: ignore
    assert len(looks) == 15


def test_a_table_without_arithmetic_says_so() -> None:
    figure = drawn(roofline(table().assign(flop_per_byte=0.0), 4e10, 1e10))
    assert "no unit has arithmetic" in figure.axes[0].texts[0].get_text()


BRANCHES = pd.DataFrame(
    {"unit": ["stem", "stem", "b", "b", "b"], "branch": list("DKDKI"), "alpha": [1.0, 0.5, 0.0, 0.3, 0.9]}
)


def test_hyper_weights_stand_in_their_cells_and_missing_branches_are_empty() -> None:
    ax = drawn(hyper_weights(BRANCHES)).axes[0]
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown.filled(-1), [[1.0, 0.0], [0.5, 0.3], [-1, 0.9]])  # type: ignore[union-attr]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["stem", "b"]
    assert len(ax.texts) == 5


def test_negative_hyper_weights_get_colours_around_zero() -> None:
    norm = hyper_weights(BRANCHES.assign(alpha=[-0.5, 0.2, 0.1, 0.3, 0.1])).axes[0].images[0].norm
    assert norm(0.0) == 0.5
    assert norm(-0.5) == 0.0


def test_importance_is_logarithmic_and_nothing_has_no_colour() -> None:
    image = drawn(branch_importance(BRANCHES.assign(importance=[1e-2, 1.0, 0.0, 10.0, 1e4]))).axes[0].images[0]
    assert image.norm(10.0) == pytest.approx(0.5)
    assert np.ma.getmaskarray(image.get_array()).tolist() == [[False, True], [False, False], [True, False]]
    drawn(branch_importance(BRANCHES.assign(importance=0.0)))


def test_every_way_is_drawn_with_its_branches_and_its_folds() -> None:
    units = pd.DataFrame(
        {"unit": [f"b{g.index}" for g in GAMMAS], "gamma": range(14), "tier": "edge", "branches": "DKI"}
    )
    ax = drawn(gamma_map(units)).axes[0]
    for gamma in GAMMAS:
        here = [line for line in ax.get_lines() if abs(line.get_xdata()[0] - gamma.index) < 0.5]  # type: ignore[operator]
        count = {gid: sum(line.get_gid() == gid for line in here) for gid in ("runs", "dropped", "folded")}
        assert count == {"runs": len(gamma.branches), "dropped": 3 - len(gamma.branches), "folded": len(gamma.groups)}


@pytest.mark.parametrize("on_edge", [0, 2, 4])
def test_the_cut_stands_behind_the_last_unit_of_the_edge(on_edge: int) -> None:
    tiers = ["edge"] * on_edge + ["server"] * (4 - on_edge)
    units = pd.DataFrame(
        {"unit": list("abcd"), "gamma": [4, 13, 4, 0], "tier": tiers, "branches": ["DK", "DKI", "DK", ""]}
    )
    ax = drawn(gamma_map(units)).axes[0]
    (cut,) = [line for line in ax.get_lines() if line.get_gid() == "cut"]
    assert cut.get_xdata()[0] == on_edge - 0.5  # type: ignore[index]
    assert sum(patch.get_gid() == "edge" for patch in ax.patches) == on_edge
    assert ax.get_xlim()[0] < on_edge - 0.5 < ax.get_xlim()[1]
    assert sum(line.get_gid() == "plain" for line in ax.get_lines()) == 1


def test_cuts_and_codecs_near_the_constraint_are_dots_the_front_is_named_and_the_choice_ringed() -> None:
    rates = pd.DataFrame(
        {
            "split_point": ["input", "stage1", "stage1", "stage2"],
            "codec": ["fp16", "quant4", "quant1", "topk keep_ratio=0.1"],
            "throughput_hz": [100.0, 200.0, 400.0, 300.0],
            "accuracy_val": [0.9, 0.89, 0.3, 0.91],
            "value": [4.0, 2.0, 1.0, 3.0],
            "is_front": [False, True, True, True],
            "is_best": [False, True, False, False],
        }
    )
    names = ("baseline", "edge_only", "server_only")
    baselines = pd.DataFrame({"name": names, "throughput_hz": [150.0, 90.0, 100.0], "accuracy_val": [0.9] * 3})
    ax = drawn(cut_front(rates, baselines, 0.9, 0.02, "")).axes[0]
    lines = {str(line.get_gid()): line for line in ax.get_lines()}
    dots = [tuple(spot) for line in ax.get_lines() if line.get_gid() == "rate" for spot in line.get_xydata()]  # type: ignore
    assert sorted(dots) == [(100.0, 0.9), (200.0, 0.89), (300.0, 0.91)]
    assert set(names) <= lines.keys()
    assert lines["best"].get_xydata().tolist() == [[200.0, 0.89]]  # type: ignore[union-attr]
    assert lines["front"].get_xdata().tolist() == [200.0, 300.0]  # type: ignore[union-attr]
    assert {text.get_text() for text in ax.texts} == {"stage1 · quant4", "stage2 · topk keep_ratio=0.1"}
    legend = ax.get_legend()
    assert legend is not None
    assert "1 below 0.74 not shown" in [text.get_text() for text in legend.get_texts()]
