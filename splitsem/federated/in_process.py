"""Flower's clients in this process: InProcessGrid calls them one after the other, ClientLinks models their uplinks."""

import itertools
import logging
import time
from collections.abc import Callable, Iterable

from splitsem.errors import SplitSemError
from splitsem.federated.flower import (
    ClientApp,
    Context,
    Error,
    ErrorCode,
    Grid,
    Message,
    RecordDict,
    Run,
    TaskIdentity,
    copy_content,
)
from splitsem.links.link import Link
from splitsem.links.trace import TraceLink

log = logging.getLogger(__name__)


class InProcessGrid(Grid):
    """Calls a ClientApp for each message, without servers, Ray or threads; deterministic if the app is.

    Every message crosses as the bytes that Flower would send, so no end sees the other end's objects. A client that
    raises answers with an error, as a SuperNode does, and the process goes on.

    Args:
        client_app: the app with its mods; one object serves all clients, each with a Context of its own.
        num_clients: number of clients; their node ids are 1…num_clients, and ``partition-id`` is the node id − 1.
        clock: gives seconds since any moment; timeouts are measured on this clock.
    """

    def __init__(self, client_app: ClientApp, num_clients: int, clock: Callable[[], float] = time.perf_counter) -> None:
        if num_clients < 1:
            raise ValueError(f"num_clients must be at least 1, got {num_clients}")
        # Messages take their sender from this class-wide identity, which a Flower process sets when it starts.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
        self._client_app, self._clock = client_app, clock
        self.contexts = {
            node: Context(1, node, {"partition-id": node - 1, "num-partitions": num_clients}, RecordDict(), {})
            for node in range(1, num_clients + 1)
        }
        self._run = Run.create_empty(1)
        self._ids = itertools.count(1)
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """See Grid."""
        self._run = run

    @property
    def run(self) -> Run:
        """See Grid."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See Grid."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """See Grid."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """See Grid; the clients work before this returns."""
        pushed = []
        for message in messages:
            message_id = str(next(self._ids))
            self._replies[message_id] = self._call(message, message_id)
            pushed.append(message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """See Grid."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """See Grid; ``timeout`` holds for each client separately, as if the clients worked side by side.

        The grid waits for a client that takes longer, and drops that client's reply.
        """
        replies = []
        for message in messages:
            began = self._clock()
            (reply,) = self.pull_messages(self.push_messages([message]))
            if timeout is None or self._clock() - began <= timeout:
                replies.append(reply)
        return replies

    def _call(self, message: Message, message_id: str) -> Message:
        node = message.metadata.dst_node_id
        received = Message(copy_content(message.content), node, message.metadata.message_type)
        received.metadata.__dict__["_message_id"] = message_id
        try:
            reply = self._client_app(received, self.contexts[node])
        except SplitSemError as exc:
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(exc)), reply_to=received)
        except Exception as exc:  # the client's app stands for a process of its own: however it ends, the round goes on
            log.debug("client %d failed", node, exc_info=True)
            reason = f"{type(exc).__name__}: {exc}"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=received)
        if reply.has_content():
            reply.content = copy_content(reply.content)
        return reply


class ClientLinks:
    """One link for each client, all on one clock: a round ends when its last update has arrived.

    Args:
        make_link: makes a client's link from the node id; the trace of a TraceLink goes on while other clients send.
        compute_s: seconds between two rounds' uploads.
    """

    def __init__(self, make_link: Callable[[int], Link], compute_s: float = 0.0) -> None:
        if compute_s < 0:
            raise ValueError(f"compute_s must be 0 or more, got {compute_s}")
        self._make_link, self.compute_s = make_link, compute_s
        self._links: dict[int, Link] = {}
        self.now_s = 0.0

    def upload_s(self, node: int, num_bytes: int) -> float:
        """Seconds that a client's upload takes if it begins now: ``link_s``, the link's delay included."""
        if node not in self._links:
            self._links[node] = self._make_link(node)
        link = self._links[node]
        if isinstance(link, TraceLink):
            link.wait_until(self.now_s)
        return link.send(bytes(num_bytes)).link_s

    def end_round(self, upload_s: float) -> None:
        """Go on to the next round, after uploads that took at most ``upload_s``."""
        self.now_s += upload_s + self.compute_s
