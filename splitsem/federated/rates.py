"""What the server needs of whoever chooses how finely each client sends; ``RateController`` and ``WarmUp``."""

from typing import Protocol

from splitsem.federated.payload_size import Rate


class ChoosesRates(Protocol):
    """Asked for each client and round, by the server only; one object for a whole run."""

    def start_round(self, server_round: int) -> None:
        """Hear that a round begins, counted from 1; a resumed run goes on with its number."""

    def choose(self, client: int, raw_values: int) -> Rate:
        """How the client (Flower's node id) is to send an update of so many values."""

    def sent(self, client: int, rate: Rate, payload_bytes: int, seconds: float) -> None:
        """What became of it: its size on the wire and how long it took; not called for updates that failed."""
