"""Without labels, what people read is agreement; with labels, score. The metric's key is ``score`` in both."""

import pytest

from splitsem.report.best import best
from splitsem.report.codec_figures import score_channel
from splitsem.report.results import prepare, score_name
from splitsem.report.sweep_figures import accuracy_throughput, rate_accuracy
from splitsem.report.sweep_report import report
from splitsem.report.tables import table
from tests.unit.sample_results import UNET, complete_results
from tests.unit.test_plots_tables import printed

KINDS = [("score", "agreement"), ("agreement", "score")]


def results_named(name: str):
    return complete_results(UNET, ("quant8", "quant2")).assign(score_name=name)


@pytest.mark.parametrize(("name", "other"), KINDS)
def test_a_sweeps_table_and_sentences_say_what_was_scored(name, other):
    results = results_named(name)
    lines = printed(table(results), width=200)
    assert max(map(len, lines)) <= 100
    said = "\n".join([*lines, *(answer.sentence for answer in best(results))])
    assert name in said
    assert other not in said


@pytest.mark.parametrize(("name", "other"), KINDS)
def test_a_sweeps_figures_say_what_was_scored(name, other):
    results = results_named(name)
    for figure in (accuracy_throughput(results), rate_accuracy(results), score_channel(results.assign(snr_db=3.0))):
        (ax, *_) = figure.axes
        assert ax.get_ylabel().startswith(name.capitalize())
        assert other not in ax.get_ylabel().lower()


def test_the_page_of_agreement_has_no_other_word():
    page = report(results_named("agreement"), {}, "title", "command", {})
    shown = page[page.index("<body") :].partition("<script")[0]
    assert "agreement with the unsplit network" in shown
    assert " score" not in shown.lower().replace("scored", "")


def test_results_of_both_kinds_and_old_ones_have_scores():
    results = results_named("agreement")
    results.loc[3, "score_name"] = "score"
    assert score_name(prepare(results)) == "score"
    assert score_name(prepare(results.drop(columns="score_name"))) == "score"
    assert score_name(prepare(results_named("agreement"))) == "agreement"
