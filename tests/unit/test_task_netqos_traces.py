"""NetQos over CSV and Mahimahi files: how traces are binned, and that no window spans a gap or two files."""

from pathlib import Path

import numpy as np
import pytest

from splitsem.errors import ConfigError
from splitsem.tasks.netqos import NetQos
from splitsem.tasks.series import mahimahi_throughput_bps
from splitsem.traces import read_mahimahi


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_constant_rate_trace_gives_that_rate(tmp_path: Path) -> None:
    trace = write(tmp_path / "12mbit", "".join(f"{ms}\n" for ms in range(1, 5001)))  # a packet a millisecond: 12 Mbit/s
    np.testing.assert_array_equal(mahimahi_throughput_bps(trace, 0.5), np.full(10, 12e6))


def test_every_packet_of_the_whole_intervals_is_counted_once(tmp_path: Path) -> None:
    times = np.sort(np.random.default_rng(0).integers(0, 10_001, 700))
    times[-1] = 10_000
    trace = write(tmp_path / "trace", "\n".join(map(str, times)))
    np.testing.assert_array_equal(read_mahimahi(trace), times)
    rate = mahimahi_throughput_bps(trace, 1.0)
    assert len(rate) == 10
    assert rate.sum() / (8 * 1500) == 700


def test_silence_is_a_rate_of_zero_and_a_partial_interval_is_left_out(tmp_path: Path) -> None:
    trace = write(tmp_path / "trace", "100\n100\n3200\n3400\n")
    np.testing.assert_array_equal(mahimahi_throughput_bps(trace, 1.0), [24_000, 0, 0])


def test_a_trace_shorter_than_an_interval_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lasts 0\.3 s, less than one interval of 1 s"):
        mahimahi_throughput_bps(write(tmp_path / "trace", "100\n300\n"), 1.0)


@pytest.mark.parametrize("interval_s", [1e-9, 1e-300])
def test_intervals_that_would_fill_the_memory_are_refused(tmp_path: Path, interval_s: float) -> None:
    with pytest.raises(ConfigError, match=r"2 packets in 3600 s, too few .* make task.interval_s longer"):
        mahimahi_throughput_bps(write(tmp_path / "trace", "1\n3600000\n"), interval_s)


def test_no_window_spans_a_gap_and_the_season_goes_on_in_it(tmp_path: Path) -> None:
    def task(name: str, seconds: np.ndarray) -> NetQos:
        rows = "".join(f"{1.6e9 + s:.0f},{s % 7 + (s > 340) * 1000}\n" for s in seconds)
        return NetQos(csv=str(write(tmp_path / name, "time,throughput_bps\n" + rows)), window=8, horizon=2, season=7)

    whole = task("whole.csv", np.arange(600))
    gapped = task("gap.csv", np.concatenate((np.arange(200), np.arange(341, 600))))
    lost = [len(a) - len(b) for a, b in zip(whole.splits(), gapped.splits(), strict=True)]
    assert lost[0] > 0.7 * 141 + 8
    for x, y in (gapped.splits().train[i] for i in range(len(gapped.splits().train))):
        assert float(y.abs().max()) * gapped._load()[1].change_bps < 10, "the level leaps in the gap only"
        phase = np.unwrap(np.arctan2(x[:, 1].numpy(), x[:, 2].numpy()))
        np.testing.assert_allclose(np.diff(phase), 2 * np.pi / 7, rtol=1e-3)
    metrics = gapped.metrics()
    metrics.update(*2 * [gapped.splits().test[0][1][None]])
    # the values repeat every 7 seconds of the clock; 341 − 200 is no multiple of 7, so rows would not
    assert float(metrics.compute()["mae_seasonal_naive_bps"]) in (0, pytest.approx(0))


def test_a_series_of_crumbs_is_refused(tmp_path: Path) -> None:
    seconds = [10 * i + j for i in range(100) for j in range(5)]
    table = write(tmp_path / "log.csv", "time,throughput_bps\n" + "".join(f"{s},1\n" for s in seconds))
    with pytest.raises(ConfigError, match="has gaps in its times, and one of its three splits has no 10 samples"):
        NetQos(csv=str(table), window=8, horizon=2, season=4).splits()


def test_hidden_files_of_a_folder_are_passed_by_and_upper_case_endings_are_found(tmp_path: Path) -> None:
    write(tmp_path / "A.CSV", "throughput_bps\n" + "5\n" * 400)
    write(tmp_path / "._a.csv", "\x01")
    assert NetQos(csv=str(tmp_path)).data_paths() == [tmp_path / "A.CSV"]
    write(tmp_path / ".DS_Store", "\x01")
    assert NetQos(mahimahi=str(tmp_path)).data_paths() == [tmp_path / "A.CSV"]


def test_a_folder_of_csv_files_is_several_series_that_no_window_spans(tmp_path: Path) -> None:
    for name, level in (("a.csv", 1), ("b.csv", 1000)):
        rows = "".join(f"{level + i % 7}\n" for i in range(200))
        write(tmp_path / name, f"throughput_bps\n{rows}")
    task = NetQos(csv=str(tmp_path), window=8, horizon=2, season=7)
    train, val, test = task.splits()
    assert len(train) == 2 * (140 - 8 - 2 + 1)
    assert len(val) == len(test) == 2 * (30 - 8 - 8 - 2 + 1)
    change_bps = task._load()[1].change_bps
    for split in (train, val, test):
        assert max(float(split[i][1].abs().max()) for i in range(len(split))) * change_bps < 10
    metrics = task.metrics()
    metrics.update(*2 * [test[0][1][None]])
    assert float(metrics.compute()["mae_seasonal_naive_bps"]) == 0  # each series repeats every 7 steps exactly


def test_a_mahimahi_trace_becomes_a_task(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).integers(1, 9, 8000))
    trace = write(tmp_path / "lte.up", "\n".join(map(str, times)))
    task = NetQos(mahimahi=str(trace), interval_s=0.1, window=16, horizon=4, season=20)
    assert sum(len(split) for split in task.splits()) > 200


def test_a_series_too_short_is_refused_with_its_length(tmp_path: Path) -> None:
    table = write(tmp_path / "log.csv", "throughput_bps\n" + "5\n" * 100)
    with pytest.raises(ConfigError, match=r"log\.csv has 100 samples, too few for window=48"):
        NetQos(csv=str(table)).splits()


def test_a_constant_series_has_no_skill_to_lose(tmp_path: Path) -> None:
    table = write(tmp_path / "log.csv", "throughput_bps\n" + "5\n" * 400)
    task = NetQos(csv=str(table), window=8, horizon=2, season=4)
    metrics = task.metrics()
    x, y = task.splits().test[0]
    assert np.isfinite(x.numpy()).all()
    metrics.update(y[None], y[None])
    assert float(metrics.compute()["score"]) == 1


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no trace: looked for a file .* with \*\.csv in it"):
        NetQos(csv=str(tmp_path)).splits()
