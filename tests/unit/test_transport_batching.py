"""Micro-batching: frames of several threads through one tail."""

import threading

import pytest
import torch
from torch import nn

from splitsem.remote.tail_engine import Batcher


class Gate(nn.Module):
    """Doubles its input once it is let through, and remembers the batch sizes that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.entered, self.open = threading.Event(), threading.Event()

    def forward(self, z, y):
        self.sizes.append(len(z))
        self.entered.set()
        assert self.open.wait(10)
        if bool((z < 0).any()):
            raise RuntimeError("negative")
        return 2 * z + y


def run_while_one_computes(gate, batcher, values):
    """The outputs of one call for each value; the first is inside the tail while the others arrive."""
    outputs = {}

    def call(value):
        z = torch.tensor([[float(value)]])
        try:
            outputs[value] = batcher(z, z).item()
        except RuntimeError as exc:
            outputs[value] = str(exc)

    threads = [threading.Thread(target=call, args=(value,)) for value in values]
    threads[0].start()
    assert gate.entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(batcher._jobs) < len(values) - 1:
        threading.Event().wait(0.001)
    gate.open.set()
    for thread in threads:
        thread.join()
    return outputs


def test_what_arrives_while_the_tail_is_busy_runs_together():
    gate = Gate()
    outputs = run_while_one_computes(gate, Batcher(gate, 16), range(8))
    assert outputs == {value: 3.0 * value for value in range(8)}
    assert gate.sizes == [1, 7]


def test_no_run_is_larger_than_allowed():
    gate = Gate()
    outputs = run_while_one_computes(gate, Batcher(gate, 3), range(8))
    assert outputs == {value: 3.0 * value for value in range(8)}
    assert gate.sizes == [1, 3, 3, 1]


def test_an_error_reaches_every_caller_of_that_run_and_no_other():
    gate = Gate()
    outputs = run_while_one_computes(gate, Batcher(gate, 16), [1, 2, -3])
    assert outputs == {1: 3.0, 2: "negative", -3: "negative"}
    assert Batcher(gate, 16)(torch.ones(2, 1), torch.ones(2, 1)).shape == (2, 1)


@pytest.mark.parametrize("num", [1, 5])
def test_a_frame_larger_than_a_run_is_run_by_itself(num):
    gate = Gate()
    gate.open.set()
    assert torch.equal(Batcher(gate, 3)(torch.ones(num, 1), torch.zeros(num, 1)), 2 * torch.ones(num, 1))
