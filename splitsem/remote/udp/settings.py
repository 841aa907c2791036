"""Settings and counts of one end of the UDP transport, and the sockets that it opens."""

import ipaddress
import socket
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

from splitsem.errors import ConfigError, LinkError
from splitsem.remote.udp.packets import MAX_FRAGMENT_BYTES, MIN_FRAGMENT_BYTES

MAX_WINDOW = 4096
Loss = Literal["resend", "tolerate"]


@dataclass(frozen=True)
class Settings:
    """How an end sends and how much it keeps.

    Attributes:
        fragment_bytes: payload bytes in one datagram; 1,400 and 71 bytes of headers fit into Ethernet's 1,500.
        rate_bps: paced rate to one peer, IP and UDP headers included; None: find the rate, reducing it at each loss.
        retries: time-outs in a row after which a silent peer is given up (so retries + 1 tries).
        loss: ``resend`` lost fragments, or ``tolerate`` losses: frames arrive with gaps, or count as lost.
        window: frames unanswered at a time.
        window_bytes: bytes under way, at most.
        max_message_bytes: the longest message taken.
        buffer_bytes: bytes of messages kept for one peer: messages in parts, and whole messages that wait.
        max_age_s: seconds after which an incomplete message is given up.
        heartbeat_s: seconds of silence after which a client pings the server.
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
        malformed: datagrams that are no packet, or whose numbers do not fit.
        duplicates: packets and fragments that arrived before.
        refused: fragments beyond the limits, which are not acknowledged.
        fragments_lost: fragments that were sent and not acknowledged in time.
        fragments_resent: fragments sent again.
        timeouts: time-outs without a packet from the peer.
        expired: messages given up while incomplete.
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


_IN_THE_CLEAR = "datagrams travel in the clear; insecure=true allows it, transport=grpc with TLS avoids it"


def host_and_port(text: str, name: str) -> tuple[str, int]:
    """The parts of ``HOST:PORT``; an IPv6 address may stand in brackets. Raises ConfigError, which names the setting.

    >>> host_and_port("[::1]:50052", "transport.bind")
    ('::1', 50052)
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{name} must be HOST:PORT, got {text!r}")
    return host.strip("[]"), int(port)


def connect(target: str, insecure: bool) -> socket.socket:
    """A socket that sends to ``HOST:PORT`` only.

    Raises:
        ConfigError: ``target`` is not of this form, or is not on this machine without ``insecure``.
        LinkError: the host's name is unknown.
    """
    family, address = _resolve(*host_and_port(target, "transport.target"))
    check_secure(f"send to {target}", address, insecure)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.connect(address)
    except OSError as exc:
        sock.close()
        raise LinkError(f"{target} cannot be reached: {exc.strerror}") from exc
    return sock


def bind(host: str, port: int, insecure: bool) -> socket.socket:
    """A socket that listens on ``host`` and ``port``; port 0 takes a free port.

    Raises:
        ConfigError: the address is not on this machine, in use, or public without ``insecure``.
        LinkError: the host's name is unknown.
    """
    family, address = _resolve(host, port)
    check_secure(f"listen on {host}", address, insecure)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind(address)
    except OSError as exc:
        sock.close()
        raise ConfigError(f"cannot listen on {host}:{port} over UDP: {exc.strerror}") from exc
    return sock


def check_secure(what: str, address: tuple[Any, ...], insecure: bool) -> None:
    """Raise ConfigError for an address beyond this machine unless ``insecure``."""
    if not insecure and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise ConfigError(f"refusing to {what}: {_IN_THE_CLEAR}")


def _resolve(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (socket.gaierror, UnicodeError) as exc:
        raise LinkError(f"cannot resolve the name {host!r}: {exc}") from exc
    return family, address
