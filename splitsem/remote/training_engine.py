"""TrainingEngine is the server's side of split training, without I/O: sessions, each with its own or a common tail."""

import hashlib
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from splitsem.codecs.expected import kinds
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import BusyError, ConfigError, PayloadError, SessionError
from splitsem.remote.tail_engine import TailEngine, expected_at, read_payload
from splitsem.remote.tail_trainer import TailTrainer
from splitsem.remote.training_messages import Kind, Request, one_tensor
from splitsem.remote.training_plan import TrainingPlan, task_name
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.trainable import TrainableCut
from splitsem.tasks.task import Task

State = dict[str, Tensor]


_MOST_GROWTH = 1000  # of a common tail's length, from the start on


class CommonTail:
    """The tail of split-federated learning: Thapa et al., AAAI 2022, arXiv 2004.12088.

    A client trains a copy and commits it; a client that dies before committing leaves no trace. Safe to call from
    threads.

    Args:
        cut: the network at the start.
        is_averaged: True: all clients of a round start from one tail, and the round ends with the mean of the commits,
            weighted by samples (SplitFedV1). False: each client starts from the commit before (SplitFedV2).

    Attributes:
        state: the tail from which the next client starts, under the model's names.
        version: counts the changes of ``state``.
    """

    def __init__(self, cut: TrainableCut, is_averaged: bool) -> None:
        self.cut, self.is_averaged = cut, is_averaged
        self.state: State = {name: tensor.detach().clone() for name, tensor in cut.tail.state().items()}
        self.version = 0
        self._start_length = _length(self.state)
        self._sums: State = {}
        self._num_samples = 0
        self._lock = threading.Lock()

    def start(self) -> tuple[State, int]:
        """The tail that a client starts from, and the tail's version."""
        with self._lock:
            return self.state, self.version

    def commit(self, state: Mapping[str, Tensor], num_samples: int, version: int) -> None:
        """Hand in a trained copy of the tail.

        Args:
            state: weights and statistics of the copy.
            num_samples: number of training samples, the copy's weight in the mean.
            version: of the common tail that the copy started from.

        Raises:
            ConfigError: the common tail has changed since ``version``, or ``num_samples`` is below 1.
            PayloadError: the copy is not finite, or far longer than the tail at the start: a client has ruined it.
        """
        if num_samples < 1:
            raise ConfigError(f"a trained tail stands for at least 1 sample, got {num_samples}")
        if not (length := _length(state)) <= (most := _MOST_GROWTH * max(self._start_length, 1.0)):  # false for NaN
            raise PayloadError(f"a trained tail's weights must be finite and at most {most:.3g} long, got {length:.3g}")
        with self._lock:
            if version != self.version:
                raise ConfigError(
                    "the common tail has changed since this edge began: its round is over, or another one trained at "
                    "the same time, which is for federated.tail=averaged"
                )
            if not self.is_averaged:
                self.state = {name: tensor.detach().clone() for name, tensor in state.items()}
                self.version += 1
                return
            for name, tensor in state.items():
                part = tensor.detach().double() * num_samples
                self._sums[name] = self._sums[name] + part if name in self._sums else part
            self._num_samples += num_samples

    def end_round(self) -> None:
        """Set the tail to the mean of the commits; later commits of this round are refused."""
        with self._lock:
            if self._num_samples:
                means = {name: total / self._num_samples for name, total in self._sums.items()}
                self.state = {
                    name: (mean if like.is_floating_point() else mean.round()).to(like.dtype)
                    for name, mean, like in ((name, means[name], self.state[name]) for name in self.state)
                }
            self._sums, self._num_samples = {}, 0
            self.version += 1


def _length(state: Mapping[str, Tensor]) -> float:
    """The Euclidean norm of all floating-point tensors together; infinite or NaN where one of them is."""
    return math.hypot(*(float(t.detach().double().norm()) for t in state.values() if t.is_floating_point()))


class CommonTails:
    """The common tails of a server, by the name of their group. Callers hold the engine's lock.

    Args:
        max_tails: the most tails at one time.
        idle_s: seconds without a client after which a tail is forgotten.
        clock: seconds from any origin.
    """

    def __init__(self, max_tails: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_tails, self.idle_s, self._clock = max_tails, idle_s, clock
        self._tails: dict[str, CommonTail] = {}
        self._used_s: dict[str, float] = {}

    def of(self, plan: TrainingPlan, make_cut: Callable[[], TrainableCut]) -> CommonTail | None:
        """The tail of a plan's group, made for the group's first client; None for a plan without a group.

        Raises BusyError when ``max_tails`` exist, ConfigError when the group's tail or its settings differ.
        """
        if not plan.group:
            return None
        known = self._tails.get(plan.group)
        if known is None:
            if len(self._tails) >= self.max_tails:
                raise BusyError(f"the server trains for {len(self._tails)} groups already, and takes no more")
            known = self._tails[plan.group] = CommonTail(make_cut(), plan.is_averaged)
        point = known.cut.evaluation.point.name
        if (point, known.is_averaged) != (plan.point, plan.is_averaged):
            raise ConfigError(
                f"this group trains the tail at {point}, averaged: {known.is_averaged}; the edge wants "
                f"{plan.point}, averaged: {plan.is_averaged}: give all edges the same split.point and federated.tail"
            )
        self._used_s[plan.group] = self._clock()
        return known

    def disband(self, group: str) -> None:
        """Forget the tail of a group; harmless when the group has none."""
        self._tails.pop(group, None)
        self._used_s.pop(group, None)

    def forget_idle(self, groups_in_use: Collection[str]) -> None:
        """Forget the tails that no client has used for ``idle_s``, except those of ``groups_in_use``."""
        now = self._clock()
        self._used_s |= {group: now for group in groups_in_use if group in self._tails}
        for group in [g for g, used_s in self._used_s.items() if now - used_s > self.idle_s]:
            self.disband(group)


_COPIES = 6  # of a tail's weights: weights, gradients, two moments of AdamW, kept weights, weights being sent
WEIGHTS_PART_BYTES = 64 << 20
_LEAST_REQUEST_BYTES, _MOST_REQUEST_BYTES = 64 << 20, 1 << 30
_LABEL_BYTES = 8  # of a sample's labels for each value of the output, at most


@dataclass(frozen=True)
class TrainingLimits:
    """What one server grants to clients that train.

    Attributes:
        max_trainers: clients that train at one time, each with its own copy of the tail; and groups of clients, each
            with a common tail.
        max_trainer_bytes: memory of one tail's weights, gradients and optimiser.
        max_batch: samples in one step.
        idle_s: seconds without a request after which a session is forgotten.
        max_session_s: seconds after which a session is forgotten anyway.
    """

    max_trainers: int = 4
    max_trainer_bytes: int = 8 << 30
    max_batch: int = 4096
    idle_s: float = 600.0
    max_session_s: float = 86_400.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")


@dataclass(eq=False)
class _Session:
    plan: TrainingPlan
    trainer: TailTrainer
    cut: TrainableCut
    opened_s: float
    used_s: float
    common: CommonTail | None = None
    version: int = 0  # of the common tail from which the session started
    lock: threading.Lock = field(default_factory=threading.Lock)
    num_requests: int = 0
    reply: tuple[bytes | memoryview, float] | None = None


class TrainingEngine:
    """The server's side of split training. Safe to call from threads; sessions compute side by side.

    Requests of a session are numbered from 0, and each request is carried out one time: a repeat of the last request
    gets the kept reply.

    Args:
        engine: serves the network; every session starts from its weights.
        training: the engine's network captured in train mode, with granularity ``op``.
        task: gives the loss.
        limits: what is granted.
        clock: seconds from any origin.
    """

    def __init__(
        self,
        engine: TailEngine,
        training: SplitGraph,
        task: Task,
        limits: TrainingLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine, self.training, self.task, self.limits = engine, training, task, limits
        self._clock = clock
        self._output_values = math.prod(engine.graph.point("output").tensors[0].shape[1:])
        self._sessions: dict[str, _Session] = {}
        self._commons = CommonTails(limits.max_trainers, limits.idle_s, clock)
        self._lock = threading.Lock()
        engine.metrics.watch_trainers(self.num_sessions)

    def read_plan(self, text: str) -> TrainingPlan:
        """A client's plan from its JSON. Raises ConfigError."""
        return TrainingPlan.from_json(text)

    def open(self, plan: TrainingPlan, client: str) -> str:
        """Agree on a plan and make a tail to train; returns the session's key.

        Raises ConfigError with one line for each disagreement, SplitPointError when the point does not exist or cannot
        be trained, BusyError when ``max_trainers`` train already.
        """
        lines = self.engine.disagreements(plan)
        mine = {"training_fingerprint": self.training.fingerprint, "task": task_name(self.task)}
        lines += [
            f"{name}: the server has {ours}, the edge {getattr(plan, name)}; give both ends the same model= and task="
            for name, ours in mine.items()
            if getattr(plan, name) != ours
        ]
        if lines:
            raise ConfigError("\n".join(lines))
        key = hashlib.sha256(f"{client} {plan.to_json()}".encode()).hexdigest()[:32]
        with self._lock:
            self._forget_old()
            known = self._sessions.get(key)
            if known is None or known.num_requests:
                if known is None and len(self._sessions) >= self.limits.max_trainers:
                    raise BusyError(f"the server trains for {len(self._sessions)} edges already, and takes no more")
                self._sessions[key] = self._session(plan)
        return key

    def answer(self, key: str, number: int, message: bytes | memoryview) -> tuple[bytes | memoryview, float]:
        """The reply to request ``number`` of a session, and the seconds that it took; see ``training_messages``.

        Raises SessionError when the session is not known, PayloadError when the request is damaged or out of turn,
        ConfigError when training cannot go on.
        """
        with self._lock:
            self._forget_old()
            session = self._sessions.get(key)
            if session is None:
                raise SessionError(
                    "the server does not know this training session (it was restarted, or the session was idle or over "
                    "its time), so the trained tail is lost: start the training again"
                )
            session.used_s = self._clock()
        with session.lock:
            if number == session.num_requests - 1 and session.reply is not None:
                return session.reply
            if number != session.num_requests:
                raise PayloadError(f"expected request {session.num_requests} of this session, got {number}")
            session.reply = None
            with self.engine.metrics.training_request(len(message)) as counted:
                reply = self._carry_out(key, session, Request.from_bytes(message))
                counted.over("train", len(reply))
            session.reply = reply, counted.server_s
            session.num_requests += 1
            return session.reply

    def most_request_bytes(self) -> int:
        """The most bytes that a request of training can need: features and labels of ``max_batch`` samples.

        ``4 · raw bytes of the largest cut · max_batch``, but at least 64 MiB and at most 1 GiB.
        """
        largest = max(point.raw_bytes for point in self.engine.graph.points)
        return min(max(4 * largest * self.limits.max_batch, _LEAST_REQUEST_BYTES), _MOST_REQUEST_BYTES)

    def num_sessions(self) -> int:
        """Clients that train at this moment."""
        with self._lock:
            self._forget_old()
            return len(self._sessions)

    def _session(self, plan: TrainingPlan) -> _Session:
        common = self._commons.of(plan, lambda: TrainableCut(self.engine.graph, self.training, plan.point))
        cut = common.cut if common else TrainableCut(self.engine.graph, self.training, plan.point)
        num_bytes = _COPIES * sum(t.numel() * t.element_size() for t in cut.tail.state().values())
        if num_bytes > self.limits.max_trainer_bytes:
            raise ConfigError(
                f"training the tail at {plan.point} takes {num_bytes} bytes, the server grants "
                f"{self.limits.max_trainer_bytes}: take a later split point or raise max_trainer_bytes there"
            )
        trainer = TailTrainer(
            cut, self.task.loss, plan.optimiser(), plan.make_gradient_codec(), plan.seed, self.engine.graph.device
        )
        session = _Session(plan, trainer, cut, opened_s=self._clock(), used_s=self._clock(), common=common)
        self._load_common(session)
        return session

    def _carry_out(self, key: str, session: _Session, request: Request) -> bytes | memoryview:
        """Carry out a request; every check of the request comes before any change."""
        trainer, cut = session.trainer, session.cut
        if request.kind is Kind.CLOSE:
            with self._lock:
                self._sessions.pop(key, None)
            return b""
        if request.kind is Kind.STEP:
            expected = expected_at(cut.point, self.limits.max_batch)
            z_hat = read_payload(self.engine.decoder(session.plan.codec), request.payload, expected)
            num_samples = expected.check(kinds(z_hat))
            y = one_tensor(request.labels, "labels", _LABEL_BYTES * num_samples * self._output_values)
            if not y.dim() or len(y) != num_samples:
                raise PayloadError(f"expected labels of {num_samples} samples, got shape {tuple(y.shape)}")
            trainer.settle(request.head_norm)
            return trainer.step(z_hat, y).to_bytes()
        if request.kind is Kind.EVALUATE:
            expected = expected_at(cut.evaluation.point, self.limits.max_batch)
            z_hat = read_payload(self.engine.decoder(session.plan.codec), request.payload, expected)
            trainer.settle(request.head_norm)
            return Identity().encode((trainer.evaluate(z_hat),))
        trainer.settle(request.head_norm)
        if request.kind is Kind.KEEP:
            trainer.keep()
            return b""
        if request.kind in (Kind.COMMIT, Kind.END_ROUND, Kind.DISBAND):
            self._for_group(session, request.kind)
            return b""
        weights = trainer.weights()
        return memoryview(weights)[request.offset : request.offset + WEIGHTS_PART_BYTES]

    def _for_group(self, session: _Session, kind: Kind) -> None:
        """Carry out a request about the common tail of the session's group."""
        if session.common is None:
            raise PayloadError(f"expected a session of a group for {kind.name}, this one has a tail of its own")
        if kind is Kind.COMMIT:
            session.common.commit(session.trainer.tail.state(), session.plan.num_samples, session.version)
        elif kind is Kind.END_ROUND:
            session.common.end_round()
            self._load_common(session)
        else:
            with self._lock:
                self._commons.disband(session.plan.group)

    @staticmethod
    def _load_common(session: _Session) -> None:
        """Load the common tail of the session's group into the session, if the session has a group."""
        if session.common is not None:
            state, session.version = session.common.start()
            session.trainer.load(state)

    def _forget_old(self) -> None:
        """Drop sessions that are idle or over their time; callers hold the lock."""
        now = self._clock()
        for key, session in list(self._sessions.items()):
            is_over = now - session.opened_s > self.limits.max_session_s
            if (now - session.used_s > self.limits.idle_s or is_over) and not session.lock.locked():
                del self._sessions[key]
        self._commons.forget_idle({session.plan.group for session in self._sessions.values()} - {""})
