"""FunctionEngine answers frames with any function of arrays or tensors: no network, no cut, no torch."""

import logging
import time
from collections.abc import Callable
from typing import Any

from splitsem.errors import ConfigError, FunctionError, PayloadError, SessionError
from splitsem.remote.engine import Engine
from splitsem.remote.server_metrics import ServerMetrics
from splitsem_device import arrays
from splitsem_device.fields import Payload
from splitsem_device.peer_text import shown
from splitsem_device.plan import FUNCTION_RAISED, MAX_PROBE_BYTES, Plan, probe_bytes
from splitsem_device.remotes import codec_name

log = logging.getLogger(__name__)
_VERSIONS = ("protocol_version", "wire_version")


class FunctionEngine(Engine):
    """Calls a function with what clients send, from as many threads at a time as there are clients.

    Args:
        function: takes a call's arguments and returns a structure of arrays.
        max_payload_bytes: the longest payload, and the most that its arrays may take.
        given: what the function gets in place of a structure of numpy arrays, e.g. ``tensor_arrays.as_tensors``.
        returned: undoes ``given`` on what the function returns.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        max_payload_bytes: int = arrays.MOST_BYTES,
        given: Callable[[Any], Any] = lambda tree: tree,
        returned: Callable[[Any], Any] = lambda tree: tree,
    ) -> None:
        if max_payload_bytes < 1:
            raise ValueError(f"max_payload_bytes must be at least 1, got {max_payload_bytes}")
        self.function, self.max_payload_bytes, self._given, self._returned = (
            function,
            max_payload_bytes,
            given,
            returned,
        )
        self._compressions = {codec_name(compression): compression for compression in arrays.COMPRESSIONS}
        self.codec_labels = tuple(self._compressions)
        self.offer = Plan.of_function(self.codec_labels[0])
        self.place = "cpu"
        self.num_answered = 0
        self.metrics = ServerMetrics()

    @property
    def point_names(self) -> tuple[str, ...]:
        """See Engine: none."""
        return ()

    def open(self, plan: Plan) -> str:
        """See Engine. The session is the name of the codec, so that none has to be kept."""
        lines = self._disagreements(plan)
        self.metrics.opened(not lines, 0)
        if lines:
            raise ConfigError("\n".join(lines))
        return plan.point if plan.probe_bytes() is not None else plan.codec

    def _disagreements(self, plan: Plan) -> list[str]:
        lines = [
            f"{name}: the server has {getattr(self.offer, name)}, the client {getattr(plan, name)}; "
            "run the same splitsem on both ends"
            for name in _VERSIONS
            if getattr(plan, name) != getattr(self.offer, name)
        ]
        if plan.is_of_probes:
            return lines
        if not plan.is_of_function:
            lines.append(
                f"this server offers a function, the client asks for the split point {shown(plan.point)}: "
                "connect without a cut, or serve the network"
            )
        elif plan.codec not in self._compressions or plan.answer != plan.codec:
            known = ", ".join(self._compressions)
            lines.append(
                f"codec: the server reads {known}, the client sends {shown(plan.codec)}; give another compression"
            )
        return lines

    def plan(self, session: str) -> Plan:
        """See Engine."""
        self._compression(session)
        return Plan.of_function(session)

    def most_payload_bytes(self, session: str | None = None) -> int:
        """See Engine."""
        is_probe = session is not None and probe_bytes(session) is not None
        return MAX_PROBE_BYTES if is_probe else self.max_payload_bytes

    def answer(self, session: str, payload: Payload, queue_s: float = 0.0) -> tuple[bytes | memoryview, float]:
        """See Engine."""
        if (num_zeros := probe_bytes(session)) is not None:
            return bytes(num_zeros), time.process_time()
        compression = self._compression(session)
        with self.metrics.request(len(payload), queue_s) as request:
            args = arrays.unpack(payload, self.max_payload_bytes)
            if not isinstance(args, tuple):
                raise PayloadError(f"expected a tuple of arguments, got a {type(args).__name__}")
            given = self._given(args)
            request.over("decode")
            result = self._called(given)
            request.over("tail")
            answer = self._packed(result, compression)
            request.over("encode", len(answer))
        self.num_answered += 1
        return answer, request.server_s

    def _called(self, args: tuple[Any, ...]) -> Any:
        try:
            return self.function(*args)
        except (Exception, SystemExit) as exc:  # a user's function may raise anything, and the server lives on
            log.exception("The function raised")
            raise FunctionError(f"{FUNCTION_RAISED}{type(exc).__name__}: {exc}") from exc

    def _packed(self, result: Any, compression: str) -> bytes:
        try:
            return arrays.pack(self._returned(result), compression)
        except ConfigError as exc:
            raise FunctionError(f"{FUNCTION_RAISED}no error, but its result cannot travel: {exc}") from exc

    def _compression(self, session: str) -> str:
        if session not in self._compressions:
            raise SessionError(f"session {shown(session, 32)!r} is not open on this server: open its plan again")
        return self._compressions[session]
