"""The controller over traces: the same object as on a real line, between the best fixed setting and the oracle."""

import itertools

import numpy as np
import pytest

from splitsem.search.adaptive.controller import Adaptive
from splitsem.search.adaptive.informed import Informed
from splitsem.search.adaptive.one_step import OneStep
from splitsem.search.adaptive.replayed import Fixed, _Line, best_fixed, oracle, replay
from splitsem.search.adaptive.variations import KINDS, STEP_S, Variation, of_mahimahi, steps_of_ten
from tests.unit.adaptive_tables import table_of_three_cuts

TABLE = table_of_three_cuts()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_between_oracle_and_best_fixed_setting(kind):
    variation = KINDS[kind](0, 120.0)
    runs = [
        oracle(TABLE, variation, 0.2),
        replay(TABLE, variation, Adaptive(TABLE), 0.2),
        best_fixed(TABLE, variation, 0.2)[1],
    ]
    best, mine, fixed = (run.mean_s for run in runs)
    assert best <= mine <= (1.03 if kind == "stable" else 0.9) * fixed
    assert mine < 1.08 * best
    assert mine < 1.05 * replay(TABLE, variation, OneStep(TABLE, variation.rtt_s), 0.2).mean_s
    informed = replay(TABLE, variation, Informed(TABLE, variation), 0.2).mean_s
    assert best <= informed < 1.06 * best
    assert mine > 0.995 * informed


def test_no_probe_goes_beside_a_frame_that_is_sent_while_the_edge_waits_for_the_camera():
    class Asks(Fixed):
        def __init__(self, setting):
            super().__init__(setting)
            self.asked_s, self.probes = [], []

        def probe(self, now_s):
            self.asked_s.append(now_s)
            return 1 if now_s else None

        def seen(self, frame):
            self.probes += [frame] if frame.is_probe else []

    variation = Variation(np.full(200, 2e7), np.ones(200), 0.01)
    patient = Asks(1)
    found = replay(TABLE, variation, patient, 0.2)
    starts, ends = found.taken_s, found.taken_s + found.latency_s
    assert len(patient.probes) > 40
    assert {round(each.sent_s, 6) for each in patient.probes} <= {round(each, 6) for each in ends}
    busy = Asks(1)
    late = replay(TABLE, variation, busy, 0.001)
    assert (late.latency_s > 0.001).all()
    assert busy.probes  # who never waits probes beside frames
    at_home = Asks(len(TABLE) - 1)
    replay(TABLE, variation, at_home, 0.2)
    assert {round(each.sent_s, 6) for each in at_home.probes} & {round(each, 6) for each in starts}


def test_bytes_pass_when_the_rate_says_so():
    variation = Variation(np.array([8e6, 0.0, 0.0, 8e5]), np.array([1.0, 1.0, 2.0, 2.0]), 0.01)
    step_bits = 8e6 * STEP_S
    assert variation.through_s(0.0, step_bits / 2) == pytest.approx(STEP_S / 2)
    assert variation.through_s(STEP_S / 2, step_bits / 2) == pytest.approx(STEP_S)
    assert variation.through_s(0.0, step_bits + 8e4) == pytest.approx(3 * STEP_S + 0.1)
    assert variation.through_s(1.5 * STEP_S, 8e3) == pytest.approx(3 * STEP_S + 0.01)
    assert variation.through_s(10.0, 8e5) == pytest.approx(11.0)
    assert [variation.server_at(n * STEP_S) for n in (0.5, 2.5, 99)] == [1.0, 2.0, 2.0]


def test_no_sequence_of_settings_beats_the_oracle():
    variation = Variation(np.array([2e6, 2e7, 0.0, 0.0, 1e6, 1e7, 5e6, 3e7] * 2), np.ones(16), 0.01)
    few = 4
    found = oracle(TABLE, variation, 0.1)

    class Script(Fixed):
        def choose(self, now_s):
            return next(self.script)

    least = np.inf
    for settings in itertools.product(range(0, len(TABLE), 2), repeat=few):
        script = Script(0)
        script.script = itertools.chain(settings, itertools.repeat(len(TABLE) - 1))
        least = min(least, float(replay(TABLE, variation, script, 0.1).latency_s[:few].sum()))
    assert found.latency_s[:few].sum() <= least + 1e-9


def test_a_frame_in_an_outage_is_given_up_and_finished_on_the_edge_and_its_answer_comes_late():
    variation = Variation(np.array([2e7] * 40 + [0.0] * 40 + [2e7] * 120), np.ones(200), 0.01)
    controller = Adaptive(TABLE)
    found = replay(TABLE, variation, controller, 0.2)
    assert 1 <= found.is_lost.sum() <= 2
    outage = (found.taken_s > 2.3) & (found.taken_s < 3.8)
    assert set(found.setting[outage]) == {len(TABLE) - 1}
    assert found.setting[-1] != len(TABLE) - 1
    assert found.latency_s.max() < 0.5
    assert controller.num_changes >= 0


def test_runs_repeat_themselves_and_seeds_differ():
    first, again, other = (replay(TABLE, steps_of_ten(seed, 20.0), Adaptive(TABLE), 0.2, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.latency_s, again.latency_s)
    assert not np.array_equal(first.latency_s, other.latency_s)
    assert first.num_switches > 0
    assert (first.believed_low_bps < first.believed_bps).all()


def test_frames_pass_the_line_one_after_the_other():
    variation = Variation(np.full(100, 8e6), np.ones(100), 0.0)
    line = _Line(TABLE, variation, 0, 2)
    line.hiccup_s[:] = 0
    first, _, _ = line.send(0, 0, 0.0)
    second, _, waited_s = line.send(1, 5, 0.0)
    assert second > first > 0.15
    assert waited_s > 0


def test_a_mahimahi_trace_keeps_its_mean_rate(tmp_path):
    path = tmp_path / "trace"
    path.write_text("\n".join(str(ms) for ms in range(1, 5001, 2)))
    variation = of_mahimahi(path, 0.02)
    assert variation.rate_bps.mean() == pytest.approx(8 * 1500 * 500, rel=0.02)
