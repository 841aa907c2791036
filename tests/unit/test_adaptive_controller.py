"""The controller of settings and its estimates: what it learns of observations, and what it chooses then."""

import statistics
import time

import numpy as np
import pytest

from splitsem.cost.frame_costs import Seen
from splitsem.cost.setting_table import Conditions, SettingTable
from splitsem.errors import ConfigError
from splitsem.search.adaptive.controller import Adaptive
from splitsem.search.adaptive.estimates import Cusum, Lateness, Level, LinkEstimate
from tests.unit.adaptive_tables import table_of_three_cuts

HOME = 6


def link_at(bandwidth_bps: float, rtt_s: float = 0.01, seed: int = 0):
    draw = np.random.default_rng(seed)
    return lambda num_bytes: (rtt_s + 8 * num_bytes / bandwidth_bps) * float(np.exp(0.05 * draw.normal()))


def fed(controller: Adaptive, num: int, bandwidth_bps: float, now_s: float = 0.0, server_factor: float = 1.0) -> float:
    """Run frames and probes over a link of this rate; gives the time afterwards."""
    table, link_s = controller.table, link_at(bandwidth_bps)
    for _ in range(num):
        setting, probed, longest_s = controller.choose(now_s), controller.probe(now_s), 0.2
        for each, is_probe in ((probed, True), (setting, False)):
            if each is None:
                continue
            server_s = server_factor * float(table.server_s[each])
            took_s = link_s(table.wire_bytes[each]) + server_s if table.is_remote[each] else 0.0
            sent_s = now_s + float(table.edge_s[each])
            sizes = int(table.payload_bytes[each]), int(table.answer_bytes[each])
            controller.seen(Seen(each, sent_s, sent_s + took_s, *sizes, server_s, is_probe=is_probe))
            longest_s = max(longest_s, sent_s + took_s - now_s)
        now_s += longest_s
    return now_s


def test_an_average_follows_a_drift_and_jumps_at_a_change_that_lasts():
    draw = np.random.default_rng(0)
    level = Level(1.0)
    alarms = [level.add(float(np.exp(0.1 * draw.normal()))) for _ in range(300)]
    assert sum(alarms) <= 2
    low, high = level.interval
    assert low < level.value < high < 1.2
    assert level.value == pytest.approx(1.0, rel=0.1)
    assert not level.add(1.4)  # may be an accident
    assert level.value < 1.1
    assert level.add(3.0)  # cannot be
    assert level.value == pytest.approx(3.0)
    assert level.add(5.0, is_news=True)


def test_a_change_shows_both_ways():
    test = Cusum()
    assert [test.add(z) for z in (-4.0, -4.0, 0.2, 4.0, 4.0)] == [False, True, False, False, True]
    assert test.add(-7.0)


def test_short_frames_tell_of_the_round_trip_and_the_rest_of_the_bandwidth():
    link, took_s = LinkEstimate(bandwidth_bps=1e6, rtt_s=0.1), link_at(20e6, 0.01)
    for number in range(200):
        if number % 20 == 0:
            link.add_short(500.0, took_s(500.0))
        link.add(size := (2e3, 20e3, 100e3)[number % 3], took_s(size), 0.1 * number)
    assert link.bandwidth_bps == pytest.approx(20e6, rel=0.1)
    assert link.rtt_s == pytest.approx(0.01, rel=0.3)
    low, high = link.bandwidth_interval
    assert low < 20e6 < high < 2 * low


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_step_of_ten_is_learned_from_one_frame(factor):
    link, before_s, after_s = LinkEstimate(rtt_s=0.01), link_at(8e6), link_at(factor * 8e6)
    for number in range(100):
        link.add(size := (20e3, 40e3)[number % 2], before_s(size), 0.2 * number)
    assert link.bandwidth_bps == pytest.approx(8e6, rel=0.1)
    assert link.add(30e3, after_s(30e3), 20.2)
    assert link.bandwidth_bps == pytest.approx(factor * 8e6, rel=0.3)


def test_frames_of_few_bytes_say_little_of_the_bandwidth():
    link = LinkEstimate(bandwidth_bps=20e6, rtt_s=0.01)
    for number in range(50):
        link.add(500.0, 0.0115, 0.1 * number)
    assert link.bandwidth_bps > 2e6
    low, high = link.bandwidth_interval
    assert high > 1.5 * low


def test_behind_other_frames_a_frame_tells_of_the_rate_alone():
    link = LinkEstimate(bandwidth_bps=1e6, rtt_s=0.05)
    for number in range(100):
        link.add(10e3, 8 * 10e3 / 5e6, 0.1 * number, is_alone=False)
    assert link.bandwidth_bps == pytest.approx(5e6, rel=0.05)
    assert link.rtt_s == pytest.approx(0.05)


def test_the_setting_follows_link_and_load():
    controller = Adaptive(table_of_three_cuts())
    now_s = fed(controller, 30, 100e6)
    assert controller.table.names[controller.setting].startswith("input")
    now_s = fed(controller, 30, 2e6, now_s)
    assert controller.table.names[controller.setting] == "stage3 quant2"
    now_s = fed(controller, 30, 50e3, now_s)
    assert controller.setting == HOME
    now_s = fed(controller, 30, 100e6, now_s)
    assert controller.table.names[controller.setting].startswith("input")
    fed(controller, 30, 100e6, now_s, server_factor=30.0)
    assert controller.setting == HOME
    assert controller.server.value == pytest.approx(30.0, rel=0.1)


def test_a_floor_is_never_gone_below():
    controller = Adaptive(table_of_three_cuts(), least_score=0.85)
    now_s = 0.0
    for bandwidth_bps in (100e6, 1e6, 20e6, 200e3):
        now_s = fed(controller, 20, bandwidth_bps, now_s)
        assert controller.table.score[controller.setting] >= 0.85


def test_a_floor_that_cannot_be_kept_names_the_nearest():
    with pytest.raises(ConfigError, match=r"0.95 is reached by no setting; nearest is input quant8 .*0.9000"):
        Adaptive(table_of_three_cuts(), least_score=0.95)
    table = table_of_three_cuts()
    table.score[HOME] = 0.7
    with pytest.raises(ConfigError, match=r"is not reached by output .*0.7000"):
        Adaptive(table, least_score=0.85)


def test_policies_differ():
    table = table_of_three_cuts(active_w=5.0, idle_w=1.0, j_per_bit=2e-6)
    chosen = {}
    for name, settings in {
        "latency": {},
        "throughput": {"window": 8},
        "energy": {"most_latency_s": 0.2},
        "energy in time": {"most_latency_s": 0.05},
    }.items():
        controller = Adaptive(table, policy=name.split()[0], **settings)
        fed(controller, 40, 4e6 if "window" in settings else 20e6)
        chosen[name] = table.names[controller.setting]
    assert chosen["latency"] == "input quant2"
    assert chosen["throughput"] == "stage1 quant2"
    assert chosen["energy"] != chosen["energy in time"]


def test_a_switch_must_gain_more_than_it_costs():
    calm = Adaptive(table_of_three_cuts(), hysteresis=0.5)
    fed(calm, 30, 1.5e6)
    assert calm.setting == HOME  # though stage3 quant2 takes a tenth less
    dear = Adaptive(table_of_three_cuts(), switch_cost_s=10.0)
    fed(dear, 30, 100e6)
    assert dear.setting == HOME


def test_a_steady_link_is_left_alone():
    controller = Adaptive(table_of_three_cuts())
    now_s = fed(controller, 20, 20e6)
    settings = []
    for _ in range(300):
        now_s = fed(controller, 1, 20e6, now_s)
        settings.append(controller.setting)
    assert len(set(settings)) == 1


def test_a_dead_link_leaves_the_edge_alone_until_a_probe_comes_back():
    controller = Adaptive(table_of_three_cuts())
    now_s = fed(controller, 20, 20e6)
    setting = controller.choose(now_s)
    assert setting != HOME
    assert controller.probe(now_s) is None
    controller.seen(Seen(setting, now_s, None, 1000))
    assert {controller.choose(now_s + 0.01 * n) for n in range(100)} == {HOME}
    probed = controller.probe(now_s + 1.0)
    assert probed is not None
    assert controller.probe(now_s + 1.01) is None
    controller.seen(Seen(probed, now_s + 1.0, None, is_probe=True))
    assert controller.choose(now_s + 2.0) == HOME
    took_s = 0.01 + float(8 * controller.table.wire_bytes[probed] / 20e6 + controller.table.server_s[probed])
    sizes = int(controller.table.payload_bytes[probed]), 2
    server_s = float(controller.table.server_s[probed])
    controller.seen(Seen(probed, now_s + 3.0, now_s + 3.0 + took_s, *sizes, server_s, is_probe=True))
    assert controller.choose(now_s + 3.2) != HOME


def test_waiting_for_an_overdue_frame_costs_least_over_the_frames_before():
    lateness = Lateness()
    assert lateness.wait_s(0.1, rest_s=0.2) >= 0.1  # one frame was so late, and waiting was cheaper than 0.2 s
    assert lateness.wait_s(0.3, rest_s=0.2) == 0.0
    for _ in range(5):
        lateness.given_up()
    assert lateness.wait_s(0.1, rest_s=0.2) == 0.0
    for _ in range(5):
        lateness.add(0.05, was_given_up=True)
    assert 0.05 <= lateness.wait_s(0.1, rest_s=0.2) < 0.2
    lateness.add(-0.01, was_given_up=False)  # was in time
    assert 0.05 <= lateness.wait_s(0.1, rest_s=0.2) < 0.2
    draw = np.random.default_rng(0)
    late_s = draw.exponential(0.3, 20)
    for each in late_s:
        lateness.add(float(each), was_given_up=False)
    chosen = lateness.wait_s(0.3, rest_s=0.2)
    cost = [float(np.where(late_s <= w, late_s, w + 0.2).sum()) for w in (chosen, *np.linspace(0, 2, 50))]
    assert cost[0] <= 1.1 * min(cost)


def test_outages_make_it_less_patient_and_answers_that_nearly_came_more():
    controller = Adaptive(table_of_three_cuts())
    now_s = fed(controller, 20, 20e6)
    setting = controller.choose(now_s)
    first_s = controller.deadline_s(setting)
    late = Seen(setting, now_s, now_s + 20.0, 30000, 2, 0.01, is_late=True)
    for _ in range(3):
        controller.seen(late._replace(answered_s=None, is_late=False))
        controller.seen(late)
    now_s = fed(controller, 20, 20e6, now_s + 20.0)
    hasty_s = controller.deadline_s(setting)
    assert hasty_s < 0.7 * first_s
    for _ in range(20):
        controller.seen(Seen(setting, now_s, None, 30000))
        controller.seen(late._replace(sent_s=now_s, answered_s=now_s + 1.1 * hasty_s))
    now_s = fed(controller, 20, 20e6, now_s + 1.0)
    assert controller.deadline_s(setting) > 1.1 * hasty_s


def test_an_answer_that_an_outage_held_up_says_nothing_of_the_rate_unless_the_next_one_says_it_too():
    link, before_s = LinkEstimate(rtt_s=0.01), link_at(8e6)
    for number in range(100):
        link.add(30e3, before_s(30e3), 0.2 * number)
    assert not link.add(30e3, 3.0, 23.0, is_news=True, is_late=True)
    assert link.bandwidth_bps == pytest.approx(8e6, rel=0.1)
    assert link.add(30e3, 3.0, 26.0, is_news=True, is_late=True)
    assert link.bandwidth_bps == pytest.approx(8e4, rel=0.1)


def test_choosing_takes_less_than_a_millisecond_and_repeats_itself():
    names = [str(n) for n in range(200)]
    ramp = np.linspace(0.01, 0.1, 200)
    table = SettingTable(names, ramp, 1e5 * (1 - np.arange(200) / 199), 0.1 - ramp + 0.001, np.ones(200), np.ones(200))
    runs = []
    for _ in range(2):
        controller, took_s, settings = Adaptive(table), [], []
        now_s = fed(controller, 5, 20e6)
        for _ in range(100):
            now_s = fed(controller, 1, 5e6, now_s)
            began = time.perf_counter()
            settings.append(controller.choose(now_s))
            took_s.append(time.perf_counter() - began)
        runs.append((settings, controller.link.bandwidth_bps))
        assert statistics.median(took_s) < 1e-3
    assert runs[0] == runs[1]


def test_a_table_prices_settings_as_the_algebra_does():
    table = table_of_three_cuts(active_w=5.0, idle_w=1.0, j_per_bit=1e-8)
    now = Conditions(10e6, 0.02, edge_factor=2.0, server_factor=3.0, queue_s=0.001)
    found = table.predicted(now)
    busy_s = 8 * 150002 / 10e6
    assert found.latency_s[0] == pytest.approx(2 * 0.004 + busy_s + 0.02 + 3 * 0.01 + 0.001)
    assert found.latency_s[HOME] == pytest.approx(0.2)
    assert found.energy_j[0] == pytest.approx(0.008 * 5 + 8 * 150002 * 1e-8 + (found.latency_s[0] - 0.008) * 1.0)
    many = table.predicted(now, window=4)
    assert many.period_s[0] == pytest.approx(busy_s)
    assert many.latency_s[0] == pytest.approx(4 * busy_s)
    with pytest.raises(ValueError, match="exactly one setting must send nothing"):
        SettingTable(["a"], [1.0], [1.0], [1.0], [1.0], [1.0])
    with pytest.raises(ValueError, match="finite and not negative"):
        SettingTable(["a"], [-1.0], [0.0], [1.0], [1.0], [1.0])
