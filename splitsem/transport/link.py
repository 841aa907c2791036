"""Link: the interface to whatever carries payloads."""

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class LinkReport:
    """What became of one payload.

    Attributes:
        payload: the bytes that arrived, perhaps damaged; None when they were lost.
        link_s: seconds from the first byte offered to the last byte received.
        energy_j: joules the sender spent on transmission.
    """

    payload: bytes | None
    link_s: float
    energy_j: float


class Link(ABC):
    """Carries payloads one way, from the edge to the server."""

    @abstractmethod
    def send(self, payload: bytes) -> LinkReport:
        """Carry one payload. Damage and loss are data in the report; a dead link raises LinkError."""
