"""The cost of operations, against hand counts and torch's own counter."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.half import OpCost, OpShape


def _costs(model: nn.Module, shape: tuple[int, ...]) -> dict[str, OpCost]:
    return {op.name: op for op in SplitGraph(model, shape).points[-1].head_ops}


def test_a_grouped_convolution_counts_two_per_multiply_add_and_reads_its_weights() -> None:
    cost = _costs(nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, groups=4)), (8, 10, 10))["conv2d"]
    assert cost.flops == 2 * 16 * 100 * 2 * 9
    assert cost.bytes == 4 * (8 * 100 + 16 * 100 + 16 * 2 * 9 + 16)
    assert (cost.kernel_bytes, cost.steps) == (4 * 16 * 2 * 9, 1)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_layer_counts_two_per_weight_and_step(kind: type[nn.LSTM]) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = kind(4, 8, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.memory(x)[0]

    gates = 4 if kind is nn.LSTM else 3
    assert _costs(Recurrent(), (6, 4))[kind.__name__.lower()].flops == 2 * 6 * gates * 8 * (4 + 8)


@pytest.mark.parametrize(
    ("layer", "cells", "state_values"),
    [
        (nn.LSTM(4, 8, batch_first=True), 1, 32 * 8),
        (nn.GRU(4, 8, batch_first=True), 1, 24 * 8),
        (nn.RNN(4, 8, bias=False, batch_first=True), 1, 8 * 8),
        (nn.LSTM(4, 8, num_layers=2, bidirectional=True, batch_first=True), 4, 4 * 32 * 8),
        (nn.LSTM(4, 8, proj_size=3, batch_first=True), 1, 32 * 3 + 3 * 8),
    ],
)
def test_a_recurrent_layer_takes_a_step_a_time_and_reads_its_own_weights_in_each(
    layer: nn.RNNBase, cells: int, state_values: int
) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.memory(x)[0]

    def cost(length: int) -> OpCost:
        return next(op for op in SplitGraph(Recurrent(), (length, 4)).points[-1].head_ops if op.steps > 1)

    assert (cost(6).steps, cost(7).steps) == (6 * cells, 7 * cells)
    directions = 2 if layer.bidirectional else 1
    sequence_values = 4 + directions * (layer.proj_size or 8)  # read and made at each step
    assert cost(7).bytes - cost(6).bytes == 4 * (state_values + sequence_values)


def test_views_cost_nothing_and_copies_only_bytes() -> None:
    class Moves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.reshape(-1, 6).unsqueeze(1)
            return torch.cat([y, y], 1).transpose(1, 2) * 2

    costs = _costs(Moves(), (2, 3))
    assert set(costs) == {"cat", "mul"}
    assert costs["cat"] == OpCost("cat", 0.0, 4.0 * (6 + 12), kind="cat", shape=OpShape(12))
    assert costs["mul"] == OpCost("mul", 12.0, 4.0 * 24, kind="mul", shape=OpShape(12, permuted=1))


def test_a_lookup_reads_only_what_it_returns() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(1000, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x.long())

    assert _costs(Looks(), (5,))["embedding"].bytes == 4 * 2 * 20


@pytest.mark.parametrize("equation", ["bij,bjk->bik", "bij,bkj->bik"])
def test_products_agree_with_torch(equation: str) -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.up = nn.Linear(8, 8), nn.ConvTranspose1d(4, 6, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            q = self.q(x)
            y = torch.einsum(equation, q @ x.mT, x[:, :, :4])
            y = y + nn.functional.scaled_dot_product_attention(y[:, None], y[:, None], y[:, None])[:, 0]
            return self.up(y)

    model = Products()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 4, 8))
    products = ("linear", "matmul", "einsum", "conv_transpose1d")
    costs = _costs(model, (4, 8))
    assert costs["scaled_dot_product_attention"].flops == 2 * 2 * 4 * 4 * 4
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # counted by some releases of torch only
    theirs = counter.get_total_flops() - counter.get_flop_counts()["Global"].get(flash, 0)
    assert sum(costs[name].flops for name in products) == theirs
