"""Preparing results: series are found, seeds averaged, the front marked, the order is the network's."""

import numpy as np
import pandas as pd

from splitsem.report.results import describe, failures, prepare, references, splits
from tests.unit.sample_results import UNET, sample_results


def test_one_codec_is_one_series_named_after_it():
    assert splits(prepare(sample_results()))["series"].unique().tolist() == ["quant8"]


def test_a_swept_knob_names_the_series_and_the_codec_the_family():
    frame = sample_results(UNET[:2], references=())
    swept = pd.concat([frame.assign(**{"codec": "quant", "codec.bit_width": bits}) for bits in (2, 4)])
    prepared = prepare(swept)
    assert set(prepared["series"]) == {"quant · 2 bit", "quant · 4 bit"} or set(prepared["series"]) == {
        "2 bit",
        "4 bit",
    }
    assert prepared["family"].nunique() == 1


def test_codec_options_that_differ_in_a_number_are_one_family():
    prepared = splits(prepare(sample_results(UNET[:2], ("identity", "quant2", "quant8"))))
    assert set(prepared["family"]) == {"identity", "quant"}


def test_a_swept_link_tells_the_series_apart():
    frame = sample_results(UNET[:2], references=())
    prepared = prepare(pd.concat([frame.assign(transport=link) for link in ("wifi", "lora")]))
    assert set(prepared["series"]) == {"wifi", "lora"}


def test_seeds_are_averaged_so_that_luck_does_not_win():
    frames = [sample_results(UNET[:4]).assign(seed=seed) for seed in range(3)]
    for offset, frame in enumerate(frames):
        frame["score"] = 0.5 + 0.1 * offset
    prepared = prepare(pd.concat(frames))
    assert len(prepared) == len(frames[0])
    np.testing.assert_allclose(prepared["score"], 0.6)
    np.testing.assert_allclose(prepared["score_std"], 0.1)
    assert set(prepared["num_runs"]) == {3}


def test_rows_are_in_network_order_and_failures_last():
    shuffled = sample_results(num_failed=2).sample(frac=1.0, random_state=1)
    prepared = prepare(shuffled)
    assert splits(prepared)["split_index"].is_monotonic_increasing
    assert not prepared["is_ok"].iloc[-2:].any()
    assert len(failures(prepared)) == 2


def test_references_are_neither_splits_nor_on_the_front():
    prepared = prepare(sample_results())
    assert set(references(prepared)["series"]) == {"JPEG", "WebP"}
    assert not references(prepared)["pareto"].any()
    assert splits(prepared)["pareto"].any()


def test_bottlenecks_are_the_points_below_the_input():
    results = sample_results(references=())
    prepared = prepare(results)
    limit = results.loc[results["split_point"] == "input", "raw_bytes"].item()
    assert set(prepared.loc[prepared["is_bottleneck"], "split_point"]) == set(
        results.loc[results["raw_bytes"] < limit, "split_point"]
    )
    assert prepared["is_bottleneck"].any()


def test_a_csv_round_trip_changes_nothing(tmp_path):
    results = sample_results(UNET[:5], ("quant8", "quant2"), num_failed=1)
    results.to_csv(tmp_path / "results.csv", index=False)
    back = prepare(pd.read_csv(tmp_path / "results.csv"))
    direct = prepare(results)
    columns = ["series", "split_point", "score", "pareto", "is_ok", "is_reference", "is_bottleneck"]
    pd.testing.assert_frame_equal(back[columns], direct[columns], check_dtype=False)


def test_describe_counts_what_it_cannot_list():
    codecs = ("identity", "fp16", "quant8", "quant4", "quant2")
    assert describe(prepare(sample_results(UNET[:2], codecs))) == (
        "disaster · unet · 5 codecs · lte · raspberry_pi_4 → desktop_gpu"
    )
