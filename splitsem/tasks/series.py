"""Throughput series: of Mahimahi traces, and generated ones that look like a cellular link's."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitsem.errors import DataError
from splitsem.traces import PACKET_BYTES, read_mahimahi

_MOST_SAMPLES = 1_000_000  # of a short trace; a longer one may make a hundred times its packets


def mahimahi_throughput_bps(path: str | Path, interval_s: float) -> NDArray[np.float64]:
    """Throughput in bit/s that a Mahimahi trace allows in each whole interval of ``interval_s`` seconds.

    A silence is a throughput of zero. Raises DataError for a bad trace, see ``read_mahimahi``, and for intervals
    that are too long or too short for it.
    """
    if not (math.isfinite(interval_s) and interval_s > 0):
        raise ValueError(f"interval_s must be above 0 and finite, got {interval_s}")
    times_s = read_mahimahi(path) / 1000
    share = times_s[-1] / interval_s
    if share < 1:
        raise DataError(f"{path} lasts {times_s[-1]:g} s, less than one interval of {interval_s:g} s")
    if share > max(_MOST_SAMPLES, 100 * len(times_s)):
        raise DataError(
            f"{path} has {len(times_s):,} packets in {times_s[-1]:g} s, too few for {share:.3g} intervals of "
            f"{interval_s:g} s: make task.interval_s longer"
        )
    num_intervals = math.floor(share)
    # opportunities that complete an interval at its very end belong to it: (k·interval, (k+1)·interval]
    interval = np.ceil(times_s / interval_s).astype(np.int64) - 1
    packets = np.bincount(np.clip(interval, 0, num_intervals), minlength=num_intervals)[:num_intervals]
    return packets.astype(np.float64) * (8 * PACKET_BYTES / interval_s)


_LOAD = np.array((1.0, 0.55, 0.22))  # share of the cell left to this user when it is quiet, busy, crowded
_LOAD_STAY = 1 - 1 / np.array((150.0, 100.0, 60.0))  # mean stay of 150, 100, 60 samples
_SHADOWING_STD = 0.25  # standard deviation of ln(rate)
_SHADOWING_MEMORY = 0.97  # correlation from sample to sample (Gudmundson 1991: exponential in the distance driven)
_FADING_STD = 0.40
_FADING_MEMORY = 0.25
_OUTAGE_RATE = 1 / 120  # handovers and coverage holes that cut the link, per sample
_OUTAGE_SAMPLES = 5  # length of the longest outage
_RECOVERY_SAMPLES = 4  # in which the rate climbs back after an outage, as with congestion control


def cellular_throughput_bps(num_samples: int, season: int, seed: int, peak_bps: float = 80e6) -> NDArray[np.float64]:
    """Generate throughput: peak · place · load · shadowing · fading · outage, one value per sample.

    The *place* repeats every ``season`` samples, because a tram or a bus passes the same cells every lap (Riiser et
    al., "Commute path bandwidth traces from 3G networks", MMSys 2013). The *load* switches between three regimes
    (Markov). *Shadowing* is slow and *fading* fast, both log-normal AR(1). An *outage* stops everything for up to 5
    samples.

    Args:
        num_samples: length of the series.
        season: samples a lap takes.
        seed: makes the series; equal seeds give equal series.
        peak_bps: rate in bit/s at the best place of a quiet cell.

    Returns:
        (num_samples,) in bit/s, at least 0.

    Raises:
        ValueError: an argument out of range.
    """
    if num_samples < 1 or season < 2 or seed < 0 or peak_bps <= 0:
        raise ValueError(
            "num_samples must be at least 1, season at least 2, seed at least 0 and peak_bps above 0, "
            f"got {num_samples}, {season}, {seed}, {peak_bps}"
        )
    rng = np.random.default_rng(seed)
    place = _lap(rng, season)[np.arange(num_samples) % season]
    slow = _autoregressive(rng, num_samples, _SHADOWING_MEMORY, _SHADOWING_STD)
    fast = _autoregressive(rng, num_samples, _FADING_MEMORY, _FADING_STD)
    return peak_bps * place * _load(rng, num_samples) * np.exp(slow + fast) * _outages(rng, num_samples)


def _lap(rng: np.random.Generator, season: int) -> NDArray[np.float64]:
    """Rate along the loop, in (0, 1]: a few smooth hills (cells) from random harmonics."""
    phase = 2 * np.pi * np.arange(season) / season
    harmonics = np.arange(1, 6)
    waves = np.cos(np.outer(phase, harmonics) + rng.uniform(0, 2 * np.pi, 5)) / np.sqrt(harmonics)
    rate = np.exp(0.45 * waves.sum(axis=1))
    return rate / rate.max()


def _autoregressive(rng: np.random.Generator, num_samples: int, memory: float, std: float) -> NDArray[np.float64]:
    """Stationary AR(1) of the given lag-1 correlation and standard deviation, mean 0."""
    shocks = rng.normal(0, std * np.sqrt(1 - memory**2), num_samples)
    shocks[0] = rng.normal(0, std)
    values = np.empty(num_samples)
    value = 0.0
    for i, shock in enumerate(shocks):
        value = memory * value + shock
        values[i] = value
    return values


def _load(rng: np.random.Generator, num_samples: int) -> NDArray[np.float64]:
    """Markov chain over the three regimes; it leaves a regime for either of the other two with equal probability."""
    draws, turns = rng.random(num_samples), rng.integers(1, 3, num_samples)
    states = np.empty(num_samples, np.int64)
    state = 0
    for i in range(num_samples):
        if draws[i] > _LOAD_STAY[state]:
            state = (state + turns[i]) % 3
        states[i] = state
    return _LOAD[states]


def _outages(rng: np.random.Generator, num_samples: int) -> NDArray[np.float64]:
    """1 where the link works, 0 in an outage, and rising from 0 to 1 after an outage."""
    factor = np.ones(num_samples)
    for start in np.flatnonzero(rng.random(num_samples) < _OUTAGE_RATE):
        end = start + rng.integers(1, _OUTAGE_SAMPLES + 1)
        climb = np.linspace(0, 1, _RECOVERY_SAMPLES + 2)[1:-1]
        shape = np.concatenate((np.zeros(end - start), climb))
        reach = factor[start : start + len(shape)]
        np.minimum(reach, shape[: len(reach)], out=reach)
    return factor
