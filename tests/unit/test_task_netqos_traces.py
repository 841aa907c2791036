"""CSV and Mahimahi files: what is read, how it is binned, and what is said about bad ones."""

from pathlib import Path

import numpy as np
import pytest

from splitsem.errors import ConfigError
from splitsem.tasks.netqos import NetQos
from splitsem.tasks.series import mahimahi_throughput_bps, read_csv_bps, read_mahimahi


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n2\nthree\n", "line 3: a Mahimahi trace holds whole milliseconds, got 'three'"),
        ("1\n2.5\n", "line 2: a Mahimahi trace holds whole milliseconds"),
        ("5\n4\n", "line 2: time must not run backwards, got 4 ms after 5 ms"),
        ("\n", "is empty"),
    ],
)
def test_bad_mahimahi_lines_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_mahimahi(write(tmp_path / "trace", text))


def test_a_trace_shorter_than_an_interval_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lasts 0\.3 s, less than one interval of 1 s"):
        mahimahi_throughput_bps(write(tmp_path / "trace", "100\n300\n"), 1.0)


def test_a_csv_column_is_read_in_its_unit(tmp_path: Path) -> None:
    table = write(tmp_path / "log.csv", "\ufefftime, mbps ,cell\n0,1.5,a\n1,0,b\n2,2e1,c\n")
    np.testing.assert_allclose(read_csv_bps(table, "mbps", unit_bps=1e6), [1.5e6, 0, 2e7])


@pytest.mark.parametrize("value", ["", "nan", "-1", "fast", "inf"])
def test_a_csv_value_that_is_no_throughput_is_named_with_its_line(tmp_path: Path, value: str) -> None:
    table = write(tmp_path / "log.csv", f"t,bps\n0,1\n1,{value}\n")
    with pytest.raises(ConfigError, match=f"line 3: bps must be a number of at least 0, got '{value}'"):
        read_csv_bps(table, "bps")


def test_an_unknown_column_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no column 'bps'; its columns are time, rate"):
        read_csv_bps(write(tmp_path / "log.csv", "time,rate\n0,1\n"), "bps")


def test_a_missing_or_binary_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the trace"):
        read_mahimahi(tmp_path / "nothing")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match="cannot read the trace"):
        read_csv_bps(tmp_path / "picture.csv", "bps")


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
