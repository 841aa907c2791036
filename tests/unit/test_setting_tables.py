"""Which settings a run that adapts keeps, what its settings may be, and the figure of a run."""

import numpy as np
import pandas as pd
import pytest

from splitsem.cost.setting_table import Conditions, Powers, SettingTable
from splitsem.report.adaptive_figures import adaptation
from splitsem.search.adaptive.controller import Adaptive
from splitsem.workflows.setting_tables import useful
from tests.unit.adaptive_tables import table_of_three_cuts


def test_only_settings_that_no_other_one_beats_in_everything_are_kept_and_home_is_last():
    table = SettingTable(
        ["home", "cheap", "dear", "late"],
        [1.0, 0.2, 0.3, 0.5],
        [0, 10, 20, 5],
        [0, 1, 1, 0.5],
        [0] * 4,
        [1, 0.5, 0.9, 1],
    )
    assert useful(table, None) == [1, 3, 0]
    assert useful(table, 0.8) == [2, 3, 0]
    assert set(useful(table, 2.0)) == {0, 1, 2, 3}
    assert table.only([1, 3, 0]).names == ("cheap", "late", "home")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": 0}, "window must be at least 1"),
        ({"hysteresis": 1.0}, "hysteresis must be"),
        ({"probe_s": 0.0}, "probe_s must be above 0"),
        ({"most_latency_s": 0.0}, "most_latency_s must be above 0"),
    ],
)
def test_a_number_that_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Adaptive(table_of_three_cuts(), **settings)


def test_a_run_is_drawn_with_its_switches_and_what_it_is_compared_with():
    num = 50
    frames = pd.DataFrame({
        "taken_s": np.arange(num) * 0.1, "setting": ["a", "b"] * (num // 2), "latency_s": np.full(num, 0.02),
        "payload_bytes": [100, 0] * (num // 2), "is_lost": [False] * (num - 1) + [True], "bandwidth_bps": 1e6,
        "bandwidth_low_bps": 5e5, "bandwidth_high_bps": 2e6,
    })  # fmt: skip
    rate = np.arange(num) * 0.1, np.where(np.arange(num) < 10, 0.0, 1e6)
    figure = adaptation(frames, "a run", rate, {"oracle": np.full(num, 0.01)})
    assert "49 switches over 50 frames" in {text.get_text() for text in figure.texts}
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["b", "a"]


def test_the_transports_work_bounds_the_pace():
    facts = ["far", "here"], [0.001, 1.0], [1000, 0], [0.001, 0.0], [10, 0], [1.0, 1.0], Powers()
    plain, busy = SettingTable(*facts), SettingTable(*facts, [0.02, 0.0], [0.03, 0.0]).only([0, 1])
    now = Conditions(bandwidth_bps=1e9, rtt_s=0.005)
    assert busy.predicted(now, 8).period_s[0] == pytest.approx(0.031)
    assert plain.predicted(now, 8).period_s[0] < 0.002
