"""Variation: a link's rate and a server's load over time; five kinds, drawn by a seed, and a user's own trace."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitsem.traces import PACKET_BYTES, read_mahimahi

STEP_S = 0.05
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Variation:
    """A link's rate and a server's load, in steps of ``STEP_S``; after its end it stays as it was last.

    Attributes:
        rate_bps: bits per second in each step; 0 in an outage.
        server_factor: seconds on the server for each second of the table, in each step.
        rtt_s: round trip of an empty frame.
    """

    rate_bps: Values
    server_factor: Values
    rtt_s: float

    def __post_init__(self) -> None:
        if len(self.rate_bps) != len(self.server_factor) or not self.rate_bps[-1] > 0:
            raise ValueError("rate_bps and server_factor must have equal lengths, and the link must work at the end")
        passed = np.concatenate([[0.0], np.cumsum(self.rate_bps * STEP_S)])
        object.__setattr__(self, "_passed", passed)  # bits that have passed at the beginning of each step

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.rate_bps) * STEP_S

    def through_s(self, begin_s: float, num_bits: float) -> float:
        """When the last of ``num_bits`` has passed, the first of which is offered at ``begin_s``."""
        passed: Values = self._passed  # type: ignore[attr-defined]
        step = min(int(begin_s / STEP_S), len(self.rate_bps))
        rate = self.rate_bps[min(step, len(self.rate_bps) - 1)]
        goal = passed[step] + rate * (begin_s - step * STEP_S) + num_bits
        if goal > passed[-1]:
            return self.seconds + (goal - passed[-1]) / float(self.rate_bps[-1])
        last = max(int(np.searchsorted(passed, goal)) - 1, step)
        rate = float(self.rate_bps[min(last, len(self.rate_bps) - 1)])
        return max(begin_s, last * STEP_S + (goal - passed[last]) / rate) if rate else begin_s

    def server_at(self, now_s: float) -> float:
        """The server's factor at this time."""
        return float(self.server_factor[min(int(now_s / STEP_S), len(self.server_factor) - 1)])


def stable(seed: int, seconds: float = 120.0, mean_bps: float = 20e6, rtt_s: float = 0.01) -> Variation:
    """A rate that jitters by 5 % around its mean."""
    return Variation(_jitter(seed, mean_bps * np.ones(_steps(seconds))), np.ones(_steps(seconds)), rtt_s)


def slow_swing(seed: int, seconds: float = 120.0, mean_bps: float = 8e6, rtt_s: float = 0.01) -> Variation:
    """A rate that swings between a tenth of its mean and ten times it, in 20…40 seconds."""
    draw = np.random.default_rng([seed, 1])
    time_s = np.arange(_steps(seconds)) * STEP_S
    phase = 2 * np.pi * (time_s / draw.uniform(20, 40) + draw.uniform())
    return Variation(_jitter(seed, mean_bps * 10 ** np.sin(phase)), np.ones(len(time_s)), rtt_s)


def steps_of_ten(seed: int, seconds: float = 120.0, mean_bps: float = 3e6, rtt_s: float = 0.01) -> Variation:
    """A rate that falls to a tenth and rises tenfold, after 4…12 seconds each."""
    draw = np.random.default_rng([seed, 2])
    rate, high, at = np.empty(_steps(seconds)), bool(draw.integers(2)), 0
    while at < len(rate):
        until = at + _steps(draw.uniform(4, 12))
        rate[at:until] = mean_bps * 10 ** (0.5 if high else -0.5)
        high, at = not high, until
    return Variation(_jitter(seed, rate), np.ones(len(rate)), rtt_s)


def outages(seed: int, seconds: float = 120.0, mean_bps: float = 20e6, rtt_s: float = 0.01) -> Variation:
    """A rate that jitters around its mean, and outages of 1…4 seconds, 5…15 seconds apart."""
    draw = np.random.default_rng([seed, 3])
    rate, at = _jitter(seed, mean_bps * np.ones(_steps(seconds))), _steps(draw.uniform(5, 15))
    while at < len(rate) - _steps(5):
        until = at + _steps(draw.uniform(1, 4))
        rate[at:until] = 0.0
        at = until + _steps(draw.uniform(5, 15))
    return Variation(rate, np.ones(len(rate)), rtt_s)


def loaded_server(seed: int, seconds: float = 120.0, mean_bps: float = 20e6, rtt_s: float = 0.01) -> Variation:
    """A stable link to a server that is alone or takes 8…20 times as long, for 5…15 seconds each."""
    draw = np.random.default_rng([seed, 4])
    factor, loaded, at = np.ones(_steps(seconds)), bool(draw.integers(2)), 0
    while at < len(factor):
        until = at + _steps(draw.uniform(5, 15))
        factor[at:until] = draw.uniform(8, 20) if loaded else 1.0
        loaded, at = not loaded, until
    return Variation(_jitter(seed, mean_bps * np.ones(len(factor))), factor, rtt_s)


KINDS = {
    "stable": stable,
    "slow swing": slow_swing,
    "10x steps": steps_of_ten,
    "outages": outages,
    "loaded server": loaded_server,
}


def of_mahimahi(path: str | Path, rtt_s: float) -> Variation:
    """A Mahimahi trace (see ``links.trace``) as a variation. Raises ConfigError."""
    times_s = read_mahimahi(str(path)) / 1000
    counts, _ = np.histogram(times_s, bins=np.arange(0, times_s[-1] + 2 * STEP_S, STEP_S))
    rate = 8.0 * PACKET_BYTES * counts / STEP_S
    rate = rate[: int(np.flatnonzero(rate)[-1]) + 1]
    return Variation(rate, np.ones(len(rate)), rtt_s)


def _steps(seconds: float) -> int:
    return round(seconds / STEP_S)


def _jitter(seed: int, rate_bps: Values, share: float = 0.05) -> Values:
    """The rates times a log-normal noise that remembers a second."""
    draw, keeps = np.random.default_rng([seed, 0]), np.exp(-STEP_S)
    noise = draw.normal(0, 1, len(rate_bps))
    for index in range(1, len(noise)):
        noise[index] = keeps * noise[index - 1] + np.sqrt(1 - keeps**2) * noise[index]
    jittered: Values = rate_bps * np.exp(share * noise)
    return jittered
