"""Workflows serve and offload through the real entry point, as two processes on this machine."""

import json
import math
import re
import signal
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

SERVED = ("task=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "device=cpu")
NETWORK = (*SERVED, "tracking=none")
MEASURED = ["edge_s", "link_s", "server_s", "latency_s", "throughput_hz"]
COUNTED = ["frames_sent", "frames_answered", "retries", "reconnects", "fallback_frames"]


@pytest.fixture
def served(serve_py, trained_cache):
    """Address of a server that runs workflow=serve, and its process; it is stopped as a service manager would."""
    observed = ("workflow.metrics_bind=127.0.0.1:0", "hydra/job_logging=json")
    return serve_py(*SERVED, f"cache_dir={trained_cache}", *observed)


def scraped(address):
    """Each sample of the server's metrics by name and label; without the histograms' buckets."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    samples = [sample for family in families for sample in family.samples if "le" not in sample.labels]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_an_offload_run_has_predicted_and_measured_side_by_side(run_py, served, trained_cache, tmp_path):
    address, process = served
    common = (*NETWORK, f"cache_dir={trained_cache}", f"transport.target={address}", "workflow.num_samples=20")
    done = run_py("workflow=offload", "codec=identity", "split.point=stage1", *common, "hydra.run.dir=one")
    assert done.returncode == 0, done.stderr
    assert "predicted" in done.stdout
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    names = [f"measured_{name}" for name in MEASURED]
    assert all(math.isfinite(metrics[name]) and metrics[name] > 0 for name in [*MEASURED, *names])
    error = abs(metrics["latency_s"] - metrics["measured_latency_s"]) / metrics["measured_latency_s"]
    assert metrics["prediction_error"] == pytest.approx(error)
    assert metrics["throughput_prediction_error"] >= 0
    timing = {name: metrics[f"{name}_timing"] for name in ("edge", "link", "server")}
    assert timing == {"edge": "measured", "link": "measured", "server": "measured on the server"}
    assert metrics["score"] == metrics["score_unsplit"]
    assert metrics["num_samples"] == 20
    assert metrics["score_ci95"] > metrics["score_delta_ci95"] == 0
    assert "on 20 samples" in done.stdout
    assert sorted(np.load(tmp_path / "one" / "score_draws.npz")) == ["test", "val"]
    assert (tmp_path / "one" / "gallery.png").exists()
    assert metrics["answer_bytes"] == 1
    assert metrics["frames_sent"] == metrics["frames_answered"] == 20 + 50  # scored, and timed alone
    num_seen = metrics["frames_answered"] + 10  # by which both ends settle
    assert [metrics[name] for name in COUNTED[2:]] == [0, 0, 0]

    for stage in ("head", "encode", "answer_decode", "edge", "link", "server", "queue", "latency"):
        p50, p95, p99 = (metrics[f"measured_{stage}_p{percent}_s"] for percent in (50, 95, 99))
        assert 0 <= p50 <= p95 <= p99
        assert metrics[f"measured_{stage}_s"] == pytest.approx(p50)

    wrong = run_py("workflow=offload", "seed=1", *common)
    assert wrong.returncode == 1
    assert "weights: the server has" in wrong.stderr
    assert "Traceback" not in wrong.stderr

    found = scraped((tmp_path / "served" / "metrics_address.txt").read_text().strip())
    assert found["splitsem_requests_total", "answered"] == num_seen
    assert found["splitsem_plans_total", "refused"] == 1
    assert found["splitsem_plans_total", "agreed"] == 3  # the run's, that of the probes, and the run's again
    assert found["splitsem_tails",] == 1
    for stage in ("queue", "decode", "tail", "encode"):
        assert found["splitsem_stage_seconds_count", stage] == num_seen
        assert 0 < found["splitsem_stage_seconds_sum", stage] < 10
    assert found["splitsem_received_bytes_total",] > metrics["payload_bytes"] * metrics["frames_answered"] * 0.9
    assert found["process_resident_memory_bytes",] > 100e6
    assert found["splitsem_queue_depth",] == found["splitsem_clients",] == 0

    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    lines = [json.loads(line) for line in (tmp_path / "served" / "run.log").read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    came, gone = ([line for line in lines if words in line["message"]] for words in (" sends ", " is gone after "))
    assert len(came) == 1  # no line for a probe
    assert re.fullmatch(r"127\.0\.0\.1/[0-9a-f]{6} sends stage1", came[0]["message"].split(" by ")[0])
    assert len(gone) == 1
    assert f"after {num_seen} frames" in gone[0]["message"]
    assert came[0]["peer"].startswith("ipv4:127.0.0.1:")
    assert f"{num_seen} frames answered" in process.stdout.read()


def test_the_answer_travels_to_where_it_is_needed(run_py, served, trained_cache, tmp_path):
    address, _ = served
    few = ("workflow.num_samples=10", "workflow.num_timed=5", "workflow.num_probes=5")
    common = ("workflow=offload", *NETWORK, *few, f"cache_dir={trained_cache}", f"transport.target={address}")
    jobs = ("split.point=stage1,output", "answer.at=edge,server", "hydra.sweep.dir=swept", "workflow.summary=null")
    done = run_py(*common, *jobs, "-m")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The whole network runs on the edge: no frame is sent.") == 1
    found = [json.loads((tmp_path / "swept" / str(job) / "metrics.json").read_text()) for job in range(4)]
    at = {(m["split_point"], m["answer_at"]): m for m in found}
    assert len({m["score"] for m in found}) == 1
    assert (at["output", "edge"]["payload_bytes"], at["output", "edge"]["frames_sent"]) == (0, 0)
    assert at["output", "server"]["payload_bytes"] == 1
    assert at["output", "server"]["frames_answered"] > 10
    assert at["output", "edge"]["measured_link_s"] == 0 < at["output", "server"]["measured_link_s"]
    assert "answer_bytes" not in at["stage1", "server"]
    for metrics in found:
        # a frame's stages sum up to its latency; medians need not, so each is held between what no noise can cross
        stages = [f"measured_{stage}" for stage in ("edge", "link", "server")]
        assert max(metrics[f"{stage}_s"] for stage in stages) <= metrics["measured_latency_s"]
        assert metrics["measured_latency_s"] <= sum(metrics[f"{stage}_p99_s"] for stage in stages)


@pytest.mark.slow  # three runs of the real entry point
def test_a_run_given_its_answers_again_asks_for_the_rest_only(run_py, served, trained_cache, tmp_path):
    address, _ = served
    common = ("workflow=offload", *NETWORK, f"cache_dir={trained_cache}", f"transport.target={address}")
    few = ("split.point=stage1", "workflow.num_timed=5", "workflow.num_paced=5", "workflow.num_probes=5")
    found = []
    for name, num_samples in (("one", 12), ("two", 12), ("three", 20)):
        kept = (f"workflow.answers={tmp_path / 'answers'}", f"workflow.num_samples={num_samples}")
        done = run_py(*common, *few, *kept, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    assert found[0]["score"] == found[1]["score"]
    assert found[0]["frames_answered"] - found[1]["frames_answered"] == 12
    assert found[2]["frames_answered"] - found[1]["frames_answered"] == 8


def test_without_a_server_the_device_says_why_or_falls_back(run_py, trained_cache, tmp_path):
    common = (*NETWORK, f"cache_dir={trained_cache}", "transport.target=127.0.0.1:9", "transport.retry.retries=1")
    offload = ("workflow=offload", "split.point=stage1", "workflow.num_samples=10", *common)
    refused = run_py(*offload)
    assert refused.returncode == 1
    assert "127.0.0.1:9 refuses connections" in refused.stderr
    assert "Traceback" not in refused.stderr
    alone = run_py(*offload, "workflow.fallback=local", "hydra.run.dir=alone")
    assert alone.returncode == 0, alone.stderr
    metrics = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    assert metrics["frames_answered"] == 0
    assert (metrics["link_timing"], metrics["server_timing"]) == ("no link", "measured")
    assert metrics["fallback_frames"] >= 10


def test_offload_over_a_simulated_link_is_refused_with_the_remedy(run_py, trained_cache):
    done = run_py("workflow=offload", "transport=wifi", *NETWORK, f"cache_dir={trained_cache}")
    assert done.returncode == 1
    assert "transport=grpc" in done.stderr
