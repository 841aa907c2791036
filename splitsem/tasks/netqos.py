"""NetQos: forecast a link's throughput from its past, with series from files or generated; windows and score."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import ConcatDataset, Dataset
from torchmetrics import Metric

from splitsem.errors import ConfigError
from splitsem.tasks.answer import AnswerCoder, Values
from splitsem.tasks.series import cellular_throughput_bps, mahimahi_throughput_bps, read_csv_bps
from splitsem.tasks.task import Splits, Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


Series = NDArray[np.float64]

_TRAIN_SHARE, _VAL_SHARE = 0.7, 0.15


class _Scale(NamedTuple):
    """What turns bit/s into the network's numbers, fitted on the training part alone."""

    mean_bps: float
    std_bps: float
    change_bps: float


class NetQos(Task):
    """Forecast the next ``horizon`` values of a throughput series from ``window`` past ones.

    A sample is x = (value, sin, cos of the position in the season) for each past step, and y = the *changes* from the
    last past value to each future one, in units of a typical change. So the persistence forecast is y_hat = 0 and
    score = 1 − Σ|y_hat − y| / Σ|y| = 1 − MAE / MAE_persistence, clipped to [0, 1].

    Each series is split by time, 70 % train, 15 % val, 15 % test, with ``window`` samples between them left out.

    Args:
        csv: a CSV file or a folder of them; None for the other sources.
        column: header of the throughput column.
        unit_bps: unit of that column in bit/s, 1e6 for Mbit/s.
        mahimahi: a Mahimahi trace or a folder of them (every file in it); None for the other sources.
        interval_s: seconds between samples. CSV rows are taken to be this far apart; Mahimahi traces are binned to it.
        window: past steps that the network sees.
        horizon: future steps to forecast.
        season: steps after which the series roughly repeats: a lap, a day. The seasonal naive forecast repeats them.
        num_samples: length of the generated series.
        seed: seed of the generated series, not of the training.

    Raises:
        ValueError: an argument out of range, or two sources at once.
    """

    def __init__(
        self,
        csv: str | None = None,
        column: str = "throughput_bps",
        unit_bps: float = 1.0,
        mahimahi: str | None = None,
        interval_s: float = 1.0,
        window: int = 48,
        horizon: int = 8,
        season: int = 300,
        num_samples: int = 24_000,
        seed: int = 0,
    ) -> None:
        if csv is not None and mahimahi is not None:
            raise ValueError(f"csv and mahimahi cannot both be given, got {csv!r} and {mahimahi!r}")
        for name, value, least in (("window", window, 2), ("horizon", horizon, 1), ("num_samples", num_samples, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if season < max(2, horizon):
            raise ValueError(f"season must be at least 2 and at least horizon = {horizon} steps, got {season}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        for name, positive in (("unit_bps", unit_bps), ("interval_s", interval_s)):
            if positive <= 0:
                raise ValueError(f"{name} must be above 0, got {positive}")
        self.input_shape = (window, 3)
        self.output_shape = (horizon,)
        self.input_bytes = 4 * window * 3
        self._csv, self._column, self._unit_bps = csv, column, unit_bps
        self._mahimahi, self._interval_s = mahimahi, interval_s
        self._window, self._horizon, self._season = window, horizon, season
        self._num_samples, self._seed = num_samples, seed
        self._loaded: tuple[Splits, _Scale, float] | None = None

    def splits(self) -> Splits:
        """Windows (window, 3) and changes (horizon,), both float32. Raises ConfigError for missing or short series."""
        return self._load()[0]

    def data_paths(self) -> Sequence[Path]:
        """The CSV files or traces; none for the generated series."""
        given = ((self._csv, "*.csv"), (self._mahimahi, "*"))
        return [p for path, pattern in given if path is not None for p in _found(path, pattern) or [Path(path)]]

    def answer_coder(self) -> AnswerCoder:
        """The whole forecast."""
        return Values(self.output_shape)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Mean absolute error, in units of a typical change."""
        return functional.l1_loss(y_hat, y)

    def metrics(self) -> "MetricCollection":
        """``score`` (skill against persistence), ``mae_bps``, ``rmse_bps``, ``mae_persistence_bps``.

        ``mae_seasonal_naive_bps`` comes with them, as a fact of the test split.
        """
        from torchmetrics import MetricCollection

        _, scale, seasonal_bps = self._load()
        return MetricCollection({"forecast": ForecastSkill(scale.change_bps, seasonal_bps)})

    def _load(self) -> tuple[Splits, _Scale, float]:
        if self._loaded is None:
            tracks = [(values, self._segments(name, values)) for name, values in self._series()]
            scale = _fit([values[parts[0]] for values, parts in tracks], self._horizon)

            def windows(split: int) -> ConcatDataset:
                return ConcatDataset([self._windows(values, parts[split], scale) for values, parts in tracks])

            seasonal = [self._seasonal_errors(values, parts[2]) for values, parts in tracks]
            splits = Splits(windows(0), windows(1), windows(2))
            self._loaded = splits, scale, float(np.concatenate(seasonal).mean())
        return self._loaded

    def _series(self) -> list[tuple[str, Series]]:
        """Every series with its name, in bit/s."""
        if self._csv is not None:
            return [(str(p), read_csv_bps(p, self._column, self._unit_bps)) for p in _files(self._csv, "*.csv")]
        if self._mahimahi is not None:
            return [(str(p), mahimahi_throughput_bps(p, self._interval_s)) for p in _files(self._mahimahi, "*")]
        return [("the generated series", cellular_throughput_bps(self._num_samples, self._season, self._seed))]

    def _segments(self, name: str, values: Series) -> tuple[slice, slice, slice]:
        """Train, val and test by time, a window apart, each long enough for one sample."""
        n, gap = len(values), self._window
        first, second = int(n * _TRAIN_SHARE), int(n * (_TRAIN_SHARE + _VAL_SHARE))
        parts = slice(0, first), slice(first + gap, second), slice(second + gap, n)
        shortest = min(part.stop - part.start for part in parts)
        if shortest < self._window + self._horizon or first < self._season:
            raise ConfigError(
                f"{name} has {n} samples, too few for window={self._window}, horizon={self._horizon}, "
                f"season={self._season} in three splits; make these, or task.interval_s, smaller"
            )
        return parts

    def _windows(self, values: Series, part: slice, scale: _Scale) -> "Windows":
        phase = 2 * np.pi * (np.arange(part.start, part.stop) % self._season) / self._season
        level = (values[part] - scale.mean_bps) / scale.std_bps
        features = np.stack((level, np.sin(phase), np.cos(phase)), axis=1)
        return Windows(features, values[part] / scale.change_bps, part.start, self._window, self._horizon)

    def _seasonal_errors(self, values: Series, part: slice) -> Series:
        """|value a season ago − value| for every forecast step of every test sample, in bit/s."""
        origins = np.arange(part.start + self._window, part.stop - self._horizon + 1)
        steps = origins[:, None] + np.arange(self._horizon)
        return np.abs(values[steps - self._season] - values[steps]).ravel()


class Windows(Dataset):
    """Every window of one stretch of a series, with the changes that follow it.

    Args:
        features: (steps, features) of the stretch.
        level: (steps,) throughput in units of a typical change.
        first: number of the stretch's first step in the whole series.
        window: past steps in a sample.
        horizon: future steps in a sample.
    """

    def __init__(self, features: Series, level: Series, first: int, window: int, horizon: int) -> None:
        self.first, self._window, self._horizon = first, window, horizon
        self._features = torch.from_numpy(features).float()
        changes = np.lib.stride_tricks.sliding_window_view(level, horizon)[window:] - level[window - 1 : -horizon, None]
        self._changes = torch.from_numpy(changes).float()

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._changes)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample number ``index``: x (window, features) and y (horizon,)."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must be 0…{len(self) - 1}, got {index}")
        return self._features[index : index + self._window], self._changes[index]

    def steps(self, index: int) -> range:
        """The steps of the series that sample ``index`` touches, past and future."""
        start = self.first + index
        return range(start, start + self._window + self._horizon)


def _fit(stretches: list[Series], horizon: int) -> _Scale:
    """Level and typical change of the training stretches; the change is 1 bit/s where the stretches are constant."""
    level = np.concatenate(stretches)
    changes = np.concatenate([np.abs(values[horizon:] - values[:-horizon]) for values in stretches])
    return _Scale(float(level.mean()), float(level.std()) or 1.0, float(changes.mean()) or 1.0)


def _files(path: str, pattern: str) -> list[Path]:
    """The file itself, or the folder's files that match, by name."""
    found = _found(path, pattern)
    if not found:
        raise ConfigError(f"no trace: looked for a file {path} or a folder of that name with {pattern} in it")
    return found


def _found(path: str, pattern: str) -> list[Path]:
    place = Path(path)
    if place.is_file():
        return [place]
    return sorted(p for p in place.glob(pattern) if p.is_file()) if place.is_dir() else []


class ForecastSkill(Metric):
    """Skill 1 − MAE / MAE_persistence, clipped to [0, 1], with the errors behind it in bit/s.

    Takes changes relative to the last observation, so persistence is the zero forecast.

    Args:
        change_bps: bit/s of one unit of change.
        mae_seasonal_naive_bps: error of the seasonal naive forecast on the test split, passed through.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, change_bps: float, mae_seasonal_naive_bps: float) -> None:
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
        return {
            "score": skill.clamp(0, 1).float(),
            "mae_bps": (state.absolute / count * self._change_bps).float(),
            "rmse_bps": ((state.squared / count).sqrt() * self._change_bps).float(),
            "mae_persistence_bps": (state.persistence / count * self._change_bps).float(),
            "mae_seasonal_naive_bps": torch.tensor(self._seasonal_bps, dtype=torch.float32, device=count.device),
        }
