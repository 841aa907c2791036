"""Metrics of forecasts: skill over persistence."""

import torch
from torch import Tensor

from splitsem.tasks.metrics import Metric


class ForecastSkill(Metric):
    """Skill 1 − MAE / MAE_persistence, clipped to [0, 1], with the errors behind it in bit/s.

    Takes changes relative to the last observation, so persistence is the zero forecast.

    Args:
        change_bps: bit/s of one unit of change.
        mae_seasonal_naive_bps: error of the seasonal naive forecast on the test split, passed through; None where no
            value of the test split has one a season ago.
    """

    absolute: Tensor
    squared: Tensor
    persistence: Tensor
    count: Tensor

    def __init__(self, change_bps: float, mae_seasonal_naive_bps: float | None) -> None:
        super().__init__(absolute=(), squared=(), persistence=(), count=())
        self._change_bps, self._seasonal_bps = change_bps, mae_seasonal_naive_bps

    def update(self, output: Tensor, y: Tensor) -> None:
        """Add a batch of forecast and true changes, (batch, horizon) each."""
        if output.shape != y.shape:
            raise ValueError(f"y_hat must have y's shape {tuple(y.shape)}, got {tuple(output.shape)}")
        error, change = output.double() - y.double(), y.double().abs().sum()
        self.add(absolute=error.abs().sum(), squared=error.square().sum(), persistence=change, count=y.numel())

    def compute(self) -> dict[str, Tensor]:
        """The score and the errors; a series that never changes scores 1 where it is forecast exactly, else 0."""
        count = self.count.clamp_min(1)
        skill = torch.where(
            self.persistence > 0,
            1 - self.absolute / self.persistence.clamp_min(torch.finfo(torch.float64).tiny),
            (self.absolute == 0).double(),
        )
        errors = {
            "score": skill.clamp(0, 1).float(),
            "mae_bps": (self.absolute / count * self._change_bps).float(),
            "rmse_bps": ((self.squared / count).sqrt() * self._change_bps).float(),
            "mae_persistence_bps": (self.persistence / count * self._change_bps).float(),
        }
        if self._seasonal_bps is not None:
            errors["mae_seasonal_naive_bps"] = torch.tensor(
                self._seasonal_bps, dtype=torch.float32, device=count.device
            )
        return errors
