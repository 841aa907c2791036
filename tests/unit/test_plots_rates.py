"""Ratios at equal score and BD-rates: against pictures where these were sent at several qualities."""

import pandas as pd
import pytest

from splitsem.report.bd_rate import delta_rates, equal_score
from splitsem.report.results import prepare
from splitsem.report.sweep_report import report
from tests.unit.sample_results import sample_results

SCORES = (0.5, 0.6, 0.7, 0.72)
BYTES = (100.0, 200.0, 400.0, 800.0)


def curve(name: str, factor: float = 1.0, scores=SCORES, reference: str | None = None) -> pd.DataFrame:
    """A codec's or a picture's settings, each ``factor`` times as large as in BYTES."""
    row = sample_results(("input",), references=())
    frame = pd.concat([row.assign(codec=name)] * len(scores), ignore_index=True)
    knob = "codec.quality" if reference else "codec.bit_width"
    sizes = [factor * size for size in BYTES]
    return frame.assign(score=scores, payload_bytes=sizes, reference=reference, **{knob: [1, 2, 4, 8]})


def test_every_codec_is_compared_with_pictures_at_equal_score():
    frame = prepare(pd.concat([curve("quant"), curve("jpeg", 3.0, reference="jpeg")], ignore_index=True))
    table = equal_score(frame)
    assert table["JPEG"].to_numpy() == pytest.approx([3.0] * 4)
    assert table["uint8"].to_numpy() == pytest.approx([3 * 64 * 64 / size for size in BYTES])
    assert table["float32"].to_numpy() == pytest.approx([4 * 3 * 64 * 64 / size for size in BYTES])
    (delta,) = delta_rates(frame)
    assert (delta.codec, delta.reference, delta.text) == ("quant", "JPEG", "−66.7 %")


def test_a_score_that_no_picture_has_gives_no_ratio():
    pictures = curve("jpeg", reference="jpeg", scores=(0.55, 0.56, 0.57, 0.58))
    table = equal_score(prepare(pd.concat([curve("quant"), pictures], ignore_index=True)))
    assert table["JPEG"].isna().all()


def test_without_pictures_the_first_codec_is_the_reference():
    frame = prepare(pd.concat([curve("quant"), curve("fixed", 2.0)], ignore_index=True))
    (delta,) = delta_rates(frame)
    assert (delta.codec, delta.reference) == ("fixed", "quant")
    assert delta.bd_rate == pytest.approx(1.0)


def test_codecs_without_common_scores_say_so_in_the_report():
    results = pd.concat([curve("quant"), curve("fixed", scores=(0.1, 0.2, 0.3, 0.4))], ignore_index=True)
    html = report(results, {}, "A sweep", "python run.py", {})
    assert "no common scores: 0.1000…0.4000 against 0.5000…0.7200" in html
    assert "Rates at equal score" in html


def test_pictures_of_one_quality_keep_their_plain_name_beside_those_of_several():
    pictures = curve("jpeg", reference="jpeg")
    webp = curve("webp", reference="webp").head(1).drop(columns="codec.quality")
    frame = prepare(pd.concat([curve("quant"), pictures, webp], ignore_index=True))
    assert set(frame.loc[frame["is_reference"], "series"]) == {"JPEG q1", "JPEG q2", "JPEG q4", "JPEG q8", "WebP"}
