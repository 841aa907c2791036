"""Simulates rounds of updates over links that change: what a policy of rates sends, and how long uploads take.

A round is over when the last client's update has arrived (a late update counts too). All clients then compute for
``compute_s``. A study of scores takes the rates of a round from ``Round.rates``.
"""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from splitsem.federated.rate_controller import Observation, Rate, RateController
from splitsem.links.trace import TraceLink
from splitsem.traces import PACKET_BYTES

PayloadBytes = Callable[[Rate, int], int]
"""Bytes of a client's update at a rate in a round: ``payload_bytes(rate, round)``."""


class Policy(Protocol):
    """Chooses the rates of updates."""

    def choose(self, client: Hashable, raw_values: int) -> Rate:
        """The rate of the client's next update."""

    def sent(self, client: Hashable, rate: Rate, payload_bytes: int, seconds: float) -> None:
        """Learn from an upload: its size and its seconds."""


class Fixed(NamedTuple):
    """The policy that always chooses one rate."""

    rate: Rate

    def start_round(self, server_round: int) -> None:
        """See ChoosesRates; every round is alike."""

    def choose(self, client: Hashable, raw_values: int) -> Rate:
        """See Policy."""
        return self.rate

    def sent(self, client: Hashable, rate: Rate, payload_bytes: int, seconds: float) -> None:
        """See Policy; nothing is learned."""


class Round(NamedTuple):
    """One round.

    Attributes:
        began_s: when the round began, on the links' clock.
        upload_s: seconds until the last update had arrived.
        rates: rate of each client.
        payload_bytes: size of each client's update.
        seconds: seconds of each client's upload.
    """

    began_s: float
    upload_s: float
    rates: Mapping[Hashable, Rate]
    payload_bytes: Mapping[Hashable, int]
    seconds: Mapping[Hashable, float]


def rounds_over(
    links: Mapping[Hashable, TraceLink],
    policy: Policy,
    raw_values: int,
    payload_bytes: PayloadBytes,
    num_rounds: int,
    compute_s: float = 0.0,
) -> list[Round]:
    """Simulate rounds; a RateController is told each link's idle round trip once, and its own upload's bandwidth.

    Args:
        links: the link of each client, all at one time of their traces.
        policy: chooses the rates.
        raw_values: number of values in an update.
        payload_bytes: real sizes of updates.
        num_rounds: number of rounds.
        compute_s: seconds between two rounds, while the links' traces go on.
    """
    rounds, now_s = [], 0.0
    for number in range(num_rounds):
        rates, sizes, seconds = {}, {}, {}
        for client, link in links.items():
            link.wait_until(now_s)
            rates[client] = policy.choose(client, raw_values)
            sizes[client] = payload_bytes(rates[client], number)
            seconds[client] = link.send(bytes(sizes[client])).link_s
            if isinstance(policy, RateController) and number == 0:
                rate_bps = 8 * sizes[client] / max(seconds[client] - link.rtt_s / 2, 1e-3)
                policy.observe(client, Observation(link.rtt_s, 0.0, rate_bps, rate_bps))
            policy.sent(client, rates[client], sizes[client], seconds[client])
        upload_s = max(seconds.values())
        rounds.append(Round(now_s, upload_s, rates, sizes, seconds))
        now_s += upload_s + compute_s
    return rounds


def write_trace(path: Path, parts: list[tuple[float, float]]) -> str:
    """Write a Mahimahi trace of consecutive ``(seconds, bits per second)``; returns the trace's path."""
    times_ms: list[int] = []
    start_ms, credit = 0.0, 0.0
    for seconds, rate_bps in parts:
        per_ms = rate_bps / 8000 / PACKET_BYTES
        for number in range(round(1000 * seconds)):
            credit += per_ms
            times_ms += [int(start_ms) + number + 1] * int(credit)
            credit -= int(credit)
        start_ms += round(1000 * seconds)
    path.write_text("".join(f"{time_ms}\n" for time_ms in times_ms), encoding="ascii")
    return str(path)


def wandering_rates(
    seed: int, num_parts: int, part_s: float, low_bps: float, high_bps: float
) -> list[tuple[float, float]]:
    """A bounded random walk in the logarithm of the rate, for ``write_trace``."""
    generator = np.random.default_rng(seed)
    low, high = np.log(low_bps), np.log(high_bps)
    level, parts = generator.uniform(low, high), []
    for _ in range(num_parts):
        level = float(np.clip(level + generator.normal(0, (high - low) / 4), low, high))
        parts.append((part_s, float(np.exp(level))))
    return parts
