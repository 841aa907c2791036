"""The figures show what the results say, and never fail on thin or broken results."""

import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from splitsem.report import figure_choice, style
from splitsem.report import results as rs
from splitsem.report.breakdown import latency_breakdown
from splitsem.report.run_figures import run_breakdown
from splitsem.report.style import STAGES, save, stage_look
from splitsem.report.sweep_figures import accuracy_throughput, rate_accuracy
from tests.unit.sample_results import UNET, complete_results, sample_results, with_a_tie

PLOTS = [accuracy_throughput, rate_accuracy, latency_breakdown]
CODECS = ("identity", "fp16", "quant8", "quant4", "quant2")


def bit_width_sweep() -> pd.DataFrame:
    """One codec label, its bit width swept, at two split points, three seeds."""
    frames = []
    for bits, codec in ((8, "quant8"), (4, "quant4"), (2, "quant2")):
        for seed in range(3):
            frame = sample_results(UNET[8:10], (codec,), references=(), seed=seed)
            frames.append(frame.assign(codec="quant", seed=seed, **{"codec.bit_width": bits}))
    return pd.concat(frames, ignore_index=True)


SWEEPS = {
    "with draws": with_a_tie(complete_results(UNET[::3], ("quant8", "quant4"))),
    "one codec": sample_results(),
    "five codecs": sample_results(UNET[::3], CODECS),
    "a bit width": bit_width_sweep(),
    "sixty points": sample_results([f"layer{i}.conv" for i in range(60)]),
    "three points": sample_results(UNET[:3], references=()),
    "one row": sample_results(UNET[4:5], references=()),
    "references only": sample_results((), references=("jpeg", "webp")).assign(split_index=0),
    "some failed": sample_results(num_failed=5),
    "all failed": sample_results(UNET[:3], references=(), num_failed=3),
    "no rows": sample_results().iloc[:0],
    "no columns": pd.DataFrame(),
    "few columns": sample_results()[["split_point", "score"]],
    "zero times": sample_results(references=()).assign(edge_s=0.0, link_s=0.0, server_s=0.0, throughput_hz=np.inf),
    "many links": pd.concat([sample_results(UNET[:5]).assign(transport=f"link {i}") for i in range(9)]),
}


def drawn(figure):
    """The figure after its layout was run, which is where most things go wrong."""
    figure.draw_without_rendering()
    return figure


@cache
def figure_of(plot, name):
    return drawn(plot(SWEEPS[name]))


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("name", SWEEPS)
def test_every_plot_draws_every_sweep_and_leaves_its_input_alone(plot, name):
    results = SWEEPS[name]
    before = results.copy(deep=True)
    figure_of(plot, name)
    pd.testing.assert_frame_equal(results, before)


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("name", ["one codec", "five codecs", "a bit width", "many links"])
def test_legend_is_outside_the_data_and_inside_the_figure(plot, name):
    figure = figure_of(plot, name)
    legends = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    assert len(legends) == 1
    box = legends[0].get_window_extent()
    assert not any(box.overlaps(ax.get_window_extent()) for ax in figure.axes)
    assert figure.bbox.x1 >= box.x1
    assert box.y0 >= 0


@pytest.mark.parametrize("plot", PLOTS)
def test_axes_name_quantity_and_unit(plot):
    figure = figure_of(plot, "one codec")
    xlabel = figure.axes[0].get_xlabel() or figure.get_supxlabel()
    unit = {accuracy_throughput: "Hz", rate_accuracy: "bytes", latency_breakdown: "Latency"}[plot]
    assert unit in xlabel
    assert figure.axes[0].get_ylabel() or figure.get_supylabel()


@pytest.mark.parametrize("plot", PLOTS)
def test_header_says_task_model_codec_link_and_machines(plot):
    texts = " ".join(text.get_text() for text in figure_of(plot, "one codec").texts)
    for word in ("disaster", "unet", "quant8", "lte", "raspberry_pi_4", "desktop_gpu"):
        assert word in texts


@pytest.mark.parametrize("name", ["one codec", "five codecs", "some failed", "with draws"])
def test_stars_and_shades_are_exactly_the_front(name):
    ax = figure_of(accuracy_throughput, name).axes[0]
    frame = rs.prepare(SWEEPS[name])
    for kind in ("best", "tie"):
        expected = frame.loc[frame["front"] == kind, ["throughput_hz", "score"]].sort_values(["throughput_hz", "score"])
        drawn_points = [c.get_offsets() for c in ax.collections if c.get_gid() == kind]
        np.testing.assert_allclose(np.concatenate(drawn_points or [np.empty((0, 2))]), expected.to_numpy())
    assert (frame["front"] == "tie").any() or name != "with draws"


def test_stars_are_named_with_the_number_of_their_ties_and_labels_do_not_overlap():
    for name in ("five codecs", "with draws"):
        labels = [t for t in figure_of(accuracy_throughput, name).axes[0].texts if t.get_gid() == "label"]
        frame = rs.prepare(SWEEPS[name])
        ties = frame.loc[frame["front"] == "tie", "tie_group"].value_counts()
        names = set()
        for _, row in frame[frame["front"] == "best"].iterrows():
            count = ties.get(row["tie_group"], 0)
            names.add(
                f"{row['split_point']} · {row['series']}" + {0: "", 1: " and a tie"}.get(count, f" and {count} ties")
            )
        assert {t.get_text() for t in labels} == names
        # The words themselves, without the lines to their points.
        boxes = [super(type(text), text).get_window_extent() for text in labels]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_configurations_at_the_same_place_share_one_label():
    results = pd.concat([sample_results(UNET[:5]).assign(transport=link) for link in ("wifi", "lte")])
    labels = [t.get_text() for t in accuracy_throughput(results).axes[0].texts if t.get_gid() == "label"]
    assert labels
    assert all(text.endswith(" and a tie") for text in labels)


@pytest.mark.parametrize("plot", [accuracy_throughput, rate_accuracy])
def test_intervals_are_drawn_as_bars_and_named(plot):
    ax = figure_of(plot, "with draws").axes[0]
    frame = rs.prepare(SWEEPS["with draws"])
    heights = {
        round(high - low, 6)
        for c in ax.collections
        if isinstance(c, LineCollection)
        for (_, low), (_, high) in c.get_segments()
    }
    assert heights == set((2 * rs.splits(frame)["score_ci95"]).round(6))
    assert "95 % interval\nover 96 samples" in ax.get_legend().get_title().get_text()


def test_scores_on_one_line_have_a_panel_of_their_paired_differences():
    results = complete_results(UNET)
    top, below = accuracy_throughput(results).axes
    frame = rs.splits(rs.prepare(results))
    (bars,) = below.containers
    points = bars.lines[0]
    np.testing.assert_allclose(sorted(points.get_ydata()), sorted(100 * frame["score_delta"]))
    assert "paired 95 % interval" in below.get_title(loc="left")
    low, high = top.get_ylim()
    assert results["score"].min() < low < frame["score"].min()  # bad pictures do not press the cuts into one line
    assert high - low < 5 * frame["score_ci95"].max()
    assert len(accuracy_throughput(sample_results(UNET)).axes) == 1


def test_scores_far_below_the_front_are_listed_at_the_edge():
    results = complete_results(UNET[::3], ("quant8", "quant4")).drop(columns="draws_val")
    bad = results["codec"].eq("quant4") & results["reference"].isna()
    results.loc[bad, ["score", "score_val", "throughput_hz"]] = 0.1
    (ax,) = accuracy_throughput(results).axes
    assert ax.get_ylim()[0] > 0.5
    assert ax.get_title(loc="left") == "▼ below the axis: JPEG 0.54 to 0.68 · WebP 0.54 to 0.68 · quant4 0.10"
    lines = {line.get_gid(): line for line in ax.get_lines()}
    hz = results.loc[results["reference"].eq("jpeg") & results["codec.quality"].le(30), "throughput_hz"]
    assert sorted(lines["below JPEG"].get_xdata()) == sorted(hz)
    assert set(lines["below JPEG"].get_ydata()) == {0.0}  # the lower edge
    assert set(lines["below quant4"].get_xdata()) == {0.1}
    assert lines["below quant4"].get_color() == style.COLOURS[0]


def test_what_sends_nothing_stands_at_the_edge_of_the_rates():
    results = complete_results(UNET)
    assert (results["payload_bytes"] == 0).any()
    (ax,) = rate_accuracy(results).axes
    (line,) = [line for line in ax.get_lines() if line.get_gid() == "silent"]
    assert set(line.get_ydata()) == set(rs.prepare(results).loc[lambda rows: rows["payload_bytes"] == 0, "score"])
    assert any("output sends nothing" in text.get_text() for text in ax.get_legend().get_texts())


def test_many_cuts_that_send_nothing_are_counted_and_leave_the_figure_its_width():
    results = complete_results(UNET).assign(
        payload_bytes=lambda rows: rows["payload_bytes"].where(rows["split_index"] < 3, 0)
    )
    (ax,) = rate_accuracy(results).axes
    num = rs.prepare(results).loc[lambda rows: rows["payload_bytes"] == 0, "split_point"].nunique()
    assert num > 5
    assert f"0 B: {num} cuts send nothing" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_stages_side_by_side_differ_in_grey():
    with figure_choice.using("paper"):
        looks = [stage_look(stage) for stage in STAGES]
    assert all(a["hatch"] != b["hatch"] for a, b in pairwise(looks)), "bars that touch"
    dark = [look["hatch"] for look in looks if look["facecolor"] in (STAGES["head_s"][1], STAGES["tail_s"][1])]
    assert len(set(dark)) == 2, "head and tail are equally dark"


def test_a_quality_that_was_swept_is_one_curve():
    lines = {line.get_gid(): line for line in figure_of(rate_accuracy, "with draws").axes[0].get_lines()}
    assert len(lines["reference JPEG"].get_xdata()) == 5
    assert len(lines["reference uint8"].get_xdata()) == 1


def test_a_panel_shows_the_picture_sent_over_its_own_link():
    frames = [sample_results(UNET[:2]).assign(transport="wifi"), sample_results(UNET[:2]).assign(transport="lora")]
    frames[1]["link_s"] *= 2
    wifi, lora = latency_breakdown(pd.concat(frames)).axes
    jpeg = frames[0][frames[0]["reference"] == "jpeg"]["link_s"].item()
    assert any(bar.get_width() == pytest.approx(jpeg) for bar in bars(wifi))
    assert not any(bar.get_width() == pytest.approx(jpeg) for bar in bars(lora))


def test_references_and_unsplit_score_are_drawn_where_they_are():
    results = SWEEPS["one codec"]
    for plot, x in ((accuracy_throughput, "throughput_hz"), (rate_accuracy, "payload_bytes")):
        lines = {line.get_gid(): line for line in figure_of(plot, "one codec").axes[0].get_lines()}
        for name, reference in (("JPEG", "jpeg"), ("WebP", "webp")):
            row = results[results["reference"] == reference].iloc[0]
            np.testing.assert_allclose(lines[f"reference {name}"].get_xydata(), [[row[x], row["score"]]])
        assert set(lines["unsplit"].get_ydata()) == {results["score_unsplit"].iloc[0]}


@pytest.mark.parametrize(("spread", "scale"), [(2.0, "linear"), (100.0, "log")])
def test_throughput_axis_is_logarithmic_when_it_spans_more_than_ten(spread, scale):
    results = sample_results(references=())
    results["throughput_hz"] = np.geomspace(5.0, 5.0 * spread, len(results))
    assert accuracy_throughput(results).axes[0].get_xscale() == scale


def test_rate_axis_is_logarithmic_with_byte_prefixes():
    figure = figure_of(rate_accuracy, "one codec")
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    assert any(label.get_text().endswith("kB") for label in ax.get_xticklabels())


def test_a_swept_bit_width_is_one_line_a_split_point():
    lines = [line for line in figure_of(rate_accuracy, "a bit width").axes[0].get_lines() if len(line.get_xdata()) == 3]
    assert len(lines) >= 2
    for line in lines[:2]:
        assert (np.diff(line.get_xdata()) > 0).all()


def bars(ax) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize("count", [3, 60])
def test_latency_bars_stack_to_the_latency_in_network_order(count):
    points = [f"layer{i}" for i in range(count)]
    results = sample_results(points, references=()).sample(frac=1.0, random_state=0)
    (ax,) = latency_breakdown(results).axes
    assert len(bars(ax)) == len(STAGES) * count
    assert [label.get_text() for label in ax.get_yticklabels()] == points
    assert ax.yaxis.get_inverted()
    ends = {
        round(b.get_y() + b.get_height() / 2): b.get_x() + b.get_width() for b in bars(ax)
    }  # the last is the answer
    expected = results.sort_values("split_index")["latency_s"]
    np.testing.assert_allclose([ends[i] for i in range(count)], expected)


def test_latency_figure_grows_with_the_number_of_points():
    heights = [figure_of(latency_breakdown, name).get_size_inches()[1] for name in ("three points", "sixty points")]
    assert heights[1] > 3 * heights[0]


def test_each_codec_gets_a_panel_until_there_are_too_many():
    figure = figure_of(latency_breakdown, "five codecs")
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(CODECS)
    assert len(figure_of(latency_breakdown, "many links").axes) == 1


def test_with_many_settings_the_fastest_per_point_is_drawn():
    results = SWEEPS["many links"].reset_index(drop=True)
    results.loc[results["transport"] == "link 4", "link_s"] = 0.0
    (ax,) = latency_breakdown(results).axes
    assert sum("link 4" in text.get_text() for text in ax.texts) == 5


def test_run_breakdown_shows_the_stages_and_the_sizes():
    row = complete_results().iloc[9]
    figure = drawn(run_breakdown(row.to_dict()))
    time_ax, size_ax = figure.axes
    parts = ["head_s", "encode_s", "link_busy_s", "link_delay_s", "decode_s", "tail_s"]
    answer_s = row["answer_encode_s"] + row["answer_s"] + row["answer_decode_s"]
    np.testing.assert_allclose([b.get_width() for b in bars(time_ax)], [*row[parts].tolist(), answer_s])
    sizes = row[["raw_bytes", "input_bytes", "payload_bytes", "answer_bytes"]].tolist()
    np.testing.assert_allclose([b.get_width() for b in bars(size_ax)], sizes)


@pytest.mark.parametrize("kind", [sample_results, complete_results])
def test_the_stages_add_up_to_the_latency(kind):
    frame = rs.prepare(kind())
    np.testing.assert_allclose(rs.stage_times(frame).sum(axis=1), frame["latency_s"])


def test_a_head_of_no_operations_takes_exactly_no_time():
    parts = {"head_s": 0.0, "encode_s": 0.1, "answer_decode_s": 0.2, "tail_s": 0.0, "decode_s": 0.1}
    both = {"answer_encode_s": 0.2, "edge_s": 0.1 + 0.2, "server_s": 0.1 + 0.2, "link_s": 1.0, "score": 1.0}
    times = rs.stage_times(rs.prepare(pd.DataFrame([parts | both])))
    assert times[["head_s", "tail_s"]].to_numpy().tolist() == [[0.0, 0.0]]


def test_silence_after_the_last_byte_is_no_part_of_the_latency():
    row = rs.prepare(
        pd.DataFrame([{"score": 1.0, "link_s": 2.0, "link_busy_s": 200.0, "edge_s": 1.0, "server_s": 1.0}])
    )
    times = rs.stage_times(row).iloc[0]
    assert times[["link_busy_s", "link_delay_s"]].tolist() == [2.0, 0.0]


@pytest.mark.parametrize("metrics", [{}, {"score": 0.5, "split_point": "x", "task_iou": 0.2}, {"edge_s": 0.0}])
def test_run_breakdown_has_a_dash_for_each_absent_metric_and_0_for_nothing(metrics):
    times, sizes = ([text.get_text().strip() for text in ax.texts] for ax in drawn(run_breakdown(metrics)).axes)
    shown = dict(zip([label for label, _ in STAGES.values()], times, strict=True))
    assert [shown[name] for name in ("head", "link, busy", "tail")] == ["0 s" if "edge_s" in metrics else "–", "–", "–"]
    assert sizes == ["–"] * 4


def test_figures_drawn_in_threads_equal_those_drawn_alone():
    def pixels(plot) -> bytes:
        buffer = io.BytesIO()
        plot(SWEEPS["three points"]).savefig(buffer, format="png")
        return buffer.getvalue()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(pixels, PLOTS)) == [pixels(plot) for plot in PLOTS]


def test_save_writes_a_png(tmp_path):
    save(accuracy_throughput(SWEEPS["one row"]), tmp_path / "figure")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_legend_counts_bit_widths_upwards():
    rows = [{**SWEEPS["three points"].iloc[0].to_dict(), "codec.bit_width": str(bits)} for bits in (10, 2, 8)]
    ax = accuracy_throughput(pd.DataFrame(rows)).axes[0]
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [text for text in texts if "bit" in text] == ["2 bit", "8 bit", "10 bit"]


def test_the_rates_tell_their_own_best_from_the_tables_star():
    results = SWEEPS["with draws"]
    (ax,) = figure_of(rate_accuracy, "with draws").axes
    frame = rs.splits(rs.prepare(results))
    (stars,) = [c for c in ax.collections if c.get_gid() == "star"]
    shown = frame[(frame["front"] == "best") & (frame["payload_bytes"] > 0)]
    np.testing.assert_allclose(sorted(stars.get_offsets()[:, 0]), sorted(shown["payload_bytes"]))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "fewest bytes (◆)" in texts
    assert "the table's ★" in texts
