"""Metrics of forecasts: skill over persistence."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class ForecastSkill(Metric):
    """Skill 1 − MAE / MAE_persistence, clipped to [0, 1], with the errors behind it in bit/s.

    Takes changes relative to the last observation, so persistence is the zero forecast.

    Args:
        change_bps: bit/s of one unit of change.
        mae_seasonal_naive_bps: error of the seasonal naive forecast on the test split, passed through; None where no
            value of the test split has one a season ago.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, change_bps: float, mae_seasonal_naive_bps: float | None) -> None:
        super().__init__()
        self._change_bps, self._seasonal_bps = change_bps, mae_seasonal_naive_bps
        for name in ("absolute", "squared", "persistence", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, y_hat: Tensor, y: Tensor) -> None:
        """Add a batch of forecast and true changes, (batch, horizon) each."""
        if y_hat.shape != y.shape:
            raise ValueError(f"y_hat must have y's shape {tuple(y.shape)}, got {tuple(y_hat.shape)}")
        state: Any = self
        error = y_hat.double() - y.double()
        state.absolute += error.abs().sum()
        state.squared += error.square().sum()
        state.persistence += y.double().abs().sum()
        state.count += y.numel()

    def compute(self) -> dict[str, Tensor]:
        """The score and the errors; a series that never changes scores 1 where it is forecast exactly, else 0."""
        state: Any = self
        count = state.count.clamp_min(1)
        skill = torch.where(
            state.persistence > 0,
            1 - state.absolute / state.persistence.clamp_min(torch.finfo(torch.float64).tiny),
            (state.absolute == 0).double(),
        )
        errors = {
            "score": skill.clamp(0, 1).float(),
            "mae_bps": (state.absolute / count * self._change_bps).float(),
            "rmse_bps": ((state.squared / count).sqrt() * self._change_bps).float(),
            "mae_persistence_bps": (state.persistence / count * self._change_bps).float(),
        }
        if self._seasonal_bps is not None:
            errors["mae_seasonal_naive_bps"] = torch.tensor(
                self._seasonal_bps, dtype=torch.float32, device=count.device
            )
        return errors
