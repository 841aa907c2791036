"""Text files of a user's measurements, read line by line and checked: Mahimahi traces, and series in CSV tables.

Both kinds are text in UTF-8, or in UTF-16 with a byte-order mark. Blank lines and lines that begin with ``#`` say
nothing. A file takes memory and time in proportion to its size, whatever stands in it, and what is wrong with it is
told with its line.
"""

import csv
import logging
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem.errors import ConfigError

log = logging.getLogger(__name__)

PACKET_BYTES = 1500
"""What one line of a Mahimahi trace can deliver."""
AUTO = "auto"
"""As a time column: the one column whose header says that it holds times, if there is one."""
MAX_RATE_BPS = 1e12
"""More than any link carries: a file with more has its values in another unit."""

_LATEST_START_MS = 60_000  # a trace that starts later counts from a clock's zero, not from its own
_LONGEST_SILENCE_MS = 3_600_000
_MOST_AT_ONCE = int(MAX_RATE_BPS / 1000 / 8 / PACKET_BYTES)  # packets in one millisecond
_OTHER_CLOCKS = ((10**18, 10**19, "nanoseconds"), (10**15, 10**16, "microseconds"), (10**9, 22 * 10**8, "seconds"))
_MOST_DIGITS = 19  # of a time; nanoseconds since 1970 have as many
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_TIME_HEADER = re.compile(
    r"(time|timestamp|datetime|date|epoch|utc)(?![a-z])|ts?([ _(\[]*[mun]?s[)\]]*)?$", re.IGNORECASE
)
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class _Lines:
    """The lines that say something, stripped; ``number`` is the number of the last one in the file, from 1."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.number = Path(path).expanduser(), 0

    def __iter__(self) -> Iterator[str]:
        try:
            if self.path.exists() and not self.path.is_file():  # a pipe or a device may never end
                raise OSError("it is no regular file")
            with self.path.open("rb") as file:
                start = file.read(2)
            encoding = next((name for mark, name in _MARKS if start == mark), "utf-8-sig")
            with self.path.open(encoding=encoding) as text:
                for self.number, line in enumerate(text, start=1):
                    if "\0" in line:
                        raise ValueError(f"line {self.number} holds a zero byte, so the file is no text")
                    if (said := line.strip()) and not said.startswith("#"):
                        yield said
        except (OSError, ValueError) as exc:
            raise ConfigError(f"cannot read the trace {str(self.path)!r}: {exc}") from exc

    def wrong(self, what: str) -> ConfigError:
        """The error for the line that was read last."""
        return ConfigError(f"{self.path}, line {self.number}: {what}")


def read_mahimahi(path: str | Path) -> NDArray[np.int64]:
    """Delivery opportunities of a Mahimahi trace: milliseconds, never falling, the last one above zero.

    Format: https://manpages.debian.org/mm-link: each line is the time at which one 1,500-byte packet may pass. A trace
    whose first time is beyond a minute counts from a clock's zero (milliseconds since 1970, or since the machine
    started): the first time is subtracted from all, with a line in the log. A silence is an outage of the link; one of
    more than an hour is a step of the clock.

    Raises:
        ConfigError: no such file, a line that is no whole number of milliseconds, time that falls or leaps, more than
            ``MAX_RATE_BPS``, or no duration; the message has the line.
    """
    lines, times_ms = _Lines(path), array("q")
    for text in lines:
        time_ms = _milliseconds(text, lines)
        if not times_ms:
            _check_clock(time_ms, lines)
        elif time_ms < times_ms[-1]:
            raise lines.wrong(f"{time_ms} ms comes after {times_ms[-1]} ms; times never fall (is it newest first?)")
        elif time_ms - times_ms[-1] > _LONGEST_SILENCE_MS:
            raise lines.wrong(
                f"{time_ms} ms comes after {times_ms[-1]} ms, and a silence of more than an hour is a step of the "
                "clock: make a trace of either part"
            )
        times_ms.append(time_ms)
        if len(times_ms) > _MOST_AT_ONCE and times_ms[-1 - _MOST_AT_ONCE] == time_ms:
            raise lines.wrong(f"{_MOST_AT_ONCE:,} packets pass at {time_ms} ms; no link carries 1 Tbit/s")
    if not times_ms:
        raise lines.wrong("the trace is empty: it needs a line for each packet")
    times = np.array(times_ms, np.int64)
    start_ms = int(times[0]) if times[0] > _LATEST_START_MS else 0
    times -= start_ms
    if times[-1] == 0:
        raise lines.wrong("a trace needs at least one time above its start, to know how long it lasts")
    if start_ms:
        _say(f"{path} starts at {start_ms:,} ms, which is subtracted: {len(times):,} packets in {times[-1] / 1000:g} s")
    return times


def _milliseconds(text: str, lines: _Lines) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _MOST_DIGITS or int(text) >= 2**63:
        raise lines.wrong(f"a Mahimahi trace holds whole milliseconds, got {text[:40]!r}")
    return int(text)


def _check_clock(first: int, lines: _Lines) -> None:
    """Refuse times since 1970 in another unit than milliseconds, by their size."""
    for least, beyond, unit in _OTHER_CLOCKS:
        if least <= first < beyond:
            raise lines.wrong(f"{first} looks like {unit} since 1970; a Mahimahi trace holds whole milliseconds")


class Series(NamedTuple):
    """One value after the other, with gaps.

    Attributes:
        values: ``(samples,)``.
        steps: ``(samples,)`` step of each value, from 0 and rising; a gap leaves steps out.
    """

    values: NDArray[np.float64]
    steps: NDArray[np.int64]

    @classmethod
    def whole(cls, values: NDArray[np.float64]) -> "Series":
        """A series without gaps."""
        return cls(values, np.arange(len(values)))


def read_csv(path: str | Path, column: str, unit: float = 1.0, time_column: str | None = AUTO) -> Series:
    """One column of a CSV table with a header line, times ``unit``, at the steps that a column of times says.

    Times are numbers of any unit, or ISO 8601 dates; they rise. Rows that are newest first throughout are turned
    round, with a line in the log. A step of time is the median distance of two rows; where two rows are not about one
    step apart (half a step to one and a half), there is a gap.

    Args:
        path: the file; fields are separated by commas, decimals by a point.
        column: header of the column.
        unit: the column's unit in bit/s, e.g. 1e6 for Mbit/s.
        time_column: header of the column of times; AUTO finds it by its name (``time``, ``timestamp_ms``, ``date`` …)
            or an ISO date in the first row; None takes the rows as they stand, a step apart.

    Raises:
        ConfigError: no such file or column, a row of another length, a value that is not a finite number of at least 0
            or is beyond ``MAX_RATE_BPS``, or times that do not rise; the message has the line.
    """
    lines = _Lines(path)
    rows = _rows(lines)
    headers = [name.strip() for name in next(rows, [])]
    at = _place_of(column, headers, lines)
    first = next(rows, None)
    time_at = _time_place(time_column, headers, column, first or [], lines)
    values, times, numbers, parse = array("d"), array("d"), array("q"), None
    for row in [] if first is None else chain([first], rows):
        if len(row) != len(headers):
            hint = "; decimals need a point, not a comma" if len(row) > len(headers) else ""
            raise lines.wrong(f"{len(row)} fields, but the header has {len(headers)}{hint}")
        value = _number(row[at])
        if not 0 <= value < math.inf:
            hint = " (decimals need a point)" if _number(row[at].replace(",", ".", 1)) >= 0 else ""
            raise lines.wrong(f"{column} must be a number of at least 0, got {row[at][:40]!r}{hint}")
        if not value * unit <= MAX_RATE_BPS:
            raise lines.wrong(f"{column} is {value:g}, times {unit:g} bit/s: no link carries 1 Tbit/s; see its unit")
        values.append(value)
        if time_at is not None:
            parse = parse or (_number if math.isfinite(_number(row[time_at])) else _date)
            time = parse(row[time_at])
            if not math.isfinite(time):
                what = "a number as the first one" if parse is _number else "a number or an ISO date like the first one"
                raise lines.wrong(f"{headers[time_at]} must be {what}, got {row[time_at][:40]!r}")
            times.append(time)
            numbers.append(lines.number)
    result = np.array(values) * unit
    if time_at is None:
        return Series.whole(result)
    return _at_times(result, np.array(times), numbers, lines.path)


def _rows(lines: _Lines) -> Iterator[list[str]]:
    reader = csv.reader(lines, skipinitialspace=True, strict=True)
    try:
        yield from reader
    except csv.Error as exc:
        raise lines.wrong(f"it is no row of a CSV table: {exc}") from exc


def _place_of(column: str, headers: Sequence[str], lines: _Lines) -> int:
    """Where a column is. Raises ConfigError unless there is exactly one of that name."""
    if headers.count(column) == 1:
        return headers.index(column)
    if column in headers:
        raise ConfigError(f"{lines.path} has {headers.count(column)} columns {column!r}: give them different names")
    hint = ""
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if column in [part.strip() for header in headers for part in header.split(mark)]:
            hint = f": they are separated by {name}; separate them by commas, decimals by a point"
    if headers and all(math.isfinite(_number(header)) for header in headers):
        hint = ": its first line must be the header, with the columns' names"
    raise ConfigError(
        f"{lines.path} has no column {column!r}; its columns are {', '.join(headers)[:400] or 'none'}{hint}"
    )


def _time_place(
    time_column: str | None, headers: Sequence[str], column: str, first: Sequence[str], lines: _Lines
) -> int | None:
    """Where the column of times is, if there is one."""
    if time_column is None:
        return None
    if time_column != AUTO:
        return _place_of(time_column, headers, lines)
    others = [(name, text) for name, text in zip(headers, first, strict=False) if name != column]
    found = [name for name, _ in others if _TIME_HEADER.match(name)] or [
        name for name, text in others if math.isnan(_number(text)) and math.isfinite(_date(text))
    ]
    if len(found) > 1:
        raise ConfigError(f"{lines.path}: {' and '.join(found)[:400]} may all be times: task.time_column= says which")
    if not found and len(headers) > 1:
        _say(
            f"{lines.path}: no column is named like times, so rows count as one step apart (task.time_column= names it)"
        )
    return _place_of(found[0], headers, lines) if found else None


def _at_times(values: NDArray[np.float64], times: NDArray[np.float64], numbers: Sequence[int], path: Path) -> Series:
    """The series of rows at these times; ``numbers`` are their lines."""
    ahead = np.diff(times)
    if len(ahead) and (ahead < 0).all():
        _say(f"{path} is newest first: its rows are taken in the order of time")
        values, ahead = values[::-1], -ahead[::-1]
    if len(wrong := np.flatnonzero(ahead <= 0)):
        row = int(wrong[0]) + 1
        what = "the same time as the row before it" if ahead[row - 1] == 0 else "an earlier time than the row before it"
        raise ConfigError(
            f"{path}, line {numbers[row]}: {what}; times must rise: sort the rows, one for each time "
            "(time_column=null takes them as they stand)"
        )
    if not len(ahead):
        return Series.whole(values)
    in_medians = ahead / np.median(ahead)
    is_gap = (in_medians < 0.5) | (in_medians > 1.5)
    if is_gap.any():
        _say(f"{path} has {int(is_gap.sum()):,} gaps in its times, which no window of the series spans")
    step = ahead[~is_gap].mean() if not is_gap.all() else np.median(ahead)  # the median of jitter may be off
    apart = np.where(is_gap, np.maximum(2, np.rint(np.minimum(ahead / step, 1e9))), 1).astype(np.int64)
    return Series(values, np.concatenate(([0], np.cumsum(apart))))


def _number(text: str) -> float:
    """The number, NaN for another text; Python would also take ``1_000`` and ``infinity``."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else math.nan


def _date(text: str) -> float:
    """Seconds since 1970 of an ISO date, in UTC unless it names its zone; NaN for another text."""
    try:
        date = datetime.fromisoformat(text.strip())
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


@cache
def _say(text: str) -> None:
    """Say it once, however often the file is read."""
    log.warning(text)
