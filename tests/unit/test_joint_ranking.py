"""The headline of a joint run: what was minimised, by rank, with what cannot be told apart."""

import pandas as pd
import pytest

from splitsem.report.joint_report import domain_gains
from splitsem.search.objective import energy, t_eff
from splitsem.workflows.joint.ranking import _STAGES, CHOSEN, are_tied, format_value, ranking
from splitsem.workflows.joint.workflow import _judged


def solution(latency_s: float, cycle_s: float, spread_s: float) -> dict:
    value = (latency_s + cycle_s) / 2
    stages = dict.fromkeys(("edge_s", "link_s", "server_s", "answer_s"), 0.0)
    numbers = {"latency_s": latency_s, "cycle_s": cycle_s, "throughput_hz": 1 / cycle_s, "accuracy_val": 0.9}
    return stages | numbers | {"split_point": "stage1", "value": value, "value_spread": spread_s}


CHOICE, EDGE, SERVER = solution(0.0030, 0.0026, 1e-4), solution(0.0031, 0.0025, 1e-4), solution(0.02, 0.001, 1e-4)


def test_solutions_stand_by_what_was_minimised_and_not_by_their_throughput():
    lines = ranking({"all on the server": SERVER, "all on the edge": EDGE, CHOSEN: CHOICE}, t_eff())
    assert [line.split("  ")[0] for line in lines[1:4]] == [CHOSEN, "all on the edge", "all on the server"]
    assert [*lines[0].split(), *lines[4].split()] == ["cut", "T_eff", "latency", "rate", *_STAGES, "val"]
    assert "= 2.8 ms" in lines[2]
    assert "=" not in lines[1] + lines[3]
    assert all(len(line) <= 80 for line in lines)


def test_a_difference_within_the_spread_of_the_times_is_a_tie():
    assert are_tied(CHOICE, EDGE)
    assert not are_tied(CHOICE, SERVER)
    assert not are_tied(CHOICE, solution(0.0034, 0.0026, 1e-4))  # 0.2 ms apart, 0.14 ms of spread
    assert not are_tied(CHOICE | {"value_spread": 0.0}, EDGE | {"value": 0.00281, "value_spread": 0.0})


def test_an_energy_is_said_in_joules():
    assert format_value(0.012, energy(5.0, 2.0)) == "12 mJ"
    assert ranking({CHOSEN: CHOICE}, energy(5.0, 2.0))[0].split()[:3] == ["cut", "energy", "T_eff"]


def test_no_number_is_cut_at_eighty_columns():
    codecs = ("topk_quant keep_ratio=0.05 bit_width=4", "quant8")
    solutions = {
        words: CHOICE | {"codec": codec, "payload_bytes": 20.9e3, "split_point": "features.denseblock1.denselayer6"}
        for words, codec in zip((CHOSEN, "float32 at its best cut"), codecs, strict=True)
    }
    lines = ranking(solutions, energy(3.0, 0.8))
    assert all(len(line) <= 80 for line in lines)
    heads = [title for line in lines[::3] for title in line.split()]
    assert heads == ["cut", "codec", "energy", "T_eff", "latency", "rate", *_STAGES, "payload", "val"]
    text = " ".join(lines)
    assert "…" not in text
    for shown in (*codecs, "2.8 mJ", "2.8 ms", "3 ms", "385 Hz", "20.9 kB", "0.9000"):
        assert text.count(shown) >= 1
    assert all(len(line.split("  ")) > 1 for line in lines if line.startswith((CHOSEN, "float32")))


@pytest.mark.parametrize(("delta", "said"), [(-0.01, "cannot be told apart"), (-0.03, "can be told apart")])
def test_a_loss_within_its_interval_is_said_to_be_none(delta, said):
    metrics = {"accuracy": 0.9 + delta, "accuracy_ref": 0.9, "accuracy_delta": delta, "epsilon": 0.02, "feasible": True}
    line = _judged(
        metrics | {"accuracy_ci95": 0.03, "accuracy_delta_ci95": 0.02, "num_samples": 96}, "unsplit", "accuracy"
    )
    assert f"95 % over 96 samples: {said}" in line
    assert "no interval" in _judged(metrics | {"accuracy_ci95": None}, "unsplit", "accuracy")


def test_accuracies_of_domains_have_their_intervals_and_the_legend_names_them():
    domains = pd.DataFrame({"label": ["0", "1"], "accuracy": [0.9, 0.8], "accuracy_ref": 0.9, "epsilon": 0.02})
    domains = domains.assign(feasible=True, gain_over_baseline=0.1, gain_over_stronger=0.05)
    above = domain_gains(domains.assign(accuracy_ci95=[0.02, 0.05])).axes[0]
    (bars,) = [drawn for drawn in above.collections if drawn.get_gid() == "ci95"]
    assert bars.get_segments()[1][:, 1] == pytest.approx([0.75, 0.85])
    assert bars.get_label() == "95 % interval over samples"
    assert not [drawn for drawn in domain_gains(domains).axes[0].collections if drawn.get_gid() == "ci95"]
