"""Who chooses how finely each client sends: the interface of a rate controller, and the choice to leave it alone."""

from dataclasses import asdict, dataclass
from typing import Protocol


@dataclass(frozen=True)
class Rate:
    """How finely a client sends one update; None leaves the codec's own setting.

    Attributes:
        bit_width: the codec's.
        keep_ratio: the codec's.
    """

    bit_width: int | None = None
    keep_ratio: float | None = None

    def settings(self) -> dict[str, float]:
        """The settings that it changes, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Observation:
    """What the server saw of one client in one round.

    Attributes:
        uplink_bytes: of the reply's content; 0 when none came.
        downlink_bytes: of the content that was sent.
        elapsed_s: from sending to the reply, the client's training included.
        train_s: of it, the client's own work, as the client says.
        link_s: seconds that the content down and up took on a model of the client's link; None without one.
        failed: whether the reply was left out.
    """

    uplink_bytes: int
    downlink_bytes: int
    elapsed_s: float
    train_s: float
    link_s: float | None
    failed: bool


class RateController(Protocol):
    """Chooses a rate for each client and round; one object for a whole run, called by the server only."""

    def choose(self, client: int, server_round: int) -> Rate:
        """How client number ``client`` (Flower's node id) is to send in this round."""

    def observe(self, client: int, server_round: int, observation: Observation) -> None:
        """What became of it; called once for each ``choose``."""


class FixedRate:
    """Everybody sends as the codec is configured."""

    def choose(self, client: int, server_round: int) -> Rate:
        """See RateController."""
        return Rate()

    def observe(self, client: int, server_round: int, observation: Observation) -> None:
        """See RateController."""
