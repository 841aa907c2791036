"""DeviceEnd: the edge's side of an offload run: makes payloads, keeps their times, and makes results of answers."""

import time
from collections import deque

import torch
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.split.partition import Cut
from splitsem.transport.remote import Answer


class DeviceEnd:
    """Head and codec.

    Attributes:
        began: when each payload was begun (``time.perf_counter``), the oldest first.
        edge_s: seconds that each took.
    """

    def __init__(self, cut: Cut, codec: Codec) -> None:
        self.cut, self.codec = cut, codec
        self.began: deque[float] = deque()
        self.edge_s: list[float] = []
        self._local: deque[Tensor | None] = deque()

    def payload(self, x: Tensor) -> bytes:
        """Head and codec for one sample ``(1, *input_shape)``."""
        began = time.perf_counter()
        with torch.inference_mode():
            z = self.cut.head(x)
            payload = self.codec.encode(z)
            self._local.append(self.codec.local_output(z))
        self.began.append(began)
        self.edge_s.append(time.perf_counter() - began)
        return payload

    def result(self, answer: Answer) -> Tensor:
        """The result of the oldest payload that has none yet, from the answer to it.

        For a codec with local outputs the two combined; the local one alone where the frame was lost on its way.
        Raises PayloadError.
        """
        local = self._local.popleft()
        if local is None:
            return answer.output()
        with torch.inference_mode():
            return self.codec.combine(local, answer.output() if answer.payload else None)
