"""Rounds of updates over links that change: what a policy of rates sends, how long it takes, what comes too late.

A round is over when the last client's update has arrived (late ones too: nothing is thrown away here), then all compute
for ``compute_s``. A study of scores plugs in where the rates of a round are known: ``Round.rates``.
"""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from splitsem.federated.rate_controller import Observation, Rate, RateController
from splitsem.links.trace import OPPORTUNITY_BYTES, TraceLink

PayloadBytes = Callable[[Rate, int], int]
"""Bytes of a client's update at a rate in a round: ``payload_bytes(rate, round)``."""


class Policy(Protocol):
    """Who chooses the rates."""

    def choose(self, client: Hashable, raw_values: int) -> Rate:
        """The rate of the client's next update."""

    def sent(self, client: Hashable, rate: Rate, payload_bytes: int, seconds: float) -> None:
        """Hear what became of it."""


class Fixed(NamedTuple):
    """Always the same rate."""

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
        began_s: when it began, on the links' clock.
        upload_s: until the last update had arrived.
        rates: of each client.
        payload_bytes: of each client.
        seconds: of each client's upload.
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
    """Simulate so many rounds; a RateController is told each link's idle round trip once, and no bandwidth but its own.

    Args:
        links: of each client, all at the same place of their traces.
        policy: chooses.
        raw_values: values of an update.
        payload_bytes: real sizes.
        num_rounds: how many.
        compute_s: between the rounds, while the links' traces go on.
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
    """A Mahimahi trace of ``(seconds, bits per second)`` one after the other; returns its path."""
    times_ms: list[int] = []
    start_ms, credit = 0.0, 0.0
    for seconds, rate_bps in parts:
        per_ms = rate_bps / 8000 / OPPORTUNITY_BYTES
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
