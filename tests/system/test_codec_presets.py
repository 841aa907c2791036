"""The presets that compare codecs, shrunk: every job leaves its rows, the sweep one table and one figure."""

import pandas as pd
import pytest

UNTRAINED = ("tracking=none", "trainer.max_epochs=0", "workflow.num_samples=6", "hydra.sweep.dir=sweep")


def test_ber_sweep_joins_the_curves_of_all_codecs(run_py, tmp_path):
    done = run_py(
        "experiment=ber_sweep", "task=digits", *UNTRAINED, "codec=semanticnn,adjscc",
        "codec.stages.features.max_epochs=0", "codec.stages.task.max_epochs=1",
        "codec.stages.task.limit_train_batches=1", "workflow.over.values=[-3,7]", "-m",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "sweep" / "link_scores.csv")
    assert len(rows) == 2 * 2 * 3  # codecs, settings, channel seeds
    assert set(rows["setting"]) == {"channel.ebn0_db"}
    assert rows.groupby("setting_value")["ber"].mean()[-3.0] > 0.1 > rows.groupby("setting_value")["ber"].mean()[7.0]
    results = pd.read_csv(tmp_path / "sweep" / "results.csv")
    first = rows.query("codec == 'semanticnn'")
    job = results.query("codec == 'semanticnn'").iloc[0]
    assert job["score_over_link"] == pytest.approx(first["score"].mean())
    assert job["score_over_link"] == pytest.approx((job["score_at_-3"] + job["score_at_7"]) / 2)
    for name in ("score_snr.png", "score_ber.png", "three_way.png", "three_way.csv"):
        assert (tmp_path / "sweep" / name).exists()
    assert "over the" in done.stdout
    assert (tmp_path / "sweep" / "report.html").read_text().count("data:image/png") == 6


def test_three_way_puts_learned_codecs_beside_plain_ones_and_the_picture(run_py, tmp_path):
    done = run_py("experiment=three_way", "task=digits", *UNTRAINED, "codec=crbq,quant2", "-m")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "sweep" / "three_way.csv").set_index("codec")
    assert set(table.index) == {"crbq", "quant2", "JPEG", "WebP"}
    assert (table["encoder_bytes"] > 0).to_dict() == {"crbq": True, "quant2": False, "JPEG": False, "WebP": False}
    assert not (tmp_path / "sweep" / "link_scores.csv").exists()
    assert "no other is at least as good in all three" in done.stdout
