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
        identify()
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
        replies = {reply.metadata.reply_to_message_id: reply for reply, _ in self._answers(messages)}
        self._replies |= replies
        return list(replies)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """See Grid."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """See Grid; ``timeout`` holds for each client separately, as if the clients worked side by side.

        The grid waits for a client that takes longer, and drops that client's reply.
        """
        return [reply for reply, took_s in self._answers(messages) if timeout is None or took_s <= timeout]

    def _answers(self, messages: Iterable[Message]) -> list[tuple[Message, float]]:
        """The reply to each message, and the seconds that its client took."""
        return [self._answer(message, str(next(self._ids))) for message in messages]

    def _answer(self, message: Message, message_id: str) -> tuple[Message, float]:
        began = self._clock()
        content, node = copy_content(message.content), message.metadata.dst_node_id
        received = arrived(content, node, message.metadata.message_type, message_id)
        reply = answer_of(self._client_app, received, self.contexts[node])
        if reply.has_content():
            reply.content = copy_content(reply.content)
        return reply, self._clock() - began


def identify() -> None:
    """Set the class-wide identity from which messages take their sender, as a Flower process does when it starts."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1


def arrived(content: RecordDict, node: int, message_type: str, message_id: str) -> Message:
    """A message as the client ``node`` gets it."""
    message = Message(content, node, message_type)
    message.metadata.__dict__["_message_id"] = message_id
    return message


def answer_of(client_app: ClientApp, message: Message, context: Context) -> Message:
    """The app's reply, or an error where the app raises: it stands for a process of its own."""
    try:
        return client_app(message, context)
    except SplitSemError as exc:
        reason = str(exc)
    except Exception as exc:  # however a client ends, the round goes on
        log.debug("client %d failed", message.metadata.dst_node_id, exc_info=True)
        reason = f"{type(exc).__name__}: {exc}"
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


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
