"""ReplyBook keeps the last answers to each client, so that a resent frame is answered without a new computation.

Answers are kept within bytes. An answer that was let go is computed anew when its frame comes again.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from splitsem_device.answers import Answer

Given = TypeVar("Given")
Made = TypeVar("Made")
Begun = Answer | Future[Answer]
"""An answer, or what becomes one when another server has done its part."""

MOST_BYTES = 256 << 20


def then(future: Future[Given], make: Callable[[Given], Made]) -> Future[Made]:
    """What ``make`` makes of a result once it is there; an error stays what it is."""
    made: Future[Made] = Future()

    def done(of: Future[Given]) -> None:
        error = of.exception()
        if error is None:
            made.set_result(make(of.result()))
        else:
            made.set_exception(error)

    future.add_done_callback(done)
    return made


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
        self._answers: OrderedDict[int, Begun] = OrderedDict()
        self._lock = threading.Lock()
        self._computing = threading.Lock()  # apart from the other, so that answers leave while a frame is computed

    def begin(self, request_id: int, compute: Callable[[], Begun], num_answered: int = 0) -> Begun:
        """What is kept of this frame, or else what ``compute`` gives, which is then kept.

        The client has all answers below ``num_answered``. What failed at another server is computed anew.
        """
        with self._lock:
            while self._answers and next(iter(self._answers)) < num_answered:
                self._drop_oldest()
        if (known := self._kept(request_id)) is not None:
            return known
        with self._computing:
            if (known := self._kept(request_id)) is not None:  # another thread computed it meanwhile
                return known
            made = compute()
            with self._lock:
                self._answers[request_id] = made
                self.num_bytes += _num_bytes(made)
                while len(self._answers) > self.window or (self.num_bytes > self.most_bytes and len(self._answers) > 1):
                    self._drop_oldest()
            return made

    def answer(self, request_id: int, compute: Callable[[], Begun], num_answered: int = 0) -> Answer:
        """As ``begin``, and waits for the answer; other frames can begin meanwhile. Raises what became of it."""
        found = self.begin(request_id, compute, num_answered)
        if not isinstance(found, Future):
            return found
        answer = found.result()
        with self._lock:
            if self._answers.get(request_id) is found:
                self._answers[request_id] = answer
                self.num_bytes += len(answer.payload)
        return answer

    def _kept(self, request_id: int) -> Begun | None:
        """What is kept of this frame, unless it failed at another server."""
        with self._lock:
            found = self._answers.get(request_id)
        return None if isinstance(found, Future) and found.done() and found.exception() else found

    def _drop_oldest(self) -> None:
        self.num_bytes -= _num_bytes(self._answers.popitem(last=False)[1])


def _num_bytes(begun: Begun) -> int:
    return 0 if isinstance(begun, Future) else len(begun.payload)


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

    def begin(self, client: str, request_id: int, compute: Callable[[], Begun], num_answered: int = 0) -> None:
        """See ``Replies.begin``; the answer is asked for by ``answer``."""
        self.of(client).begin(request_id, compute, num_answered)

    def answer(self, client: str, request_id: int, compute: Callable[[], Begun], num_answered: int = 0) -> Answer:
        """See ``Replies.answer``; afterwards all answers together are within ``most_bytes``."""
        replies = self.of(client)
        found = replies.answer(request_id, compute, num_answered)
        if replies.num_bytes > self.most_bytes // self.max_clients:  # else nobody can have made it too much
            with self._lock:
                total = sum(known.num_bytes for known in self._clients.values())
                while total > self.most_bytes and len(self._clients) > 1:
                    total -= self._clients.popitem(last=False)[1].num_bytes
        return found
