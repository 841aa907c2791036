"""What a joint run says of its goal, and which budgets it refuses before anything is scored."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from splitsem.errors import ConfigError
from splitsem.links.simulated import SimulatedLink
from splitsem.search.objective import latency, t_eff
from splitsem.workflows.joint import goal
from tests.unit.test_joint_chain import CHAIN
from tests.unit.test_workflow_joint_cuts import run

LINK = SimulatedLink(bandwidth_bps=8e6, rtt_s=0.01, energy_j_per_bit=0.0, overhead_bytes=100)  # empty: 0.1 ms + 5 ms
EDGE = {"input": 0.0, "mid": 0.004, "output": 0.02}
SERVER = {"input": 0.008, "mid": 0.003, "output": 0.0}


class Unknown(SimulatedLink):
    """A link of which nothing is known before it is used."""


def settings(**given: object):
    return OmegaConf.create({"least": "value", "epsilon": 0.02, "most_latency_s": None, "least_rate_hz": None} | given)


@pytest.mark.parametrize(
    ("link", "at", "latency_s", "cycle_s"),
    [
        (LINK, "edge", [0.0182, 0.0172, 0.02], [0.008, 0.004, 0.02]),
        (LINK, "server", [0.0131, 0.0121, 0.0251], [0.008, 0.004, 0.02]),
        (Unknown(8e6, 0.01, 0.0, overhead_bytes=100), "edge", [0.008, 0.007, 0.02], [0.008, 0.004, 0.02]),
    ],
)
def test_no_cut_takes_less_than_its_halves_and_an_empty_payload(link, at, latency_s, cycle_s):
    found = goal.least_rows(EDGE, SERVER, link, at)
    assert found["latency_s"].tolist() == pytest.approx(latency_s)
    assert found["cycle_s"].tolist() == pytest.approx(cycle_s)


def test_a_budget_below_the_least_is_refused_with_the_least():
    rows = goal.least_rows(EDGE, SERVER, LINK, "edge")
    assert len(goal.within(rows, settings(most_latency_s=0.018))) == 1
    assert len(goal.within(rows, settings(least_rate_hz=100))) == 2
    with pytest.raises(
        ConfigError, match=r"most_latency_s=0\.01 \(the least is 0\.0172 s, mid with an empty payload\)"
    ):
        goal.within(rows, settings(most_latency_s=0.01))
    with pytest.raises(
        ConfigError, match=r"that keeps the latency keeps .* \(the highest is 250 Hz, mid with an empty"
    ):
        goal.within(rows, settings(most_latency_s=0.0185, least_rate_hz=300))


@pytest.mark.parametrize("overrides", [(), (CHAIN,)], ids=["two machines", "a chain"])
def test_an_impossible_budget_is_refused_before_anything_is_trained_or_scored(overrides, tmp_path):
    given = ("workflow.times=hardware", "hardware=pi5_datacenter", "workflow.most_latency_s=1e-9")
    with pytest.raises(ConfigError, match=r"no cut and codec keeps .* \(the least is"):
        run(tmp_path / "cache", tmp_path / "run", *given, *overrides)
    assert not (tmp_path / "cache" / "weights").exists()
    assert not (tmp_path / "cache" / "joint").exists()


def test_a_chain_without_budgets_is_not_asked_for_its_least():
    goal.check_chain_budgets(settings(), latency(), np.zeros((2, 2)), [LINK])
    with pytest.raises(ConfigError, match=r"the least is 0\.0182"):  # all on the second machine
        goal.check_chain_budgets(
            settings(most_latency_s=0.01), latency(), np.array([[0.0, 0.02], [0.0, 0.008]]), [LINK]
        )


def test_the_goal_is_told_with_its_budgets_and_by_what_is_least():
    value, damage = settings(most_latency_s=0.01), settings(least="damage", most_latency_s=0.01, least_rate_hz=300)
    assert goal.goal_words(settings(), t_eff(), "accuracy") == (
        "the least T_eff = 0.5·latency + 0.5·cycle that loses at most ε = 0.02 of validation accuracy"
    )
    assert "the least latency with latency at most 10 ms that loses" in goal.goal_words(value, latency(), "accuracy")
    assert goal.goal_words(damage, latency(), "agreement") == (
        "the best validation agreement with latency at most 10 ms and throughput at least 300 Hz; of equal ones the "
        "least latency"
    )
    assert goal.least_words(damage, latency()) == "loss, then latency"


def test_a_run_says_which_machines_and_which_goal(tmp_path):
    few = ("workflow.codecs=[identity,quant4]", "workflow.times=hardware", "hardware=pi5_datacenter", "transport=lte")
    result = run(tmp_path / "cache", tmp_path / "run", *few, "workflow.least=damage", "workflow.most_latency_s=1")
    first, second, third, *_ = result.headline.splitlines()
    assert first == "machines: edge raspberry_pi_5 (roofline), server datacenter_gpu (roofline), link lte (simulated)"
    assert second.startswith("sought: the best validation accuracy with latency at most 1 s; of equal ones the least")
    assert third.startswith("chosen: cut ")
    assert result.metrics["objective"].startswith("loss, then T_eff")
