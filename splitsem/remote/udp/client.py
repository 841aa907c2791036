"""UdpTail is the edge's end of the UDP transport."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from splitsem.cost.lut import parse_lut
from splitsem.errors import ConfigError, LinkError
from splitsem.remote.ends import Answer, Counters, Profile, RemoteTail
from splitsem.remote.plan import Plan
from splitsem.remote.udp.caller import Caller
from splitsem.remote.udp.endpoint import Endpoint
from splitsem.remote.udp.packets import Purpose, pack_profile
from splitsem.remote.udp.settings import Counts, Settings, connect

_CLOSED = "open(plan) first: there is no connection"


class UdpTail(RemoteTail):
    """Sends frames as datagrams and hands out the answers in order.

    With ``loss="tolerate"``, frames are not resent; only answers and packets that steer the connection are. A frame of
    which too much is missing gets an ``Answer`` with an empty payload (its ``output()`` raises PayloadError) and counts
    in ``counts.frames_lost``.

    Args:
        target: ``HOST:PORT`` of the server.
        settings: how to send.
        insecure: allow a server that is not on this machine, though datagrams travel in the clear.
    """

    def __init__(self, target: str, settings: Settings | None = None, insecure: bool = False) -> None:
        self.target, self.settings, self.insecure = target, settings or Settings(), insecure
        self.counters = Counters()
        self._caller: Caller | None = None
        self._endpoint: Endpoint | None = None

    @property
    def counts(self) -> Counts:
        """Counts of this end on the present connection."""
        return self._caller.counts if self._caller else Counts()

    def open(self, plan: Plan) -> None:
        """See RemoteTail. Raises ConfigError (no agreement, no such address) and LinkError (no answer)."""
        self.close()
        sock = connect(self.target, self.insecure)
        self._caller = Caller(self.target, self.settings, plan.to_json(), self.counters)
        self._endpoint = Endpoint(sock, self._caller)
        try:
            self._caller.wait_until_agreed()
        except (ConfigError, LinkError):
            self.close()
            raise

    def stream(self, payloads: Iterable[bytes], window: int | None = None) -> Iterator[Answer]:
        """See RemoteTail; ``request_id`` counts this stream's frames from 0.

        Raises LinkError (the server is gone), ConfigError (a restarted server disagrees with the plan) and PayloadError
        (the server cannot read a frame).
        """
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        caller, endpoint = self._connected()
        window = min(window or self.settings.window, self.settings.window)
        return _Stream(caller, endpoint, payloads, window).answers()

    def echo_s(self, num_bytes: int) -> float:
        """See RemoteTail."""
        caller, endpoint = self._connected()
        payload = bytes(num_bytes)
        began = time.perf_counter()
        number = caller.submit(payload, Purpose.ECHO)
        endpoint.push()
        caller.wait(number)
        return time.perf_counter() - began

    def profile(
        self, points: Sequence[str] = (), payload: bytes = b"", budget_s: float = 0.3, pause_s: float = 0.002
    ) -> Profile:
        """See RemoteTail."""
        caller, endpoint = self._connected()
        number = caller.submit(pack_profile(points, budget_s, pause_s, payload), Purpose.PROFILE)
        endpoint.push()
        answer = caller.wait(number)
        return Profile(parse_lut(bytes(answer.payload).decode(), f"the table of {self.target}"), answer.server_s)

    def close(self) -> None:
        """See RemoteTail."""
        if self._caller is not None and self._endpoint is not None:
            self._caller.leave()
            self._endpoint.close()
            self._endpoint = None

    def _connected(self) -> tuple[Caller, Endpoint]:
        if self._caller is None or self._endpoint is None:
            raise LinkError(_CLOSED)
        return self._caller, self._endpoint


class _Stream:
    """One stream: a thread draws and submits payloads, the consumer's thread takes the answers."""

    def __init__(self, caller: Caller, endpoint: Endpoint, payloads: Iterable[bytes], window: int) -> None:
        self._caller, self._endpoint, self._payloads = caller, endpoint, payloads
        self._room = threading.Semaphore(window)
        self._numbers: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._is_over = False

    def answers(self) -> Iterator[Answer]:
        """The answers, in order; each taken answer frees a place in the window."""
        feeder = threading.Thread(target=self._feed, name="splitsem-udp-stream", daemon=True)
        feeder.start()
        place = 0
        try:
            while (number := self._numbers.get()) is not None:
                if isinstance(number, BaseException):
                    raise number
                answer = self._caller.wait(number)
                self._room.release()
                yield Answer(place, answer.payload, answer.server_s, answer.queue_s)
                place += 1
        finally:
            self._is_over = True
            self._room.release()
            self._drop_rest()

    def _feed(self) -> None:
        try:
            payloads = iter(self._payloads)
            while self._has_room() and (payload := next(payloads, None)) is not None:
                self._numbers.put(self._caller.submit(payload, Purpose.FRAME))
                self._endpoint.push()
            if self._is_over:
                self._drop_rest()  # requests submitted after the consumer left
        except BaseException as exc:  # noqa: BLE001 - handed to the consumer, which raises it
            self._numbers.put(exc)
        else:
            self._numbers.put(None)

    def _has_room(self) -> bool:
        self._room.acquire()
        return not self._is_over

    def _drop_rest(self) -> None:
        rest = set()
        while not self._numbers.empty():
            number = self._numbers.get()
            if isinstance(number, int):
                rest.add(number)
        self._caller.abandon(rest)
