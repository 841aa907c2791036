"""The three-way trade-off: rows, front, and both panels of the figure."""

import pandas as pd
import pytest

from splitsem.report.codec_figures import is_three_way, looks, three_way, three_way_figure
from splitsem.report.federated_figures import half_ci95, over_trainings
from splitsem.report.tables import codec_table


def sweep() -> pd.DataFrame:
    rows = []
    sizes = {"semanticnn": (9000, 23), "crbq": (40000, 30), "quant2": (0, 400), "quant8": (0, 1500)}
    scores = {"semanticnn": 0.88, "crbq": 0.87, "quant2": 0.85, "quant8": 0.91}
    for job, (codec, (encoder_bytes, payload_bytes)) in enumerate(sizes.items()):
        for seed in range(3):
            rows.append(
                {
                    "job": 3 * job + seed,
                    "status": "ok",
                    "codec": codec,
                    "seed": str(seed),
                    "split_point": "stem",
                    "split_index": 1,
                    "encoder_bytes": encoder_bytes,
                    "payload_bytes": payload_bytes,
                    "score": scores[codec] - 0.2,
                    "score_clean": scores[codec] + 0.01 * (seed - 1),
                    "score_unsplit": 0.92,
                    "raw_bytes": 8000,
                    "input_bytes": 784,
                    "throughput_hz": 10.0,
                }
            )
    reference = {"status": "ok", "codec": "jpeg", "reference": "jpeg", "split_point": "input", "split_index": 0}
    sizes_bytes = {"encoder_bytes": 0, "payload_bytes": 420, "raw_bytes": 3136, "input_bytes": 784}
    return pd.DataFrame([*rows, {**reference, **sizes_bytes, "score": 0.89, "score_unsplit": 0.92}])


def test_a_row_for_each_codec_is_the_mean_over_trainings_of_its_score_on_a_clean_link() -> None:
    table = three_way(sweep()).set_index("codec")
    assert list(table.index) == ["semanticnn", "crbq", "quant2", "quant8", "JPEG"]
    assert table.loc["semanticnn", "score"] == pytest.approx(0.88)
    assert table.loc["semanticnn", "score_ci95"] == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    assert table.loc["JPEG", "score"] == 0.89
    assert table.loc["quant2", "raw_ratio"] == 20
    assert table.loc["quant2", "input_ratio"] == pytest.approx(1.96)


def test_what_another_beats_in_all_three_is_off_the_front() -> None:
    table = three_way(sweep()).set_index("codec")
    assert list(table.index[~table["pareto"]]) == ["crbq"]


def test_only_sweeps_over_codecs_with_weights_are_three_way() -> None:
    results = sweep()
    assert is_three_way(results)
    assert not is_three_way(results[results["encoder_bytes"] == 0])
    assert not is_three_way(results[results["codec"] == "crbq"])
    assert not is_three_way(results.drop(columns="encoder_bytes"))


def test_both_panels_show_every_codec_and_the_legend_stays_outside() -> None:
    results = sweep()
    before = results.copy(deep=True)
    figure = three_way_figure(results)
    figure.draw_without_rendering()
    pd.testing.assert_frame_equal(results, before)
    left, right = figure.axes
    for ax, column in ((left, "payload_bytes"), (right, "encoder_bytes")):
        (front,) = [line for line in ax.lines if line.get_gid() == "front"]
        assert sorted(front.get_xdata()) == sorted(three_way(results).query("pareto")[column])
    texts = [text.get_text() for text in right.get_legend().get_texts()]
    assert texts[:4] == ["semanticnn", "crbq", "quant", "JPEG"]
    assert "over 3 trainings" in texts[-1]
    assert not right.get_legend().get_window_extent().overlaps(right.get_window_extent())


def test_the_terminal_table_has_a_line_a_codec_and_intervals_only_over_several_trainings() -> None:
    several = codec_table(three_way(sweep()), "what was run")
    one = codec_table(three_way(sweep().query("seed != '1' and seed != '2'")), "what was run")
    assert several.row_count == one.row_count == 5
    assert len(several.columns) == len(one.columns) + 1


def test_runs_of_one_training_count_once_in_an_interval() -> None:
    runs = pd.DataFrame({"training_seed": [0, 0, 1, 1], "score": [0.8, 0.82, 0.9, 0.92]})
    assert over_trainings(runs).tolist() == pytest.approx([0.81, 0.91])
    assert half_ci95(over_trainings(runs)) > half_ci95(runs["score"])
    assert len(over_trainings(runs.query("training_seed == 0"))) == 2


def test_codecs_without_weights_are_grey_and_dashed_beside_those_with() -> None:
    made = looks({"semanticnn": True, "fixed2": False, "fixed4": False})
    assert list(made) == ["semanticnn", "fixed2", "fixed4"]
    assert made["semanticnn"].linestyle == "-"
    assert made["fixed2"] != made["fixed4"]
    assert {look.linestyle for look in looks({"fixed2": False}).values()} == {"-"}
