"""Link: the interface to whatever carries payloads."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from splitsem.errors import ContractError


@dataclass(frozen=True)
class FrameWork:
    """``fixed_s + num_bytes · s_per_byte``: how long the transport's software keeps an end's processor busy by a frame.

    Messages, checksums, threads and the kernel's part count; a codec and a network do not. A frame is a payload and its
    answer. The frame itself waits for a part of this only, which the link's time holds: this bounds the pace alone.

    >>> FrameWork(fixed_s=0.0003, s_per_byte=5e-10).frame_s(200_000)
    0.0004

    Attributes:
        fixed_s: processor seconds of any frame.
        s_per_byte: processor seconds of each byte, of the payload or the answer.
    """

    fixed_s: float = 0.0
    s_per_byte: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fixed_s", "s_per_byte"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")

    def frame_s(self, num_bytes: float) -> float:
        """Processor seconds of a frame whose payload and answer have so many bytes; 0 of one that does not travel."""
        return self.fixed_s + num_bytes * self.s_per_byte if num_bytes else 0.0


NO_WORK = FrameWork()


@dataclass(frozen=True)
class LinkReport:
    """What became of one payload.

    Attributes:
        payload: the bytes that arrived, perhaps damaged; None when they were lost.
        link_busy_s: seconds that the payload keeps the link from the next payload: its bits, packets and resends, the
            link's own schedule, and the silence that rules ask for afterwards.
        link_delay_s: seconds that the payload is on its way beyond that, in which the link takes the next payload.
        energy_j: joules the edge spent: on sending, or on receiving what comes back.
        bit_errors: bits of the payload that arrived wrong.
        snr_db: signal-to-noise ratio that the receiver saw (Eb/N0 of a bit on the air); None where
            the link has no such thing.
        wire_bytes: bytes that occupied the link: codes, checksums, packet headers and resends included.
        air_bits: bits that went through a channel that can damage them, resends included.
        air_errors: bits of ``air_bits`` that arrived wrong, before any correction.
        num_resends: rounds of resending.
        pause_s: the part of ``link_busy_s`` that comes after the last byte, for which this payload does not wait.
    """

    payload: bytes | None
    link_busy_s: float
    link_delay_s: float
    energy_j: float
    bit_errors: int = 0
    snr_db: float | None = None
    wire_bytes: int = 0
    air_bits: int = 0
    air_errors: int = 0
    num_resends: int = 0
    pause_s: float = 0.0

    @property
    def link_s(self) -> float:
        """Seconds from the first byte offered to the last byte received."""
        return self.link_busy_s + self.link_delay_s - self.pause_s


class Link(ABC):
    """Carries payloads from the edge to the server, and answers back.

    Attributes:
        is_lossy: whether a channel with a seed of its own may damage or lose payloads.
        bandwidth_bps: bits a second to the server; None where the link has no one rate.
        rtt_s: round-trip time of the idle link, in seconds; None where it is not known.
        edge_work: of the transport's software on the edge; none where it was not measured.
        server_work: the same on the server.
    """

    is_lossy: ClassVar[bool] = False
    bandwidth_bps: float | None = None
    rtt_s: float | None = None
    edge_work: FrameWork = NO_WORK
    server_work: FrameWork = NO_WORK

    @abstractmethod
    def send(self, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
        """Carry one payload. Damage and loss are data in the report; a dead link raises LinkError.

        The first ``protected_bytes`` (None: all) are of no use when damaged (see ``Codec.protected_bytes``): a link
        that damages bits protects or drops them, and counts what that costs.
        """

    def broken(self, promise: str) -> ContractError:
        """The error that says which promise this link broke, and how to see all of them."""
        where = f"{type(self).__module__}.{type(self).__qualname__}"
        return ContractError(
            f"{type(self).__name__} breaks the contract of a link: {promise}; python -m splitsem.check {where}"
        )

    def send_back(self, answer: bytes) -> LinkReport:
        """Carry one answer from the server to the edge; here over a way back that is like the way up."""
        return self.send(answer)
