"""ReplyBook keeps the last answers to each client, so that a resent frame is answered without a new computation.

Answers are kept within bytes. An answer that was let go is computed anew when its frame comes again.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from splitsem_device.answers import Answer

MOST_BYTES = 256 << 20


class Replies:
    """The last ``window`` answers to one client; the client's frames are computed one at a time.

    A client has at most ``window`` unanswered frames, so it never resends an older frame. Answers that the client has
    confirmed are forgotten at once, since large answers would pile up.

    Args:
        window: answers kept.
        most_bytes: bytes of answers kept; the newest answer is kept in any case.

    Attributes:
        num_bytes: bytes of the kept answers.
    """

    def __init__(self, window: int, most_bytes: int = MOST_BYTES) -> None:
        self.window, self.most_bytes = window, most_bytes
        self.num_bytes = 0
        self._answers: OrderedDict[int, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, request_id: int, compute: Callable[[], Answer], num_answered: int = 0) -> Answer:
        """The kept answer to this frame, or else the answer of ``compute``, which is then kept.

        The client has all answers below ``num_answered``.
        """
        with self._lock:
            while self._answers and next(iter(self._answers)) < num_answered:
                self._drop_oldest()
            found = self._answers.get(request_id)
            if found is None:
                found = self._answers[request_id] = compute()
                self.num_bytes += len(found.payload)
                while len(self._answers) > self.window or (self.num_bytes > self.most_bytes and len(self._answers) > 1):
                    self._drop_oldest()
            return found

    def _drop_oldest(self) -> None:
        self.num_bytes -= len(self._answers.popitem(last=False)[1].payload)


class ReplyBook:
    """The replies of the last ``max_clients`` clients, by the name that each client gives itself.

    Args:
        max_clients: clients remembered; the client unheard for longest is forgotten first.
        window: answers kept for each client, at least the clients' own windows.
        most_bytes: bytes of all kept answers; beyond, the clients unheard for longest are forgotten.
    """

    def __init__(self, max_clients: int, window: int, most_bytes: int = MOST_BYTES) -> None:
        if min(max_clients, window, most_bytes) < 1:
            raise ValueError(
                f"max_clients, window and most_bytes must be at least 1, got {max_clients}, {window} and {most_bytes}"
            )
        self.max_clients, self.window, self.most_bytes = max_clients, window, most_bytes
        self._clients: OrderedDict[str, Replies] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Bytes of all kept answers."""
        with self._lock:
            return sum(replies.num_bytes for replies in self._clients.values())

    def of(self, client: str) -> Replies:
        """The replies of this client, which the book then remembers."""
        with self._lock:
            replies = self._clients.get(client)
            if replies is None:
                replies = self._clients[client] = Replies(self.window, self.most_bytes)
            self._clients.move_to_end(client)
            if len(self._clients) > self.max_clients:
                self._clients.popitem(last=False)
            return replies

    def answer(self, client: str, request_id: int, compute: Callable[[], Answer], num_answered: int = 0) -> Answer:
        """See ``Replies.answer``; afterwards all answers together are within ``most_bytes``."""
        replies = self.of(client)
        found = replies.answer(request_id, compute, num_answered)
        if replies.num_bytes > self.most_bytes // self.max_clients:  # else nobody can have made it too much
            with self._lock:
                total = sum(known.num_bytes for known in self._clients.values())
                while total > self.most_bytes and len(self._clients) > 1:
                    total -= self._clients.popitem(last=False)[1].num_bytes
        return found
