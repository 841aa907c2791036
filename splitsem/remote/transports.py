"""A transport has two ends: a ``RemoteTail`` on the edge, and a ``TailServer`` that gives frames to an ``Engine``.

It carries bytes between them and does no more.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from splitsem.remote.engine import TailServer
from splitsem.remote.ssh_inventory import Start
from splitsem.remote.tail_engine import TailEngine
from splitsem_device.answers import RemoteTail


class RemoteTransport(ABC):
    """One way to carry frames, with its two ends: an option of the config group ``transport``.

    Attributes:
        target: ``host:port`` that the edge connects to.
        start: how the server comes to run before the edge connects.
        is_tunnelled: whether ssh can carry the frames.
        is_server_over: tells when no server will come back, since the edge started it and it has ended.
    """

    target: str
    start: Start = Start()
    is_tunnelled: bool = True
    is_server_over: Callable[[], bool] = staticmethod(lambda: False)

    @abstractmethod
    def check_server(self) -> None:
        """Raise ConfigError for what keeps a server from starting, before a network is trained for it."""

    @abstractmethod
    def check_edge(self) -> None:
        """Raise ConfigError for what keeps an edge from calling, before a network is trained for it."""

    @abstractmethod
    def edge_end(self) -> RemoteTail:
        """The end that sends frames; nothing is connected yet."""

    @abstractmethod
    def server_end(self, engine: TailEngine) -> TailServer:
        """The end that answers frames from ``engine``; nothing is bound yet."""
