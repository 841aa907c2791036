"""Profiler measures a server's own tails and layers, for clients that ask."""

import math
import statistics
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

from splitsem.cost.layer_profile import layers_json, profile_layers
from splitsem.cost.lut import Lut, lut_json, measure_lut
from splitsem.errors import BusyError, PayloadError
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.half import Half
from splitsem.splitting.point import SplitPoint
from splitsem_device.answers import EVERYTHING, Profile, ToMeasure
from splitsem_device.fields import Payload
from splitsem_device.plan import MAX_FIELD_CHARS, probe_bytes
from splitsem_device.this_machine import host_id

_MAX_PAUSE_S = 0.05  # caches get no colder after this time
_MAX_REPEATS, _WARM_UP = 50, 3
_MAX_ANSWERS = 256  # answering times kept


class Measured(Protocol):
    """What is measured: a ``TailEngine``."""

    graph: CutGraph
    num_answered: int

    def point(self, name: str) -> SplitPoint:
        """The network's point of this name. Raises SplitPointError."""

    def session(self, key: str) -> Any:
        """The open session of this key. Raises SessionError."""

    def compute(self, chosen: Any, payload: Payload, over: Callable[..., object]) -> bytes:
        """Answer a payload without counting it."""

    def ask_next(self, chosen: Any, asked: ToMeasure, answer_bytes: int) -> Profile | None:
        """What the next machine of a chain says of its part of this payload; None where there is no next machine."""


class Profiler:
    """Measures the tails of one engine, one request at a time, and keeps the measured times for later requests.

    Measuring and answering frames disturb each other. So when frames were answered meanwhile, the profiler drops the
    measured times and raises BusyError.

    Args:
        engine: has the tails.
        most_s: longest measuring of one request, spread over the tails that the request names.
    """

    def __init__(self, engine: Measured, most_s: float = 60.0) -> None:
        if not most_s > 0:
            raise ValueError(f"most_s must be positive, got {most_s}")
        self.engine, self.most_s = engine, most_s
        self._lut: Lut | None = None
        self._layers_json = ""
        self._answers: OrderedDict[tuple[str, int, int], Profile] = OrderedDict()
        self._measuring = threading.Lock()

    def profile(
        self, asked: ToMeasure = EVERYTHING, session: str = "", is_wanted: Callable[[], bool] = lambda: True
    ) -> Profile:
        """The times of tails and layers, and of answering a payload in ``session``; see ``ToMeasure``.

        Measuring stops when ``is_wanted`` returns False. Raises SplitPointError (no such point), PayloadError (a
        payload, budget or pause that makes no sense), SessionError (no such session) and BusyError.
        """
        points, payload, budget_s, pause_s, layers_s = asked
        if len(points) > len(self.engine.graph.points) or any(len(str(name)) > MAX_FIELD_CHARS for name in points):
            most = len(self.engine.graph.points)
            raise PayloadError(f"expected at most {most} split points, names of at most {MAX_FIELD_CHARS} characters")
        names = [self.engine.point(str(name)).name for name in points]
        names = list(dict.fromkeys(names)) or [point.name for point in self.engine.graph.points]
        if not 0 < budget_s < float("inf"):
            raise PayloadError(f"expected a budget of more than 0 s, got {budget_s}")
        if not 0 <= pause_s < float("inf"):
            raise PayloadError(f"expected a pause of 0 s or more, got {pause_s}")
        if not 0 <= layers_s < float("inf"):
            raise PayloadError(f"expected 0 s or more for layers, got {layers_s}")
        if not self._measuring.acquire(blocking=False):
            raise BusyError("the server is measuring itself for another edge: ask again later")
        try:
            layers_s = min(layers_s, self.most_s / 4)
            budget_s = min(budget_s, (self.most_s - layers_s) / (len(names) + bool(payload)))
            pause_s = min(pause_s, _MAX_PAUSE_S)
            lut = self._tails(names, budget_s, pause_s, is_wanted)
            layers = self._layers(layers_s, is_wanted) if layers_s else ""
            answering = self._answering(session, payload, budget_s, pause_s) if payload else Profile("", 0.0)
            return answering._replace(lut_json=lut_json(lut), layers_json=layers)
        finally:
            self._measuring.release()

    def _tails(self, names: list[str], budget_s: float, pause_s: float, is_wanted: Callable[[], bool]) -> Lut:
        """The LUT of these points; measures only points without a kept time."""
        known = self._lut.times if self._lut else {}
        missing = [name for name in names if name not in known]
        if missing:
            num_answered = self.engine.num_answered

            def halves() -> Iterator[Half]:
                for name in missing:
                    if not is_wanted():
                        raise BusyError("nobody waits for the measurement any more")
                    yield self.engine.graph.cut(name).halves()[1]
                    self._check_quiet(num_answered)

            found = measure_lut(halves(), _MAX_REPEATS, _WARM_UP, budget_s, pause_s)
            self._lut = replace(found, times={**known, **found.times})
        assert self._lut is not None
        return replace(self._lut, times={name: self._lut.times[name] for name in names})

    def _layers(self, layers_s: float, is_wanted: Callable[[], bool]) -> str:
        """The layers as JSON, measured once; empty of a network whose layers torch does not run."""
        graph = self.engine.graph
        if not self._layers_json and isinstance(graph, SplitGraph):
            if not is_wanted():
                raise BusyError("nobody waits for the measurement any more")
            num_answered = self.engine.num_answered
            found = profile_layers(graph, layers_s, 0.0, "nothing: the reader knows its power")
            self._check_quiet(num_answered)
            self._layers_json = layers_json(found, graph.fingerprint)
        return self._layers_json

    def _answering(self, session: str, payload: bytes, budget_s: float, pause_s: float) -> Profile:
        """Median seconds of answering a payload of this size in this session after about such a pause.

        In a chain, with its stages: this machine, the hop behind it, and the stages that the next machine tells.
        """
        key = (session, len(payload), math.frexp(pause_s)[1])
        if key not in self._answers:
            if probe_bytes(session) is not None:
                raise PayloadError("expected a payload of a real plan, got one of probes")
            chosen, num_answered = self.engine.session(session), self.engine.num_answered
            times_s, own_s = list[float](), list[float]()
            end = time.perf_counter() + budget_s
            while len(times_s) < _MAX_REPEATS and (len(times_s) < 3 or time.perf_counter() < end):
                time.sleep(pause_s)
                began = time.perf_counter()
                marks = [began]
                answer = self.engine.compute(chosen, payload, lambda *_, marks=marks: marks.append(time.perf_counter()))
                times_s.append(time.perf_counter() - began)
                own_s.append(marks[-1] - began)
            self._check_quiet(num_answered)
            drop = min(_WARM_UP, len(times_s) - 1)
            answer_s, here_s = statistics.median(times_s[drop:]), statistics.median(own_s[drop:])
            onward = self.engine.ask_next(chosen, ToMeasure((), payload, budget_s, pause_s), len(answer))
            found = Profile("", answer_s, hosts=(host_id(),))
            if onward is not None:
                hop_s = max(0.0, answer_s - here_s - onward.answer_s)
                stages_s = (here_s, hop_s, *(onward.stages_s or (onward.answer_s,)))
                found = Profile("", answer_s, "", stages_s, onward.hops_busy_s, (*found.hosts, *onward.hosts))
            self._answers[key] = found
            if len(self._answers) > _MAX_ANSWERS:
                self._answers.popitem(last=False)
        return self._answers[key]

    def _check_quiet(self, num_answered: int) -> None:
        if self.engine.num_answered != num_answered:
            raise BusyError("the server is answering frames and does not measure itself beside them: ask again later")
