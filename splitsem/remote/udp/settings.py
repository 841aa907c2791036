"""Settings of the edge's end, and of what a server grants."""

import socket
from dataclasses import dataclass
from math import isfinite

from splitsem.remote.udp.packets import IP_UDP_BYTES, MAX_FRAGMENT_BYTES, MIN_FRAGMENT_BYTES, OVERHEAD_BYTES

_BUFFER_BYTES = 1 << 22
_MTU_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
_PMTUDISC_DO = 2


@dataclass(frozen=True)
class Settings:
    """How the edge sends.

    Attributes:
        fragment_bytes: payload bytes in one datagram; 1,400 and 74 bytes of headers fit into Ethernet's 1,500.
        rate_bps: paced rate, headers of IP and UDP included; None: find the rate.
        deadline_s: seconds from a frame's first datagram after which its answer is late: the frame counts as lost.
        window: frames unanswered at a time.
    """

    fragment_bytes: int = 1400
    rate_bps: float | None = None
    deadline_s: float = 10.0
    window: int = 32

    def __post_init__(self) -> None:
        check_fragment_bytes(self.fragment_bytes)
        if self.rate_bps is not None and not (isfinite(self.rate_bps) and self.rate_bps > 0):
            raise ValueError(f"rate_bps must be positive and finite, or null, got {self.rate_bps}")
        if not (isfinite(self.deadline_s) and self.deadline_s > 0):
            raise ValueError(f"deadline_s must be positive and finite, got {self.deadline_s}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")

    @property
    def packet_bytes(self) -> int:
        """Size of a full datagram on the line."""
        return self.fragment_bytes + OVERHEAD_BYTES + IP_UDP_BYTES


@dataclass(frozen=True)
class Grant:
    """What a server grants, beside gRPC's limits.

    Attributes:
        max_frame_bytes: the longest frame.
        buffer_bytes: bytes of frames kept for all sessions, whole or in pieces; each has an equal share, and what comes
            beyond it counts as lost.
        max_age_s: seconds without a further piece after which a frame in pieces is forgotten.
    """

    max_frame_bytes: int = 1 << 26
    buffer_bytes: int = 1 << 29
    max_age_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_frame_bytes", "buffer_bytes", "max_age_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")


def check_fragment_bytes(fragment_bytes: int) -> None:
    """Raise ValueError for a size that no datagram has."""
    if not MIN_FRAGMENT_BYTES <= fragment_bytes <= MAX_FRAGMENT_BYTES:
        raise ValueError(f"fragment_bytes must be {MIN_FRAGMENT_BYTES}…{MAX_FRAGMENT_BYTES}, got {fragment_bytes}")


def datagram_socket(family: int) -> socket.socket:
    """A socket with large buffers, whose datagrams IP does not fragment: one beyond the MTU is an error."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    try:
        level, option = _MTU_DISCOVER[socket.AddressFamily(family)]
        sock.setsockopt(level, option, _PMTUDISC_DO)
    except OSError:  # not Linux: IP may fragment
        pass
    return sock
