"""Preparing results: series are found, seeds averaged, the front marked, the order is the network's."""

import numpy as np
import pandas as pd

from splitsem.report.results import about, about_interval, describe, failures, prepare, references, splits
from tests.unit.sample_results import UNET, complete_results, sample_results


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
    np.testing.assert_allclose(prepared["score_ci95"], 4.302653 * 0.1 / 3**0.5, rtol=1e-6)  # Student's t, 2 degrees
    assert about_interval(prepared) == "95 % interval over 3 seeds"
    assert set(prepared["num_runs"]) == {3}


def test_a_configuration_that_a_search_draws_again_is_one_run():
    drawn = sample_results(codecs=("quant8", "quant4"), references=())
    again = pd.concat([drawn, drawn.iloc[3:9]], ignore_index=True)
    again["throughput_hz"] *= np.linspace(1.0, 1.1, len(again))  # times are never the same
    seeded = pd.concat([again.assign(seed=seed) for seed in (0, 1)], ignore_index=True)
    assert len(prepare(again)) == len(drawn)
    assert set(prepare(again)["num_runs"]) == {1}
    assert set(prepare(seeded)["num_runs"]) == {2}


def test_baselines_of_several_seeds_are_averaged_though_they_name_none():
    seeded = []
    for seed in range(3):
        rows = sample_results().assign(seed=float(seed))
        is_reference = rows["reference"].notna()
        rows.loc[is_reference, "seed"] = np.nan  # a baseline is no job, and no setting of a job is its own
        rows.loc[is_reference, "score"] = 0.90 + 0.01 * seed
        seeded.append(rows)
    baselines = references(prepare(pd.concat(seeded, ignore_index=True)))
    assert set(baselines["num_runs"]) == {3}
    assert np.allclose(baselines["score"], 0.91)


def test_rows_are_in_network_order_and_failures_last():
    shuffled = sample_results(num_failed=2).sample(frac=1.0, random_state=1)
    prepared = prepare(shuffled)
    assert splits(prepared)["split_index"].is_monotonic_increasing
    assert not prepared["is_ok"].iloc[-2:].any()
    assert len(failures(prepared)) == 2


def test_references_are_neither_splits_nor_on_the_front():
    prepared = prepare(sample_results())
    assert set(references(prepared)["series"]) == {"JPEG", "WebP"}
    assert not references(prepared)["front"].any()
    assert (splits(prepared)["front"] == "best").any()


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
    columns = ["series", "split_point", "score", "front", "is_ok", "is_reference", "is_bottleneck"]
    pd.testing.assert_frame_equal(back[columns], direct[columns], check_dtype=False)


def test_describe_counts_what_it_cannot_list():
    codecs = ("identity", "fp16", "quant8", "quant4", "quant2")
    assert describe(prepare(sample_results(UNET[:2], codecs))) == (
        "disaster · unet · 5 codecs · lte · raspberry_pi_4 → desktop_gpu"
    )


def test_the_front_is_chosen_on_validation_and_says_so_where_it_cannot_be():
    results = complete_results(UNET[:2])
    results["score"] = [0.9, 0.1, *results["score"][2:]]  # the test split says the contrary
    results["score_val"], results["throughput_hz"] = [0.1, 0.9, *results["score_val"][2:]], 10.0
    prepared = prepare(results.drop(columns="draws_val"))
    assert splits(prepared)["front"].tolist() == ["", "best"]
    assert "chosen on" not in about(prepared)
    old = prepare(results.drop(columns=["draws_val", "score_val"]))
    assert splits(old)["front"].tolist() == ["best", ""]
    assert about(old).endswith("chosen on the scores shown")


def test_paired_draws_tell_apart_what_the_scores_own_intervals_do_not():
    results = complete_results(UNET[:2]).assign(throughput_hz=10.0)
    results.loc[:1, "score_val"] = [0.75, 0.76]
    shared = np.linspace(-0.05, 0.05, 50)
    draws = pd.Series([0.75 + shared, 0.76 + shared, *results["draws_val"][2:]], dtype=object)
    assert splits(prepare(results.assign(draws_val=draws)))["front"].tolist() == ["", "best"]
    alone = splits(prepare(results.drop(columns="draws_val")))
    assert sorted(alone["front"]) == ["best", "tie"]
    assert alone["tie_group"].tolist() == [0, 0]


def test_a_single_sample_has_no_interval_and_says_so():
    results = complete_results(UNET[:3]).assign(num_samples=1)
    intervals = [name for name in results if "ci95" in name]
    prepared = prepare(results.drop(columns=[*intervals, "draws_val"]))
    assert about_interval(prepared) == "no interval: one sample"
    assert "no interval: one sample" in about(prepared)
