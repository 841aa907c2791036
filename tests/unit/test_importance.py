"""Importance of a code's values: complete, zero where nothing depends on them, and drawn where it is."""

import numpy as np
import pytest
import torch
from torch import nn

from splitsem.codecs.learned.bottleneck import Bottleneck
from splitsem.codecs.learned.crbq import CrBq
from splitsem.report.codec_figures import importance
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.digits import Digits
from splitsem.training.importance import code_importance


class LeftHalf(nn.Module):
    """A network whose tail looks at the left half of its features only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(1, 4, 1), nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.stem(x).relu()[:, :, :, :4].mean((2, 3)))


@pytest.mark.parametrize(("kind", "expected"), [(CrBq, "features"), (Bottleneck, "symbols")])
def test_only_what_the_tail_sees_matters(kind, expected):
    torch.manual_seed(0)
    graph = SplitGraph(LeftHalf(), (1, 8, 8), granularity="op")
    point = next(p for p in graph.points if p.tensors[0].shape[1:] == (4, 8, 8))
    codec = kind((4, 8, 8)).eval()
    values, what = code_importance(codec, graph.cut(point), Digits(), torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2]))
    assert what == expected
    assert values.shape == (3, *(codec.tensor_shape if what == "features" else codec.code_shape))
    assert (values >= 0).all()
    assert values.sum() > 0
    if what == "features":
        assert (values[:, :, :, 4:] == 0).all()


def test_the_maps_show_the_sums_over_channels_and_the_mean_over_samples():
    values = np.random.default_rng(0).random((3, 5, 2, 4))
    figure = importance(values, np.zeros((3, 1, 8, 8)))
    drawn = [np.asarray(ax.get_images()[0].get_array()) for ax in figure.axes if ax.get_images()]
    assert len(drawn) == 3 * 2 + 1
    np.testing.assert_allclose(drawn[1], values[0].sum(0))
    np.testing.assert_allclose(drawn[-1], values.mean(0).reshape(5, 8) / values.mean(0).max())
    figure.canvas.draw()
