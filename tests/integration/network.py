"""The small network that both ends of a test hold, each its own."""

import functools

import torch

from splitsem.models.cnn import StagedCnn
from splitsem.split.graph import SplitGraph
from splitsem.transport.plan import Plan, weights_digest

INPUT_SHAPE = (1, 8, 8)


@functools.cache
def small_network(seed: int = 0) -> tuple[StagedCnn, SplitGraph]:
    """Model and graph."""
    torch.manual_seed(seed)
    model = StagedCnn(INPUT_SHAPE, (10,), widths=[4, 8], inner_widths=None, stem_width=4).eval()
    return model, SplitGraph(model, INPUT_SHAPE)


def small_plan(model: StagedCnn, graph: SplitGraph, point: str = "stage1") -> Plan:
    """What the tests' servers agree to."""
    return Plan(graph.fingerprint, weights_digest(model), point, "layer", "float32", "Identity")
