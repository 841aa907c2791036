"""ReplyBook keeps the last answers to each client, so that a resent frame is answered without a new computation."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from splitsem.remote.ends import Answer


class Replies:
    """The last ``window`` answers to one client; the client's frames are computed one at a time.

    A client has at most ``window`` unanswered frames, so it never resends an older frame. Answers that the client has
    confirmed are forgotten at once, since large answers would pile up.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._answers: OrderedDict[int, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, request_id: int, compute: Callable[[], Answer], num_answered: int = 0) -> Answer:
        """The kept answer to this frame, or else the answer of ``compute``, which is then kept.

        The client has all answers below ``num_answered``.
        """
        with self._lock:
            while self._answers and next(iter(self._answers)) < num_answered:
                self._answers.popitem(last=False)
            if request_id not in self._answers:
                self._answers[request_id] = compute()
                while len(self._answers) > self.window:
                    self._answers.popitem(last=False)
            return self._answers[request_id]


class ReplyBook:
    """The replies of the last ``max_clients`` clients, by the name that each client gives itself.

    Args:
        max_clients: clients remembered; the client unheard for longest is forgotten first.
        window: answers kept for each client, at least the clients' own windows.
    """

    def __init__(self, max_clients: int, window: int) -> None:
        if max_clients < 1 or window < 1:
            raise ValueError(f"max_clients and window must be at least 1, got {max_clients} and {window}")
        self.max_clients, self.window = max_clients, window
        self._clients: OrderedDict[str, Replies] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, client: str) -> Replies:
        """The replies of this client, which the book then remembers."""
        with self._lock:
            replies = self._clients.get(client)
            if replies is None:
                replies = self._clients[client] = Replies(self.window)
            self._clients.move_to_end(client)
            if len(self._clients) > self.max_clients:
                self._clients.popitem(last=False)
            return replies
