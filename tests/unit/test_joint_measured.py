"""What turns on the wire are reduced to: medians or the least disturbed, gains, and errors of the predictions."""

import pytest
from omegaconf import OmegaConf

from splitsem.workflows.joint.real_frames import wire_metrics

CUTS = {"": [3], "baseline_": [3, 0], "fused_": [3]}
SOLUTIONS = {  # as predicted
    "": {"latency_s": 2e-3, "cycle_s": 1e-3},
    "baseline_": {"latency_s": 4e-3, "cycle_s": 2e-3},
    "fused_": {"latency_s": 2e-3, "cycle_s": 1e-3},
}


def turns(*latencies_s: float, score: float = 0.9) -> list[dict[str, float]]:
    """A cycle is half a latency."""
    return [
        {
            "measured_latency_s": took_s,
            "measured_throughput_hz": 2 / took_s,
            "paced_edge_s": took_s / 4,
            "paced_server_s": took_s / 5,
            "score": score,
        }
        for took_s in latencies_s
    ]


def metrics(runs: dict[str, list[list[dict[str, float]]]], undisturbed: bool = False) -> dict[str, float]:
    return wire_metrics(OmegaConf.create({"undisturbed": undisturbed}), SOLUTIONS, CUTS, runs)


def test_a_machine_at_half_its_speed_is_an_error_of_the_prediction_but_not_in_units_of_the_baseline():
    slow = {"": [turns(4e-3)], "baseline_": [turns(8e-3), turns(9e-3)], "fused_": [turns(4e-3)]}
    found = metrics(slow)
    assert found["t_eff_prediction_error"] == pytest.approx(0.5)
    assert found["relative_t_eff_prediction_error"] == pytest.approx(0)
    assert found["measured_gain_over_baseline"] == pytest.approx(1)
    assert found["measured_gain_over_fused"] == pytest.approx(0)


def test_medians_of_the_turns_count_or_with_undisturbed_the_best():
    runs = {"": [turns(2e-3, 5e-3, 3e-3)], "baseline_": [turns(4e-3), turns(4e-3)], "fused_": [turns(2e-3)]}
    found = metrics(runs)
    assert (found["measured_latency_s"], found["measured_throughput_hz"]) == pytest.approx((3e-3, 2 / 3e-3))
    found = metrics(runs, undisturbed=True)
    assert (found["measured_latency_s"], found["measured_throughput_hz"]) == pytest.approx((2e-3, 1e3))
    assert found["t_eff_prediction_error"] == pytest.approx(0)


def test_a_baseline_counts_at_its_faster_cut_and_the_first_turn_scores():
    runs = {"": [[*turns(2e-3, score=0.8), *turns(2e-3, score=0.1)]]}
    runs |= {"baseline_": [turns(4e-3), turns(3e-3)], "fused_": [turns(2e-3)]}
    found = metrics(runs)
    assert found["measured_baseline_lambda"] == 0
    assert found["measured_gain_over_baseline"] == pytest.approx(0.5)
    assert found["baseline_t_eff_prediction_error"] == pytest.approx(0)  # at the cut that was predicted
    assert found["wire_accuracy"] == 0.8
