"""What a sweep of federated runs prints and draws."""

import pandas as pd
import pytest
from rich.console import Console

from splitsem.workflows.federated.summary import summarise
from splitsem.workflows.summary import Origin, Sweep

ORIGIN = Origin("a title", "a command", {})


def test_a_sweep_of_federated_runs_names_them_by_what_differs(tmp_path):
    same = {"status": "ok", "task": "digits", "strategy": "fedavg", "federated.rounds": "2", "downlink_bytes": 2e5}
    same |= {"round_s": 1.0, "failed_clients": 0, "uplink_raw_bytes": 176000, "codec_share": 0.05}
    same["downlink_codec"] = "identity"
    runs = [
        {"job": 0, "codec": "quant8", "federated.partition.beta": "0.1", "score": 0.9, "uplink_bytes": 27000.0},
        {"job": 1, "codec": "quant4", "federated.partition.beta": "1", "score": 0.8, "uplink_bytes": 14000.0},
    ]
    rows = [same | run | {"uplink_compression_ratio": 176000 / run["uplink_bytes"]} for run in runs]
    results = pd.DataFrame([*rows, {"status": "failed", "codec": "quant2", "error": "a reason"}])
    console = Console(record=True, width=120)
    summarise(Sweep(tmp_path, results, ORIGIN, console))
    text = console.export_text()
    assert "1 jobs failed" in text
    assert text.index("quant8 · beta=0.1") < text.index("quant4 · beta=1")
    assert "fedavg" not in text
    assert "±" not in text, "a legend explains what the table has"
    assert "below identity" not in text
    assert "codec: its share of the round" in text
    assert (tmp_path / "score_by_update.png").stat().st_size > 5_000


def test_runs_with_heads_on_the_clients_share_the_table(tmp_path):
    same = {"status": "ok", "task": "digits", "codec": "quant8", "downlink_codec": "identity", "downlink_bytes": 2e5}
    same |= {"round_s": 1.0, "failed_clients": 0, "score": 0.9}
    whole = same | {"strategy": "fedavg", "uplink_bytes": 27000.0, "uplink_raw_bytes": 176000}
    split = same | {"strategy": "splitfed averaged", "split_point": "stage2", "uplink_bytes": 9000.0}
    split |= {"score": 0.8, "uplink_raw_bytes": 60000, "head_codec": "identity"}
    results = pd.DataFrame([row | {"job": i, "uplink_compression_ratio": 6.5} for i, row in enumerate((whole, split))])
    console = Console(record=True, width=120)
    summarise(Sweep(tmp_path, results, ORIGIN, console))
    lines = console.export_text().splitlines()
    assert [line.strip().split("  ")[0] for line in lines[3:5]] == ["fedavg", "splitfed averaged"]


def test_seeds_are_averaged_and_compared_with_identity_seed_by_seed(tmp_path):
    scores = {"identity": (0.98, 0.96, 0.97), "quant8": (0.978, 0.958, 0.968)}
    rows = []
    for codec, reached in scores.items():
        for seed, score in enumerate(reached):
            row = {"job": len(rows), "status": "ok", "codec": codec, "seed": str(seed), "score": score}
            row |= {"uplink_bytes": 100.0 if codec == "identity" else 20.0, "uplink_raw_bytes": 100}
            row |= {"downlink_bytes": 1.0, "round_s": 1.0, "failed_clients": 0, "codec_share": 0.05}
            rows.append(row | {"uplink_compression_ratio": 1.0, "downlink_codec": "identity"})
            rounds = {"round/number": [1, 2], "round/val_score": [0.5, score], "round/uplink_bytes": [20.0, 20.0]}
            (tmp_path / str(row["job"])).mkdir()
            pd.DataFrame(rounds).to_csv(tmp_path / str(row["job"]) / "rounds.csv", index=False)
    console = Console(record=True, width=160)
    summarise(Sweep(tmp_path, pd.DataFrame(rows), ORIGIN, console))
    means = pd.read_csv(tmp_path / "means.csv").set_index("label")
    assert means.loc["quant8", "score"] == pytest.approx(0.968)
    assert means.loc["quant8", "score_ci95"] == pytest.approx(0.02484, abs=1e-5)  # t = 4.303
    assert means.loc["quant8", "points_below_identity"] == pytest.approx(0.2)
    assert means.loc["quant8", "points_ci95"] == pytest.approx(0, abs=1e-9)
    assert means.loc["quant8", "uplink_compression_ratio"] == 5
    text = console.export_text()
    assert "0.9680 ± 0.0248" in text
    assert "±: 95 % interval of the mean over seeds · below identity: in points, seed by seed" in text
    assert (tmp_path / "score_over_rounds.png").stat().st_size > 5_000
