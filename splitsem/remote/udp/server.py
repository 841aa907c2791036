"""UdpServer is the server's end of the UDP transport."""

import threading
import time

from splitsem.cost.lut import lut_json
from splitsem.errors import BusyError, PayloadError, SessionError, SplitPointError, SplitSemError
from splitsem.remote.ends import Answer, TailServer
from splitsem.remote.plan import Plan
from splitsem.remote.profiler import Profiler
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.udp.endpoint import Endpoint
from splitsem.remote.udp.inbox import zero_fill
from splitsem.remote.udp.packets import Purpose, pack_answer, parse_profile
from splitsem.remote.udp.sessions import Job, Sessions
from splitsem.remote.udp.settings import Counts, Settings, bind

_TORCH_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


class UdpServer(TailServer):
    """Answers the frames of several clients from one engine.

    Args:
        engine: answers the frames.
        host: address to listen on; only this machine's loopback unless ``insecure``.
        port: UDP port; 0 takes a free port.
        settings: how to send, and the limits for each client.
        max_clients: clients at a time.
        idle_s: seconds of silence after which a client is forgotten.
        num_workers: threads that compute; the frames of one client never overlap.
        insecure: allow an address that others can reach, though datagrams travel in the clear.
    """

    def __init__(
        self,
        engine: TailEngine,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: Settings | None = None,
        max_clients: int = 32,
        idle_s: float = 30.0,
        num_workers: int = 1,
        insecure: bool = False,
    ) -> None:
        if max_clients < 1 or num_workers < 1:
            raise ValueError(f"max_clients and num_workers must be at least 1, got {max_clients} and {num_workers}")
        if not idle_s > 0:
            raise ValueError(f"idle_s must be positive, got {idle_s}")
        self._engine, self._host, self._port, self._insecure = engine, host, port, insecure
        self.sessions = Sessions(settings or Settings(), max_clients, idle_s)
        self._num_workers = num_workers
        self._profiler = Profiler(engine)
        self._workers: list[threading.Thread] = []
        self._endpoint: Endpoint | None = None

    @property
    def counts(self) -> Counts:
        """Counts of the server so far."""
        return self.sessions.counts

    def start(self) -> str:
        """See TailServer."""
        sock = bind(self._host, self._port, self._insecure)
        host, port = sock.getsockname()[:2]
        self._endpoint = Endpoint(sock, self.sessions)
        for _ in range(self._num_workers):
            worker = threading.Thread(target=self._work, name="splitsem-udp-worker", daemon=True)
            worker.start()
            self._workers.append(worker)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def stop(self, grace_s: float = 5.0) -> None:
        """See TailServer; also waits for the acknowledgements of the last answers."""
        if self._endpoint is None:
            return
        until_s = time.monotonic() + grace_s
        with self.sessions.lock:
            self.sessions.is_draining = True
            # an acknowledgement notifies nobody, so look again at times
            while not self.sessions.is_idle and (left_s := until_s - time.monotonic()) > 0:
                self.sessions.lock.wait(min(left_s, 0.02))
        self.sessions.stop()
        self._endpoint.close()
        self._endpoint = None
        for worker in self._workers:
            worker.join(max(until_s - time.monotonic(), 0.1))

    def queue_depth(self) -> int:
        """See TailServer."""
        with self.sessions.lock:
            return self.sessions.num_waiting

    def num_clients(self) -> int:
        """See TailServer."""
        return self.sessions.num_clients

    def _work(self) -> None:
        while (job := self.sessions.next_job()) is not None:
            purpose, body = self._answer(job)
            self.sessions.done(job, purpose, body)
            if self._endpoint is not None:
                self._endpoint.push()

    def _answer(self, job: Job) -> tuple[Purpose, bytes]:
        if job.purpose == Purpose.ECHO:
            return Purpose.ECHOED, b""
        try:
            if job.purpose == Purpose.PLAN and job.number == 0:
                return self._agree(job)
            if job.purpose == Purpose.FRAME and job.session.plan is not None:
                return self._answer_frame(job)
            if job.purpose == Purpose.PROFILE and job.session.plan is not None:
                return self._profile(job)
        except BusyError as exc:
            return Purpose.BUSY, str(exc).encode()
        except PayloadError as exc:
            return Purpose.BAD_FRAME, str(exc).encode()
        except SplitPointError as exc:
            return (Purpose.DISAGREED if job.purpose == Purpose.PLAN else Purpose.BAD_FRAME), str(exc).encode()
        except SplitSemError as exc:
            return Purpose.DISAGREED, str(exc).encode()
        except _TORCH_ERRORS as exc:  # an error of this frame must not stop other frames
            return Purpose.FAILED, f"the tail failed: {exc}".encode()
        return Purpose.FAILED, f"expected a plan and then frames, got a message of purpose {job.purpose}".encode()

    def _agree(self, job: Job) -> tuple[Purpose, bytes]:
        plan = Plan.from_json(bytes(job.payload))
        job.session.key, job.session.plan = self._engine.open(plan), plan
        return Purpose.AGREED, b""

    def _profile(self, job: Job) -> tuple[Purpose, bytes]:
        points, budget_s, pause_s, payload = parse_profile(job.payload)
        found = self._profiler.profile(points, job.session.key, payload, budget_s, pause_s)
        return Purpose.PROFILED, pack_answer(lut_json(found.lut).encode(), found.answer_s, 0.0)

    def _answer_frame(self, job: Job) -> tuple[Purpose, bytes]:
        payload: bytes | memoryview | None = job.payload
        if job.missing:
            payload = zero_fill(job.payload, job.missing)
            self._count_missing(is_filled=payload is not None)
        if payload is None:
            return Purpose.LOST, f"{sum(length for _, length in job.missing)} bytes are missing".encode()
        whole = payload
        with self.sessions.lock:  # message 0 was the plan
            num_answered = job.request_id - job.number + job.conversation.outbox.num_confirmed
        answer = job.session.replies.answer(job.request_id, lambda: self._compute(job, whole), num_answered)
        body = pack_answer(answer.payload, answer.server_s, answer.queue_s)  # type: ignore[arg-type]
        return (Purpose.FILLED if job.missing else Purpose.ANSWER), body

    def _compute(self, job: Job, payload: bytes | memoryview) -> Answer:
        queue_s = time.monotonic() - job.arrived_s
        try:
            output, server_s = self._engine.answer(job.session.key, payload, queue_s)
        except SessionError:  # the engine dropped the session for other clients
            assert job.session.plan is not None
            job.session.key = self._engine.open(job.session.plan)
            output, server_s = self._engine.answer(job.session.key, payload, queue_s)
        return Answer(job.request_id, output, server_s, queue_s)

    def _count_missing(self, is_filled: bool) -> None:
        with self.sessions.lock:
            if is_filled:
                self.counts.frames_filled += 1
            else:
                self.counts.frames_lost += 1
