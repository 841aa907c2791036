"""Roofline and Local: times of a half, against hand-computed figures and a real measurement."""

import pytest
import torch
from torch import nn

from splitsem.cost.machines import Local, Roofline
from splitsem.splitting.half import Half, OpCost


def half(*ops: OpCost, module: nn.Module | None = None) -> Half:
    return Half("head", "stage1", module or nn.Identity(), (torch.ones(1, 8),), ops, "model-a")


def machine(**changes: float) -> Roofline:
    arguments = {"peak_flops_per_s": 100.0, "memory_bytes_per_s": 10.0, "active_w": 5.0, "idle_w": 1.0} | changes
    return Roofline(**arguments)  # type: ignore[arg-type]


def test_each_operation_is_bound_by_arithmetic_or_by_memory() -> None:
    arithmetic, memory = OpCost("conv", flops=400, bytes=10), OpCost("add", flops=1, bytes=30)
    assert machine().time_s(half(arithmetic)) == pytest.approx(4.0)
    assert machine().time_s(half(memory)) == pytest.approx(3.0)
    assert machine().time_s(half(arithmetic, memory)) == pytest.approx(7.0), "operations do not overlap"


def test_overhead_is_paid_per_operation_but_not_for_views() -> None:
    ops = (OpCost("copy", 0, 10), OpCost("view", 0, 0), OpCost("copy", 0, 10))
    assert machine(overhead_s=0.5).time_s(half(*ops)) == pytest.approx(3.0)


def test_a_short_operation_reaches_less_of_the_efficiency_than_a_long_one() -> None:
    """An operation of n overheads of arithmetic reaches 1 / (1 + 4/√n): half of the rate at n = 16."""
    slow = machine(overhead_s=0.25)
    for flops, reached in ((400, 0.5), (14_400, 6 / 7)):
        compute_s = slow.time_s(half(OpCost("conv", flops, 1))) - slow.overhead_s
        assert flops / compute_s == pytest.approx(reached * slow.peak_flops_per_s)


def test_a_recurrent_layer_pays_the_overhead_at_each_step() -> None:
    assert machine(overhead_s=0.25).time_s(half(OpCost("lstm", 100, 1, steps=12))) == pytest.approx(1 + 12 * 0.25)


def test_weights_of_convolutions_are_laid_out_anew_where_the_machine_does_so() -> None:
    convolution = OpCost("conv", 400, 30, kernel_bytes=20)
    assert machine().time_s(half(convolution)) == pytest.approx(4.0)
    assert machine(repack_bytes_per_s=5.0).time_s(half(convolution)) == pytest.approx(4.0 + 20 / 5)


def test_efficiency_slows_arithmetic_and_not_memory() -> None:
    assert machine(efficiency=0.5).time_s(half(OpCost("conv", 100, 1))) == pytest.approx(2.0)
    assert machine(efficiency=0.5).time_s(half(OpCost("copy", 0, 10))) == pytest.approx(1.0)


def test_knee_is_where_both_bounds_meet() -> None:
    slow = machine(efficiency=0.5)
    assert slow.knee == pytest.approx(5.0)
    at_knee = OpCost("op", flops=slow.knee * 20, bytes=20)
    assert slow.time_s(half(at_knee)) == pytest.approx(20 / 10.0)


def test_half_that_computes_nothing_takes_no_time() -> None:
    assert machine(overhead_s=1.0).time_s(half()) == 0.0
    assert Local(active_w=1.0, idle_w=0.0).time_s(half()) == 0.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peak_flops_per_s", 0.0),
        ("memory_bytes_per_s", float("nan")),
        ("efficiency", 0.0),
        ("efficiency", 1.5),
        ("overhead_s", -1e-6),
        ("repack_bytes_per_s", 0.0),
        ("active_w", float("inf")),
        ("idle_w", -1.0),
        ("idle_w", 6.0),
    ],
)
def test_impossible_machine_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        machine(**{name: value})


class Sleepless(nn.Module):
    """Counts its calls and multiplies matrices of the given size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size, size))
        self.num_calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.num_calls += 1
        assert torch.is_inference_mode_enabled()
        return self.weight @ self.weight


def test_local_times_more_work_as_longer() -> None:
    local = Local(active_w=1.0, idle_w=0.0, repeats=7)
    op = OpCost("matmul", 1, 1)
    assert 0 < local.time_s(half(op, module=Sleepless(8))) < local.time_s(half(op, module=Sleepless(512)))


def test_local_stops_at_its_repeats_and_at_its_budget() -> None:
    op = OpCost("matmul", 1, 1)
    quick = Sleepless(8)
    Local(active_w=1.0, idle_w=0.0, repeats=20, warmup=4, budget_s=60.0).time_s(half(op, module=quick))
    assert quick.num_calls == 24
    slow = Sleepless(512)
    Local(active_w=1.0, idle_w=0.0, repeats=10_000, warmup=1, budget_s=1e-6).time_s(half(op, module=slow))
    assert slow.num_calls == 4, "one to warm up and the three that a median needs"


@pytest.mark.parametrize(("name", "value"), [("repeats", 2), ("warmup", -1), ("budget_s", 0.0), ("idle_w", 9.0)])
def test_impossible_measurement_is_refused_by_name(name: str, value: float) -> None:
    arguments = {"active_w": 5.0, "idle_w": 1.0} | {name: value}
    with pytest.raises(ValueError, match=name):
        Local(**arguments)  # type: ignore[arg-type]
