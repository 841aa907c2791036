"""Settings of one end of the datagram transport, and what it counts."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from splitsem.transport.udp.packets import MAX_FRAGMENT_BYTES, MIN_FRAGMENT_BYTES

MAX_WINDOW = 4096
Loss = Literal["resend", "tolerate"]


@dataclass(frozen=True)
class Settings:
    """How an end sends and how much it keeps.

    Attributes:
        fragment_bytes: payload bytes in one datagram; 1,400 and 71 bytes of headers fit into Ethernet's 1,500.
        rate_bps: paced rate to one peer, IP and UDP headers included; None: find the rate, with less after each loss.
        retries: time-outs in a row after which a peer that says nothing is given up (so retries + 1 tries).
        loss: ``resend`` what is lost, or ``tolerate`` it: frames arrive with gaps, or count as lost.
        window: frames unanswered at a time.
        window_bytes: bytes under way, at most.
        max_message_bytes: the longest message taken.
        buffer_bytes: bytes of messages kept for one peer, parts and whole ones that wait.
        max_age_s: seconds after which a message that stays in parts is given up.
        heartbeat_s: seconds of silence after which a client asks whether the server is there.
    """

    fragment_bytes: int = 1400
    rate_bps: float | None = None
    retries: int = 10
    loss: Loss = "resend"
    window: int = 32
    window_bytes: int = 1 << 20
    max_message_bytes: int = 1 << 26
    buffer_bytes: int = 1 << 27
    max_age_s: float = 30.0
    heartbeat_s: float = 1.0

    def __post_init__(self) -> None:
        if not MIN_FRAGMENT_BYTES <= self.fragment_bytes <= MAX_FRAGMENT_BYTES:
            raise ValueError(
                f"fragment_bytes must be {MIN_FRAGMENT_BYTES}…{MAX_FRAGMENT_BYTES}, got {self.fragment_bytes}"
            )
        if self.rate_bps is not None and not (isfinite(self.rate_bps) and self.rate_bps > 0):
            raise ValueError(f"rate_bps must be positive and finite, or null, got {self.rate_bps}")
        if self.retries < 0:
            raise ValueError(f"retries must not be negative, got {self.retries}")
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {self.loss!r}")
        if not 1 <= self.window <= MAX_WINDOW:
            raise ValueError(f"window must be 1…{MAX_WINDOW}, got {self.window}")
        if self.window_bytes < 4 * self.fragment_bytes:
            raise ValueError(f"window_bytes must be at least four fragments, got {self.window_bytes}")
        if not 1 <= self.max_message_bytes < 1 << 32:
            raise ValueError(f"max_message_bytes must be 1…{(1 << 32) - 1}, got {self.max_message_bytes}")
        if self.buffer_bytes < self.max_message_bytes + self.window_bytes:
            raise ValueError(f"buffer_bytes must be at least max_message_bytes + window_bytes, got {self.buffer_bytes}")
        for name in ("max_age_s", "heartbeat_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")


@dataclass
class Counts:
    """What one end has seen so far.

    Attributes:
        packets_sent: datagrams handed to the socket.
        packets_received: whole, undamaged packets.
        malformed: datagrams that were no packet, or whose numbers did not fit.
        duplicates: packets and fragments that had arrived already.
        refused: fragments that did not fit into the limits, and were not acknowledged.
        fragments_lost: fragments that were sent and not acknowledged in time.
        fragments_resent: fragments sent again.
        timeouts: times that nothing was heard for a whole time-out.
        expired: messages given up in parts.
        strangers: packets of unknown connections or from another address.
        send_errors: datagrams that the operating system did not take.
        frames_filled: frames whose missing symbols were filled with zeros.
        frames_lost: frames with too much missing to be answered.
    """

    packets_sent: int = 0
    packets_received: int = 0
    malformed: int = 0
    duplicates: int = 0
    refused: int = 0
    fragments_lost: int = 0
    fragments_resent: int = 0
    timeouts: int = 0
    expired: int = 0
    strangers: int = 0
    send_errors: int = 0
    frames_filled: int = 0
    frames_lost: int = 0
