"""SwitchingLine: frames of several settings over one stream, in order, each answered once, whatever the link does.

Each frame names its plan, so that both ends change settings at the same frame, and frames under way are finished by
their own. A frame without an answer in time is finished on the edge; its answer, should it come later, is only learned
from. While there is no link, frames stay here, and probes look for it in a thread of their own. Probes go while the
link has nothing else to do: beside a frame that stays here, or while the line waits for the camera.
"""

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from splitsem.cost.frame_costs import FIRST_PROBES, Decides, Seen
from splitsem.errors import LinkError, SessionError, SplitSemError
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.tail_engine import TailEngine
from splitsem_device.answers import Answer, Counters, Planned
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.plan import Plan
from splitsem_device.retry import NoRetry, Retry

log = logging.getLogger(__name__)
_DEAD_S = 3.0  # after so long without an answer, a new connection finds the link sooner than TCP's own resending
_PROBE_S = 1.0


class Offer(NamedTuple):
    """A setting as the line carries it.

    Attributes:
        end: head and codec.
        plan: what end and server agree on.
        probe: a payload of this setting, for probes.
    """

    end: EdgeEnd
    plan: Plan
    probe: bytes


class Outcome(NamedTuple):
    """What became of one frame; seconds of one clock.

    Attributes:
        setting: of the frame.
        result: an output ``(1, *output_shape)``.
        taken_s: when the frame was due.
        done_s: when its result was here.
        is_lost: whether the edge finished it, since no answer came in time.
        payload_bytes: that were sent.
    """

    setting: int
    result: Any
    taken_s: float
    done_s: float
    is_lost: bool
    payload_bytes: int

    @property
    def latency_s(self) -> float:
        """Seconds until the result."""
        return self.done_s - self.taken_s


@dataclass(eq=False)
class _Frame:
    setting: int
    taken_s: float
    sent_s: float
    payload: bytes
    edge_s: float
    deadline_s: float = 0.0
    answer: Answer | None = None
    result: Any = None
    is_lost: bool = False


class _Stream:
    """A connection's thread: frames in, answers with their times out."""

    def __init__(self, remote: GrpcTail, events: "queue.SimpleQueue[_Event]") -> None:
        self.remote, self._events = remote, events
        self.sent: deque[_Frame] = deque()  # without an answer from the server
        self._outbox: queue.SimpleQueue[Planned | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="switching").start()

    def send(self, frame: _Frame, plan: Plan) -> None:
        self.sent.append(frame)
        self._outbox.put(Planned(plan, frame.payload))

    def end(self) -> None:
        """No more frames."""
        self._outbox.put(None)

    def drop(self) -> None:
        """Break the connection."""
        self.end()
        self.remote.close()

    def _run(self) -> None:
        try:
            for answer in self.remote.stream(iter(self._outbox.get, None)):
                self._events.put(_Event(self, time.perf_counter(), answer))
        except SplitSemError as exc:
            self._events.put(_Event(self, time.perf_counter(), exc))


class _Event(NamedTuple):
    stream: _Stream | None  # None: of a probe
    at_s: float
    what: Answer | SplitSemError | Seen


class SwitchingLine:
    """The edge's side of a run that adapts.

    Args:
        connect: makes a client that is not connected yet.
        offers: the settings; None: the one whose frames stay on the edge.
        whole: the whole network, for those.
        engine: finishes on the edge what the server does not answer.
        controller: chooses, in the order of ``offers``.
        window: frames under way at a time.

    Attributes:
        counters: of frames, over all connections.
        num_probes: sent.
    """

    def __init__(
        self,
        connect: Callable[[], GrpcTail],
        offers: Sequence[Offer | None],
        whole: Callable[[Any], Any],
        engine: TailEngine,
        controller: Decides,
        window: int = 1,
    ) -> None:
        self._connect, self._whole, self._engine = connect, whole, engine
        self._offers, self._plans = offers, [offer.plan for offer in offers if offer is not None]
        self.controller, self.window = controller, window
        self.counters, self.num_probes = Counters(), 0
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._underway: deque[_Frame] = deque()
        self._stream: _Stream | None = None
        self._probing: threading.Thread | None = None
        self._prober: GrpcTail | None = None
        self._is_useless = self._was_idle = False

    def connect(self) -> None:
        """Reach the server, agree on all plans, and send first probes. Raises what ``GrpcTail.open`` raises."""
        self._stream = self._opened()
        for _ in range(FIRST_PROBES):
            setting = self.controller.probe(time.perf_counter())
            offer = None if setting is None else self._offers[setting]
            if setting is None or offer is None:
                break
            self._probe(setting, offer, self._stream.remote.retry.deadline_s, needs_stream=False)
            self._listen(0.0)

    def frames(self, samples: Iterable[Any], period_s: float = 0.0) -> Iterator[Outcome]:
        """What becomes of the samples, in order.

        Args:
            samples: each ``(1, *input_shape)``.
            period_s: seconds between frames, as of a camera; 0: each begins once there is room for it.
        """
        began_s = time.perf_counter()
        try:
            for number, x in enumerate(samples):
                while len(self._underway) >= self.window:
                    yield self._finished()
                due_s = began_s + number * period_s
                self._was_idle = False
                while (left_s := due_s - time.perf_counter()) > 0 and period_s:
                    if self._underway:
                        yield self._finished()
                    else:
                        if not self._was_idle:
                            self._was_idle = True
                            self._probe_if_asked(time.perf_counter())
                        self._listen(left_s)
                self._begin(x, due_s if period_s else time.perf_counter())
            while self._underway:
                yield self._finished()
        finally:
            self.close()

    def close(self) -> None:
        """Leave the server."""
        self._is_useless = True
        if self._prober is not None:
            self._prober.close()
        if self._probing is not None:
            self._probing.join()
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event.what, Seen) and event.stream is not None:
                event.stream.drop()
        if self._stream is not None:
            self._stream.drop()
            self._stream = None

    def _begin(self, x: Any, taken_s: float) -> None:
        """Choose a setting, compute the head, and send."""
        while not self._events.empty():
            self._take(self._events.get())
        now_s = time.perf_counter()
        stream = self._stream
        if stream is not None and stream.sent and stream.sent[0].is_lost and now_s - stream.sent[0].sent_s > _DEAD_S:
            self._lose(stream)
        setting = self.controller.choose(now_s)
        offer = self._offers[setting]
        if offer is None or not self._was_idle:  # else it would delay the frame
            self._probe_if_asked(now_s)
        if offer is None:
            with torch.inference_mode():
                result = self._whole(x)
            done_s = time.perf_counter()
            self.controller.seen(Seen(setting, done_s, done_s, edge_s=done_s - now_s))
            self._underway.append(_Frame(setting, taken_s, done_s, b"", done_s - now_s, result=result))
            return
        payload = offer.end.payload(x)
        sent_s = time.perf_counter()
        frame = _Frame(setting, taken_s, sent_s, payload, sent_s - now_s)
        frame.deadline_s = sent_s + self.controller.deadline_s(setting)
        self._underway.append(frame)
        if self._stream is None:
            frame.deadline_s = sent_s
        else:
            self._stream.send(frame, offer.plan)

    def _finished(self) -> Outcome:
        """The oldest frame's outcome, once it is there."""
        frame = self._underway[0]
        offer = self._offers[frame.setting]
        while offer is not None and frame.answer is None:
            left_s = frame.deadline_s - time.perf_counter()
            if left_s > 0:
                self._listen(left_s)
            else:
                self._give_up(frame, offer)
        if offer is not None:
            assert frame.answer is not None
            frame.result = offer.end.result(frame.answer)
        done_s = frame.sent_s if offer is None else time.perf_counter()
        self._underway.popleft()
        return Outcome(frame.setting, frame.result, frame.taken_s, done_s, frame.is_lost, len(frame.payload))

    def _give_up(self, frame: _Frame, offer: Offer) -> None:
        """Finish a frame here."""
        frame.is_lost = True
        self.controller.seen(self._seen(frame, None))
        output, server_s = self._engine.answer(self._engine.open(offer.plan), frame.payload)
        self.counters.fallback_frames += 1
        frame.answer = Answer(0, output, server_s, 0.0)

    def _listen(self, most_s: float) -> None:
        """Wait for what comes next, a while at most."""
        with contextlib.suppress(queue.Empty):
            self._take(self._events.get(timeout=min(most_s, 60.0)))

    def _take(self, event: _Event) -> None:
        if isinstance(event.what, Seen):
            if event.stream is not None:
                self._adopt(event.stream)
            self.controller.seen(event.what)
        elif event.stream is not self._stream or event.stream is None:
            return  # of a connection that was given up
        elif isinstance(event.what, Answer):
            frame = event.stream.sent.popleft()
            self.controller.seen(self._seen(frame, event))
            if frame.is_lost:
                self.counters.frames_late += 1
            else:
                frame.answer = event.what
        elif isinstance(event.what, LinkError | SessionError):
            log.warning("Going on without the server while it is away: %s", event.what)
            self._lose(event.stream)
        else:
            raise event.what

    def _lose(self, stream: _Stream) -> None:
        """Give up a connection, and with it the frames that it has not answered."""
        stream.drop()
        self._stream = None
        for frame in stream.sent:
            frame.deadline_s = 0.0

    def _seen(self, frame: _Frame, event: "_Event | None") -> Seen:
        edge_s = 0.0 if frame.is_lost and event else frame.edge_s
        if event is None or not isinstance(event.what, Answer):
            return Seen(frame.setting, frame.sent_s, None, len(frame.payload), edge_s=edge_s)
        sizes = len(frame.payload), len(event.what.payload)
        took_s = event.what.server_s, event.what.queue_s
        return Seen(frame.setting, frame.sent_s, event.at_s, *sizes, *took_s, edge_s, is_late=frame.is_lost)

    def _probe_if_asked(self, now_s: float) -> None:
        """Send a probe by a connection of its own, one at a time; with it comes a new stream, where there is none."""
        if self._is_useless or (self._probing is not None and self._probing.is_alive()):
            return
        setting = self.controller.probe(now_s)
        offer = None if setting is None else self._offers[setting]
        if setting is None or offer is None:
            return
        self.num_probes += 1
        patience_s = _PROBE_S + min(10.0, self.controller.deadline_s(setting))
        needs_stream = self._stream is None or bool(self._stream.sent)
        self._probing = threading.Thread(
            target=self._probe, args=(setting, offer, patience_s, needs_stream), daemon=True, name="probe"
        )
        self._probing.start()

    def _probe(self, setting: int, offer: Offer, patience_s: float, needs_stream: bool) -> None:
        """A thread's work: one call, and a stream after it if one is needed; either way an event."""
        self._prober = self._prober or self._connect()
        self._prober.is_terse = True
        self._prober.retry = NoRetry(deadline_s=patience_s)
        sent_s, stream = time.perf_counter(), None
        try:
            self._prober.open(offer.plan)
            sent_s = time.perf_counter()
            answer = self._prober.call(offer.probe)
            took_s = time.perf_counter(), len(offer.probe), len(answer.payload), answer.server_s, answer.queue_s
            if needs_stream:
                stream = self._opened(NoRetry(deadline_s=patience_s))
            seen = Seen(setting, sent_s, *took_s, is_probe=True)
        except (LinkError, SessionError):
            self._prober.close()
            seen = Seen(setting, sent_s, None, is_probe=True)
        except SplitSemError as exc:
            log.warning("The server is back, but not of use: %s", exc)
            self._is_useless = True
            return
        self._events.put(_Event(stream, time.perf_counter(), seen))

    def _opened(self, retry: Retry | None = None) -> _Stream:
        """A new connection on which all plans are agreed."""
        remote = self._connect()
        remote.counters = self.counters
        patient = remote.retry
        remote.retry, remote.is_terse = retry or patient, retry is not None
        remote.open_all(self._plans)
        remote.is_terse = True
        remote.retry = patient.at_most(0)  # a lost link is not waited for
        return _Stream(remote, self._events)

    def _adopt(self, stream: _Stream) -> None:
        """Take a new connection, unless the old one works again."""
        old = self._stream
        if old is not None and not any(frame.is_lost for frame in old.sent):
            stream.drop()
            return
        if old is not None:
            self._lose(old)
        self._stream = stream
