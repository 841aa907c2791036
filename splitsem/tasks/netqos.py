"""NetQos: forecast a link's throughput from its past, with series from files or generated; windows and score."""

import math
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import ConcatDataset, Dataset

from splitsem.errors import DataError
from splitsem.tasks.answer import AnswerCoder, Values
from splitsem.tasks.forecast_metrics import ForecastSkill
from splitsem.tasks.metrics import Metrics
from splitsem.tasks.series import cellular_throughput_bps, mahimahi_throughput_bps
from splitsem.tasks.task import Splits, Task
from splitsem.traces import AUTO, Series, read_csv

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

    Each series is split by time, 70 % train, 15 % val, 15 % test, with ``window`` samples between them left out. No
    sample spans a gap in the times of a CSV file.

    Args:
        csv: a CSV file or a folder of them; None for the other sources.
        column: header of the throughput column.
        unit_bps: unit of that column in bit/s, 1e6 for Mbit/s.
        time_column: header of the CSV's column of times; "auto" finds it, None takes the rows as they stand, a step
            apart; see ``read_csv``.
        mahimahi: a Mahimahi trace or a folder of them (every file in it); None for the other sources.
        interval_s: seconds between samples, to which Mahimahi traces are binned; CSV rows are as far apart as they are.
        window: past steps that the network sees.
        horizon: future steps to forecast.
        season: steps after which the series roughly repeats: a lap, a day. The seasonal naive forecast repeats them.
        num_samples: length of the generated series.
        seed: seed of the generated series, not of the training.

    Raises:
        ValueError: an argument out of range, or two sources at once.
    """

    unit = "Mbit/s"

    def __init__(
        self,
        csv: str | None = None,
        column: str = "throughput_bps",
        unit_bps: float = 1.0,
        time_column: str | None = AUTO,
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
            if not 0 < positive < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {positive}")
        self.input_shape = (window, 3)
        self.output_shape = (horizon,)
        self.input_bytes = 4 * window * 3
        self._csv, self._column, self._unit_bps, self._time_column = csv, column, unit_bps, time_column
        self._mahimahi, self._interval_s = mahimahi, interval_s
        self._window, self._horizon, self._season = window, horizon, season
        self._num_samples, self._seed = num_samples, seed
        self._loaded: tuple[Splits, _Scale, float | None] | None = None

    def splits(self) -> Splits:
        """Windows (window, 3) and changes (horizon,), both float32. Raises DataError for missing or short series."""
        return self._load()[0]

    def data_paths(self) -> Sequence[Path]:
        """The CSV files or traces; none for the generated series."""
        given = ((self._csv, "*.csv"), (self._mahimahi, "*"))
        return [p for path, pattern in given if path is not None for p in _found(path, pattern) or [Path(path)]]

    def series(self, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Throughput of the past and the forecast steps in Mbit/s, of a sample ``(window, 3)`` and its changes."""
        _, scale, _ = self._load()
        past_bps = scale.mean_bps + scale.std_bps * x[:, 0]
        return past_bps / 1e6, (past_bps[-1] + scale.change_bps * output) / 1e6

    def answer_coder(self) -> AnswerCoder:
        """The whole forecast."""
        return Values(self.output_shape)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Mean absolute error, in units of a typical change."""
        return functional.l1_loss(y_hat, y)

    def metrics(self) -> Metrics:
        """``score`` (skill against persistence), ``mae_bps``, ``rmse_bps``, ``mae_persistence_bps``.

        ``mae_seasonal_naive_bps`` comes with them, as a fact of the test split.
        """
        _, scale, seasonal_bps = self._load()
        return Metrics({"forecast": ForecastSkill(scale.change_bps, seasonal_bps)})

    def _load(self) -> tuple[Splits, _Scale, float | None]:
        if self._loaded is None:
            tracks = [(series, self._segments(name, series)) for name, series in self._series()]
            scale = _fit([Series(s.values[train], s.steps[train]) for s, (train, _, _) in tracks], self._horizon)

            def windows(split: int) -> ConcatDataset:
                return ConcatDataset([self._windows(series, parts[split], scale) for series, parts in tracks])

            seasonal = np.concatenate([self._seasonal_errors(series, parts[2]) for series, parts in tracks])
            splits = Splits(windows(0), windows(1), windows(2))
            self._loaded = splits, scale, float(seasonal.mean()) if len(seasonal) else None
        return self._loaded

    def _series(self) -> list[tuple[str, Series]]:
        """Every series with its name, in bit/s."""
        if self._csv is not None:
            settings = self._column, self._unit_bps, self._time_column
            return [(str(p), read_csv(p, *settings)) for p in _files(self._csv, "*.csv")]
        if self._mahimahi is not None:
            rates = ((str(p), mahimahi_throughput_bps(p, self._interval_s)) for p in _files(self._mahimahi, "*"))
            return [(name, Series.whole(rate)) for name, rate in rates]
        generated = cellular_throughput_bps(self._num_samples, self._season, self._seed)
        return [("the generated series", Series.whole(generated))]

    def _segments(self, name: str, series: Series) -> tuple[slice, slice, slice]:
        """Train, val and test by time, a window apart, each long enough for one sample."""
        n, gap = len(series.values), self._window
        first, second = int(n * _TRAIN_SHARE), int(n * (_TRAIN_SHARE + _VAL_SHARE))
        parts = slice(0, first), slice(first + gap, second), slice(second + gap, n)
        shortest = min(part.stop - part.start for part in parts)
        if shortest < self._window + self._horizon or first < self._season:
            raise DataError(
                f"{name} has {n} samples, too few for window={self._window}, horizon={self._horizon}, "
                f"season={self._season} in three splits; make these, or task.interval_s, smaller"
            )
        length = self._window + self._horizon
        if not all(len(_unbroken(series.steps[part], length)) for part in parts):
            raise DataError(
                f"{name} has gaps in its times, and one of its three splits has no {length} samples without one "
                f"(window={self._window}, horizon={self._horizon}); make these smaller"
            )
        return parts

    def _windows(self, series: Series, part: slice, scale: _Scale) -> "Windows":
        values, steps = series.values[part], series.steps[part]
        phase = 2 * np.pi * (steps % self._season) / self._season
        level = (values - scale.mean_bps) / scale.std_bps
        features = np.stack((level, np.sin(phase), np.cos(phase)), axis=1)
        starts = _unbroken(steps, self._window + self._horizon)
        return Windows(features, values / scale.change_bps, part.start, self._window, self._horizon, starts)

    def _seasonal_errors(self, series: Series, part: slice) -> NDArray[np.float64]:
        """|value a season ago − value| for every forecast step of every test sample, in bit/s, where both are known."""
        values, steps = series
        origins = part.start + self._window + _unbroken(steps[part], self._window + self._horizon)
        now = (origins[:, None] + np.arange(self._horizon)).ravel()
        then = np.searchsorted(steps, steps[now] - self._season)
        is_known = steps[then] == steps[now] - self._season
        return np.abs(values[then] - values[now])[is_known]


class Windows(Dataset):
    """Every window of one stretch of a series, with the changes that follow it.

    Args:
        features: (rows, features) of the stretch.
        level: (rows,) throughput in units of a typical change.
        first: number of the stretch's first row in the whole series.
        window: past steps in a sample.
        horizon: future steps in a sample.
        starts: (samples,) rows of the stretch at which samples begin.
    """

    def __init__(
        self,
        features: NDArray[np.float64],
        level: NDArray[np.float64],
        first: int,
        window: int,
        horizon: int,
        starts: NDArray[np.int64],
    ) -> None:
        self.first, self._window, self._horizon, self._starts = first, window, horizon, starts
        self._features = torch.from_numpy(features).float()
        changes = np.lib.stride_tricks.sliding_window_view(level, horizon)[window:] - level[window - 1 : -horizon, None]
        self._changes = torch.from_numpy(changes[starts]).float()

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._changes)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample number ``index``: x (window, features) and y (horizon,)."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must be 0…{len(self) - 1}, got {index}")
        start = int(self._starts[index])
        return self._features[start : start + self._window], self._changes[index]

    def steps(self, index: int) -> range:
        """The rows of the series that sample ``index`` touches, past and future."""
        start = self.first + int(self._starts[index])
        return range(start, start + self._window + self._horizon)


def _unbroken(steps: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Where ``length`` values without a gap begin."""
    return np.flatnonzero(steps[length - 1 :] - steps[: len(steps) - length + 1] == length - 1)


def _fit(stretches: list[Series], horizon: int) -> _Scale:
    """Level and typical change of the training stretches; the change is 1 bit/s where the stretches are constant."""
    level = np.concatenate([values for values, _ in stretches])
    changes = np.concatenate(
        [np.abs(v[horizon:] - v[:-horizon])[steps[horizon:] - steps[:-horizon] == horizon] for v, steps in stretches]
    )
    return _Scale(float(level.mean()), float(level.std()) or 1.0, float(changes.mean()) or 1.0)


def _files(path: str, pattern: str) -> list[Path]:
    """The file itself, or the folder's files that match, by name."""
    found = _found(path, pattern)
    if not found:
        raise DataError(f"no trace: looked for a file {path} or a folder of that name with {pattern} in it")
    return found


def _found(path: str, pattern: str) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    found = place.iterdir() if place.is_dir() else ()
    return sorted(p for p in found if fnmatch(p.name.lower(), pattern) and p.name[0] != "." and p.is_file())
