"""NetQos: what its series, its split by time and its score promise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from splitsem.models.lstm import LstmForecaster
from splitsem.tasks.netqos import NetQos
from splitsem.tasks.series import cellular_throughput_bps

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def task() -> NetQos:
    return NetQos(num_samples=3000)


def test_the_same_seed_gives_the_same_series() -> None:
    np.testing.assert_array_equal(cellular_throughput_bps(500, 50, 1), cellular_throughput_bps(500, 50, 1))
    assert not np.array_equal(cellular_throughput_bps(500, 50, 1), cellular_throughput_bps(500, 50, 2))


def test_the_series_has_outages_a_season_and_a_memory() -> None:
    values = cellular_throughput_bps(60_000, 300, 0)
    assert (values >= 0).all()
    assert 0.005 < np.mean(values == 0) < 0.08
    laps = values.reshape(-1, 300)
    place = laps.mean(axis=0)
    assert place.std() > 0.2 * place.mean()
    rest = np.log(laps[laps.min(axis=1) > 0] / place).ravel()
    assert 0.3 < np.corrcoef(rest[:-1], rest[1:])[0, 1] < 0.95


def test_samples_have_the_declared_shapes(task: NetQos) -> None:
    x, y = task.splits().test[0]
    assert (x.shape, x.dtype) == (task.input_shape, torch.float32)
    assert (y.shape, y.dtype) == (task.output_shape, torch.float32)
    assert task.input_bytes == 4 * x.numel()
    assert not task.is_image


def test_no_time_step_is_in_two_splits_and_a_window_lies_between() -> None:
    task = NetQos(num_samples=2000, window=20, horizon=5, season=50)
    touched = []
    for split in task.splits():
        (windows,) = split.datasets
        touched.append((windows.steps(0).start, windows.steps(len(windows) - 1).stop))
    assert touched[0][0] == 0
    assert touched[2][1] == 2000
    assert touched[1][0] - touched[0][1] == touched[2][0] - touched[1][1] == 20


def test_y_is_the_change_from_the_last_past_value() -> None:
    task = NetQos(num_samples=2000, window=20, horizon=5, season=50)
    series = cellular_throughput_bps(2000, 50, 0)
    _, scale, _ = task._load()
    (windows,) = task.splits().val.datasets
    for index in (0, 17, len(windows) - 1):
        x, y = windows[index]
        steps = windows.steps(index)
        past, future = series[steps.start : steps.start + 20], series[steps.start + 20 : steps.stop]
        np.testing.assert_allclose(y.numpy() * scale.change_bps, future - past[-1], rtol=1e-4, atol=1)
        np.testing.assert_allclose(x[:, 0].numpy() * scale.std_bps + scale.mean_bps, past, rtol=1e-4, atol=10)


def test_the_scale_is_fitted_on_the_training_part_alone() -> None:
    task = NetQos(num_samples=2000, window=20, horizon=5, season=50)
    series = cellular_throughput_bps(2000, 50, 0)
    _, scale, _ = task._load()
    assert scale.mean_bps == pytest.approx(series[:1400].mean())
    assert scale.std_bps == pytest.approx(series[:1400].std())


def test_persistence_scores_exactly_zero_and_a_perfect_forecast_one(task: NetQos) -> None:
    for factor, score in ((0.0, 0.0), (1.0, 1.0)):
        metrics = task.metrics()
        for _, y in DataLoader(task.splits().test, 100):
            metrics.update(factor * y, y)
        result = metrics.compute()
        assert float(result["score"]) == score
        if factor == 0:
            assert result["mae_bps"] == result["mae_persistence_bps"]
        else:
            assert result["mae_bps"] == result["rmse_bps"] == 0


def test_a_forecast_worse_than_persistence_is_clipped_to_zero(task: NetQos) -> None:
    metrics = task.metrics()
    _, y = task.splits().test[0]
    metrics.update(-2 * y[None], y[None])
    assert float(metrics.compute()["score"]) == 0


def test_errors_equal_those_counted_on_the_series_in_bit_per_second() -> None:
    task = NetQos(num_samples=2000, window=20, horizon=5, season=50)
    series = cellular_throughput_bps(2000, 50, 0)
    metrics = task.metrics()
    for _, y in DataLoader(task.splits().test, 64):
        metrics.update(0.5 * y, y)
    result = {name: float(value) for name, value in metrics.compute().items()}
    persistence, seasonal, halfway = [], [], []
    (windows,) = task.splits().test.datasets
    for index in range(len(windows)):
        steps = windows.steps(index)
        now = steps.start + 19
        for h in range(1, 6):
            persistence.append(abs(series[now + h] - series[now]))
            seasonal.append(abs(series[now + h] - series[now + h - 50]))
            halfway.append(0.5 * (series[now + h] - series[now]))
    assert result["mae_persistence_bps"] == pytest.approx(np.mean(persistence), rel=1e-5)
    assert result["mae_seasonal_naive_bps"] == pytest.approx(np.mean(seasonal), rel=1e-5)
    assert result["mae_bps"] == pytest.approx(np.mean(np.abs(halfway)), rel=1e-5)
    assert result["rmse_bps"] == pytest.approx(np.sqrt(np.mean(np.square(halfway))), rel=1e-5)
    assert result["score"] == pytest.approx(0.5, rel=1e-5)


def test_forecast_and_truth_must_have_one_shape(task: NetQos) -> None:
    with pytest.raises(ValueError, match=r"y's shape \(2, 8\), got \(2, 7\)"):
        task.metrics().update(torch.zeros(2, 7), torch.zeros(2, 8))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"window": 1}, "window must be at least 2, got 1"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"season": 4}, "season must be at least 2 and at least horizon = 8 steps, got 4"),
        ({"interval_s": 0}, "interval_s must be above 0 and finite, got 0"),
        ({"unit_bps": float("nan")}, "unit_bps must be above 0 and finite, got nan"),
        ({"csv": "a", "mahimahi": "b"}, "cannot both be given"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NetQos(**arguments)


def test_the_options_in_conf_build_the_task_and_a_model_that_fits() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["task=netqos"])
    built = instantiate(cfg.task, num_samples=3000)
    assert cfg.model == OmegaConf.load(CONF / "model/lstm.yaml")
    model = instantiate(cfg.model, input_shape=built.input_shape, output_shape=built.output_shape)
    x, y = next(iter(DataLoader(built.splits().test, 2)))
    assert torch.isfinite(built.loss(model(x), y))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_network_beats_both_naive_forecasts_by_ten_percent(seed: int) -> None:
    torch.manual_seed(seed)
    task = NetQos()
    model = LstmForecaster(task.input_shape, task.output_shape)
    loader = DataLoader(task.splits().train, batch_size=128, shuffle=True, drop_last=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=4 * len(loader))
    for _ in range(4):
        for x, y in loader:
            optimiser.zero_grad()
            task.loss(model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    model.eval()
    metrics = task.metrics()
    with torch.inference_mode():
        for x, y in DataLoader(task.splits().test, 256):
            metrics.update(model(x), y)
    result = metrics.compute()
    naive = min(float(result["mae_persistence_bps"]), float(result["mae_seasonal_naive_bps"]))
    assert float(result["mae_bps"]) <= 0.9 * naive
