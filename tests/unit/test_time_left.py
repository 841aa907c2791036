"""What takes longer than a few seconds says how long it still takes."""

import io
import logging

from rich.console import Console
from rich.progress import Progress

from splitsem.training.loop import History
from splitsem.training.time_left import time_left
from splitsem.workflows.federated.rounds import show_round


def test_the_rest_is_told_at_the_pace_so_far_and_only_where_it_is_worth_a_word():
    assert time_left(30.0, 1, 4) == "about 90 s left"
    assert time_left(60.0, 1, 4) == "about 3 min left"
    assert time_left(7200.0, 1, 4) == "about 6.0 h left"
    assert time_left(1.0, 1, 4) == ""  # four seconds in all
    assert time_left(30.0, 0, 4) == time_left(30.0, 4, 4) == ""


def test_a_training_into_a_pipe_logs_a_line_an_epoch_with_the_time_left(monkeypatch, caplog):
    class Trainer:
        sanity_checking, max_epochs, current_epoch, num_training_batches = False, 4, 0, 3
        callback_metrics = {"train_loss": 0.5, "val_score": 0.75}  # noqa: RUF012

    history = History()
    assert not history.has_bar
    clock = iter((0.0, 20.0))
    monkeypatch.setattr("splitsem.training.loop.time.perf_counter", lambda: next(clock))
    history.on_train_start(Trainer(), None)
    history.on_validation_end(Trainer(), None)
    with caplog.at_level(logging.INFO):
        history.on_train_epoch_end(Trainer(), None)
    assert caplog.messages == ["epoch 1/4: loss 0.5000, validation score 0.7500, about 60 s left"]


def test_a_terminal_keeps_a_line_of_each_federated_round_above_the_bar():
    row = {"round/train_loss": 0.5, "round/val_score": 0.75, "round/uplink_bytes": 28634.0}
    shown = io.StringIO()
    with Progress(console=Console(file=shown, force_terminal=True, width=100), transient=True) as bar:
        for number in (1, 2):
            show_round(bar, 2, 0.0, row | {"round/number": number})
    for number in (1, 2):
        assert f"round {number}/2: loss 0.5000, validation score 0.7500, 28,634 bytes up\n" in shown.getvalue()
