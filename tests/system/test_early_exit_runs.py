"""An early exit through the real entry point: in a sweep, and for real, where what exits sends no frame."""

import json
import re

import pandas as pd
import pytest

NETWORK = ("task=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "device=cpu")
EXIT = ("exit=confidence", "split.point=stage1", "tracking=none", "workflow.gallery=0")


@pytest.fixture
def address(serve_py, trained_cache):
    return serve_py(*NETWORK, f"cache_dir={trained_cache}")[0]


@pytest.mark.thorough
def test_what_exits_sends_no_frame_and_scores_as_in_a_split_run(run_py, address, trained_cache, tmp_path):
    few = ("workflow.num_samples=60", f"cache_dir={trained_cache}")
    real = ("workflow=offload", f"transport.target={address}", "workflow.num_paced=5", "workflow.num_timed=20")
    found = {}
    for threshold in (0.0, 0.8, 1.0):
        common = (*NETWORK, *EXIT, *few, f"exit.threshold={threshold}")
        for name, workflow in (("split", ()), ("offload", real)):
            done = run_py(*common, *workflow, f"hydra.run.dir={name}{threshold}")
            assert done.returncode == 0, done.stderr
            found[name, threshold] = json.loads((tmp_path / f"{name}{threshold}" / "metrics.json").read_text())
        simulated, measured = found["split", threshold], found["offload", threshold]
        for metric in ("score", "score_val", "exit_share", "exit_threshold", "payload_bytes"):
            assert measured[metric] == simulated[metric], metric
        assert measured["num_exits"] == round(measured["exit_share"] * 60)
        assert 0 < measured["measured_throughput_hz"] < 1e5
        assert measured["prediction_error"] >= 0
    none, some, every = (found["offload", threshold] for threshold in (1.0, 0.8, 0.0))
    assert none["num_exits"] == 0 < some["num_exits"] < every["num_exits"] == 60
    assert none["frames_answered"] > some["frames_answered"] > every["frames_answered"]
    assert every["measured_latency_s"] == every["measured_edge_s"]
    assert all(one["paced_edge_s"] > 0 for one in (none, some, every))
    assert every["measured_link_s"] == every["measured_server_s"] == every["paced_server_s"] == 0
    assert some["measured_link_s"] < none["measured_link_s"]


def test_what_an_offloaded_exit_does_not_go_with_is_told_before_a_training(run_py, tmp_path):
    offload = (*NETWORK, *EXIT, "workflow=offload", "transport.target=127.0.0.1:9", f"cache_dir={tmp_path / 'none'}")
    for wrong, said in (
        ("answer.at=server", "give workflow=offload answer.at=edge"),
        ("workflow.onward=[[stage2,identity]]", "not with exit=confidence, which knows two machines"),
        ("controller=adaptive", "not with controller=adaptive"),
    ):
        done = run_py(*offload, wrong)
        assert done.returncode == 1, wrong
        assert said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.thorough
def test_a_sweep_shows_how_many_exit_at_each_cut(run_py, trained_cache, tmp_path):
    few = ("workflow.num_samples=60", "workflow.gallery=0", "tracking=none", "references=null")
    swept = ("experiment=early_exit", "split.point=stage1,output", "hydra.sweep.dir=swept", "-m")
    done = run_py(*NETWORK, *few, *swept, f"cache_dir={trained_cache}")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "swept" / "results.csv").set_index("split_point")
    exits = table.loc["stage1"].set_index("exit.max_loss")
    assert exits.loc[[0.0, 0.01, 0.05], "exit_share"].is_monotonic_increasing
    assert exits.loc[exits.index.isna(), "exit_share"].isna().all()  # without an exit
    assert table.loc["output", "exit_share"].isna().all()
    assert len(list((tmp_path / "swept").glob("*/exit.png"))) == 3
    lines = [line.split() for line in done.stdout.splitlines()]
    rows = [" ".join(line[1:4]) for line in lines if line[:1] == ["stage1"]]
    assert rows[0].startswith("no exit")
    assert [float(row.removeprefix("loss ≤ ")) for row in rows[1:4]] == [0.0, 0.01, 0.05]
    assert sum(line[:1] == ["output"] for line in lines) == 1
    assert re.search(r"\bexit\b.*\n.*\babove\b", done.stdout)
