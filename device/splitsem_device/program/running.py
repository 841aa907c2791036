"""Runs a bundle: samples go through the head, payloads to the server, and answers come back; every stage is timed."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from splitsem_device.answer_reader import BoxRows, Classes, ClassMap
from splitsem_device.answers import Answer, RemoteTail
from splitsem_device.bundle import Bundle, BundleFacts
from splitsem_device.fields import Payload
from splitsem_device.onnx_half import OnnxHalf
from splitsem_device.plan import Plan
from splitsem_device.program.feeds import Sample

_PERCENTS = (50, 95, 99)
Show = Callable[[int, Any], None]


@dataclass
class StageTimes:
    """Seconds of each stage, one value a frame.

    Attributes:
        read_s: getting the sample from its source.
        head_s: the head and the encoder's network.
        encode_s: what makes a payload of their outputs.
        round_trip_s: from the finished payload to its answer; includes the next two.
        queue_s: waiting on the server.
        server_s: work of the server.
        decode_s: reading the answer.
    """

    read_s: list[float] = field(default_factory=list)
    head_s: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    round_trip_s: list[float] = field(default_factory=list)
    queue_s: list[float] = field(default_factory=list)
    server_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """``p50``, ``p95`` and ``p99`` of each stage in seconds; of stages without a frame, nothing."""
        return {
            name: {f"p{percent}": float(np.percentile(times_s, percent)) for percent in _PERCENTS}
            for name, times_s in vars(self).items()
            if times_s
        }

    def table(self) -> str:
        """The percentiles in milliseconds, a line for each stage."""
        lines = [f"{'':12}" + "".join(f"{f'p{percent}':>12}" for percent in _PERCENTS)]
        for name, found in self.percentiles().items():
            cells = "".join(f"{1e3 * value:>9.3f} ms" for value in found.values())
            lines.append(f"{name.removesuffix('_s').replace('_', ' '):12}{cells}")
        return "\n".join(lines)


class WholeHere:
    """The whole network on the device, for frames that the server does not answer; see ``fallback.Answerer``."""

    def __init__(self, bundle: Bundle, waiting: "deque[Sample]", num_threads: int = 1) -> None:
        facts = bundle.facts
        assert facts.answer is not None, "workflow=bundle writes a whole network only where its answer is known"
        made_by = facts.versions.get("onnxruntime", "")
        self._run = OnnxHalf(bundle.read(facts.whole), facts.whole, num_threads, made_by)
        self._reader, self._waiting = facts.answer, waiting

    def open(self, plan: Plan) -> str:
        """See Answerer."""
        return ""

    def answer(self, session: str, payload: Payload) -> tuple[bytes, float]:
        """The answer to the oldest sample without one; of its payload, nothing is needed."""
        began = time.perf_counter()
        made = self._reader.of_output(*self._run(self._waiting[0]))
        return made, time.perf_counter() - began


class FramesRun:
    """One run of a bundle over samples.

    Args:
        bundle: what runs.
        head: its head.
        show: gets each frame's number and what its answer says.

    Attributes:
        times: of all frames so far.
        waiting: samples without an answer, the oldest first.
        num_payload_bytes: of all payloads so far.
        first_payload_s: when the first payload was ready, by ``time.perf_counter``; None before.
    """

    def __init__(self, bundle: Bundle, head: OnnxHalf, show: Show) -> None:
        self.facts, self.head, self._show = bundle.facts, head, show
        self.times = StageTimes()
        self.waiting: deque[Sample] = deque()
        self.num_payload_bytes = 0
        self.first_payload_s: float | None = None
        self._ready: deque[float] = deque()

    def go(self, samples: Iterable[Sample], remote: RemoteTail) -> None:
        """Send everything and read all answers. Raises what the feed and the link raise."""
        remote.open(self.facts.plan)
        for number, answer in enumerate(remote.stream(self._payloads(iter(samples)))):
            self._take(number, answer)

    def _payloads(self, samples: Iterator[Sample]) -> Iterator[bytes]:
        """Drawn by another thread, as the window allows."""
        times = self.times
        while True:
            began = time.perf_counter()
            sample = next(samples, None)
            if sample is None:
                return
            read = time.perf_counter()
            outputs = self.head(sample)
            made = time.perf_counter()
            payload = self.facts.framing.payload(*outputs)
            ready = time.perf_counter()
            times.read_s.append(read - began)
            times.head_s.append(made - read)
            times.encode_s.append(ready - made)
            self.num_payload_bytes += len(payload)
            self.first_payload_s = self.first_payload_s or ready
            self.waiting.append(sample)
            self._ready.append(ready)
            yield payload

    def _take(self, number: int, answer: Answer) -> None:
        arrived = time.perf_counter()
        self.times.round_trip_s.append(arrived - self._ready.popleft())
        self.times.queue_s.append(answer.queue_s)
        self.times.server_s.append(answer.server_s)
        self.waiting.popleft()
        content = bytes(answer.payload)
        found = content if self.facts.answer is None else self.facts.answer.read(content)
        self.times.decode_s.append(time.perf_counter() - arrived)
        self._show(number, found)


def in_words(found: Any, facts: BundleFacts) -> str:
    """What an answer says, in one line: names of classes where there are any, else sizes."""
    names = facts.class_names

    def name(number: int) -> str:
        return names[number] if number < len(names) else str(number)

    if isinstance(facts.answer, Classes):
        return ", ".join(name(int(one)) for one in found)
    if isinstance(facts.answer, ClassMap):
        numbers, counts = np.unique(found, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:5]
        return ", ".join(f"{name(int(numbers[k]))} {counts[k] / found.size:.0%}" for k in order)
    if isinstance(facts.answer, BoxRows):
        boxes = [f"{name(int(row[5]))} {row[4]:.2f} at {' '.join(f'{v:.0f}' for v in row[:4])}" for row in found[:5]]
        return "; ".join(boxes) or "nothing"
    if isinstance(found, Mapping):
        return ", ".join(f"{path or 'output'} {array.shape}" for path, array in found.items())
    if isinstance(found, np.ndarray) and found.size <= 8:
        return " ".join(f"{value:g}" for value in found.reshape(-1))
    return f"{len(found)} bytes" if isinstance(found, bytes) else f"values of shape {found.shape}"
