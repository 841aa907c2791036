"""What each policy promises, at every frame of varying traces: the least of its cost, never below the floors."""

import numpy as np
import pytest

from splitsem.search.adaptive.controller import Adaptive
from splitsem.search.adaptive.replayed import replay
from splitsem.search.adaptive.variations import KINDS
from tests.unit.adaptive_tables import table_of_three_cuts

TABLE = table_of_three_cuts(active_w=5.0, idle_w=1.0, j_per_bit=2e-6)
FLOOR, MOST_S = 0.85, 0.09
PERIOD_S = 0.2


class Watched(Adaptive):
    """Keeps what each setting would have cost as it chose, by what it believed then."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.chosen, self.probed, self.found = [], [], []

    def choose(self, now_s):
        setting = super().choose(now_s)
        if not self.is_away:
            self.chosen.append(setting)
            self.found.append(self.table.predicted(self.conditions, self.window))
        return setting

    def probe(self, now_s):
        setting = super().probe(now_s)
        if setting is not None:
            self.probed.append(setting)
        return setting


def watched(kind, **settings):
    controller = Watched(TABLE, **settings)
    replay(TABLE, KINDS[kind](0, 60.0), controller, PERIOD_S)
    assert len(controller.chosen) > 100
    return controller


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["latency", "throughput", "energy"])
def test_each_policy_takes_the_least_of_its_cost_among_the_settings_that_reach_the_score(kind, policy):
    window = 8 if policy == "throughput" else 1
    controller = watched(kind, policy=policy, least_score=FLOOR, window=window)
    reaches = TABLE.score >= FLOOR
    assert reaches[controller.chosen].all()
    for setting, found in zip(controller.chosen, controller.found, strict=True):
        cost = {"latency": found.latency_s, "throughput": found.period_s, "energy": found.energy_j}[policy]
        assert cost[setting] * (1 - controller.hysteresis) <= cost[reaches].min() + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_the_least_energy_is_taken_of_what_is_in_time_and_of_what_reaches_the_score(kind):
    controller = watched(kind, policy="energy", least_score=FLOOR, most_latency_s=MOST_S)
    num_bound = 0
    for setting, found in zip(controller.chosen, controller.found, strict=True):
        assert TABLE.score[setting] >= FLOOR
        in_time = (TABLE.score >= FLOOR) & (found.latency_s <= MOST_S)
        if in_time.any():
            assert found.latency_s[setting] <= MOST_S
            assert found.energy_j[setting] * (1 - controller.hysteresis) <= found.energy_j[in_time].min() + 1e-9
        else:  # then the soonest
            least_s = found.latency_s[TABLE.score >= FLOOR].min()
            assert found.latency_s[setting] * (1 - controller.hysteresis) <= least_s + 1e-9
        num_bound += bool(found.energy_j[setting] > (1 + 1e-6) * found.energy_j[TABLE.score >= FLOOR].min())
    assert num_bound or kind in ("stable", "outages")  # the bound did cost energy


def test_the_policies_bring_what_they_promise_over_a_whole_run():
    means = {}
    for policy in ("latency", "energy"):
        found = replay(TABLE, KINDS["slow swing"](0, 60.0), Adaptive(TABLE, policy=policy), PERIOD_S)
        energy_j = np.mean([TABLE.edge_s[each] * 5.0 + 8 * TABLE.wire_bytes[each] * 2e-6 for each in found.setting])
        means[policy] = found.mean_s, float(energy_j)
    assert means["latency"][0] < means["energy"][0]
    assert means["energy"][1] < means["latency"][1]
