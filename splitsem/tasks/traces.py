"""Throughput series from files: CSV columns and Mahimahi traces."""

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitsem.errors import ConfigError

PACKET_BYTES = 1500
"""What one line of a Mahimahi trace delivers."""


def read_mahimahi(path: str | Path) -> NDArray[np.int64]:
    """Delivery opportunities of a Mahimahi trace: milliseconds since its start, one for each line, never decreasing.

    Format: https://manpages.debian.org/mm-link — each line is the time at which one 1,500-byte packet may pass.

    Raises:
        ConfigError: no such file, a line that is no whole number of milliseconds, or time that runs backwards.
    """
    times: list[int] = []
    for number, line in enumerate(_lines(path), start=1):
        text = line.strip()
        if not text:
            continue
        if not text.isdecimal():
            raise ConfigError(f"{path}, line {number}: a Mahimahi trace holds whole milliseconds, got {text[:40]!r}")
        if times and int(text) < times[-1]:
            raise ConfigError(f"{path}, line {number}: time must not run backwards, got {text} ms after {times[-1]} ms")
        times.append(int(text))
    if not times:
        raise ConfigError(f"{path} is empty: a Mahimahi trace has a line for each packet")
    return np.array(times, np.int64)


def mahimahi_throughput_bps(path: str | Path, interval_s: float) -> NDArray[np.float64]:
    """Throughput in bit/s that a Mahimahi trace allows in each whole interval of ``interval_s`` seconds."""
    if interval_s <= 0:
        raise ValueError(f"interval_s must be above 0, got {interval_s}")
    times_s = read_mahimahi(path) / 1000
    num_intervals = math.floor(times_s[-1] / interval_s)
    if num_intervals < 1:
        raise ConfigError(f"{path} lasts {times_s[-1]:g} s, less than one interval of {interval_s:g} s")
    # opportunities that complete an interval at its very end belong to it: (k·interval, (k+1)·interval]
    interval = np.ceil(times_s / interval_s).astype(np.int64) - 1
    packets = np.bincount(np.clip(interval, 0, num_intervals), minlength=num_intervals)[:num_intervals]
    return packets.astype(np.float64) * (8 * PACKET_BYTES / interval_s)


def read_csv_bps(path: str | Path, column: str, unit_bps: float = 1.0) -> NDArray[np.float64]:
    """One column of a CSV file with a header line, times ``unit_bps``, in bit/s.

    Args:
        path: the file, UTF-8.
        column: its header.
        unit_bps: the column's unit in bit/s, e.g. 1e6 for Mbit/s.

    Raises:
        ConfigError: no such file or column, or a value that is not a finite number of at least 0.
    """
    rows = csv.DictReader(_lines(path), skipinitialspace=True)
    headers = [name.strip() for name in rows.fieldnames or ()]
    if column not in headers:
        raise ConfigError(f"{path} has no column {column!r}; its columns are {', '.join(headers) or 'none'}")
    rows.fieldnames = headers
    values = []
    for row in rows:
        text = row[column] or ""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{path}, line {rows.line_num}: {column} must be a number of at least 0, got {text!r}")
        values.append(value)
    return np.array(values) * unit_bps


def _lines(path: str | Path) -> list[str]:
    """The lines of a text file. Raises ConfigError when it cannot be read as one."""
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the trace {path}: {exc}") from exc
