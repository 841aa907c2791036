"""The report is complete, self-contained and escapes everything; the best sentences are true."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pandas as pd
import pytest

from splitsem.report.best import as_metrics, best
from splitsem.report.breakdown import latency_breakdown
from splitsem.report.columns import METRICS
from splitsem.report.sensitivity import sensitivity
from splitsem.report.sensitivity_figure import sensitivity_figure
from splitsem.report.sweep_figures import accuracy_throughput, rate_accuracy
from splitsem.report.sweep_report import report
from tests.unit.sample_results import UNET, complete_results, sample_results

COMMAND = "python run.py task=disaster codec=quant8 -m"
DETAILS = {"date": "2026-11-21", "versions": "torch 2.14.1", "edge_timing": "roofline", "server_timing": "lut"}


def page(results: pd.DataFrame, **changes) -> str:
    figures = changes.pop("figures", {})
    arguments = {"title": "A sweep", "command": COMMAND, "details": DETAILS} | changes
    return report(results, figures, **arguments)


class Tags(HTMLParser):
    """Checks that tags nest, and collects text, tags and attributes."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, html: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_every_split_point_every_score_and_the_command_are_on_the_page():
    results = sample_results(UNET, ("quant8", "quant2"))
    texts = Tags(page(results)).texts
    for point in UNET:
        assert texts.count(point) >= 2
    for score in results["score"]:
        assert f"{score:.4f}" in texts
    assert COMMAND in texts


@pytest.mark.parametrize("encoder_bytes", [61_234, 0])
def test_the_encoders_size_is_in_both_tables_where_a_codec_has_learned_weights(encoder_bytes):
    results = sample_results(UNET[:3]).assign(encoder_bytes=encoder_bytes)
    html = page(results)
    heads = re.findall(r"<thead>.*?</thead>", html, re.DOTALL)
    assert sum("encoder" in head for head in heads) == (2 if encoder_bytes else 0)


def test_the_glossary_explains_what_the_page_has_in_plain_text():
    words = page(sample_results(UNET)).partition("<h2>Glossary</h2>")[2]
    assert '<th scope="row">latency</th>' in words
    assert METRICS["exit_share"].meaning not in words
    assert not any("`" in one.meaning for one in METRICS.values())  # a page does not read Markdown


def test_what_a_row_has_not_is_a_dash():
    results = sample_results(UNET[:3])
    results["of_task"] = [float("nan"), *range(len(results) - 1)]
    assert "nan" not in Tags(page(results)).texts


def test_page_is_well_formed_and_needs_nothing_from_elsewhere():
    results = sample_results()
    html = page(results, figures={"accuracy_throughput": accuracy_throughput(results)})
    tags = Tags(html)
    assert tags.open == []
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", html)
    assert all(str(v).startswith(("data:image/png;base64,", "#")) for k, v in tags.attributes if k in ("src", "href"))
    assert "link" not in tags.tags
    assert tags.tags.count("img") == 1


def test_the_page_is_read_without_a_mouse_and_its_headings_are_in_order():
    results = sample_results()
    html = page(results, figures={"accuracy_throughput": accuracy_throughput(results)})
    levels = [int(level) for level in re.findall(r"<h([1-6])", html)]
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    scrolled = re.findall(r'<div class="scroll[^>]*>', html)
    assert scrolled
    assert all('tabindex="0" role="region" aria-label=' in div for div in scrolled)
    assert not re.findall(r"<th[^>]*>(?:<span class=\"unit\"></span>)?</th>", html)
    assert all("alt=" in image for image in re.findall(r"<img[^>]*>", html))


def test_a_figure_keeps_a_readable_width_on_a_narrow_screen_and_is_there_once():
    html = page(sample_results(UNET[:4]), figures={"rate_accuracy": accuracy_throughput(sample_results(UNET[:4]))})
    assert re.search(r'<div class="scroll" tabindex="0" role="region" aria-label="rate accuracy"><img ', html)
    assert html.count("data:image/png;base64,") == 1
    screen, paper = html.split("@media print")
    assert int(re.search(r"figure img {[^}]*min-width: (\d+)px", screen)[1]) >= 700
    assert "figure img { min-width: 0; }" in paper


@pytest.mark.parametrize("field", ["title", "command"])
def test_html_in_arguments_is_escaped(field):
    html = page(sample_results(UNET[:2]), **{field: "<img src=x onerror=alert(1)> & co"})
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; co" in html


def test_html_in_results_and_details_is_escaped():
    evil = '<script>alert("1")</script>'
    results = sample_results(UNET[:4], num_failed=1).assign(model=evil, transport=evil)
    results.loc[0, "error"] = evil
    results.loc[1, "split_point"] = evil
    results[evil] = 1.0
    html = page(results, details={evil: evil}, figures={evil: accuracy_throughput(results.drop(columns=evil))})
    assert evil not in html
    assert Tags(html).tags.count("script") == 1


def test_failed_jobs_are_listed_with_their_error():
    texts = Tags(page(sample_results(num_failed=3))).texts
    assert "PayloadError: expected <quant8> & got 2 bytes of nothing" in texts
    assert "Failed jobs" in texts
    assert "Failed jobs" not in Tags(page(sample_results())).texts


def test_origin_of_times_and_energy_is_stated():
    html = page(sample_results())
    assert "raspberry_pi_4 · times estimated (roofline)" in html
    assert "desktop_gpu · times estimated from layers that were measured before (LUT)" in html
    assert "lte · times origin not stated" in html
    assert "estimated from the power" in html


def test_task_metrics_are_in_the_complete_table():
    results = sample_results(UNET[:3]).assign(iou_road=0.4321)
    texts = Tags(page(results)).texts
    assert "iou_road" in texts
    assert "0.4321" in texts


@pytest.mark.parametrize(
    "results",
    [
        sample_results(UNET[:3], num_failed=9),
        sample_results(UNET[3:4], references=()),
        sample_results().iloc[:0],
        pd.DataFrame(),
        sample_results()[["split_point", "score"]],
    ],
    ids=["all failed", "one row", "no rows", "no columns", "two columns"],
)
def test_thin_results_still_make_a_page(results):
    assert Tags(page(results)).open == []
    assert len(best(results)) == 3


def test_best_is_the_extreme_of_those_that_keep_the_score():
    results = sample_results(UNET, ("quant8", "quant4", "quant2"))
    own = results[results["reference"].isna()]
    kept = own[own["score"] >= own["score_unsplit"] - 0.01]
    throughput, latency, energy = best(results)
    assert throughput.row["throughput_hz"] == kept["throughput_hz"].max()
    assert latency.row["latency_s"] == kept["latency_s"].min()
    assert energy.row["energy_j"] == kept["energy_j"].min()
    assert all(answer.qualifies for answer in best(results))


def test_best_is_compared_with_all_on_the_edge_and_the_picture():
    throughput = best(sample_results())[0]
    assert throughput.row["split_point"] == "pool3"
    assert "all on the edge" in throughput.sentence
    assert "sending the picture as WebP (score 0.712)" in throughput.sentence
    latency = best(complete_results())[1]
    for words in ("all on the edge", "sending the picture as PNG", "sending the picture as WebP q70", "(estimated)"):
        assert words in latency.sentence


def test_comparison_factor_is_the_ratio():
    results = sample_results(("input", "middle", "output"), references=())
    results["latency_s"] = [0.03, 0.01, 0.02]
    sentence = best(results)[1].sentence
    assert "3.0× faster than all on the server (cut at input)" in sentence
    assert "2.0× faster than all on the edge" in sentence


def test_what_is_about_equal_is_as_fast_never_1_0_times_faster():
    results = sample_results(("input", "middle", "output"), references=())
    results["latency_s"] = [0.0104, 0.01, 0.0096]
    for answer in best(results.iloc[:2]):
        assert "1.0×" not in answer.sentence
    assert "1.04× faster than all on the server" in best(results.iloc[:2])[1].sentence


def test_the_winner_is_chosen_on_validation_and_reported_on_test():
    results = complete_results(("input", "a", "b"))
    results.loc[:2, "score_val_delta"] = [-0.05, 0.0, 0.0]
    results.loc[:2, "score"] = [0.70, 0.60, 0.72]
    results.loc[:2, "throughput_hz"] = [300.0, 200.0, 100.0]
    answer = best(results)[0]
    assert answer.row["split_point"] == "a"
    assert "score 0.600 ± 0.020" in answer.sentence


def test_a_loss_that_the_paired_interval_cannot_tell_keeps_the_score():
    results = complete_results(("a", "b")).assign(score_val_delta_ci95=0.01)
    results.loc[:1, "score_val_delta"] = [-0.019, -0.021]
    results.loc[:1, "throughput_hz"] = [100.0, 200.0]
    assert best(results)[0].row["split_point"] == "a"


@pytest.mark.parametrize(
    ("hz", "said"),
    [
        ([100.0, 99.0, 50.0, 50.0, 50.0, 50.0], "; a tie with b;"),
        ([100.0, 97.0, 50.0, 50.0, 50.0, 50.0], ""),
        ([100.0, 99.5, 99.4, 99.3, 99.2, 50.0], "; a tie with b, c, d and e;"),
        ([100.0, 99.5, 99.4, 99.3, 99.2, 99.1], "; a tie with b, c, d and 2 more;"),
    ],
)
def test_configurations_that_cannot_be_told_apart_are_named(hz, said):
    results = complete_results(tuple("abcdef"))
    results.loc[:5, "throughput_hz"] = hz
    sentence = best(results)[0].sentence
    assert said in sentence
    assert said or "a tie" not in sentence


def test_what_was_timed_badly_is_not_called_a_tie():
    results = complete_results(("a", "b", "c")).assign(throughput_hz_ci95=1.0)
    results.loc[:2, "throughput_hz"] = [100.0, 99.5, 60.0]
    results.loc[2, "throughput_hz_ci95"] = 45.0
    answer = best(results)[0]
    assert "; a tie with b; c was timed too badly to tell;" in answer.sentence
    assert as_metrics([answer])["tied_throughput_hz"] == "b · quant8"


def test_a_loss_that_only_the_test_split_tells_is_said():
    results = complete_results(("a", "b"))
    results.loc[:1, ["throughput_hz", "score_delta"]] = [[200.0, -0.15], [100.0, 0.0]]
    throughput = best(results)[0]
    assert throughput.row["split_point"] == "a", "validation chooses"
    assert "; on the test split it loses 15.0 ± 0.4 points;" in throughput.sentence


def test_a_baseline_that_loses_on_the_test_split_beats_nothing():
    results = complete_results(("a", "b"))
    is_jpeg = results["reference"].eq("jpeg")
    results.loc[is_jpeg, ["throughput_hz", "score_val_delta", "score_delta"]] = [1e4, 0.0, -0.15]
    assert "as JPEG" not in best(results)[0].sentence.partition(" beats every cut")[0]
    results.loc[is_jpeg, "score_delta"] = 0.0
    assert "as JPEG" in best(results)[0].sentence.partition(" beats every cut")[0]


def test_another_winner_by_what_frames_took_is_told():
    results = complete_results(("a", "b"))
    results.loc[:1, "latency_s"] = [0.002, 0.004]
    results.loc[:1, "measured_latency_s"] = [0.007, 0.003]
    sentence = best(results)[1].sentence
    assert "(estimated; measured 7 ms)" in sentence
    assert "; measured, the cut at b with quant8 is first with 3 ms;" in sentence
    results.loc[:1, "measured_latency_s"] = [0.003, 0.007]
    assert "; measured, the cut" not in best(results)[1].sentence


def test_measured_is_said_only_where_every_time_was_measured():
    results = complete_results(("a", "b")).assign(edge_timing="measured", server_timing="measured")
    assert "(estimated)" in best(results)[1].sentence
    results = results.assign(link_timing="measured", coding_timing="measured")
    throughput, latency, energy = (answer.sentence for answer in best(results))
    assert "(measured)" in throughput
    assert "(measured)" in latency
    assert "(estimated)" in energy


def test_a_score_exactly_one_point_below_qualifies_and_more_does_not():
    results = sample_results(("a", "b"), references=()).assign(score_unsplit=0.9)
    results["score"] = [0.89, 0.8899]
    results["throughput_hz"] = [1.0, 100.0]
    assert best(results)[0].row["split_point"] == "a"


def test_when_nothing_qualifies_the_closest_is_named():
    results = sample_results(("a", "b", "c"), references=()).assign(score_unsplit=0.9, score=[0.5, 0.8, 0.7])
    answer = best(results)[0]
    assert not answer.qualifies
    assert answer.row["split_point"] == "b"
    assert "no configuration keeps the score" in answer.sentence
    assert "0.100 below" in answer.sentence


def test_the_picture_is_compared_over_the_same_link_and_at_its_best_quality():
    results = sample_results(("input", "b"), references=("jpeg",)).assign(transport="wifi")
    jpeg = results[results["reference"] == "jpeg"]
    worse = jpeg.assign(**{"codec.quality": 10.0, "score": 0.60, "latency_s": 0.001})
    good = jpeg.assign(**{"codec.quality": 75.0, "score": 0.74, "latency_s": 0.02})
    other_link = jpeg.assign(**{"codec.quality": 75.0, "score": 0.74, "latency_s": 1e-5, "transport": "ethernet"})
    own = results[results["reference"].isna()].assign(latency_s=[0.08, 0.04])
    sentence = best(pd.concat([own, worse, good, other_link]))[1].sentence
    assert "sending the picture as JPEG q75 beats every cut with 20 ms at score 0.740; of the cuts, " in sentence
    assert sentence.count("JPEG") == 1


def test_a_page_of_all_figures_and_three_galleries_has_less_than_a_megabyte():
    results = complete_results()
    figures = {draw.__name__: draw(results) for draw in (accuracy_throughput, latency_breakdown, rate_accuracy)}
    figures["sensitivity"] = sensitivity_figure(sensitivity(results), "")
    html = report(results, figures | {f"gallery_{i}": bytes(100_000) for i in range(3)}, "t", "c", {})
    assert len(html.encode()) < 1e6
