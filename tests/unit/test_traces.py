"""The one reader of traces and tables: what it reads alike, what it mends aloud, and what it refuses with its line."""

import datetime as dt
import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from splitsem.errors import ConfigError
from splitsem.links.trace import TraceLink
from splitsem.tasks.series import mahimahi_throughput_bps
from splitsem.traces import read_csv, read_mahimahi

TIMES = np.cumsum(np.random.default_rng(0).integers(0, 3, 4000))
LINES = [str(time) for time in TIMES]
START = dt.datetime(2023, 3, 26, tzinfo=dt.UTC)
EPOCH_MS = 1_600_000_000_000


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("between", ["", "END", "END# a remarkEND  END"], ids=["plain", "blank", "remark"])
def test_marks_ends_of_lines_blank_lines_and_remarks_change_nothing(tmp_path, encoding, end, between):
    between = between.replace("END", end)
    trace = write(tmp_path / "t", end.join(LINES[:100]) + end + between + end.join(LINES[100:]) + end + end, encoding)
    np.testing.assert_array_equal(read_mahimahi(trace), TIMES)
    assert TraceLink(str(trace), 0.0, 0.0).period_ms == TIMES[-1]
    table = write(tmp_path / "c", between + end.join(["t, bps ", "0,1.5", between + "1,2e1", "2,0"]) + end, encoding)
    np.testing.assert_allclose(read_csv(table, "bps", unit=1e6).values, [1.5e6, 2e7, 0])


@pytest.mark.parametrize("offset", [60_001, 3_600_000, 86_400_000 * 40, EPOCH_MS])
def test_a_trace_that_counts_from_another_clock_starts_at_zero_and_it_is_said(tmp_path, caplog, offset):
    trace = write(tmp_path / "late", "\n".join(str(time + offset) for time in TIMES - TIMES[0]))
    tracemalloc.start()
    rates = mahimahi_throughput_bps(trace, 0.5)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 20 * trace.stat().st_size + 1_000_000
    plain = write(tmp_path / "plain", "\n".join(map(str, TIMES - TIMES[0])))
    np.testing.assert_array_equal(rates, mahimahi_throughput_bps(plain, 0.5))
    link = TraceLink(str(trace), 0.0, 0.0)
    assert link.send(bytes(1500 * 1000)).link_s == pytest.approx(TIMES[999] / 1000, abs=0.01)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"starts at {offset:,} ms, which is subtracted: 4,000 packets in" in said


def test_a_minute_of_silence_at_the_start_or_an_hour_within_is_an_outage(tmp_path, caplog):
    times = [60_000, 60_001, 3_660_001]
    np.testing.assert_array_equal(read_mahimahi(write(tmp_path / "t", "\n".join(map(str, times)))), times)
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("1\n2\nx\n", 3, "whole milliseconds, got 'x'"),
        ("1\n-2\n", 2, "whole milliseconds"),
        ("1.5\n", 1, "whole milliseconds"),
        ("1\n\n²\n", 3, "whole milliseconds, got '²'"),
        ("1_000\n", 1, "whole milliseconds"),
        ("1 2\n", 1, "whole milliseconds"),
        ("nan\n", 1, "whole milliseconds"),
        ("5\n\n4\n", 3, "4 ms comes after 5 ms; times never fall"),
        ("0\n0\n", 2, "above its start"),
        (f"{EPOCH_MS}\n", 1, "above its start"),
        ("", 0, "is empty"),
        ("# nothing\n\n", 2, "is empty"),
        ("9" * 5000, 1, "whole milliseconds"),
        ("9" * 19, 1, "whole milliseconds"),
        ("1600000000\n1600000001\n", 1, "looks like seconds since 1970"),
        ("1600000000000000\n", 1, "looks like microseconds since 1970"),
        ("1600000000000000000\n", 1, "looks like nanoseconds since 1970"),
        ("0\n1600000000000\n", 2, "more than an hour is a step of the clock"),
        ("1\n2\n3600003\n", 3, "more than an hour"),
        ("7\n" * 90_000, 83334, "packets pass at 7 ms; no link carries"),
    ],
)
def test_a_damaged_trace_names_file_and_line_alike_for_a_link_and_a_series(tmp_path, text, line, why):
    trace = write(tmp_path / "bad.trace", text)
    for read in (lambda: TraceLink(str(trace), 0.0, 0.0), lambda: mahimahi_throughput_bps(trace, 1.0)):
        with pytest.raises(ConfigError, match=rf"bad\.trace, line {line}: .*{why}"):
            read()


@pytest.mark.parametrize("data", [b"\x89PNG\xff\xfe", b"\xff\xfe\x00", "1\n2\n".encode("utf-16-le"), b"\x00" * 9])
def test_what_is_no_text_or_no_file_is_a_config_error(tmp_path, data):
    (tmp_path / "binary").write_bytes(data)
    for path in (tmp_path / "binary", tmp_path / "nothing", tmp_path, "/dev/zero"):
        with pytest.raises(ConfigError, match="cannot read the trace"):
            read_mahimahi(path)
        with pytest.raises(ConfigError, match="cannot read the trace"):
            read_csv(path, "bps")


def table(folder: Path, rows: list[str], header: str = "time,bps") -> Path:
    return write(folder / "log.csv", "\n".join([header, *rows]) + "\n")


def at(seconds: list[float]) -> list[str]:
    return [f"{(START + dt.timedelta(seconds=s)).isoformat()},{s}" for s in seconds]


@pytest.mark.parametrize(
    "clock",
    [
        lambda s: str(s),
        lambda s: str(1_600_000_000_000 + 1000 * s),
        lambda s: str(1.6e9 + s),
        lambda s: (START + dt.timedelta(seconds=s)).isoformat(),
        lambda s: (START + dt.timedelta(seconds=s)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        lambda s: f"{START.replace(tzinfo=None) + dt.timedelta(seconds=s)}",
        lambda s: str(s + 0.2 * (s % 2)),
    ],
    ids=["seconds", "epoch ms", "epoch s", "ISO", "Z", "no zone", "jitter"],
)
@pytest.mark.parametrize("header", ["time", "Timestamp (ms)", "date", "t", "ts_ms", "UTC"])
def test_a_gap_in_times_of_any_unit_stays_a_gap_and_is_said(tmp_path, caplog, clock, header):
    rows = [f"{clock(s)},{s}" for s in (0, 1, 2, 6, 7, 9)]
    series = read_csv(table(tmp_path, rows, f"{header},bps"), "bps")
    np.testing.assert_array_equal(series.steps, [0, 1, 2, 6, 7, 9])
    np.testing.assert_array_equal(series.values, [0, 1, 2, 6, 7, 9])
    assert ["2 gaps" in record.getMessage() for record in caplog.records] == [True]


def test_rows_that_are_newest_first_are_turned_round_and_it_is_said(tmp_path, caplog):
    series = read_csv(table(tmp_path, at([0, 1, 2, 5])[::-1]), "bps")
    np.testing.assert_array_equal(series.values, [0, 1, 2, 5])
    np.testing.assert_array_equal(series.steps, [0, 1, 2, 5])
    assert "newest first" in caplog.records[0].getMessage()


def test_a_column_of_dates_is_found_under_any_header(tmp_path):
    assert read_csv(table(tmp_path, at([0, 1, 2, 5]), "wann,bps"), "bps").steps.tolist() == [0, 1, 2, 5]


def test_times_can_be_named_or_passed_by(tmp_path, caplog):
    path = table(tmp_path, ["0,9,5", "1,7,6", "2,8,7", "5,3,8"], "when,time,bps")
    assert read_csv(path, "bps", time_column="when").steps.tolist() == [0, 1, 2, 5]
    assert read_csv(path, "bps", time_column=None).steps.tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="line 3: an earlier time"):
        read_csv(path, "bps")
    assert read_csv(table(tmp_path, ["0,5", "9,6"], "when,bps"), "bps").steps.tolist() == [0, 1]
    assert "no column is named like times" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["0,1", "2,1", "1,1", "3,1"], "line 4: an earlier time than the row before it; times must rise"),
        (["0,1", "1,1", "1,1"], "line 4: the same time as the row before it"),
        (["0,1", "1,1", "x,1"], "line 4: time must be a number as the first one, got 'x'"),
        (["2023-01-01,1", "5,1"], "line 3: time must be a number or an ISO date like the first one, got '5'"),
        (["0,1", "1e999,1"], "line 3: time must be a number"),
        (["0,1", "1,"], "line 3: bps must be a number of at least 0, got ''"),
        (["0,1", "1,nan"], "line 3: bps must be"),
        (["0,1", "1,-1"], "line 3: bps must be"),
        (["0,1", "1,inf"], "line 3: bps must be"),
        (["0,1", "1,1e999"], "line 3: bps must be"),
        (["0,1", "1,1_0"], "line 3: bps must be"),
        (["0,1", "1,fast"], "line 3: bps must be"),
        (["0,1", '1,"2,5"'], r"line 3: bps must be .* got '2,5' \(decimals need a point\)"),
        (["0,1", "1,2,5"], "line 3: 3 fields, but the header has 2; decimals need a point"),
        (["0,1", "1"], "line 3: 1 fields, but the header has 2"),
        (["0,1", "1,1e13"], "line 3: bps is 1e\\+13, times 1 bit/s: no link carries 1 Tbit/s"),
        (["0,1", '1,"5'], "line 3: it is no row of a CSV table"),
        (["0,1", '1,"' + "5" * 200_000], "line 3: it is no row of a CSV table"),
    ],
)
def test_a_wrong_row_names_file_and_line(tmp_path, rows, said):
    with pytest.raises(ConfigError, match=rf"log\.csv, {said}"):
        read_csv(table(tmp_path, rows), "bps")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("time,rate", "no column 'bps'; its columns are time, rate"),
        ("time;bps", "separated by semicolons; separate them by commas"),
        ("time\tbps", "separated by tabs"),
        ("bps,bps", "has 2 columns 'bps'"),
        ("0,1", "its first line must be the header"),
        ("date,time,bps", "date and time may all be times: task.time_column= says which"),
        ("time,time,bps", "may all be times"),
    ],
)
def test_a_wrong_header_is_said(tmp_path, header, said):
    with pytest.raises(ConfigError, match=said):
        read_csv(table(tmp_path, ["0,1"], header), "bps")
    with pytest.raises(ConfigError, match="has no column 'bps'; its columns are none"):
        read_csv(write(tmp_path / "empty.csv", ""), "bps")
