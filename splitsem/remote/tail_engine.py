"""TailEngine is the server's work on frames, without I/O: it agrees on plans, keeps their tails, and answers."""

import functools
import hashlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.expected import Expected
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError, SessionError
from splitsem.remote.engine import Engine
from splitsem.remote.labels import builtin_decoders, codec_label
from splitsem.remote.profiler import Profiler
from splitsem.remote.server_metrics import ServerMetrics
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.point import SplitPoint
from splitsem.tasks.answer import AnswerCoder, raw_coder
from splitsem.trees import mapped, rows, sliced
from splitsem_device.answers import Profile, ToMeasure
from splitsem_device.fields import Payload, Pieces
from splitsem_device.peer_text import shown
from splitsem_device.plan import MAX_PROBE_BYTES, Plan, probe_bytes


@dataclass(eq=False)
class _Job:
    z: Tensors
    woken: threading.Lock = field(default_factory=threading.Lock)  # held until the job is done or its thread runs next
    output: Any = None
    error: BaseException | None = None


class Batcher:
    """Runs a tail in one thread at a time, each run on all frames that arrived during the last run, oldest first.

    A frame that finds the tail idle is computed at once and alone. A stream has at most one frame here, so that first
    come, first served is fair between clients. Batched kernels may round differently in the last bit.

    A thread that finds the tail idle runs the tail. After the run, this thread wakes the threads whose frames it ran,
    and the thread of the oldest waiting frame runs next. No thread runs the tail for other frames alone.

    Args:
        tail: takes decoded tensors whose dimension 0 is the batch.
        max_samples: the most samples of one run; a single larger frame runs by itself.
    """

    def __init__(self, tail: Callable[..., Any], max_samples: int) -> None:
        self.tail, self.max_samples = tail, max_samples
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._is_running = False

    def __call__(self, *z: Tensor) -> Any:
        """The tail's output for these tensors."""
        job = _Job(z)
        job.woken.acquire()
        with self._lock:
            self._jobs.append(job)
            runs, self._is_running = not self._is_running, True
        if not runs:
            job.woken.acquire()
        if job.output is None and job.error is None:
            self._run_oldest()
        if job.error is not None:
            raise job.error
        assert job.output is not None
        return job.output

    def _run_oldest(self) -> None:
        """Run the oldest jobs, of which this thread's job is the first, and pass the tail on."""
        with self._lock:
            jobs = self._take()
        self._run(jobs)
        with self._lock:
            self._is_running = bool(self._jobs)
            successor = self._jobs[0] if self._jobs else None
        for job in (*jobs[1:], *filter(None, [successor])):
            job.woken.release()

    def _take(self) -> list[_Job]:
        """The oldest jobs that fit into one run."""
        jobs = [self._jobs.popleft()]
        num_samples = len(jobs[0].z[0])
        while self._jobs and num_samples + len(self._jobs[0].z[0]) <= self.max_samples:
            num_samples += len(self._jobs[0].z[0])
            jobs.append(self._jobs.popleft())
        return jobs

    def _run(self, jobs: list[_Job]) -> None:
        try:
            if len(jobs) == 1:
                jobs[0].output = self.tail(*jobs[0].z)
                return
            output = self.tail(*(torch.cat(tensors) for tensors in zip(*(job.z for job in jobs), strict=True)))
            for job, part in zip(jobs, sliced(output, [len(job.z[0]) for job in jobs]), strict=True):
                job.output = part
        except BaseException as exc:  # noqa: BLE001 (raised again in each job's own thread)
            for job in jobs:
                job.error = exc


log = logging.getLogger(__name__)
_MOST_BATCH_BYTES = 4 << 20  # of features, beyond one sample's: what a payload of a few bytes may make a server unpack


class _Session(NamedTuple):
    point: SplitPoint
    tail: Callable[..., Any]
    decoder: Codec | AnswerCoder
    expected: Expected
    coder: AnswerCoder | None  # None: the result stays here
    plan: Plan


_RAW_FACTOR, _HEADER_BYTES = 2, 64 << 10  # a payload may be so much larger than the raw tensors, and has headers


class TailEngine(Engine):
    """The server's side of a network: agrees on plans, keeps the tails they need, and answers payloads.

    Args:
        graph: the network that the server holds.
        weights: ``weights_digest`` of its model.
        granularity: of the graph.
        precision: of the network.
        codecs: decoders beyond the built-in ones; a codec that brings its own
            tail answers from that tail.
        coders: of answers, beyond that of all values of the output.
        max_sessions: tails kept; the tail unused for longest makes room, and its users open their plan again.
        max_batch: the most samples in one payload; fewer where their features take more than 4 MB, but always one. Also
            bounds a payload's bytes, see ``most_payload_bytes``.
        micro_batch: samples of several clients' frames that may run together, see ``Batcher``; 1 runs each frame alone.

    Attributes:
        num_answered: payloads answered so far.
    """

    def __init__(
        self,
        graph: CutGraph,
        weights: str,
        granularity: str = "layer",
        precision: str = "float32",
        codecs: Sequence[Codec] = (),
        coders: Sequence[AnswerCoder] = (),
        max_sessions: int = 64,
        max_batch: int = 32,
        micro_batch: int = 1,
    ) -> None:
        if min(max_sessions, max_batch, micro_batch) < 1:
            raise ValueError(
                "max_sessions, max_batch and micro_batch must be at least 1, "
                f"got {max_sessions}, {max_batch} and {micro_batch}"
            )
        self.graph = graph
        self.offer = Plan(graph.fingerprint, weights, "", granularity, precision, "")
        self.place = str(graph.device)
        self.max_sessions, self.max_batch, self.micro_batch = max_sessions, max_batch, micro_batch
        self._by_label = {codec_label(codec): codec for codec in (*builtin_decoders(), *codecs)}
        self.codec_labels = tuple(self._by_label)
        raw = raw_coder(graph.sample)
        self.coders = {coder.name: coder for coder in (*coders, raw)}
        self._identity = Identity()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._has_answered: set[str] = set()
        self._lock = threading.Lock()
        self._opening = threading.Lock()  # making a tail takes a while, in which frames are answered
        self.num_answered = 0
        self.metrics = ServerMetrics()
        self._profiler = Profiler(self)

    @property
    def point_names(self) -> list[str]:
        """See Engine."""
        return [point.name for point in self.graph.points]

    def open(self, plan: Plan) -> str:
        """See Engine; the plan's tail is then ready. ConfigError, too, where the codec's tail is of another cut."""
        lines = self.disagreements(plan)
        if lines:
            self.metrics.opened(False, self._num_tails())
            raise ConfigError("\n".join(lines))
        if plan.probe_bytes() is not None:
            self.metrics.opened(True, self._num_tails())
            return plan.point  # nothing to keep: floods of such plans drive out no tail
        point = self.point(plan.point)
        key = hashlib.sha256(plan.to_json().encode()).hexdigest()[:16]
        with self._opening:
            with self._lock:
                is_known = key in self._sessions
            if not is_known:
                self._keep(key, self._made(plan, point))
        self.metrics.opened(True, self._num_tails())
        log.debug("Agreed on %s with %s, answering %s", plan.point, plan.codec, plan.answer, extra={"session": key})
        return key

    def point(self, name: str) -> SplitPoint:
        """The network's point of this name. Raises SplitPointError, which repeats little of a name from afar."""
        is_known = any(name == point.name for point in self.graph.points)
        return self.graph.point(name if is_known else shown(name))

    def _made(self, plan: Plan, point: SplitPoint) -> _Session:
        decoder = self.coders[plan.codec] if self._is_answer(plan) else self.decoder(plan.codec)
        coder = self.coders[plan.answer] if plan.answer else None
        cut = self.graph.cut(point).with_tail(decoder.tail if isinstance(decoder, Codec) else None)

        def tail(*z_hat: Tensor) -> Any:
            return cut.tail(*cut.received(z_hat))

        is_shared = self.micro_batch > 1 and point.is_batched
        runs = Batcher(tail, self.micro_batch) if is_shared else tail
        return _Session(point, runs, decoder, expected_at(point, self._most_samples(point)), coder, plan)

    def _keep(self, key: str, session: _Session) -> None:
        """Keep a session; in a full engine, one that never answered a frame makes room first, then the longest idle."""
        with self._lock:
            if len(self._sessions) >= self.max_sessions:
                idle = next((known for known in self._sessions if known not in self._has_answered), None)
                leaving = idle or next(iter(self._sessions))
                del self._sessions[leaving]
                self._has_answered.discard(leaving)
            self._sessions[key] = session

    def plan(self, session: str) -> Plan:
        """See Engine."""
        return self.session(session).plan

    def most_payload_bytes(self, session: str | None = None) -> int:
        """See Engine.

        ``2 · raw bytes of the crossing tensors · samples`` and 64 KiB for headers; probes have ``MAX_PROBE_BYTES``.
        """
        if session is None:
            largest = max(self.graph.points, key=lambda point: point.raw_bytes)
            return max(MAX_PROBE_BYTES, self._most_bytes(largest))
        return MAX_PROBE_BYTES if probe_bytes(session) is not None else self._most_bytes(self.session(session).point)

    def _most_bytes(self, point: SplitPoint) -> int:
        samples = self._most_samples(point) if point.is_batched else 1
        return _RAW_FACTOR * point.raw_bytes * samples + _HEADER_BYTES

    def _most_samples(self, point: SplitPoint) -> int:
        return min(self.max_batch, _MOST_BATCH_BYTES // max(1, point.raw_bytes) or 1)

    def answer(self, session: str, payload: Payload, queue_s: float = 0.0) -> tuple[bytes | memoryview, float]:
        """What the plan's coder makes of the tail's output for one payload, and the seconds that all of it took.

        The answer is empty where the result stays here. A payload of several samples gets their answers, one after the
        other. See Engine.
        """
        if (num_zeros := probe_bytes(session)) is not None:
            return _zeros()[:num_zeros], time.process_time()
        with self.metrics.request(len(payload), queue_s) as request:
            answer = self.compute(self.session(session), payload, request.over)
        with self._lock:
            self.num_answered += 1
            if session in self._sessions:
                self._has_answered.add(session)
        return answer, request.server_s

    def profile(self, asked: ToMeasure, session: str, is_wanted: Callable[[], bool]) -> Profile:
        """See Engine."""
        return self._profiler.profile(asked, session, is_wanted)

    def compute(self, chosen: _Session, payload: Payload, over: Callable[..., object]) -> bytes:
        """As ``answer``, but neither counts nor times; calls ``over`` with the name of each finished stage."""
        with torch.inference_mode():
            if isinstance(chosen.decoder, AnswerCoder):  # the whole network ran on the edge
                output = chosen.decoder.as_output(chosen.decoder.decode(contiguous(payload)))
                over("decode")
            else:
                z_hat = read_payload(chosen.decoder, payload, chosen.expected)
                over("decode")
                output = chosen.tail(*z_hat)
                output = mapped(Tensor.cpu, output)  # a GPU is done only then
            over("tail")
            coder = chosen.coder
            answer = b"" if coder is None else b"".join(map(coder.encode, rows(output)))
            over("encode", len(answer))
        return answer

    def ask_next(self, chosen: _Session, asked: ToMeasure, answer_bytes: int) -> Profile | None:
        """What the next machine of a chain says of its part of this payload; None: there is no next machine here.

        The hop to it, whose busy time is measured here, comes first in ``hops_busy_s``.
        """
        return None

    def _num_tails(self) -> int:
        with self._lock:
            return len(self._sessions)

    def session(self, key: str) -> _Session:
        """The session of this key, marked as just used. Raises SessionError."""
        with self._lock:
            if key not in self._sessions:
                raise SessionError(f"session {shown(key, 32)!r} is not open on this server: open its plan again")
            self._sessions.move_to_end(key)
            return self._sessions[key]

    def decoder(self, label: str) -> Codec:
        """The codec that reads payloads of an agreed plan; a plan of probes, which nobody reads, may name any codec."""
        return self._by_label.get(label, self._identity)

    def disagreements(self, plan: Plan) -> list[str]:
        """A line with a remedy for each disagreement of this server and the edge's plan."""
        remedies = {
            "protocol_version": "run the same splitsem on both ends",
            "wire_version": "run the same splitsem on both ends",
            "fingerprint": "give both ends the same model= and task=",
            "weights": "train once, then give both ends the same cache_dir= or trainer.weights=",
            "granularity": "give both ends the same split.granularity=",
            "precision": "give both ends the same device.precision=",
        }
        if plan.is_without_network:
            remedies = {name: remedy for name, remedy in remedies.items() if name.endswith("_version")}
        if plan.is_of_function:
            return ["this server offers a network, the client calls a function: connect(address, cut=graph.cut(…))"]
        lines = [
            f"{name}: the server has {getattr(self.offer, name)}, the edge {shown(getattr(plan, name))}; {remedy}"
            for name, remedy in remedies.items()
            if getattr(self.offer, name) != getattr(plan, name)
        ]
        if not (plan.codec in self.codec_labels or self._is_answer(plan) or plan.is_of_probes):
            lines.append(
                f"codec: the server reads {', '.join(self.codec_labels)}, the edge sends {shown(plan.codec)}; "
                "start the server with the same codec="
            )
        if plan.onward:
            hop = shown(plan.onward[0].point)
            lines.append(
                f"onward: the plan goes on at {hop}, this server computes to the end; start it with workflow.forward="
            )
        if plan.answer and plan.answer not in self.coders:
            lines.append(
                f"answer: the server answers {' or '.join(self.coders)}, the edge needs {shown(plan.answer)}; "
                "give both ends the same task= and answer="
            )
        return lines

    def _is_answer(self, plan: Plan) -> bool:
        """Whether the payloads are answers: the whole network runs on the edge, and the server needs what it found."""
        return plan.point == "output" and plan.codec in self.coders


def read_payload(decoder: Codec, payload: Payload, expected: Expected) -> Tensors:
    """The tensors of a payload as it arrived. Raises PayloadError, before any work, for tensors not ``expected``."""
    if not isinstance(decoder, Identity):  # the codec with large bodies, which can spare the copy
        payload = contiguous(payload)
    return decoder.read(payload, expected)


def contiguous(payload: Payload) -> bytes | memoryview:
    """The payload in one piece, for whoever cannot read pieces."""
    return bytes(payload) if isinstance(payload, Pieces) else payload


def expected_at(point: SplitPoint, max_batch: int) -> Expected:
    """What the tail at ``point`` takes."""
    tensors = tuple((t.dtype, tuple(t.shape)) for t in point.tensors)
    return Expected(tensors, max_batch if point.is_batched else None, f" at split point {point.name}")


@functools.cache
def _zeros() -> memoryview:
    """The zeros of all answers to probes; never written, so that they take no physical memory."""
    return memoryview(bytes(MAX_PROBE_BYTES))
