"""Which figures a sweep gets: score against channel, its lines named; and none for plain trainings."""

import pandas as pd
from rich.console import Console

from splitsem.workflows.split_summary import _over_channel, summarise_trainings
from splitsem.workflows.summary import Origin, Sweep

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


def test_a_sweep_of_plain_trainings_lists_what_differs_and_the_scores(tmp_path):
    rows = [{"job": n, "status": "ok", "task": "digits", "seed": n, "score": 0.9 + n / 100} for n in (0, 1)]
    console = Console(record=True, width=80)
    summarise_trainings(Sweep(tmp_path, pd.DataFrame(rows), Origin("a title", "a command", {}), console))
    text = console.export_text()
    assert text.split()[:3] == ["job", "seed", "score"]
    assert "0.9000" in text
    assert "digits" not in text
    assert {path.name for path in tmp_path.iterdir()} == {
        "table.md",
        "table.tex",
    }  # no figure of points that there are not
