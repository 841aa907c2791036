"""The plot of score against channel: lines, intervals and references where the numbers are."""

import numpy as np
import pandas as pd
import pytest

from splitsem.report.codec_figures import curves, score_channel


def runs() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "codec": codec,
            "link": snr_db,
            "seed": seed,
            "snr_db": snr_db + 0.01 * seed,
            "ber": 10 ** (-1 - snr_db / 4),
            "score": best - 0.03 * (6 - snr_db) + 0.01 * rng.standard_normal(),
            "score_clean": best,
            "score_unsplit": 0.95,
        }
        for codec, best in (("fixed", 0.9), ("quant8", 0.93))
        for snr_db in (-3.0, 0.0, 3.0, 6.0)
        for seed in range(3)
    )


@pytest.mark.parametrize("x", ["snr_db", "ber"])
def test_a_line_and_a_band_for_each_codec_and_its_clean_score(x: str) -> None:
    results = runs()
    before = results.copy(deep=True)
    figure = score_channel(results, x)
    figure.draw_without_rendering()
    pd.testing.assert_frame_equal(results, before)
    (ax,) = figure.axes
    assert len(ax.collections) == 2
    assert sum(line.get_gid() == "clean" for line in ax.lines) == 2
    assert ax.get_xscale() == ("log" if x == "ber" else "linear")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["fixed", "quant8", "95 % interval over seeds", "clean link", "unsplit network"]
    box = ax.get_legend().get_window_extent()
    assert not box.overlaps(ax.get_window_extent())
    assert box.x1 <= figure.bbox.x1


def test_points_are_means_and_intervals_students_t() -> None:
    points = curves(runs(), "snr_db")
    first = points[points["codec"] == "fixed"].iloc[0]
    scores = runs().query("codec == 'fixed' and link == -3")["score"]
    assert first["x"] == pytest.approx(-2.99)
    assert first["score"] == pytest.approx(scores.mean())
    assert first["high"] - first["score"] == pytest.approx(4.3027 * scores.std() / 3**0.5, rel=1e-4)


def test_a_sweeps_rows_bring_their_own_interval() -> None:
    rows = runs().groupby(["codec", "link"], as_index=False).first().drop(columns="link").assign(score_ci95=0.02)
    points = curves(rows, "snr_db")
    assert (points["high"] - points["score"]).tolist() == pytest.approx([0.02] * len(points))


def test_nothing_to_draw_is_said() -> None:
    figure = score_channel(runs().assign(ber=0.0), "ber")
    assert "no row has" in figure.axes[0].texts[0].get_text()


def test_with_several_trainings_the_interval_is_over_them_and_the_legend_says_so() -> None:
    two = pd.concat([runs().assign(training_seed=seed, score=runs()["score"] + 0.02 * seed) for seed in (0, 1, 2)])
    points = curves(two, "snr_db")
    half = 4.3027 * 0.02 / 3**0.5
    assert (points["score"] - points["low"]).tolist() == pytest.approx([half] * len(points), rel=1e-3)
    texts = [text.get_text() for text in score_channel(two).axes[0].get_legend().get_texts()]
    assert "95 % interval over 3 trainings,\neach the mean of 3 channel seeds" in texts


def test_codecs_without_weights_are_dashed_beside_learned_ones() -> None:
    results = runs().assign(encoder_bytes=lambda rows: (rows["codec"] == "fixed") * 100)
    lines = {line.get_label(): line for line in score_channel(results).axes[0].get_legend().get_lines()}
    assert lines["fixed"].get_linestyle() == "-"
    assert lines["quant8"].get_linestyle() == "--"
