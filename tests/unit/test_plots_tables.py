"""The terminal tables fit, are complete and are not fooled by markup."""

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from rich.console import Console

from splitsem.report.best import best, name
from splitsem.report.results import named, prepare, splits
from splitsem.report.tables import measured_table, table
from splitsem.report.terminal import grid_of, points_table
from splitsem.splitting.half import OpCost
from splitsem.splitting.point import SplitPoint, TensorSpec
from tests.unit.sample_results import UNET, complete_results, sample_results, with_a_tie


def printed(grid, width: int = 100) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(grid)
    return capture.get().splitlines()


@pytest.mark.parametrize("codecs", [("quant8",), ("identity", "quant8", "quant2")])
def test_table_fits_a_hundred_columns_and_cuts_no_number(codecs):
    results = complete_results(UNET, codecs)
    results[["link_s", "answer_s", "latency_s"]] *= 1000  # a LoRa link: minutes
    lines = printed(table(results), width=200)
    assert max(map(len, lines)) <= 100
    assert "…" not in "".join(lines)
    numbers = "\n".join(lines)
    for score in prepare(results)["score"]:
        assert f"{score:.4f}" in numbers


def test_only_the_signs_that_a_table_has_are_explained():
    results = with_a_tie(complete_results(UNET[:6], ("quant8", "quant4")))
    frame = prepare(results)
    assert {"best", "tie", ""} == set(splits(frame)["front"])
    assert splits(frame)["is_bottleneck"].any()
    whole = "\n".join(printed(table(results)))
    assert all(sign in whole for sign in ("★ best:", "= tie:", "no sign:", "▼ bottleneck:", "Δ:"))
    one = (
        results[results["split_point"].eq("input")].head(1).assign(score_unsplit=float("nan"), score_delta=float("nan"))
    )
    alone = "\n".join(printed(table(one)))
    assert "★ best:" in alone
    assert not any(sign in alone for sign in ("= tie:", "no sign:", "▼ bottleneck:", "Δ:"))


@pytest.mark.parametrize("width", [80, 72])
def test_a_narrow_terminal_leaves_whole_columns_out_and_says_which(width):
    results = complete_results(UNET, ("quant8", "quant4"))
    lines = printed(table(results), width)
    assert max(map(len, lines)) <= width
    assert any(line.startswith(f"{width} columns leave out Δ points, edge ms, link ms, server ms") for line in lines)
    text = " ".join(line.strip() for line in lines)
    assert "results.csv has all" in text
    rows = [line for line in lines if line.count("±") >= 1 and "." in line]
    for words in ("sent", "sum", "rate", "energy", "★"):
        assert words in text
    wide = printed(table(results), 100)
    whole = {number for line in wide for number in line.split()}
    assert rows
    assert all(number in whole for line in rows for number in line.split()[2:] if number[0].isdigit())


def test_a_column_that_says_nothing_is_left_out():
    results = complete_results(UNET, ("quant8",)).assign(energy_j=float("nan"))
    assert "energy" in "".join(printed(table(complete_results(UNET, ("quant8",))), 100)[:6])
    assert "energy" not in "".join(printed(table(results), 100)[:6])


def test_a_points_name_is_broken_between_words_only():
    names = ["global_pool", "features.12.conv_depthwise"]
    points = [replace(point(i, [(1, 16, 8, 8), (1, 96, 4, 4)]), name=name) for i, name in enumerate(names)]
    lines = printed(points_table(points, 100), 80)
    assert all(any(name in line.split() for line in lines) for name in names)


def test_what_sends_nothing_is_one_row_without_a_codec():
    results = complete_results(UNET, ("identity", "quant8", "quant2"))
    rows = prepare(results)
    silent = rows[rows["payload_bytes"] == 0]
    assert silent["split_point"].tolist() == ["output"]
    assert named(silent.iloc[0]) == "output"
    assert len(rows) == len(results) - 3  # two codecs more, and the reference "all on the edge"
    (line,) = [line for line in printed(table(results), width=200) if line.startswith(" output") or "all on" in line]
    assert "quant" not in line
    assert "identity" not in line
    assert not any("all on the edge with" in one.sentence or "output) with" in one.sentence for one in best(results))


def test_what_sends_nothing_over_two_links_is_a_row_each():
    results = pd.concat([complete_results(), complete_results().assign(transport="wifi")])
    rows = prepare(results)
    assert sorted(rows.loc[rows["payload_bytes"] == 0, "transport"]) == ["lte", "wifi"]


@pytest.mark.parametrize(("encoder_bytes", "is_shown"), [(61_234, True), (0, False)])
def test_the_encoders_size_is_a_column_where_a_codec_has_learned_weights(encoder_bytes, is_shown):
    results = sample_results(UNET, ("identity", "quant8", "quant2"))
    results["encoder_bytes"] = (results["codec"] == "quant2") * encoder_bytes
    results["link_s"] *= 1000
    lines = printed(table(results), width=200)
    assert max(map(len, lines)) <= 100
    assert "…" not in "".join(lines)
    assert any("encoder" in line for line in lines[:5]) == is_shown
    assert sum("61.2" in line for line in lines) == len(UNET) * is_shown


def test_long_names_are_folded_not_lost():
    results = sample_results(["features.12.block.3.some_very_long_module_name.conv_depthwise"])
    lines = printed(table(results))
    assert max(map(len, lines)) <= 100
    assert "features.12.block.3.some_very_long_module_name.conv_depthwise" in "".join(
        line.strip().split(" ")[0] for line in lines
    )


def test_an_interval_of_no_width_says_what_it_leaves_open():
    results = complete_results(UNET[:3]).assign(num_samples=40, distortion_mse=0.1)
    said = "0.00±0.0: none of 40 samples differed; of all, up to 7.5 % may (rule of three)"
    assert said not in printed(table(results))
    results.loc[0, ["score_delta", "score_delta_ci95"]] = 0.0
    assert said in [line.strip() for line in printed(table(results))]
    assert said not in [line.strip() for line in printed(table(results.assign(distortion_mse=0.0)))]  # it is proved


def test_marks_are_the_pareto_front_and_the_bottlenecks():
    results = with_a_tie(complete_results(UNET, ("quant8", "quant4")))
    lines = [line for line in printed(table(results)) if line.count("±") == 2]
    frame = prepare(results)
    assert sum("★" in line for line in lines) == (frame["front"] == "best").sum() > 0
    assert sum(line.rstrip("▼ ").endswith(" =") for line in lines) == (frame["front"] == "tie").sum() > 0
    assert sum("▼" in line for line in lines) == splits(frame)["is_bottleneck"].sum()


def test_the_table_says_intervals_splits_and_the_source_of_each_time():
    text = " ".join(" ".join(printed(table(complete_results(UNET, ("quant8", "quant4"))))).split())
    assert "0.7411±.020" in text
    assert "±: 95 % interval over 96 samples" in text
    assert re.search(r"★ and = chosen on \d+ validation samples; scores are test's", text)
    assert (
        "edge raspberry_pi_4 (roofline, estimated) · link lte (simulated) · server desktop_gpu (roofline, estimated)"
        in text
    )


def test_failures_come_last_on_one_line_each():
    lines = printed(table(sample_results(num_failed=2)))
    assert [line.split(":")[0].strip() for line in lines[-2:]] == [
        "failed at input · quant8",
        "failed at enc1.conv1 · quant8",
    ]
    assert "PayloadError: expected <quant8> & got 0 bytes of nothing" in lines[-2]


def test_square_brackets_in_names_and_errors_are_text():
    results = sample_results(["[bold]x[/bold]", "b"], num_failed=1)
    results.loc[0, "error"] = "bad [red]shape[/red] [1, 2]"
    assert "bad [red]shape[/red] [1, 2]" in "".join(printed(table(results)))


@pytest.mark.parametrize("count", [0, 1])
def test_empty_and_single_results_make_a_table(count):
    assert printed(table(sample_results().iloc[:count]))


def point(index: int, shapes: list[tuple[int, ...]], **changes) -> SplitPoint:
    tensors = tuple(TensorSpec(shape, torch.float32) for shape in shapes)
    head, tail = (OpCost("conv", 2.5e6 * index, 1.0),), (OpCost("conv", 7e6, 1.0),)
    facts = {"raw_bytes": 65_536, "is_bottleneck": False, "is_batched": True} | changes
    facts = {"hook_bytes": facts["raw_bytes"]} | facts
    return SplitPoint(f"layer{index}", index, tensors, head_ops=head, tail_ops=tail, head_param_bytes=1_500,
                      tail_param_bytes=98_000, **facts)  # fmt: skip


def test_points_table_shows_what_crosses_and_what_each_side_costs():
    points = [point(1, [(1, 16, 32, 32), (1, 8, 4)]), point(2, [(1, 64)], is_bottleneck=True, raw_bytes=256)]
    lines = printed(points_table(points, input_bytes=12_288), width=200)
    (first,) = [line for line in lines if "layer1" in line]
    (second,) = [line for line in lines if "layer2" in line]
    assert max(map(len, lines)) <= 100
    for text in ("2: 16×32×32, 8×4", "65.5", "5.3×", "2.50", "7.00", "1.50", "98.0"):
        assert text in first
    assert "▼" in second
    assert "▼" not in first


def test_points_table_shows_what_hooks_would_send_only_where_it_is_not_what_crosses():
    alike, other = point(1, [(1, 64)]), point(2, [(1, 64)], raw_bytes=256, hook_bytes=4096)
    lines = printed(points_table([alike, other], input_bytes=12_288), width=200)
    assert max(map(len, lines)) <= 100
    assert "4.10" in next(line for line in lines if "layer2" in line)
    assert "hooks" in lines[-1]
    alone = "\n".join(printed(points_table([point(1, [(1, 64)])], input_bytes=12_288)))
    assert "hooks" not in alone


def test_an_unbatched_tensor_keeps_its_first_dimension():
    lines = printed(points_table([point(1, [(5, 3)], is_batched=False)], input_bytes=0))
    assert any("5×3" in line for line in lines)


def test_an_exit_that_takes_all_samples_is_no_network_on_the_edge():
    results = complete_results(UNET, ("quant8", "quant4"))
    at = results["split_point"] == "bottleneck.conv1"
    results.loc[at, ["payload_bytes", "exit_share"]] = [0.0, 1.0]
    rows = [line for line in printed(table(results), width=120) if line.strip().startswith("bottleneck.conv1")]
    assert len(rows) == 2
    assert ["quant" in row for row in rows] == [True, True]
    assert named(splits(prepare(results)).query("split_point == 'bottleneck.conv1'").iloc[0]).startswith(
        "bottleneck.conv1 · quant"
    )


def test_a_cut_at_the_input_runs_all_on_the_server_but_for_an_early_exit():
    frame = prepare(complete_results())
    row = splits(frame).query("split_point == 'input'").iloc[0].copy()
    assert name(row) == "everything on the server (cut at input) with quant8"
    row["exit_share"] = 1.0
    assert name(row) == "the cut at input with quant8"


def test_what_frames_took_stands_beside_what_was_predicted():
    results = complete_results(UNET[:3])
    assert measured_table(results) is None
    sent = results["reference"].isna()
    measured = {"measured_latency_s": 0.004, "prediction_error": 0.1, "measured_throughput_hz": 300.0}
    for column, value in (measured | {"throughput_prediction_error": 0.25}).items():
        results[column] = float("nan")
        results.loc[sent, column] = value
    grid = measured_table(results)
    assert grid is not None
    text = "\n".join(printed(grid))
    assert text.count("4.00") == text.count(" 300 ") == 3  # of each cut; a picture that is sent as it is was not
    assert "off by" in text
    timed = results.assign(edge_timing="measured", server_timing="measured", coding_timing="measured")
    assert any("all times are predictions" in line for line in printed(table(timed)))
    assert measured_table(results.drop(columns="prediction_error")) is None  # a run that adapts predicts nothing
    narrow = " ".join(" ".join(printed(grid, width=50)).split())
    assert "50 columns leave out off by %; results.csv has all" in narrow
    assert "leave out" not in text
    assert narrow.count("4.00") == 3


def test_the_last_column_has_its_whole_width():
    grid = grid_of("")
    for title in ("cut", "codec"):
        grid.add_column(title, overflow="fold", min_width=3)
    grid.add_row("stage1", "identity")
    assert any(line.split() == ["stage1", "identity"] for line in printed(grid))
