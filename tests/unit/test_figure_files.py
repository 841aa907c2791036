"""What a paper needs: formats with embedded fonts, columns of a paper, ticks that are true, numbers and tables."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from splitsem.report import figure_choice, style, table_files
from splitsem.report import results as rs
from splitsem.report.breakdown import latency_breakdown
from splitsem.report.joint_report import domain_gains
from splitsem.report.sweep_figures import accuracy_throughput, rate_accuracy
from splitsem.report.tables import table
from splitsem.report.terminal import grid_of, plain
from tests.unit.sample_results import UNET, complete_results

RESULTS = complete_results(codecs=("quant8", "quant4"))
DRAWINGS = [accuracy_throughput, rate_accuracy, latency_breakdown]


def test_each_format_is_left_with_its_fonts_and_the_numbers_beside_it(tmp_path):
    with figure_choice.using("paper", ["pdf", "svg"]):
        style.save(rate_accuracy(RESULTS), tmp_path / "rate")
    assert {path.name for path in tmp_path.iterdir()} == {"rate.png", "rate.pdf", "rate.svg", "rate.csv"}
    pdf = (tmp_path / "rate.pdf").read_bytes()
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert "<text" not in (tmp_path / "rate.svg").read_text()  # outlines: no font is needed
    numbers = pd.read_csv(tmp_path / "rate.csv")
    assert {"split_point", "series", "payload_bytes", "score", "score_ci95"} <= set(numbers)
    assert len(numbers[numbers["reference"].isna()]) == len(rs.splits(rs.prepare(RESULTS)))


def test_by_default_a_figure_is_a_png_and_its_numbers(tmp_path):
    style.save(rate_accuracy(RESULTS), tmp_path / "rate")
    assert {path.name for path in tmp_path.iterdir()} == {"rate.png", "rate.csv"}


def test_a_long_legend_makes_a_figure_higher_and_takes_nothing_from_its_axes():
    settings = [complete_results(UNET[:6]).assign(**{"codec.percentile": 80.0 + number}) for number in range(19)]
    figures = [rate_accuracy(pd.concat(settings[:number], ignore_index=True)) for number in (2, 19)]
    heights = []
    for figure in figures:
        style.content(figure)  # lays it out; a collapsed axis is a warning, and so an error here
        (ax,) = figure.axes
        heights.append(ax.get_window_extent().height)
        legend = ax.get_legend().get_window_extent()
        assert 0 <= legend.y0 < legend.y1 <= figure.bbox.height
        title, top = figure.texts[0].get_window_extent(), ax.get_window_extent().y1
        assert figure.bbox.height > title.y1 > title.y0 > top
    assert heights[1] >= heights[0]


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_numbers_give_the_same_file(kind):
    first, second = (style.content(latency_breakdown(RESULTS), kind) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_papers_figure_has_the_width_of_a_column_no_header_and_text_of_8_pt_at_most(draw):
    with figure_choice.using("paper"):
        figure = draw(RESULTS)
        style.content(figure)
    assert figure.get_size_inches()[0] in (3.4, 7.0)
    assert max(text.get_size() for text in figure.findobj(Text)) <= 8.0
    assert not any(text.get_weight() == "bold" for text in figure.texts)
    assert len(figure.legends) == 1


@pytest.mark.parametrize("name", ["paper", "talk"])
@pytest.mark.parametrize("draw", DRAWINGS)
def test_legend_and_axes_do_not_overlap_in_any_style(draw, name):
    with figure_choice.using(name):
        figure = draw(RESULTS)
        style.content(figure)
        legends = figure.legends or [ax.get_legend() for ax in figure.axes if ax.get_legend()]
        for box in (legend.get_window_extent() for legend in legends):
            assert not any(box.overlaps(ax.get_window_extent()) for ax in figure.axes)
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1 + 1


def test_marks_are_scaled_to_the_paper_once():
    with figure_choice.using("paper"):
        figure = accuracy_throughput(RESULTS)
        style.content(figure)
        sizes = [line.get_markersize() for line in figure.axes[0].get_lines()]
        style.content(figure, "pdf")
        assert [line.get_markersize() for line in figure.axes[0].get_lines()] == sizes


def test_two_panels_with_legends_of_their_own_share_one_in_a_paper():
    domains = pd.DataFrame(
        {"label": ["a", "b"], "accuracy": 0.9, "accuracy_ref": 0.92, "epsilon": 0.02, "feasible": True,
         "gain_over_baseline": [0.1, 0.2], "gain_over_stronger": [0.05, 0.1]}
    )  # fmt: skip
    with figure_choice.using("paper"):
        figure = domain_gains(domains)
    (legend,) = figure.legends
    assert {"joint optimum", "A_ref − ε"} <= {text.get_text() for text in legend.get_texts()}
    assert any("over all fused" in text.get_text() for text in legend.get_texts())


def test_the_choice_ends_with_the_block_and_does_not_leak_to_other_figures():
    with figure_choice.using("paper", ["svg"]):
        assert figure_choice.chosen().formats == ("png", "svg")
    assert figure_choice.chosen().formats == ("png",)
    assert style.new_figure(8.4, 4.0, "title", "what").texts


@pytest.mark.parametrize(
    ("unit", "values", "texts"),
    [
        ("Hz", [385, 387.5, 390, 392.5], ["385 Hz", "387.5 Hz", "390 Hz", "392.5 Hz"]),
        ("B", [1000, 1000.5, 1001], ["1 kB", "1.0005 kB", "1.001 kB"]),
        ("s", [0, 0.002, 0.004], ["0 s", "2 ms", "4 ms"]),
        ("Hz", [1, 10, 100, 1000], ["1 Hz", "10 Hz", "100 Hz", "1 kHz"]),
    ],
)
def test_ticks_at_equal_spacing_read_equally_spaced(unit, values, texts):
    assert style.UnitTicks(unit).format_ticks(values) == texts


@pytest.mark.parametrize("low", [382.0, 10_001.0, 0.5])
def test_ticks_of_a_narrow_range_can_be_told_apart(low):
    ax = Figure().subplots()
    style.unit_axis(ax, "Hz", [low, 1.02 * low])
    ax.set_xlim(low, 1.02 * low)
    texts = [text for text in ax.xaxis.get_major_formatter().format_ticks(ax.get_xticks()) if text]
    numbers = [float(re.sub(r"[^\d.]", "", text)) for text in texts]
    assert len(set(texts)) == len(texts)
    assert np.allclose(np.diff(numbers), np.diff(numbers)[0], rtol=0.05)


def test_labels_stay_off_each_other_and_off_the_remark_about_hidden_scores():
    results = complete_results(codecs=("quant8", "quant4", "quant2"))
    results.loc[results.index[5], "score"] = 0.1
    for draw in (accuracy_throughput, rate_accuracy):
        for name in figure_choice.STYLES:
            with figure_choice.using(name):
                figure = draw(results)
                style.content(figure)
            ax = figure.axes[0]
            boxes = [Text.get_window_extent(text) for text in ax.texts if text.get_text()]
            for i, one in enumerate(boxes):
                assert not any(one.overlaps(other) for other in boxes[i + 1 :]), (draw, name)


def test_latex_and_markdown_have_every_number_of_the_table():
    shown = table(RESULTS)
    tex, md = table_files.latex(shown), table_files.markdown(shown)
    for text in (tex, md):
        for score in rs.prepare(RESULTS)["score"]:
            assert f"{score:.4f}" in text
    assert tex.count(r"\toprule") == tex.count(r"\midrule") == tex.count(r"\bottomrule") == 1
    assert tex[tex.index(r"\begin") :].isascii()  # what LaTeX knows without packages
    body = tex[tex.index(r"\midrule") :].splitlines()[1:-2]
    assert {line.count(" & ") for line in body} == {len(shown.columns) - 1}
    assert len([line for line in md.splitlines() if line.startswith("|")]) == shown.row_count + 2


def test_signs_of_latex_and_markdown_in_names_are_escaped():
    grid = grid_of("a_title")
    grid.add_column("n & m_1\n%", justify="right")
    grid.add_row(plain("[bold]a|b_c#{}\\~^ 50 % · ★"))
    tex, md = table_files.latex(grid), table_files.markdown(grid)
    assert r"n \& m\_1" in tex
    assert r"{[}" not in tex
    assert r"[bold]a|b\_c\#\{\}\textbackslash{}\textasciitilde{}\textasciicircum{} 50 \% $\cdot$ $\star$" in tex
    assert r"[bold]a\|b_c" in md
