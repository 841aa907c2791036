"""Deployed is one solution as it runs on edge and server; scores and times come from the same modules."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitsem.cost.measure import Timing, timed_s
from splitsem.models.repvgg import HyperRepVgg
from splitsem.pipeline import Frames, Pipeline, features
from splitsem.placement import Placement
from splitsem.scoring import score
from splitsem.tasks.task import Task


class Deployed(ABC):
    """A network in two parts.

    Attributes:
        placement: where both parts run here.
    """

    placement: Placement

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The output for a batch ``(batch, *input_shape)`` at the placement."""

    @abstractmethod
    def edge(self, x: Tensor) -> Any:
        """What the edge sends for one sample ``(1, *input_shape)``."""

    @abstractmethod
    def server(self, sent: Any) -> Tensor:
        """The output for what ``edge`` sent."""

    def score(self, task: Task, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        """The task's score over batches at the placement."""
        return score(self, task, batches)["score"]

    @torch.inference_mode()
    def right(self, batches: Iterable[tuple[Tensor, Tensor]]) -> NDArray[np.bool_]:
        """Whether the highest output of each sample of a classification is the sample's class, ``(n,)``."""
        return np.concatenate([(self(x).float().argmax(1).cpu() == y.cpu()).numpy() for x, y in batches])

    @torch.inference_mode()
    def time(self, x: Tensor, repeats: int = 50) -> tuple[Timing, Timing]:
        """Seconds of edge and server here for one sample ``x``, ``(1, *input_shape)``; edge and server take turns."""
        where = self.placement.torch_device
        sent = self.edge(x)
        edge_s, server_s = [], []
        for number in range(-3, repeats):  # negative numbers warm up
            times = timed_s(lambda: self.edge(x), where), timed_s(lambda: self.server(sent), where)
            if number >= 0:
                edge_s.append(times[0])
                server_s.append(times[1])
        return Timing.of(edge_s), Timing.of(server_s)


class DeployedSplit(Deployed):
    """A trained network, deployed with the γ of a solution and cut at its λ.

    Args:
        trained: the network as it trained; stays unchanged.
        gammas: γ of each unit.
        split_index: λ, the number of units on the edge.
        placement: where both parts run here.

    Attributes:
        head: the first λ units.
        tail: the further units.

    Raises:
        ValueError: the network does not offer γ or λ.
    """

    def __init__(self, trained: HyperRepVgg, gammas: Sequence[int], split_index: int, placement: Placement) -> None:
        network = placement.place(trained.deploy(gammas))
        units = network.units
        if not 0 <= split_index <= len(units):
            raise ValueError(f"split_index must be 0…{len(units)}, got {split_index}")
        self.placement = placement
        self.gammas = tuple(gammas)
        self.head, self.tail = nn.Sequential(*units[:split_index]), nn.Sequential(*units[split_index:])

    def __call__(self, x: Tensor) -> Tensor:
        """The tail's output for what the head makes of a batch at the placement."""
        return self.tail(self.head(x))

    def edge(self, x: Tensor) -> Tensor:
        """What the head makes of a sample."""
        return self.head(x)

    def server(self, sent: Tensor) -> Tensor:
        """What the tail makes of the head's output."""
        return self.tail(sent)


class DeployedCodec(Deployed):
    """A network cut at a point, with a codec between its halves: scored over the link, timed without the link.

    Args:
        pipeline: head, codec, link, decoder and tail.
        placement: where the pipeline runs.

    Attributes:
        frames: what was seen of all scored payloads.
    """

    def __init__(self, pipeline: Pipeline, placement: Placement) -> None:
        self.pipeline, self.placement = pipeline, placement
        self.frames = Frames()

    def __call__(self, x: Tensor) -> Tensor:
        """The pipeline's output: every sample's payload is encoded, carried and decoded."""
        return self.pipeline.run(x, self.frames)

    def edge(self, x: Tensor) -> bytes:
        """The payload for a sample: head and encoding."""
        (made,) = features(self.pipeline.cut, x)
        return self.pipeline.codec.payload(made.z)

    def server(self, sent: bytes) -> Tensor:
        """The output for a payload: decoding and tail."""
        cut = self.pipeline.cut
        return cut.tail(*cut.received(self.pipeline.decoder.read(sent)))
