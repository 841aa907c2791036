"""TrainingTail is the edge's end of split training; LocalTrainingTail has the engine in this process."""

import logging
import math
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass

import safetensors
import safetensors.torch
from torch import Tensor

from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError, PayloadError, SplitSemError
from splitsem.remote.engine import TailServer
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.training_engine import TrainingEngine
from splitsem.remote.training_messages import Kind, Request, StepReply, one_tensor
from splitsem.remote.training_plan import TrainingPlan
from splitsem.remote.transports import RemoteTransport
from splitsem_device.answers import Answer

log = logging.getLogger(__name__)
_NAMES_BYTES = 1 << 20  # of the weights' names and shapes, at most


@dataclass
class Traffic:
    """Sums over training steps of the bytes that crossed and of the seconds that steps took.

    Attributes:
        num_steps: number of steps.
        uplink_bytes, downlink_bytes: bytes of requests and of replies, labels and norms included.
        label_bytes: the labels' part of the uplink.
        server_s: seconds that the server computed.
        waited_s: seconds from sending a request to having its reply.
        step_s: seconds of whole steps, as seen from the edge.
        raw_bytes: bytes of the features before the codec.
    """

    num_steps: int = 0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    label_bytes: int = 0
    server_s: float = 0.0
    waited_s: float = 0.0
    step_s: float = 0.0
    raw_bytes: int = 0


class TrainingTail(ABC):
    """A tail that learns on another machine. Requests are sequential; a resent request is not carried out again.

    Errors are ConfigError (no agreement, or training cannot go on), SplitPointError, PayloadError, SessionError (the
    server lost the tail), BusyError and LinkError.

    Attributes:
        traffic: what crossed so far.
    """

    def __init__(self) -> None:
        self.traffic = Traffic()
        self._number = 0
        self._head_norm = 0.0
        self._is_open = False

    def open(self, plan: TrainingPlan) -> None:
        """Reach the server, agree on the plan, and let the server make a tail."""
        self._connect(plan, uuid.uuid4().hex)
        self._number, self._head_norm, self._is_open = 0, 0.0, True

    def step(self, payload: bytes, y: Tensor) -> StepReply:
        """Loss and gradients for encoded features and their labels; call ``settle`` with the head's norm afterwards."""
        labels = Identity().encode((y,))
        began = time.perf_counter()
        answer, num_bytes = self._ask(Request(Kind.STEP, self._head_norm, payload, labels))
        self.traffic.waited_s += time.perf_counter() - began
        self.traffic.num_steps += 1
        self.traffic.uplink_bytes += num_bytes
        self.traffic.downlink_bytes += len(answer.payload)
        self.traffic.label_bytes += len(labels)
        self.traffic.server_s += answer.server_s
        return StepReply.from_bytes(answer.payload[:])

    def settle(self, head_norm: float) -> None:
        """Set the norm of the head's gradients in the last step; the next request makes the tail take that step."""
        self._head_norm = head_norm

    def evaluate(self, payload: bytes) -> Tensor:
        """The tail's output for encoded features, in eval mode and with the tail's present weights."""
        answer, _ = self._ask(Request(Kind.EVALUATE, self._head_norm, payload))
        return one_tensor(answer.payload, "output")

    def keep(self) -> None:
        """Let the server remember the tail's present weights."""
        self._ask(Request(Kind.KEEP, self._head_norm))

    def weights(self, most_bytes: float = math.inf) -> dict[str, Tensor]:
        """The tail's weights kept last, else its present weights, under the model's names.

        Raises PayloadError when they are no weights, or take more than ``most_bytes``.
        """
        parts: list[bytes | memoryview] = []
        offset = 0
        while part := self._ask(Request(Kind.WEIGHTS, self._head_norm, offset=offset))[0].payload[:]:
            parts.append(part)
            offset += len(part)
            if offset > most_bytes + _NAMES_BYTES:
                raise PayloadError(f"expected weights of at most {most_bytes} bytes, got {offset} and more")
        try:
            return safetensors.torch.load(b"".join(parts))
        except safetensors.SafetensorError as exc:
            raise PayloadError(f"expected the tail's weights as safetensors, got {offset} bytes: {exc}") from exc

    def commit(self) -> None:
        """Commit the trained tail to the common tail of the plan's group. Raises ConfigError when that has changed."""
        self._ask(Request(Kind.COMMIT, self._head_norm))

    def end_round(self) -> None:
        """End the group's round: the server makes the common tail from the commits and loads it into this session."""
        self._ask(Request(Kind.END_ROUND, self._head_norm))

    def disband(self) -> None:
        """Let the server forget the group's common tail."""
        self._ask(Request(Kind.DISBAND, self._head_norm))

    def close(self) -> None:
        """Let the server forget the tail, if the server can be reached, and close the connection."""
        try:
            if self._is_open:
                self._is_open = False
                self._exchange(self._number, Request(Kind.CLOSE).to_bytes())
        except SplitSemError as exc:
            log.info("The server will forget the training by itself: %s", exc)
        finally:
            self._disconnect()

    def _ask(self, request: Request) -> tuple[Answer, int]:
        if not self._is_open:
            raise ConfigError("open a plan before training")
        message = request.to_bytes()
        answer = self._exchange(self._number, message)
        self._number += 1
        return answer, len(message)

    @abstractmethod
    def _connect(self, plan: TrainingPlan, client: str) -> None:
        """Open a session for this plan; ``client`` is a unique name."""

    @abstractmethod
    def _exchange(self, number: int, message: bytes) -> Answer:
        """The reply to request ``number``; may send the request several times."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connection; harmless when there is none."""


class LocalTrainingTail(TrainingTail):
    """A TrainingTail whose engine is in this process: passes the messages without a network.

    Args:
        engine: trains the tail.
    """

    def __init__(self, engine: TrainingEngine) -> None:
        super().__init__()
        self.engine = engine
        self._session = ""

    def _connect(self, plan: TrainingPlan, client: str) -> None:
        self._session = self.engine.open(TrainingPlan.from_json(plan.to_json()), client)

    def _exchange(self, number: int, message: bytes) -> Answer:
        return Answer(number, *self.engine.answer(self._session, number, message), queue_s=0.0)

    def _disconnect(self) -> None:
        self._session = ""


class TrainingTransport(RemoteTransport):
    """A remote transport that carries split training too."""

    @abstractmethod
    def training_end(self) -> TrainingTail:
        """The end that trains with a server; nothing is connected yet."""

    @abstractmethod
    def server_end(self, engine: TailEngine, training: TrainingEngine | None = None) -> TailServer:
        """See RemoteTransport; ``training`` trains tails for clients that ask; None: the server refuses to train."""
