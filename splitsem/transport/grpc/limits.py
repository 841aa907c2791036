"""Limits: what one server grants its clients."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one server grants.

    Attributes:
        max_clients: streams at one time; further ones are told RESOURCE_EXHAUSTED.
        max_window: frames of one stream that wait on the server; TCP holds back what is more.
        max_payload_bytes: size of one payload; None: what the wire format can carry.
        max_send_s: seconds that a client may take to accept an answer before its stream is cut.
    """

    max_clients: int = 32
    max_window: int = 64
    max_payload_bytes: int | None = None
    max_send_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("max_clients", "max_window", "max_payload_bytes", "max_send_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
