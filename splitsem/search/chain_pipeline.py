"""ChainPipeline runs samples through a chain of machines: each hop's payload is really encoded, carried and decoded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from splitsem.codecs.codec import Codec, Tensors
from splitsem.errors import ConfigError
from splitsem.links.link import Link
from splitsem.pipeline import Frames, Pipeline, features, samples
from splitsem.splitting.cut_graph import CutGraph
from splitsem.tasks.answer import AnswerCoder
from splitsem.trees import joined, of_samples


@dataclass
class ChainHop:
    """What one hop carries.

    Attributes:
        point: name of the cut.
        link: carries the payloads, and the answers back.
        codecs: one makes the payloads, the other reads them on the next machine; None: what came over the hop before
            is passed on unread.
        frames: what was seen of payloads and answers.
    """

    point: str
    link: Link
    codecs: tuple[Codec, Codec] | None
    frames: Frames = field(default_factory=Frames)


class ChainPipeline:
    """The network on a chain of machines, sample by sample; the first one has the results, from answers.

    Args:
        graph: of the network.
        hops: in order, none of them at ``output``; none at all: the first machine computes everything.
        coder: of the answers, which go back over all hops.

    Raises:
        ConfigError: a payload is passed on unread at another cut than where it came.
    """

    def __init__(self, graph: CutGraph, hops: Sequence[ChainHop], coder: AnswerCoder) -> None:
        self.hops, self.coder = list(hops), coder
        self._steps: list[tuple[Pipeline | None, nn.Module | None]] = []
        here = None
        for hop in self.hops:
            if hop.codecs is not None:
                pipeline = Pipeline(graph.cut(hop.point), *hop.codecs, hop.link)
                self._steps.append((pipeline, None if here is None else graph.between(here, hop.point)))
            elif hop.point == here:
                self._steps.append((None, None))
            else:
                raise ConfigError(f"a payload is passed on unread at the cut where it came, not at {hop.point}")
            here = hop.point
        cuts = [pipeline.cut for pipeline, _ in self._steps if pipeline is not None] or [graph.cut("output")]
        self._first, self._last = cuts[0], cuts[-1]

    @torch.inference_mode()
    def run(self, x: Any) -> Any:
        """The network's output for a batch."""
        is_batched = self._first.point.is_batched
        made = [z for some in features(self._first, x) for z in samples(some.z, some.num_samples, is_batched)]
        return joined([self._through(z) for z in made])

    def _through(self, z: Tensors) -> Any:
        """The output of one sample, of what crosses at the first cut."""
        payload, at = b"", self._first
        for hop, (pipeline, part) in zip(self.hops, self._steps, strict=True):
            if pipeline is None:
                hop.frames.add(payload, hop.link.send(payload))
                continue
            sent = pipeline.send(z if part is None else part(*at.received(z)), hop.frames)
            payload, z, at = sent.payload, sent.z_hat, pipeline.cut
        output = of_samples(self._last.tail(*at.received(z)), 1)
        if not self.hops:
            return output
        answer = self.coder.encode(output)
        for hop in reversed(self.hops):
            hop.frames.add_answer(len(hop.frames.payload_bytes) - 1, answer, hop.link.send_back(answer))
        return self.coder.as_output(self.coder.decode(answer))
