"""Which sweeps get the plot of score against channel, and how its lines are named."""

import pandas as pd

from splitsem.workflows.split_summary import _over_channel

SWEEP = pd.DataFrame(
    {
        "codec": ["fixed"] * 4,
        "codec.bit_width": ["4", "4", "8", "8"],
        "transport.channel.ber": ["0.01", "0.1"] * 2,
        "ber": [0.0101, 0.0998, 0.0099, 0.1002],
        "score": [0.9, 0.7, 0.91, 0.72],
    }
)


def test_lines_are_named_by_whatever_else_was_swept():
    rows = _over_channel(SWEEP)
    assert rows["codec"].tolist() == ["fixed · 4", "fixed · 4", "fixed · 8", "fixed · 8"]


def test_a_sweep_at_one_channel_setting_has_no_such_plot():
    assert _over_channel(SWEEP.assign(**{"transport.channel.ber": "0.01"})) is None
    assert _over_channel(SWEEP.drop(columns="ber")) is None
