"""Estimates of what changes, from frames: exponential averages with intervals, which a change that lasts resets."""

from dataclasses import dataclass
from math import exp, inf, log, sqrt

import numpy as np

_WIDTH = 1.96  # of a 95 % interval
_FIRST = 4  # frames that are believed whatever they say
_STEADY = 0.1  # as much as the rate, the round trip wanders
_LEAST_WANDER_S = 1e-3
_LEAST_S_PER_BYTE, _LEAST_RTT_S = 8 / 1e10, 1e-6


@dataclass
class Cusum:
    """Page's test for a change of the mean, both ways (Biometrika 41, 1954), on values in standard deviations.

    ``g⁺ ← max(0, g⁺ + z − drift)`` and ``g⁻ ← max(0, g⁻ − z − drift)``; an alarm where one passes ``threshold``. A
    value counts for ``most`` at most, so that it takes two to give an alarm.

    >>> test = Cusum()
    >>> [test.add(z) for z in (0.3, -0.5, 9.0, 9.0)]
    [False, False, False, True]

    Attributes:
        drift: standard deviations that are no change.
        threshold: of the alarm.
        most: standard deviations that one value counts for.
    """

    drift: float = 0.5
    threshold: float = 6.0
    most: float = 4.0
    _up: float = 0.0
    _down: float = 0.0

    def add(self, z: float) -> bool:
        """Whether the mean has changed; the test then begins anew."""
        z = min(self.most, max(-self.most, z))
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
    """Round trip and bandwidth from the bytes and the seconds of frames: ``seconds = rtt_s + bytes · s_per_byte``.

    A Kalman filter of these two, whose values wander: an exponential average that knows which of them a frame tells of.
    Frames of one size move both; frames of several sizes tell them apart. Where seconds go on differing from what was
    expected (``Cusum``), or a frame came far too late (``is_news``), the rate has changed, and is learned anew.

    Args:
        bandwidth_bps: before anything is seen.
        rtt_s: before anything is seen.
        wander: relative standard deviation that the rate gains in a second.
        noise: relative standard deviation of a frame's seconds.
    """

    def __init__(
        self, bandwidth_bps: float = 20e6, rtt_s: float = 0.02, wander: float = 0.15, noise: float = 0.1
    ) -> None:
        self.wander, self.noise = wander, noise
        self._state = np.array([rtt_s, 8 / bandwidth_bps])
        self._first = self._state
        self._cov = np.diag((2 * self._state) ** 2)
        self._cusum = Cusum()
        self._then_s = -inf
        self._num_seen = 0

    @property
    def rtt_s(self) -> float:
        """Seconds of an empty frame and its answer, without the ends' work."""
        return float(self._state[0])

    @property
    def bandwidth_bps(self) -> float:
        """Bits per second."""
        return float(8 / self._state[1])

    @property
    def bandwidth_interval(self) -> tuple[float, float]:
        """A 95 % interval of the bandwidth, as the filter sees it."""
        s_per_byte, half = float(self._state[1]), _WIDTH * sqrt(self._cov[1, 1])
        return 8 / (s_per_byte + half), 8 / max(s_per_byte - half, _LEAST_S_PER_BYTE)

    @property
    def rtt_interval(self) -> tuple[float, float]:
        """A 95 % interval of the round trip, as the filter sees it."""
        half = _WIDTH * sqrt(self._cov[0, 0])
        return max(0.0, self.rtt_s - half), self.rtt_s + half

    def add(self, num_bytes: float, seconds: float, now_s: float, is_alone: bool = True, is_news: bool = False) -> bool:
        """Take in a frame; whether the rate has changed for good.

        Args:
            num_bytes: of the payload and the answer.
            seconds: that they took; behind other frames (not ``is_alone``), those since the frame before arrived.
            now_s: the time, to know how far the values have wandered.
            is_alone: whether the link was empty as the frame was sent, so that its seconds hold the round trip.
            is_news: whether the frame is known to be no accident.
        """
        self._wander(now_s)
        row = np.array([float(is_alone), num_bytes])
        expected = float(row @ self._state)
        noise = (self.noise * expected) ** 2 + 1e-8  # 0.1 ms
        off = seconds - expected
        deviation = sqrt(float(row @ self._cov @ row) + noise)
        self._num_seen += 1
        is_settled = self._num_seen > _FIRST
        is_changed = is_settled and (self._cusum.add(off / deviation) or (is_news and abs(off) > 3 * deviation))
        if is_changed:
            self._cov[1, 1] += (4 * max(self._state[1], abs(off) / max(num_bytes, 1.0))) ** 2
        elif is_settled:
            off = min(3 * deviation, max(-3 * deviation, off))
        gain = self._cov @ row / (float(row @ self._cov @ row) + noise)
        self._state = np.maximum(self._state + gain * off, (_LEAST_RTT_S, _LEAST_S_PER_BYTE))
        self._cov = self._cov - np.outer(gain, row @ self._cov)
        return is_changed

    def _wander(self, now_s: float) -> None:
        """Let the values become less certain as time passes; never less than at first."""
        passed_s = min(max(0.0, now_s - self._then_s), 100.0) if self._then_s > -inf else 0.0
        self._then_s = max(now_s, self._then_s)
        gained = np.array([_STEADY * self.wander, self.wander]) * np.maximum(self._state, (_LEAST_WANDER_S, 0.0))
        self._cov = self._cov + np.diag(gained**2) * passed_s
        limit = 2 * np.maximum(self._state, self._first)
        scale = np.minimum(1.0, limit / np.sqrt(np.diag(self._cov)))
        self._cov = self._cov * np.outer(scale, scale)
