"""LstmForecaster: shapes, stages, causality of its patches, and that it can be exported for cutting."""

import pytest
import torch

from splitsem.models.lstm import LstmForecaster


@pytest.fixture(scope="module")
def lstm() -> LstmForecaster:
    torch.manual_seed(0)
    return LstmForecaster((48, 3), (8,)).eval()


def test_forecast_has_the_horizons_length(lstm: LstmForecaster) -> None:
    assert lstm(torch.rand(5, 48, 3)).shape == (5, 8)


def test_stages_are_in_order() -> None:
    stages = [name for name, _ in LstmForecaster((12, 1), (2,), num_layers=3).named_children()]
    assert stages == ["patches", "embed", "lstm1", "lstm2", "lstm3", "last", "head"]


def test_only_one_state_is_left_after_the_last_layer(lstm: LstmForecaster) -> None:
    sizes: list[int] = []
    hook = lstm.last.register_forward_hook(lambda _m, _i, out: sizes.append(out.numel()))
    lstm(torch.rand(1, 48, 3))
    hook.remove()
    assert sizes == [32]


def test_every_past_step_matters(lstm: LstmForecaster) -> None:
    x = torch.rand(1, 48, 3, requires_grad=True)
    lstm(x).sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(dim=2) > 0).all()


def test_it_equals_a_stacked_lstm_with_the_same_weights(lstm: LstmForecaster) -> None:
    stacked = torch.nn.LSTM(32, 32, num_layers=2, batch_first=True)
    for layer in range(2):
        for name, weight in lstm.get_submodule(f"lstm{layer + 1}.lstm").named_parameters():
            getattr(stacked, name.replace("l0", f"l{layer}")).data.copy_(weight.data)
    x = torch.rand(3, 48, 3)
    states = stacked(lstm.embed(lstm.patches(x)))[0]
    torch.testing.assert_close(lstm(x), lstm.head(states[:, -1]))


@pytest.mark.filterwarnings("ignore:The tensor attributes self.lstm")  # torch's own, for every nn.LSTM it exports
def test_export_with_a_free_batch_is_exact_and_no_integer_crosses(lstm: LstmForecaster) -> None:
    program = torch.export.export(
        lstm, (torch.rand(2, 48, 3),), strict=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    assert not [node for node in program.graph.nodes if "sym_size" in node.name and node.users]
    exported = program.module()
    for batch in (1, 3):
        x = torch.rand(batch, 48, 3)
        assert torch.equal(exported(x), lstm(x))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"input_shape": (48, 3), "output_shape": (8,), "patch": 5}, "patch must divide the window of 48"),
        ({"input_shape": (48,), "output_shape": (8,)}, r"input_shape must be \(window, features\)"),
        ({"input_shape": (48, 3), "output_shape": (8,), "num_layers": 0}, "at least 1"),
    ],
)
def test_bad_sizes_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LstmForecaster(**arguments)
