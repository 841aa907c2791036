"""ForwardingEngine is a middle machine of a chain: it computes up to the next cut, and has the next server do the rest.

A camera's plan says all further cuts (``Plan.onward``); each machine takes the first of them and passes the others on,
so that all agree before the first frame. Frames of one plan go to the next server in one stream, ahead of answers.

Who waits for a dead machine is the one that began: a middle machine tries once and says at once which address is down,
and the camera tries again as its ``transport.retry`` says. So nobody's patience is hidden inside another's.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import grpc
import torch

from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError, LinkError, PayloadError, SplitPointError, SplitSemError
from splitsem.remote.engine import Answered
from splitsem.remote.labels import codec_label, entry_of, precision_of, weights_digest
from splitsem.remote.link_probe import busy_s
from splitsem.remote.replies import then
from splitsem.remote.tail_engine import TailEngine, contiguous, read_payload
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.point import SplitPoint
from splitsem_device.answers import Answer, Profile, ToMeasure
from splitsem_device.fields import Payload
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import diagnose
from splitsem_device.peer_text import shown, shown_lines
from splitsem_device.plan import Plan, probe_bytes

_NEXT = "next machine "


class Lane:
    """The frames of one plan on their way to the next server: one stream, in order. A broken lane stays broken.

    Args:
        end: to the next server.
        plan: of the frames.

    Attributes:
        is_broken: whether frames sent from now on will fail.

    Raises:
        ConfigError: the next server does not agree.
        LinkError: it cannot be reached; the line names its address.
    """

    def __init__(self, end: GrpcTail, plan: Plan) -> None:
        # a frame is given up here before the machine before this one gives it up, so that the culprit is named
        share = (len(plan.onward) + 1) / (len(plan.onward) + 2)
        end.retry = replace(end.retry.at_most(0), deadline_s=share * end.retry.deadline_s)
        end.is_terse = True  # ``_why`` looks into what takes no time
        self._end, self._is_open, self.is_broken = end, False, False
        self._error: SplitSemError = LinkError(f"{_NEXT}{end.target}: the connection was closed")
        self._payloads: SimpleQueue[bytes | None] = SimpleQueue()
        self._waiting: deque[Future[Answer]] = deque()
        self._lock = threading.Lock()
        with self._named():
            end.open(plan)
        self._is_open = True
        threading.Thread(target=self._run, daemon=True, name="onward").start()

    def send(self, payload: bytes) -> Future[Answer]:
        """Send a frame after all others."""
        future: Future[Answer] = Future()
        with self._lock:
            if self.is_broken:
                future.set_exception(self._error)
            else:
                self._waiting.append(future)
                self._payloads.put(payload)
        return future

    def close(self) -> None:
        """Take no more frames, and end when those that were sent are answered."""
        with self._lock:
            self.is_broken = True
        self._payloads.put(None)

    def _run(self) -> None:
        try:
            with self._named():
                for answer in self._end.stream(iter(self._payloads.get, None)):
                    self._waiting.popleft().set_result(answer)
        except SplitSemError as exc:
            self._error = exc
        finally:
            self._fail()

    def _fail(self) -> None:
        """The oldest frame is what the error is about; the others can be sent again."""
        with self._lock:
            self.is_broken, failed, error = True, list(self._waiting), self._error
        again = error
        if not isinstance(error, LinkError):
            again = LinkError(f"{_NEXT}{self._end.target}: another frame broke the stream")
        self._error = again
        for number, future in enumerate(failed):
            future.set_exception(again if number else error)
        self._payloads.put(None)  # for gRPC's thread that may wait for a frame
        self._end.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the next machine in what goes wrong with it, which is not the fault of whoever asked this one."""
        try:
            yield
        except SplitSemError as exc:
            faults = PayloadError, ConfigError, SplitPointError  # of who asked; what else goes wrong may be tried again
            kind = next((kind for kind in faults if isinstance(exc, kind)), LinkError)
            name = self._end.target
            lines = (line if line.startswith(name) else f"{name}: {line}" for line in self._why(exc).split("\n"))
            raise kind("\n".join(f"{_NEXT}{line}" for line in lines)) from exc

    def _why(self, exc: SplitSemError) -> str:
        """What went wrong, in words that are there before the machine before this one loses its patience."""
        end, cause = self._end, exc.__cause__
        if isinstance(exc, LinkError) and isinstance(cause, grpc.RpcError):
            code, details = cause.code(), shown_lines(cause.details() or "")
            if code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
                return f"{end.target} did not answer in time"
            is_opening = not self._is_open  # what breaks later is looked into when the next lane is opened
            if is_opening and code is grpc.StatusCode.UNAVAILABLE and _NEXT not in details:
                return diagnose(end.target, end.security, code, details)
        return str(exc)


class ForwardingEngine(TailEngine):
    """As TailEngine; a plan with further cuts is computed up to the next one, and finished by the next server.

    Args:
        graph: the network; every machine of a chain holds the whole of it and computes its part.
        weights: see TailEngine.
        next_end: makes an end to the next server.
        encoders: make the payloads of further cuts, by the names that plans give them; codecs without weights.
        settings: of a TailEngine.
    """

    is_forwarding = True

    def __init__(
        self,
        graph: CutGraph,
        weights: str,
        *,
        next_end: Callable[[], GrpcTail],
        encoders: Mapping[str, Codec],
        **settings: Any,
    ) -> None:
        super().__init__(graph, weights, **settings)
        self.next_end, self.encoders = next_end, dict(encoders)
        self._lanes: OrderedDict[Plan, Lane] = OrderedDict()
        self._laying, self._turns = threading.Lock(), dict[Plan, threading.Lock]()

    def open(self, plan: Plan) -> str:
        """See Engine; the next servers agree, too. LinkError where one of them is down, which the line names."""
        key = super().open(plan)
        if plan.onward:
            self._lane(plan)
        return key

    def disagreements(self, plan: Plan) -> list[str]:
        """See TailEngine."""
        lines = super().disagreements(replace(plan, onward=()))
        for hop in plan.onward[:1]:
            if self.decoder(plan.codec).tail is not None:
                lines.append(f"onward: {plan.codec} brings a tail of its own, which no chain cuts; send another codec")
            if hop.codec and hop.codec not in self.encoders:
                lines.append(
                    f"onward: this server makes {', '.join(self.encoders)} at a further cut, the plan asks for "
                    f"{shown(hop.codec)}; start it with workflow.codecs=[{entry_of(shown(hop.codec))}], from Python "
                    "with encoders="
                )
            if not hop.codec and hop.point != plan.point:
                lines.append(f"onward: a payload is passed on unread at its own cut only, not at {shown(hop.point)}")
        return lines

    def begin(self, session: str, payload: Payload, queue_s: float = 0.0) -> Answered | Future[Answered]:
        """See Engine."""
        if probe_bytes(session) is not None or not self.plan(session).onward:
            return super().answer(session, payload, queue_s)
        chosen = self.session(session)
        lane = self._lane(chosen.plan)  # before the work, so that a machine that is down costs none
        with self.metrics.request(len(payload), queue_s) as request:
            onward = self._passed(chosen, payload, request.over)

        def told(answer: Answer) -> Answered:
            with self._lock:
                self.num_answered += 1
                if session in self._sessions:
                    self._has_answered.add(session)
            return contiguous(answer.payload), request.server_s + answer.server_s

        return then(lane.send(onward), told)

    def answer(self, session: str, payload: Payload, queue_s: float = 0.0) -> Answered:
        """See Engine."""
        begun = self.begin(session, payload, queue_s)
        return begun.result() if isinstance(begun, Future) else begun

    def compute(self, chosen: Any, payload: Payload, over: Callable[..., object]) -> bytes:
        """See TailEngine."""
        if not chosen.plan.onward:
            return super().compute(chosen, payload, over)
        return bytes(contiguous(self._lane(chosen.plan).send(self._passed(chosen, payload, over)).result().payload))

    def ask_next(self, chosen: Any, asked: ToMeasure, answer_bytes: int) -> Profile | None:
        """See TailEngine; over a connection of its own, since that of frames has a stream."""
        if not chosen.plan.onward:
            return None
        further, end = self._further(chosen.plan), self.next_end()
        end.retry = end.retry.at_most(0)  # the camera is the one that is patient
        try:
            onward = self._passed(chosen, asked.payload, lambda *_: None)
            end.open(further.probe(answer_bytes))
            hop_busy_s = busy_s(end, len(onward))
            end.open(further)
            found = end.profile(asked._replace(points=[further.point], payload=onward))
            return found._replace(hops_busy_s=(hop_busy_s, *found.hops_busy_s))
        finally:
            end.close()

    def close(self) -> None:
        """See Engine."""
        with self._laying:
            for lane in self._lanes.values():
                lane.close()
            self._lanes.clear()

    def _made(self, plan: Plan, point: SplitPoint) -> Any:
        """As in TailEngine, with the part up to the next cut for a tail."""
        if not plan.onward:
            return super()._made(plan, point)
        cut, part = self.graph.cut(point), self.graph.between(point, self.point(plan.onward[0].point))
        made = super()._made(plan, point)
        return made._replace(tail=lambda *z: part(*cut.received(z)), coder=None)

    def _passed(self, chosen: Any, payload: Payload, over: Callable[..., object]) -> bytes:
        """The payload for the next server; calls ``over`` as ``compute`` does."""
        hop = chosen.plan.onward[0]
        if not hop.codec:
            return bytes(contiguous(payload))
        with torch.inference_mode():
            z_hat = read_payload(chosen.decoder, payload, chosen.expected)
            over("decode")
            z = chosen.tail(*z_hat)
            over("tail")
            made = self.encoders[hop.codec].payload(z)
            over("encode", len(made))
        return made

    def _further(self, plan: Plan) -> Plan:
        """The plan that this machine opens with the next one."""
        hop, onward = plan.onward[0], plan.onward[1:]
        codec = codec_label(self.encoders[hop.codec]) if hop.codec else plan.codec
        return replace(plan, point=hop.point, codec=codec, onward=onward)

    def _lane(self, plan: Plan) -> Lane:
        """The way of this plan's frames to the next server, laid anew where it broke. Raises as ``Lane``."""
        further = self._further(plan)
        if (lane := self._laid(further)) is not None:
            return lane
        with self._laying:
            turn = self._turns.setdefault(further, threading.Lock())
        with turn:  # of this plan: others' frames go on while the next machine is asked
            try:
                if (lane := self._laid(further)) is None:
                    lane = Lane(self.next_end(), further)
                    with self._laying:
                        self._lanes[further] = lane
                        if len(self._lanes) > self.max_sessions:
                            self._lanes.popitem(last=False)[1].close()
            finally:
                with self._laying:
                    self._turns.pop(further, None)
        return lane

    def _laid(self, further: Plan) -> Lane | None:
        """The way that is there and is not broken."""
        with self._laying:
            lane = self._lanes.get(further)
            if lane is None or lane.is_broken:
                return None
            self._lanes.move_to_end(further)
            return lane


def engine_of(
    graph: CutGraph, codecs: Sequence[Codec] = (), micro_batch: int = 1, onward: Mapping[str, Any] | None = None
) -> TailEngine:
    """The engine of a graph, whose network says the rest; ``onward`` is what only a ForwardingEngine takes."""
    kind = ForwardingEngine if onward else TailEngine
    settings: dict[str, Any] = {"codecs": codecs, "micro_batch": micro_batch, **(onward or {})}
    settings |= {"granularity": graph.granularity, "precision": precision_of(graph.model)}
    return kind(graph, weights_digest(graph.model), **settings)
