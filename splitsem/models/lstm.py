"""LstmForecaster: an LSTM over patches of a time series, in stages that can be cut apart."""

import torch
from torch import Tensor, nn


class LstmForecaster(nn.Module):
    """Patches → linear embedding → LSTM layers → last state → horizon.

    Grouping steps into patches (Nie et al., PatchTST, arXiv 2211.14730) shortens the recurrence and what crosses a cut
    inside it; after the last layer only one state of ``hidden`` values crosses: a natural bottleneck.

    Stages, in order: ``patches embed lstm1 … lstm<num_layers> last head``.

    Args:
        input_shape: (window, features) of the series.
        output_shape: (horizon,) of the forecast.
        hidden: size of the states.
        num_layers: LSTM layers, each a stage of its own.
        patch: steps of the series that enter together; divides the window.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(
        self,
        input_shape: tuple[int, int],
        output_shape: tuple[int],
        hidden: int = 32,
        num_layers: int = 2,
        patch: int = 4,
    ) -> None:
        super().__init__()
        if min(hidden, num_layers, patch) < 1:
            raise ValueError(f"hidden, num_layers and patch must be at least 1, got {(hidden, num_layers, patch)}")
        if len(input_shape) != 2 or len(output_shape) != 1:
            raise ValueError(
                "input_shape must be (window, features) and output_shape (horizon,), "
                f"got {tuple(input_shape)} and {tuple(output_shape)}"
            )
        window, features = input_shape
        if window % patch:
            raise ValueError(f"patch must divide the window of {window} steps, got {patch}")
        self.patches = nn.Unflatten(1, (window // patch, patch))
        self.embed = nn.Sequential(nn.Flatten(2), nn.Linear(patch * features, hidden), nn.ReLU())
        self.num_layers = num_layers
        for layer in range(1, num_layers + 1):
            setattr(self, f"lstm{layer}", _Recurrent(hidden))
        self.last = _Last()
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, output_shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Forecast (batch, horizon) from a window (batch, window, features)."""
        x = self.embed(self.patches(x))
        for layer in range(1, self.num_layers + 1):
            x = self.get_submodule(f"lstm{layer}")(x)
        return self.head(self.last(x))


class _Recurrent(nn.Module):
    """One LSTM layer that hands on its states (batch, steps, hidden) alone, so that only one tensor crosses a cut."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        # made from x, not from its batch size: otherwise that number, an integer, would have to cross every cut before
        zero = torch.zeros_like(x[:, 0]).unsqueeze(0)
        return self.lstm(x, (zero, zero))[0]


class _Last(nn.Module):
    """The state after the last step."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]
