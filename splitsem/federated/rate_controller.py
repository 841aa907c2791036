"""Rates of updates, by client and round: RateController keeps a deadline, WarmUp follows a fixed schedule."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf, isfinite, log, log2
from typing import NamedTuple, Protocol

from splitsem.links.recorded import read_link_metrics

HEADER_BYTES = 64
"""Bytes allowed for what does not grow with the update: the wire format's header, scales, coder tables."""


class Rate(NamedTuple):
    """How much of an update travels.

    Attributes:
        bit_width: bits of a value that travels, 1…8.
        keep_ratio: share of the values that travel, above 0; 1.0 sends all of them (no positions then).
    """

    bit_width: int
    keep_ratio: float = 1.0


def bits_per_value(rate: Rate) -> float:
    """Bits that a value takes before any entropy coding of values: ``keep · b + H(keep)``, an estimate.

    H is the binary entropy: what the positions of the kept values take at best.

    >>> bits_per_value(Rate(8)), round(bits_per_value(Rate(4, 0.1)), 3)
    (8.0, 0.869)
    """
    keep = rate.keep_ratio
    positions = -keep * log2(keep) - (1 - keep) * log2(1 - keep) if keep < 1 else 0.0
    return keep * rate.bit_width + positions


class PayloadSizes:
    """Expected sizes of one client's updates: ``estimate · correction``.

    A rate's correction is the ratio (smoothed in logarithms) of the sizes that were really sent at the rate to their
    estimates. A rate that was never sent takes the correction of the nearest rate that was, or 1.0 before any payload.
    Real payloads are mostly smaller than the estimate, since their values are entropy-coded too; how much smaller
    depends on the data and is known only after sending.

    Args:
        smoothing: weight of the newest payload, above 0 and at most 1.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self._corrections: dict[Rate, float] = {}

    def payload_bytes(self, rate: Rate, raw_values: int) -> float:
        """Expected bytes of an update of ``raw_values`` values."""
        return HEADER_BYTES + self._correction(rate) * bits_per_value(rate) * raw_values / 8

    def sent(self, rate: Rate, raw_values: int, payload_bytes: int) -> None:
        """Learn from a payload that really had ``payload_bytes``."""
        estimate = bits_per_value(rate) * raw_values / 8
        ratio = max(payload_bytes - HEADER_BYTES, 1) / estimate
        known = self._corrections.get(rate, ratio)
        self._corrections[rate] = known * (ratio / known) ** self.smoothing

    def _correction(self, rate: Rate) -> float:
        if not self._corrections:
            return 1.0
        size = log(bits_per_value(rate))
        nearest = min(self._corrections, key=lambda other: (abs(log(bits_per_value(other)) - size), other))
        return self._corrections[nearest]


__all__ = ["Observation", "Rate", "RateController"]

_MOST_LOSS = 0.99  # the most loss to plan for: every hundredth packet still gets through
_LEAST_TRANSFER = 0.2  # share of an upload's time; an upload that is nearly all round trip says little of bandwidth


@dataclass(frozen=True)
class Observation:
    """One observation of a client's link.

    Attributes:
        rtt_s: round-trip time of the idle link, in seconds.
        loss: share of packets that are lost on the way up, 0…1.
        up_bps: what the client can put on the link, bits per second; ``up_bps · (1 − loss)`` of it arrives.
        down_bps: what the server can put on the link towards the client, bits per second.
    """

    rtt_s: float
    loss: float
    up_bps: float
    down_bps: float

    def __post_init__(self) -> None:
        if not (isfinite(self.rtt_s) and self.rtt_s >= 0):
            raise ValueError(f"rtt_s must be finite and not negative, got {self.rtt_s}")
        if not 0 <= self.loss <= 1:
            raise ValueError(f"loss must be 0…1, got {self.loss}")
        for name in ("up_bps", "down_bps"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")

    @classmethod
    def from_file(cls, path: str) -> "Observation":
        """What ``workflow=measure_link`` found; its goodput already lacks what was lost. Raises ConfigError."""
        link = read_link_metrics(path)
        loss = min(link.loss or 0.0, _MOST_LOSS)
        return cls(link.rtt_s, loss, link.up_bps / (1 - loss), link.down_bps / (1 - loss))


@dataclass
class _Client:
    """What is known of one client."""

    sizes: PayloadSizes
    seen: Observation | None = None
    rung: int | None = None  # index in the ladder; None until the link was observed
    num_better: int = 0  # rounds in a row in which a higher rate would have fitted
    better: int = 0  # the lowest rung that would have fitted in these rounds
    raw_values: int = field(default=0)


class RateController:
    """Chooses the highest rate at which a client's update should arrive in time, and changes it reluctantly.

    Rates form a ladder: ``max_bits`` … ``min_bits`` for all values, then half, a quarter, … of the values at
    ``min_bits``, down to ``min_keep_ratio``. An upload is expected to take
    ``(rtt_s + 8 · payload_bytes / up_bps) / (1 − loss)``, with link and sizes smoothed per client.

    Hysteresis: the controller lowers a rate when it expects the upload after the deadline, and raises a rate when an
    upload at a higher rate would take at most ``(1 − headroom) · deadline_s`` in ``patience`` rounds in a row; a move
    goes to the highest rate that leaves the headroom. So on a steady link whose observations are wrong by a factor of
    at most ``1 ± x``, no rate is ever lowered if ``headroom ≥ 2x / (1 + x)`` (0.25: x = 14 %), and a controller that
    never lowers does not oscillate. (A rate whose first payload turns out too large is left again, and remembered.)
    A bandwidth below ``(1 − headroom)²`` of the expected bandwidth counts as a change of the link: it is not smoothed.

    Not safe to call from several threads. The controller keeps a small state for each client until ``forget``.

    Args:
        deadline_s: seconds that an update may take to arrive.
        min_bits: lowest bit width, 1…8.
        max_bits: highest bit width, ``min_bits``…8.
        min_keep_ratio: smallest share of the values; 1.0 never sends fewer than all.
        headroom: share of the deadline that is left free when a rate is taken, 0…1 (exclusive).
        patience: rounds in which a higher rate must have fitted before it is taken.
        smoothing: weight of the newest observation, above 0 and at most 1.
        link: a file of ``workflow=measure_link``: the link assumed for a client before its first observation.
    """

    def __init__(
        self,
        deadline_s: float,
        min_bits: int = 1,
        max_bits: int = 8,
        min_keep_ratio: float = 1.0,
        headroom: float = 0.25,
        patience: int = 2,
        smoothing: float = 0.3,
        link: str | None = None,
    ) -> None:
        if not (isfinite(deadline_s) and deadline_s > 0):
            raise ValueError(f"deadline_s must be positive and finite, got {deadline_s}")
        if not 1 <= min_bits <= max_bits <= 8:
            raise ValueError(f"bit widths must be 1 ≤ min_bits ≤ max_bits ≤ 8, got {min_bits} and {max_bits}")
        if not 0 < min_keep_ratio <= 1:
            raise ValueError(f"min_keep_ratio must be above 0 and at most 1, got {min_keep_ratio}")
        if not 0 < headroom < 1:
            raise ValueError(f"headroom must be above 0 and below 1, got {headroom}")
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must be above 0 and at most 1, got {smoothing}")
        self.deadline_s, self.headroom, self.patience, self.smoothing = deadline_s, headroom, patience, smoothing
        self.ladder = _ladder(min_bits, max_bits, min_keep_ratio)
        self._first = Observation.from_file(link) if link is not None else None
        self._clients: dict[Hashable, _Client] = {}

    def observe(self, client: Hashable, observation: Observation) -> None:
        """Take what was seen of the client's link into account."""
        state = self._client(client)
        state.seen = observation if state.seen is None else self._smoothed(state.seen, observation)

    def start_round(self, server_round: int) -> None:
        """See ChoosesRates; rates depend on what was seen of the links only."""

    def choose(self, client: Hashable, raw_values: int, down_bytes: int = 0) -> Rate:
        """The rate of the client's next update; call it once a round.

        The lowest rate where nothing is known of the link, and where no rate fits.

        Args:
            client: name of the client.
            raw_values: number of values in the update.
            down_bytes: bytes that the client must fetch first, within the same deadline.
        """
        if raw_values < 1 or down_bytes < 0:
            raise ValueError(f"raw_values must be at least 1 and down_bytes at least 0, got {raw_values}, {down_bytes}")
        state = self._client(client)
        state.raw_values = raw_values
        if state.seen is None:
            return self.ladder[-1]
        times_s = [self._expected_s(state, state.seen, rate, raw_values, down_bytes) for rate in self.ladder]
        goal_s = (1 - self.headroom) * self.deadline_s
        best = next((rung for rung, time_s in enumerate(times_s) if time_s <= goal_s), len(times_s) - 1)
        state.rung = self._next_rung(state, best, times_s)
        return self.ladder[state.rung]

    def sent(self, client: Hashable, rate: Rate, payload_bytes: int, seconds: float) -> None:
        """Learn from an upload: its real size, and the bandwidth that it got.

        An upload that was given up counts too, with its size and the seconds of waiting.

        Args:
            client: name of the client.
            rate: the rate that ``choose`` gave for the upload.
            payload_bytes: bytes on the wire.
            seconds: from the first byte offered to the last one received.
        """
        if payload_bytes < 1 or not (isfinite(seconds) and seconds > 0):
            raise ValueError(f"payload_bytes and seconds must be above 0, got {payload_bytes} and {seconds}")
        state = self._client(client)
        if state.raw_values:
            state.sizes.sent(rate, state.raw_values, payload_bytes)
        seen = state.seen or Observation(0.0, 0.0, 8 * payload_bytes / seconds, 8 * payload_bytes / seconds)
        arriving_s = seconds * (1 - min(seen.loss, _MOST_LOSS))
        transfer_s = arriving_s - seen.rtt_s
        if transfer_s > _LEAST_TRANSFER * arriving_s:
            up_bps = 8 * payload_bytes / transfer_s
            self.observe(client, Observation(seen.rtt_s, seen.loss, up_bps, seen.down_bps))

    def expected_s(self, client: Hashable, rate: Rate, raw_values: int, down_bytes: int = 0) -> float:
        """Seconds that an update should take to arrive at this rate; infinity while nothing is known of the link."""
        state = self._client(client)
        return inf if state.seen is None else self._expected_s(state, state.seen, rate, raw_values, down_bytes)

    def forget(self, client: Hashable) -> None:
        """Drop a client's state."""
        self._clients.pop(client, None)

    def _client(self, client: Hashable) -> _Client:
        if client not in self._clients:
            self._clients[client] = _Client(PayloadSizes(self.smoothing), self._first)
        return self._clients[client]

    @staticmethod
    def _expected_s(state: _Client, seen: Observation, rate: Rate, raw_values: int, down_bytes: int) -> float:
        up_s = 8 * state.sizes.payload_bytes(rate, raw_values) / seen.up_bps
        down_s = 8 * down_bytes / seen.down_bps
        return (seen.rtt_s + up_s + down_s) / (1 - min(seen.loss, _MOST_LOSS))

    def _next_rung(self, state: _Client, best: int, times_s: list[float]) -> int:
        """The rung to go to when ``best`` is the highest rung that leaves the headroom."""
        if state.rung is None:
            return best
        if best >= state.rung:
            state.num_better = 0
            return best if times_s[state.rung] > self.deadline_s else state.rung
        state.better = max(state.better, best) if state.num_better else best
        state.num_better += 1
        if state.num_better < self.patience:
            return state.rung
        state.num_better = 0
        return state.better

    def _smoothed(self, old: Observation, new: Observation) -> Observation:
        """The smoothed observation: bandwidths in logarithms, so that half and double weigh the same."""
        weight = self.smoothing

        def rate(old_bps: float, new_bps: float) -> float:
            is_break = new_bps < (1 - self.headroom) ** 2 * old_bps
            return new_bps if is_break else old_bps * (new_bps / old_bps) ** weight

        return Observation(
            rtt_s=old.rtt_s + weight * (new.rtt_s - old.rtt_s),
            loss=old.loss + weight * (new.loss - old.loss),
            up_bps=rate(old.up_bps, new.up_bps),
            down_bps=rate(old.down_bps, new.down_bps),
        )


def _ladder(min_bits: int, max_bits: int, min_keep_ratio: float) -> list[Rate]:
    """All rates, the highest first."""
    rates = [Rate(bits) for bits in range(max_bits, min_bits - 1, -1)]
    keep = 0.5
    while keep > min_keep_ratio:
        rates.append(Rate(min_bits, keep))
        keep /= 2
    return rates if min_keep_ratio == 1 else [*rates, Rate(min_bits, min_keep_ratio)]


class ChoosesRates(Protocol):
    """Chooses rates for the server, by client and round; one object serves a whole run."""

    def start_round(self, server_round: int) -> None:
        """Begin a round, counted from 1; a resumed run continues the count."""

    def choose(self, client: int, raw_values: int) -> Rate:
        """The rate at which ``client`` (Flower's node id) sends an update of ``raw_values`` values."""

    def sent(self, client: int, rate: Rate, payload_bytes: int, seconds: float) -> None:
        """Learn an update's size on the wire and its seconds; not called for updates that failed."""


class WarmUp:
    """The share of values that travel falls exponentially from ``first`` to ``keep_ratio``, alike for all clients.

    ``first · (keep_ratio / first)^((round − 1) / num_rounds)`` in the first ``num_rounds`` rounds (Deep Gradient
    Compression: Lin et al., ICLR 2018, arXiv 1712.01887, with a quarter of the values at first). Bytes of the warm-up
    count like all others.

    Args:
        keep_ratio: share of values after the warm-up, above 0.
        bit_width: bits of a value that travels, in all rounds.
        num_rounds: rounds of the warm-up, at least 1.
        first: share of values in the first round, ``keep_ratio``…1.
    """

    def __init__(self, keep_ratio: float, bit_width: int, num_rounds: int, first: float = 0.25) -> None:
        if not 0 < keep_ratio <= first <= 1:
            raise ValueError(f"shares must be 0 < keep_ratio ≤ first ≤ 1, got {keep_ratio} and {first}")
        if num_rounds < 1:
            raise ValueError(f"num_rounds must be at least 1, got {num_rounds}")
        self.keep_ratio, self.bit_width, self.num_rounds, self.first = keep_ratio, bit_width, num_rounds, first
        self._share = first

    def start_round(self, server_round: int) -> None:
        """See ChoosesRates."""
        done = min((server_round - 1) / self.num_rounds, 1.0)
        self._share = self.first * (self.keep_ratio / self.first) ** done

    def choose(self, client: int, raw_values: int) -> Rate:
        """See ChoosesRates."""
        return Rate(self.bit_width, self._share)

    def sent(self, client: int, rate: Rate, payload_bytes: int, seconds: float) -> None:
        """See ChoosesRates; nothing is learned."""
