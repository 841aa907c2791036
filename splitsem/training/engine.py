"""TrainingEngine: the server's side of split training without any network: sessions, each with its own tail."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from splitsem.codecs.identity import Identity
from splitsem.errors import BusyError, ConfigError, PayloadError, SessionError
from splitsem.split.graph import SplitGraph
from splitsem.split.trainable import TrainableCut
from splitsem.tasks.task import Task
from splitsem.training.common_tail import CommonTail, CommonTails
from splitsem.training.messages import Kind, Request
from splitsem.training.plan import TrainingPlan, task_name
from splitsem.training.tail_trainer import TailTrainer
from splitsem.transport.engine import TailEngine, check_fit

_COPIES = 6  # of a tail's weights: themselves, gradients, two moments of AdamW, the kept ones, the ones being sent
WEIGHTS_PART_BYTES = 64 << 20


@dataclass(frozen=True)
class TrainingLimits:
    """What one server grants those who train with it.

    Attributes:
        max_trainers: devices that train at one time, each with its own copy of the tail; and groups of devices, each
            with a common one.
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
    version: int = 0  # of the common tail from which it started
    lock: threading.Lock = field(default_factory=threading.Lock)
    num_requests: int = 0
    reply: tuple[bytes | memoryview, float] | None = None


class TrainingEngine:
    """The server's side of split training. Safe to call from threads; sessions compute side by side.

    Requests of a session are numbered from 0 and each is carried out once: the last one that comes again gets the same
    reply again.

    Args:
        engine: the network as it is served, from whose weights every session starts.
        training: the same network captured in train mode, with granularity ``op``.
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
        self._sessions: dict[str, _Session] = {}
        self._commons = CommonTails(limits.max_trainers, limits.idle_s, clock)
        self._lock = threading.Lock()
        engine.metrics.watch_trainers(self.num_sessions)

    def open(self, plan: TrainingPlan, client: str) -> str:
        """Agree on a plan and make a tail to train; returns the session's key.

        Raises ConfigError with one line for each disagreement, SplitPointError when the point does not exist or cannot
        be trained, BusyError when there are all the trainers that are granted.
        """
        lines = self.engine.disagreements(plan)
        mine = {"training_fingerprint": self.training.fingerprint, "task": task_name(self.task)}
        lines += [
            f"{name}: the server has {ours}, the device {getattr(plan, name)}; give both ends the same model= and task="
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
                    raise BusyError(f"the server trains for {len(self._sessions)} devices already, and takes no more")
                self._sessions[key] = self._session(plan)
        return key

    def answer(self, key: str, number: int, message: bytes | memoryview) -> tuple[bytes | memoryview, float]:
        """The reply to request ``number`` of a session, and the seconds that it took; see ``messages``.

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

    def num_sessions(self) -> int:
        """Devices that train at this moment."""
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
            cut, self.task.loss, plan.optimiser(), plan.make_gradient_codec(), plan.seed, self.engine.device
        )
        session = _Session(plan, trainer, cut, opened_s=self._clock(), used_s=self._clock(), common=common)
        self._load_common(session)
        return session

    def _carry_out(self, key: str, session: _Session, request: Request) -> bytes | memoryview:
        """Do what is asked; whatever can be wrong with the request is found before anything changes."""
        trainer, cut = session.trainer, session.cut
        if request.kind is Kind.CLOSE:
            with self._lock:
                self._sessions.pop(key, None)
            return b""
        if request.kind is Kind.STEP:
            z_hat = self.engine.decode(request.payload)
            y = _labels(request.labels)
            num_samples = check_fit(z_hat, cut.point, self.limits.max_batch)
            if not y.dim() or len(y) != num_samples:
                raise PayloadError(f"expected labels of {num_samples} samples, got shape {tuple(y.shape)}")
            trainer.settle(request.head_norm)
            return trainer.step(z_hat, y).to_bytes()
        if request.kind is Kind.EVALUATE:
            z_hat = self.engine.decode(request.payload)
            check_fit(z_hat, cut.evaluation.point, self.limits.max_batch)
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
        """Do what concerns the common tail of the session's group."""
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
        """Let the session go on from its group's common tail, if it has a group."""
        if session.common is not None:
            state, session.version = session.common.start()
            session.trainer.load(state)

    def _forget_old(self) -> None:
        """Drop sessions that are idle or over their time; called with the lock held."""
        now = self._clock()
        for key, session in list(self._sessions.items()):
            is_over = now - session.opened_s > self.limits.max_session_s
            if (now - session.used_s > self.limits.idle_s or is_over) and not session.lock.locked():
                del self._sessions[key]
        self._commons.forget_idle({session.plan.group for session in self._sessions.values()} - {""})


def _labels(payload: bytes | memoryview) -> Tensor:
    tensors = Identity().decode(payload)  # type: ignore[arg-type]
    if len(tensors) != 1:
        raise PayloadError(f"expected one tensor of labels, got {len(tensors)}")
    return tensors[0]
