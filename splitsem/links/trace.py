"""TraceLink: a link of varying rate that replays a Mahimahi packet-delivery trace."""

from math import ceil, isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from splitsem.errors import ConfigError
from splitsem.links.link import Link, LinkReport

OPPORTUNITY_BYTES = 1500
"""What one line of a Mahimahi trace can deliver."""

_MAX_DIGITS = 15  # milliseconds beyond 30,000 years are a damaged file, and must not overflow int64


class TraceLink(Link):
    """Replays a Mahimahi trace: a payload occupies the next ``ceil(bytes / 1500)`` delivery opportunities.

    Each line of the file is the millisecond at which 1,500 bytes can leave; after the last line the trace starts
    again, shifted by that last line's time (Mahimahi's own rule, Netravali et al., USENIX ATC 2015).

    The link keeps a clock. A payload is offered when the one before it has left (the first at ``start_s``), so
    consecutive payloads see later parts of the trace, alike in every run. Payloads never share an opportunity:
    the rest of a payload's last one is lost, and so are all opportunities before ``start_s``. An empty payload takes
    one opportunity. The link is busy from the offer to the payload's last opportunity; ``rtt_s / 2`` delays it further.
    Answers come back over a trace of their own with its own clock.

    Args:
        path: the trace file.
        rtt_s: round-trip time of the idle link, in seconds.
        energy_j_per_bit: joules the sender spends on each payload bit.
        start_s: where in the (looping) trace the first payload is offered, in seconds.
        down_path: the trace file of the way back; None: as the way up.

    Raises:
        ConfigError: the file is missing, or no trace; the message has the number of the wrong line.
    """

    rtt_s: float

    def __init__(
        self, path: str, rtt_s: float, energy_j_per_bit: float, start_s: float = 0.0, down_path: str | None = None
    ) -> None:
        for name, value in {"rtt_s": rtt_s, "energy_j_per_bit": energy_j_per_bit, "start_s": start_s}.items():
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        self.rtt_s = rtt_s
        self.energy_j_per_bit = energy_j_per_bit
        self._times_ms = read_trace(path)
        self._clock_ms = (start_s * 1000) % self.period_ms
        self._next = int(np.searchsorted(self._times_ms, self._clock_ms))
        if down_path is not None:
            read_trace(down_path)  # what is wrong with it is said before any work
        self._down_path = down_path or path
        self._down: TraceLink | None = None

    @property
    def period_ms(self) -> int:
        """After how many milliseconds the trace repeats."""
        return int(self._times_ms[-1])

    @property
    def mean_bandwidth_bps(self) -> float:
        """Mean rate over one period, in bits per second."""
        return 8 * OPPORTUNITY_BYTES * len(self._times_ms) / (self.period_ms / 1000)

    @property
    def clock_s(self) -> float:
        """Seconds since the beginning of the trace at which the next payload will be offered."""
        return self._clock_ms / 1000

    def wait_until(self, clock_s: float) -> None:
        """Offer nothing before this time; opportunities until then are lost. A time in the past changes nothing."""
        if 1000 * clock_s > self._clock_ms:
            self._clock_ms = 1000 * clock_s
            num_loops, rest_ms = divmod(self._clock_ms, self.period_ms)
            place = int(num_loops) * len(self._times_ms) + int(np.searchsorted(self._times_ms, rest_ms))
            self._next = max(self._next, place)

    def send(self, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
        """Deliver the payload unchanged and advance the clock to the moment its last byte left."""
        last = self._next + max(1, ceil(len(payload) / OPPORTUNITY_BYTES)) - 1
        num_loops, index = divmod(last, len(self._times_ms))
        left_ms = num_loops * self.period_ms + int(self._times_ms[index])
        waited_s = (left_ms - self._clock_ms) / 1000
        self._next, self._clock_ms = last + 1, float(left_ms)
        return LinkReport(
            payload=payload,
            link_busy_s=waited_s,
            link_delay_s=self.rtt_s / 2,
            energy_j=8 * len(payload) * self.energy_j_per_bit,
            wire_bytes=len(payload),
        )

    def send_back(self, answer: bytes) -> LinkReport:
        """See Link; the first answer is offered when the first payload has arrived."""
        if self._down is None:
            begin_s = self.clock_s + self.rtt_s / 2
            self._down = TraceLink(self._down_path, self.rtt_s, self.energy_j_per_bit, begin_s)
        return self._down.send(answer)


def read_trace(path: str | Path) -> npt.NDArray[np.int64]:
    """The delivery opportunities of a Mahimahi trace: milliseconds, never decreasing, the last one above zero.

    Raises:
        ConfigError: the file is missing, or a line is wrong; the message says which line and why.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="ascii").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the trace {str(path)!r} (transport.path): {exc}") from exc
    times_ms: list[int] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text.isdigit() or len(text) > _MAX_DIGITS:
            raise ConfigError(f"{path}, line {number}: expected whole milliseconds, got {text[:40]!r}")
        times_ms.append(int(text))
        if number > 1 and times_ms[-1] < times_ms[-2]:
            raise ConfigError(
                f"{path}, line {number}: {times_ms[-1]} ms comes after {times_ms[-2]} ms; times never fall"
            )
    if not times_ms or times_ms[-1] == 0:
        raise ConfigError(
            f"{path}, line {len(lines)}: a trace needs at least one time above 0 ms, to know when it repeats"
        )
    return np.array(times_ms, dtype=np.int64)
