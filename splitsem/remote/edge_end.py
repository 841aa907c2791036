"""EdgeEnd is the work on the edge: the head, what makes payloads of its features, and what reads the answers."""

import functools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from splitsem.codecs.codec import Codec, Tensors
from splitsem.models.exit_head import ExitHead
from splitsem.remote.labels import codec_label
from splitsem.remote.tail_engine import contiguous
from splitsem.scoring import plain
from splitsem.splitting.cut import Cut
from splitsem.tasks.answer import AnswerCoder
from splitsem.trees import call, mapped
from splitsem_device.answers import Answer
from splitsem_device.plan import Plan


@dataclass
class EdgeTimes:
    """Seconds on the edge, one value a payload, in the order of the samples.

    Attributes:
        head_s: the head, and the decision of an early exit.
        encode_s: making the payload.
        answer_decode_s: making the result of the answer.
    """

    head_s: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    answer_decode_s: list[float] = field(default_factory=list)

    @property
    def edge_s(self) -> list[float]:
        """All the work of the edge on each payload that has its result."""
        return [sum(times_s) for times_s in zip(self.head_s, self.encode_s, self.answer_decode_s, strict=False)]


class EdgeEnd:
    """What runs on the edge: the head, what makes payloads of its features, and what reads the answers.

    Args:
        cut: whose head runs here.
        codec: makes the payloads.
        coder: reads the answers; None: the server keeps the results.
        own: makes the payloads in the codec's place, at the cut ``output``: answers for the server.
        exit_head: decides which samples exit here, see ``payloads``; None: none does.

    Attributes:
        began: start of each payload (``time.perf_counter``), the oldest first.
        first_s: when the first sample of ``payloads`` began, whether it exited or not.
        ended: when each result was there, the first result first.
        times: what each payload took.
        exited_s: seconds of each sample that exited.
    """

    def __init__(
        self,
        cut: Cut,
        codec: Codec,
        coder: AnswerCoder | None,
        own: AnswerCoder | None = None,
        exit_head: ExitHead | None = None,
    ) -> None:
        self.cut, self.codec, self.coder, self.own, self.exit_head = cut, codec, coder, own, exit_head
        self.began: deque[float] = deque()
        self.first_s = 0.0
        self.ended: list[float] = []
        self.times = EdgeTimes()
        self.exited_s: list[float] = []
        self._local: deque[Tensor | None] = deque()
        self._order: deque[Tensor | None] = deque()  # the results of samples that exited; None where a payload was made

    def fresh(self) -> "EdgeEnd":
        """An end like this one that has seen no sample."""
        return EdgeEnd(self.cut, self.codec, self.coder, self.own, self.exit_head)

    def plan(self, weights: str, granularity: str, precision: str) -> Plan:
        """What this end must agree on with the server; the arguments are described in ``Plan``."""
        codec = codec_label(self.codec) if self.own is None else self.own.name
        answer = "" if self.coder is None else self.coder.name
        return Plan(self.cut.fingerprint, weights, self.cut.point.name, granularity, precision, codec, answer)

    def payload(self, x: Any) -> bytes:
        """The payload for one sample ``(1, *input_shape)``, whether it would exit or not."""
        began = time.perf_counter()
        z, _ = self._decided(x)
        return self._coded(z, began)

    def payloads(self, samples: Iterable[Any]) -> Iterator[bytes]:
        """The payload of each sample that goes on; ``results`` has those of the samples that exit, too."""
        for x in samples:
            began = time.perf_counter()
            self.first_s = self.first_s or began
            z, own = self._decided(x)
            self._order.append(own)
            if own is None:
                yield self._coded(z, began)
            else:
                self.ended.append(time.perf_counter())
                self.exited_s.append(self.ended[-1] - began)

    def results(self, answers: Iterable[Answer]) -> Iterator[Any]:
        """The result of each sample of ``payloads``, in order, given the answers in order; None: on the server.

        Raises PayloadError.
        """
        for answer in answers:
            result = self.result(answer)
            while (own := self._order.popleft()) is not None:
                yield own
            yield result
        yield from self._order  # all that came after the last payload

    @torch.inference_mode()
    def _decided(self, x: Any) -> tuple[Tensors, Tensor | None]:
        """The crossing tensors of one sample, and the exit's answer where it exits."""
        z = call(self.cut.head, x)
        if self.exit_head is None:
            return z, None
        logits, is_sure = self.exit_head(*z)
        return z, plain(logits) if is_sure.item() else None

    @torch.inference_mode()
    def _coded(self, z: Tensors, began: float) -> bytes:
        made = time.perf_counter()
        payload = self.codec.payload(z) if self.own is None else self.own.encode(self.cut.tail(*z))
        self._local.append(self.codec.local_output(z) if self.own is None else None)
        self.began.append(began)
        self.times.head_s.append(made - began)
        self.times.encode_s.append(time.perf_counter() - made)
        return payload

    @functools.cached_property
    def _nothing(self) -> Any:
        """The result of a lost frame, as in a simulated run: zeros."""
        output = self.cut.tail(*self.cut.head(*self.cut.example))
        return mapped(lambda tensor: torch.zeros_like(plain(tensor)), output)

    @torch.inference_mode()
    def result(self, answer: Answer) -> Any:
        """The result of the oldest payload without a result, as an output ``(1, *output_shape)``; None: on the server.

        A codec with local outputs combines the local output and the answer; if the frame was lost on its way, the
        result is the local output alone. Any other codec's lost frame gives zeros. Raises PayloadError.
        """
        began = time.perf_counter()
        local = self._local.popleft()
        result = None
        if self.coder is not None and answer.is_lost and local is None:
            result = self._nothing
        elif self.coder is not None and not answer.is_lost and (answer.payload or local is None):
            result = self.coder.as_output(self.coder.decode(contiguous(answer.payload)))
        if local is not None:
            result = self.codec.combine(local, result)
        self.ended.append(time.perf_counter())
        self.times.answer_decode_s.append(self.ended[-1] - began)
        return result
