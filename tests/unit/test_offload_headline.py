"""The table at the end of an offload run: intervals of what was measured, and stages that do not add up."""

from splitsem.workflows.offload_headline import side_by_side

TIMES = ("edge_s", "link_s", "server_s", "latency_s")
PREDICTED = dict.fromkeys((*TIMES, "link_busy_s", "answer_busy_s", "answer_s"), 0.001) | {"throughput_hz": 500.0}
SOFTWARE = {"edge_transport_s": 0.0, "server_transport_s": 0.0}
ERRORS = {"prediction_error": 0.1, "throughput_prediction_error": 0.2}


def shown(latency_s: float) -> str:
    took = {f"measured_{name}": 0.001 for name in TIMES[:3]} | {"measured_latency_s": latency_s}
    ends = {"measured_latency_low_s": 0.9 * latency_s, "measured_latency_high_s": 1.2 * latency_s}
    return side_by_side(PREDICTED | SOFTWARE | ERRORS | took | ends | {"measured_throughput_hz": 400.0})


def test_the_measured_latency_has_its_interval():
    assert "latency_s         1.000 ms    3.000 ms  (2.700 to 3.600)" in shown(0.003)


def test_medians_that_do_not_add_up_are_told():
    assert "add up" not in shown(0.0035)
    assert "\nthe stages' medians add up to 3.000 ms: something else took the processors" in shown(0.005)
