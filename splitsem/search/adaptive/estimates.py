"""Estimates of what changes, from frames: exponential averages with intervals, which a change that lasts resets."""

from collections import deque
from dataclasses import dataclass
from math import exp, inf, log, sqrt

_WIDTH = 1.96  # of a 95 % interval
_FIRST_SPREAD = 1.5  # of the bandwidth's logarithm
_LEAST_S, _LEAST_RTT_S = 1e-4, 1e-6  # what a clock and a scheduler tell apart
_MOST_BPS = 1e10
_SLACK = 1.25  # the next frame may be a little later than the last ones


@dataclass
class Cusum:
    """Page's test for a change of the mean, both ways (Biometrika 41, 1954), on values in standard deviations.

    ``g⁺ ← max(0, g⁺ + z − drift)`` and ``g⁻ ← max(0, g⁻ − z − drift)``; an alarm where one passes ``threshold``: at
    once for a value that noise does not make, after a few for values that it rarely makes.

    >>> test = Cusum()
    >>> [test.add(z) for z in (0.3, -0.5, 9.0, 4.0, 4.0)]
    [False, False, True, False, True]

    Attributes:
        drift: standard deviations that are no change.
        threshold: of the alarm.
    """

    drift: float = 0.5
    threshold: float = 6.0
    _up: float = 0.0
    _down: float = 0.0

    def add(self, z: float) -> bool:
        """Whether the mean has changed; the test then begins anew."""
        self._up, self._down = max(0.0, self._up + z - self.drift), max(0.0, self._down - z - self.drift)
        if max(self._up, self._down) <= self.threshold:
            return False
        self._up = self._down = 0.0
        return True


class Level:
    """An exponential average of a positive value, in logarithms, which a change that lasts resets.

    Args:
        value: before anything is seen.
        smoothing: weight of the newest value, above 0 and at most 1.
        spread: standard deviation of the logarithm before it is known, and four times the least that it is taken for.
    """

    def __init__(self, value: float = 1.0, smoothing: float = 0.15, spread: float = 0.2) -> None:
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must be above 0 and at most 1, got {smoothing}")
        self._mean, self.smoothing, self._least = log(value), smoothing, spread / 4
        self._variance = spread**2
        self._cusum = Cusum()

    @property
    def value(self) -> float:
        """The average."""
        return exp(self._mean)

    @property
    def interval(self) -> tuple[float, float]:
        """A 95 % interval of the average, were its values independent and log-normal."""
        half = _WIDTH * sqrt(self._variance * self.smoothing / (2 - self.smoothing))
        return exp(self._mean - half), exp(self._mean + half)

    def add(self, value: float, is_news: bool = False) -> bool:
        """Take in a value above 0, which is no accident if ``is_news``; whether the level has changed for good."""
        off = log(value) - self._mean
        deviation = sqrt(self._variance)
        if self._cusum.add(off / deviation) or (is_news and abs(off) > 3 * deviation):
            self._mean = log(value)
            return True
        off = min(3 * deviation, max(-3 * deviation, off))
        self._mean += self.smoothing * off
        self._variance = max(self._least**2, (1 - self.smoothing) * (self._variance + self.smoothing * off**2))
        return False


class LinkEstimate:
    """Bandwidth and round trip from frames: ``seconds = rtt_s + 8 · bytes / bandwidth_bps``.

    One frame cannot tell one from the other. The round trip is learned from frames so short that they hardly tell
    anything else, and taken as known for the rest. The logarithm of the bandwidth is an exponential average (a Kalman
    filter of a value that wanders): the more of a frame's seconds are its bytes', the more it weighs. Where seconds
    differ from what was expected by more than noise (``Cusum``), the rate has changed, and the newest frame is
    believed.

    Args:
        bandwidth_bps: before anything is seen.
        rtt_s: before anything is seen.
        wander: standard deviation that the logarithm of the bandwidth gains in a second.
        noise: relative standard deviation of a frame's seconds.
    """

    def __init__(
        self, bandwidth_bps: float = 20e6, rtt_s: float = 0.02, wander: float = 0.15, noise: float = 0.06
    ) -> None:
        self.wander, self.noise, self.rtt_s = wander, noise, rtt_s
        self._mean, self._variance = log(bandwidth_bps), _FIRST_SPREAD**2
        self._cusum = Cusum()
        self._then_s = -inf
        self._num_short = 0
        self._was_outage = False

    @property
    def bandwidth_bps(self) -> float:
        """Bits per second."""
        return exp(self._mean)

    @property
    def bandwidth_interval(self) -> tuple[float, float]:
        """A 95 % interval of the bandwidth, as the filter sees it."""
        half = _WIDTH * sqrt(self._variance)
        return exp(self._mean - half), exp(self._mean + half)

    def add_short(self, num_bytes: float, seconds: float) -> None:
        """Take in a frame so short that it tells of the round trip, as far as it is; the first count most."""
        bytes_s = 8 * num_bytes / self.bandwidth_bps
        is_strange = seconds > 1.5 * (self.rtt_s + bytes_s)  # more likely another rate
        if self._num_short and (bytes_s > 0.5 * seconds or is_strange):
            return
        self._num_short += 1
        rtt_s = max(seconds - bytes_s, 0.5 * seconds, _LEAST_RTT_S)
        weight = max(1 / self._num_short, 0.3 if rtt_s < self.rtt_s else 0.1)  # what is delayed tells little
        self.rtt_s += weight * (rtt_s - self.rtt_s)

    def add(
        self,
        num_bytes: float,
        seconds: float,
        now_s: float,
        is_alone: bool = True,
        is_news: bool = False,
        is_late: bool = False,
    ) -> bool:
        """Take in a frame; whether the rate has changed for good.

        Args:
            num_bytes: of the payload and the answer.
            seconds: that they took; behind other frames (not ``is_alone``), those since the frame before arrived.
            now_s: the time, to know how far the rate has wandered.
            is_alone: whether the link was empty as the frame was sent, so that its seconds hold the round trip.
            is_news: whether the frame is known to be no accident.
            is_late: whether it was given up before its answer came. One that says that the rate fell twentyfold tells
                of an outage first, and of the rate only if the next one says it again.
        """
        passed_s = max(0.0, now_s - self._then_s) if self._then_s > -inf else 0.0
        self._then_s = max(now_s, self._then_s)
        self._variance = min(self._variance + self.wander**2 * passed_s, _FIRST_SPREAD**2)
        trip_s, bytes_s = float(is_alone) * self.rtt_s, 8 * num_bytes / self.bandwidth_bps
        took_s = max(seconds - trip_s, 0.05 * bytes_s, _LEAST_S)
        off = log(bytes_s / took_s)  # of the logarithm of the bandwidth
        spread = (self.noise * (trip_s + took_s) + _LEAST_S) / took_s  # what this frame can tell
        usual = (self.noise * (trip_s + bytes_s) + _LEAST_S) / max(bytes_s, took_s)  # what is no change
        deviation = sqrt(self._variance + usual**2)
        is_changed = self._cusum.add(off / deviation) or (is_news and abs(off) > 2 * deviation)
        is_changed = is_changed and (is_alone or off < 0)  # frames that waited together arrive together
        self._was_outage = is_late and off < -2 * _FIRST_SPREAD and not self._was_outage
        if self._was_outage:
            return False
        if is_changed:
            self._variance += off**2
        else:
            off = min(3 * deviation, max(-3 * deviation, off))
        gain = self._variance / (self._variance + spread**2)
        self._mean = min(self._mean + gain * off, log(_MOST_BPS))
        self._variance *= 1 - gain
        return is_changed


class Lateness:
    """How long to wait for a frame that is overdue, from how late the last ones were: what would have cost least.

    With ``L`` seconds by which a frame was late and ``rest_s`` for finishing it here, waiting for ``w`` costs ``L``
    where ``L ≤ w``, else ``w + rest_s``.

    Args:
        num: of the newest frames that are remembered.
    """

    def __init__(self, num: int = 20) -> None:
        self._late_s: deque[float] = deque(maxlen=num)

    def given_up(self) -> None:
        """A frame was given up; it is taken to be lost until its answer comes."""
        self._late_s.append(inf)

    def add(self, late_s: float, was_given_up: bool) -> None:
        """An answer came ``late_s`` after it was overdue; what is not above 0 tells nothing."""
        if was_given_up and inf in self._late_s:
            self._late_s.remove(inf)
        if late_s > 0:
            self._late_s.append(late_s)

    def wait_s(self, first_s: float, rest_s: float) -> float:
        """Seconds to wait for a frame that is overdue; ``first_s`` counts as one more frame that was so late."""
        late_s = [first_s, *self._late_s]
        waits = [0.0, *(_SLACK * each for each in late_s if each < inf)]
        return min(waits, key=lambda w: sum(late if late <= w else w + rest_s for late in late_s))
