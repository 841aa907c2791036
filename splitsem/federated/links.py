"""ClientLinks: how long updates would take on modelled links, for runs whose clients are all in one process."""

from collections.abc import Callable

from splitsem.transport.link import Link
from splitsem.transport.trace import TraceLink


class ClientLinks:
    """A link a client, all on one clock: a round ends when its last update has arrived.

    Args:
        make_link: a client's link, by its node id; where it is a TraceLink, its trace goes on while others send.
        compute_s: seconds between two rounds' uploads.
    """

    def __init__(self, make_link: Callable[[int], Link], compute_s: float = 0.0) -> None:
        if compute_s < 0:
            raise ValueError(f"compute_s must be 0 or more, got {compute_s}")
        self._make_link, self.compute_s = make_link, compute_s
        self._links: dict[int, Link] = {}
        self.now_s = 0.0

    def upload_s(self, node: int, num_bytes: int) -> float:
        """Seconds that a client's upload takes if it begins now."""
        if node not in self._links:
            self._links[node] = self._make_link(node)
        link = self._links[node]
        if isinstance(link, TraceLink):
            link.wait_until(self.now_s)
        return link.send(bytes(num_bytes)).link_s

    def end_round(self, upload_s: float) -> None:
        """Go on to the next round: all uploads took at most so long."""
        self.now_s += upload_s + self.compute_s
