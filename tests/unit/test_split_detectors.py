"""Detectors are cut: heads of several scales, anchors made from shapes and kept, and what no graph can hold behind."""

import copy

import pytest
import torch
from torch import Tensor, nn

from splitsem.models.detection.anchor_free import AnchorFreeDetector
from splitsem.models.detection.detector import Detector
from splitsem.models.ready_made import torchvision_model
from splitsem.splitting.graph import Granularity, SplitGraph
from splitsem.trees import leaves
from tests.unit.detector_heads import AnchorsFromShapes, AnchorsInADict, JoinedScales, ListOfScales, LoudestFirst

SIZE = 32


def inexact(model: nn.Module, graph: SplitGraph, *batches: Tensor, step: int = 1) -> list[str]:
    """The points, every ``step``-th and the last, at which head and tail do not give the model's output bit for bit."""
    found = []
    with torch.no_grad():
        wanted = [leaves(model(x)) for x in batches]
        for point in (*graph.points[:-1:step], graph.points[-1]):
            cut = graph.cut(point)
            for x, whole in zip(batches, wanted, strict=True):
                given = leaves(cut.tail(*cut.head(x)))
                if len(given) != len(whole) or not all(map(torch.equal, given, whole)):
                    found.append(f"{point.name} of a batch of {len(x)}")
    return found


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("granularity", ["layer", "op"])
@pytest.mark.parametrize("head", [ListOfScales, JoinedScales, AnchorsFromShapes, AnchorsInADict])
def test_a_head_is_cut_exactly_whatever_ran_before_and_after(
    head: type[nn.Module], granularity: Granularity, runs: bool
) -> None:
    model, x = head().eval(), torch.rand(2, 3, SIZE, SIZE)
    untouched = copy.deepcopy(model)
    if runs:
        model(x)
    graph = SplitGraph(model, (3, SIZE, SIZE), granularity=granularity)
    if runs:
        model(x[:1])
    assert len(graph.points) > 3
    assert inexact(untouched, graph, x, x[:1], step=1 if granularity == "layer" else 3) == []


def test_capture_leaves_what_a_head_keeps_as_it_was() -> None:
    model = AnchorsFromShapes().eval()
    SplitGraph(model, (3, SIZE, SIZE))
    assert model.shape is None
    assert "anchors" not in vars(model)
    model(torch.rand(2, 3, SIZE, SIZE))
    kept = model.anchors, model.strides, model.shape
    SplitGraph(model, (3, SIZE, SIZE))
    assert all(now is before for now, before in zip((model.anchors, model.strides, model.shape), kept, strict=True))
    assert all(type(size) is int for size in model.shape)


def test_a_head_that_ran_on_another_size_is_cut_for_the_size_that_is_asked_for() -> None:
    model = AnchorsFromShapes().eval()
    model(torch.rand(1, 3, 2 * SIZE, 2 * SIZE))
    graph = SplitGraph(model, (3, SIZE, SIZE))
    assert inexact(model, graph, torch.rand(3, 3, SIZE, SIZE)) == []


@pytest.mark.parametrize("granularity", ["layer", "op"])
def test_what_follows_the_network_runs_behind_every_cut_as_it_is(granularity: Granularity) -> None:
    model = Detector(AnchorsFromShapes(), LoudestFirst()).eval()
    graph = SplitGraph(model, (3, SIZE, SIZE), granularity=granularity)
    x = torch.rand(2, 3, SIZE, SIZE)
    assert inexact(model, graph, x, x[:1], step=1 if granularity == "layer" else 3) == []


def test_our_detector_is_cut_exactly_and_is_narrow_after_stage2() -> None:
    model = AnchorFreeDetector((3, 64, 64), (20, 6), 3).eval()
    _speak_up(model)
    graph = SplitGraph(model, (3, 64, 64))
    x = torch.rand(2, 3, 64, 64)
    assert (model(x)[..., 4] > 0).any()
    assert inexact(model, graph, x, x[:1]) == []
    narrow = graph.point("stage2")
    assert narrow.raw_bytes == 4 * 16 * 8 * 8 == graph.points[0].raw_bytes / 12
    assert narrow.is_bottleneck


CUT = ["fasterrcnn_mobilenet_v3_large_320_fpn"]
CUT_SLOWLY = [
    "ssdlite320_mobilenet_v3_large",
    "ssd300_vgg16",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
]


@pytest.mark.parametrize("name", [*CUT, *(pytest.param(name, marks=pytest.mark.slow) for name in CUT_SLOWLY)])
def test_torchvisions_detectors_are_cut_exactly(name: str) -> None:
    torch.manual_seed(0)
    shape = (3, 64, 96)
    fewer = {"rpn_pre_nms_top_n_test": 30, "rpn_post_nms_top_n_test": 30} if "rcnn" in name else {}
    model = torchvision_model(name, shape, (50, 6), num_classes=5, **fewer).eval()
    _speak_up(model)
    graph = SplitGraph(model, shape)
    assert len(graph.points) > 10
    x = torch.rand(2, *shape)
    assert (model(x)[..., 4] > 0).any()
    assert inexact(model, graph, x, x[:1], step=len(graph.points) // 4) == []


def _speak_up(model: nn.Module) -> None:
    """Untrained heads are sure that there is nothing; let them find something everywhere."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "cls" in name or "classification" in name or name.endswith("proposals.bias"):
                weights.normal_(std=0.5)
