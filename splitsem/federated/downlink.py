"""Downlink: how the server sends the global network — whole, or as the coded difference to what a client holds."""

from typing import NamedTuple

from splitsem.codecs.codec import Codec
from splitsem.codecs.identity import Identity
from splitsem.federated.state import Layout, State


class Sent(NamedTuple):
    """One way of sending the network.

    Attributes:
        payload: the coded tensors.
        codec: name of the codec that made it.
        base: version of the network that the payload is the difference to; 0: it is the whole network.
    """

    payload: bytes
    codec: str
    base: int


class Downlink:
    """Without a codec everybody gets the whole network, exactly; with one, those who hold the last version its change.

    The server decodes its own payload: ``reference`` is bit for bit what the clients hold. What the codec drops is in
    the next difference, because that is taken to the exact network.

    Args:
        layout: of the network.
        codec: of differences; None sends none.

    Attributes:
        reference: the network as clients know it after the last ``prepare``; None before.
        version: how many were prepared; 0 before the first.
        holders: the version that a client is known to hold.
    """

    def __init__(self, layout: Layout, codec: Codec | None) -> None:
        self.layout, self.codec = layout, codec
        self.reference: State | None = None
        self.version = 0
        self.holders: dict[int, int] = {}
        self._difference: Sent | None = None
        self._whole: Sent | None = None

    def prepare(self, target: State) -> None:
        """Take ``target`` as the network to be sent from now on."""
        self._whole = self._difference = None
        if self.codec is None or self.reference is None:
            self.reference = target
        else:
            difference = self.layout.difference(target, self.reference)
            payload = self.layout.encode(self.codec, self.layout.join(difference))
            self._difference = Sent(payload, type(self.codec).__name__, self.version)
            self.reference = self.layout.add(self.reference, self.layout.split(self.layout.decode(self.codec, payload)))
        self.version += 1

    def sent_to(self, node: int) -> Sent:
        """What to send to a client."""
        if self._difference is not None and self.holders.get(node) == self._difference.base:
            return self._difference
        if self._whole is None:
            assert self.reference is not None
            self._whole = Sent(self.layout.encode(Identity(), self.layout.join(self.reference)), "Identity", 0)
        return self._whole

    def note(self, node: int, has_answered: bool) -> None:
        """Remember what a client holds: the prepared version where it has answered, else nobody knows."""
        if has_answered:
            self.holders[node] = self.version
        else:
            self.holders.pop(node, None)
