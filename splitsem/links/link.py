"""Link: the interface to whatever carries payloads."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class LinkReport:
    """What became of one payload.

    Attributes:
        payload: the bytes that arrived, perhaps damaged; None when they were lost.
        link_s: seconds from the first byte offered to the last byte received.
        energy_j: joules the sender spent on transmission.
        bit_errors: bits of the payload that arrived wrong.
        snr_db: signal-to-noise ratio that the receiver saw (Eb/N0 of a bit on the air); None where
            the link has no such thing.
        wire_bytes: bytes that occupied the link: codes, checksums, packet headers and resends included.
        air_bits: bits that went through a channel that can damage them, resends included.
        air_errors: bits of ``air_bits`` that arrived wrong, before any correction.
        num_resends: rounds of resending.
    """

    payload: bytes | None
    link_s: float
    energy_j: float
    bit_errors: int = 0
    snr_db: float | None = None
    wire_bytes: int = 0
    air_bits: int = 0
    air_errors: int = 0
    num_resends: int = 0


class Link(ABC):
    """Carries payloads one way, from the edge to the server.

    Attributes:
        is_lossy: whether a channel with a seed of its own may damage or lose payloads.
    """

    is_lossy: ClassVar[bool] = False

    @abstractmethod
    def send(self, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
        """Carry one payload. Damage and loss are data in the report; a dead link raises LinkError.

        The first ``protected_bytes`` (None: all) are of no use when damaged (see ``Codec.protected_bytes``): a link
        that damages bits protects or drops them, and counts what that costs.
        """
