"""A server's log of its clients: a line when one comes with a plan, and a line with counts when it is gone."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from splitsem_device.peer_text import shown
from splitsem_device.plan import Plan

log = logging.getLogger(__name__)
LINGER_S = 5.0
_MAX_VISITS = 1024


@dataclass
class _Visit:
    peer: str
    began_s: float
    ended_s: float = 0.0
    num_open: int = 0
    num_frames: int = 0
    why: str = ""


class Visits:
    """Visits of clients; a client's streams with one plan are one visit until it has none for ``LINGER_S`` seconds.

    Args:
        clock: seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._visits: dict[tuple[str, str], _Visit] = {}
        self._lock = threading.Lock()

    def came(self, visitor: str, peer: str, session: str, plan: Plan) -> None:
        """A stream of this client began to send frames of this session."""
        with self._lock:
            visit = self._visits.get((visitor, session))
            is_new = visit is None and len(self._visits) < _MAX_VISITS
            if is_new:
                visit = self._visits[visitor, session] = _Visit(peer, self._clock())
            if visit is not None:
                visit.num_open += 1
        if is_new:
            answer = f"answered by {plan.answer}" if plan.answer else "the results stay here"
            what = shown(f"{plan.point} by {plan.codec}, {answer}")
            log.info("%s sends %s", visitor, what, extra={"peer": peer, "session": session})

    def went(self, visitor: str, session: str, num_frames: int, why: str) -> None:
        """The stream ended after this many frames."""
        with self._lock:
            visit = self._visits.get((visitor, session))
            if visit is not None:
                visit.num_open -= 1
                visit.num_frames += num_frames
                visit.ended_s, visit.why = self._clock(), why

    def settle(self, linger_s: float = LINGER_S) -> None:
        """Log the visits that are over."""
        now = self._clock()
        with self._lock:
            over = [key for key, v in self._visits.items() if v.num_open <= 0 and now - v.ended_s >= linger_s]
            gone = [(key, self._visits.pop(key)) for key in over]
        for (visitor, session), visit in gone:
            log.info(
                "%s is gone after %d frames in %.1f s: %s",
                *(visitor, visit.num_frames, visit.ended_s - visit.began_s, visit.why),
                extra={"peer": visit.peer, "session": session},
            )
