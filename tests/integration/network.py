"""The small network that both ends of a test hold, each its own; and a codec with a tail and an output of its own."""

import functools

import torch

from splitsem.codecs.learned.agilenn import AgileNN
from splitsem.codecs.learned.learned import Stage
from splitsem.codecs.tensorwise import Identity
from splitsem.models.cnn import StagedCnn
from splitsem.remote.labels import weights_digest
from splitsem.remote.tail_engine import contiguous
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import Values
from splitsem_device.answers import Answer
from splitsem_device.plan import Plan

INPUT_SHAPE = (1, 8, 8)
RAW = Values((10,))


@functools.cache
def small_network(seed: int = 0) -> tuple[StagedCnn, SplitGraph]:
    """Model and graph."""
    torch.manual_seed(seed)
    model = StagedCnn(INPUT_SHAPE, (10,), widths=[4, 8], inner_widths=None, stem_width=4).eval()
    return model, SplitGraph(model, INPUT_SHAPE)


def small_plan(model: StagedCnn, graph: SplitGraph, point: str = "stage1") -> Plan:
    """What the tests' servers agree to."""
    return Plan(graph.fingerprint, weights_digest(model), point, "layer", "float32", "Identity", RAW.name)


def small_frames(num: int) -> tuple[list[bytes], list[torch.Tensor]]:
    """Identity payloads at stage1 and the outputs that their answers must equal."""
    model, graph = small_network()
    x = torch.rand(2000, *INPUT_SHAPE, generator=torch.Generator().manual_seed(1))[:num]
    cut = graph.cut("stage1")
    with torch.inference_mode():
        return [Identity().encode(cut.head(sample)) for sample in x.split(1)], [model(sample) for sample in x.split(1)]


def output_of(answer: Answer) -> torch.Tensor:
    """The whole output in an answer, for as many samples as it has. Raises PayloadError for none."""
    coder = Values((max(1, len(answer.payload) // 40), 10))
    return coder.decode(contiguous(answer.payload))


def small_agilenn(graph: SplitGraph) -> AgileNN:
    """For the cut at ``stem``; its tail is no longer the network's."""
    torch.manual_seed(1)
    stages = {"task": Stage(0, task_weight=1.0, is_tail_tuned=True)}
    sizes = {"feature_channels": 6, "local_channels": 2, "code_channels": 3, "decoder_width": 4}
    codec = AgileNN((4, 8, 8), num_classes=10, stages=stages, **sizes)
    codec.adopt_tail(graph.cut("stem").tail)
    assert codec.tail is not None
    with torch.no_grad():
        next(codec.tail.parameters()).mul_(2)
    return codec.eval()
