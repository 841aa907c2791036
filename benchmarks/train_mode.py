"""Head and tail against the whole model, both in train mode, at every offered point: output, running statistics."""

import copy
import warnings

import torch
import torchvision
from torch import nn

from splitsem.models.cnn import StagedCnn
from splitsem.models.lstm import LstmForecaster
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.trainable import TrainableCut

BATCH = 4


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Untrained networks with batch normalisation, dropout, recurrence, attention or stochastic depth."""
    models = torchvision.models
    vit = models.VisionTransformer(32, 8, 2, 2, 32, 64, dropout=0.1, num_classes=10)
    return {
        "StagedCnn, dropout 0.3": (StagedCnn((1, 8, 8), (10,), widths=[4, 8], stem_width=4, dropout=0.3), (1, 8, 8)),
        "LstmForecaster": (LstmForecaster((24, 5), (6,)), (24, 5)),
        "resnet18": (models.resnet18(num_classes=10), (3, 32, 32)),
        "mobilenet_v3_small": (models.mobilenet_v3_small(num_classes=10), (3, 64, 64)),
        "small vision transformer": (vit, (3, 32, 32)),
        "efficientnet_b0": (models.efficientnet_b0(num_classes=10), (3, 32, 32)),
        "alexnet": (models.alexnet(num_classes=10), (3, 64, 64)),
    }


def largest_difference(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, float]:
    """Number of points, and the largest difference over all of them in output or state after one pass."""
    graph, training = SplitGraph(model, shape), SplitGraph(model, shape, granularity="op", training=True)
    x = torch.rand(BATCH, *shape)
    whole = copy.deepcopy(model).train()
    torch.manual_seed(1)
    y = whole(x)
    before = copy.deepcopy(model.state_dict())
    worst = 0.0
    for point in graph.points:
        cut = TrainableCut(graph, training, point.name)
        torch.manual_seed(1)  # one stream for both halves, which are in one process
        pairs = [
            (y, cut.tail.train(*cut.head.train(x))),
            *zip(whole.state_dict().values(), model.state_dict().values(), strict=True),
        ]
        worst = max(worst, *((a.double() - b.double()).abs().max().item() for a, b in pairs))
        model.load_state_dict(before)
    return len(graph.points), worst


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    for name, (model, shape) in networks().items():
        num_points, worst = largest_difference(model.eval(), shape)
        print(f"{name:28}{num_points:4} points   max |difference| {worst:g}", flush=True)
