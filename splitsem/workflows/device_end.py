"""DeviceEnd: the edge's side of an offload run: makes payloads and keeps their times."""

import time
from collections import deque

import torch
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.split.partition import Cut


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

    def payload(self, x: Tensor) -> bytes:
        """Head and codec for one sample ``(1, *input_shape)``."""
        began = time.perf_counter()
        with torch.inference_mode():
            payload = self.codec.encode(self.cut.head(x))
        self.began.append(began)
        self.edge_s.append(time.perf_counter() - began)
        return payload
