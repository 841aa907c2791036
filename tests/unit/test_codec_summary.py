"""What joins the jobs of a sweep over codecs: rows of all jobs, named as in the results, with their training's seed."""

from pathlib import Path

import pandas as pd

from splitsem.workflows.split_summary import codec_figures, link_scores

SETTING = "channel.ebn0_db"


def sweep(folder: Path) -> pd.DataFrame:
    results = []
    for job, (codec, width, seed) in enumerate(
        [("fixed", "4", 0), ("fixed", "4", 1), ("fixed", "8", 0), ("crbq", "8", 0)]
    ):
        made = folder / str(job)
        (made / ".hydra").mkdir(parents=True)
        (made / ".hydra" / "config.yaml").write_text(f"seed: {seed}\n")
        rows = [
            {SETTING: snr_db, "seed": 0, "score": 0.8, "snr_db": snr_db, "ber": 0.1, "payload_bytes": 100.0}
            for snr_db in (-3.0, 0.0)
        ]
        pd.DataFrame(rows).to_csv(made / "link_scores.csv", index=False)
        sizes = {"encoder_bytes": 100 * (codec == "crbq"), "payload_bytes": 100, "raw_bytes": 800, "input_bytes": 64}
        names = {"job": job, "status": "ok", "codec": codec, "codec.bit_width": width, "seed": str(seed)}
        results.append(
            {**names, **sizes, "split_point": "stem", "score": 0.8, "score_clean": 0.9, "score_unsplit": 0.95}
        )
    return pd.DataFrame(results)


def test_jobs_of_one_setting_share_a_name_and_differ_in_the_seed_of_their_training(tmp_path):
    rows = link_scores(tmp_path, sweep(tmp_path))
    assert len(rows) == 8
    assert rows.groupby("codec", sort=False)["training_seed"].nunique().to_dict() == {
        "fixed · 4 bit": 2,
        "fixed · 8 bit": 1,
        "crbq · 8 bit": 1,
    }
    assert set(rows["setting"]) == {SETTING}
    assert set(rows["score_clean"]) == {0.9}
    assert rows.groupby("codec")["encoder_bytes"].max()["crbq · 8 bit"] == 100


def test_a_job_that_failed_leaves_the_others_rows(tmp_path):
    results = sweep(tmp_path)
    results.loc[0, ["status", "error"]] = "failed", "no"
    assert len(link_scores(tmp_path, results)) == 6


def test_a_sweep_without_such_jobs_gets_no_figure_of_them(tmp_path):
    results = sweep(tmp_path / "elsewhere")
    assert list(codec_figures(tmp_path, results)) == ["three_way"]
    assert list(codec_figures(tmp_path, results.query("codec == 'fixed'"))) == []
