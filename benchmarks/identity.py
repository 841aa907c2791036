"""Is tail(head(x)) equal to model(x), bit for bit, at every offered point of many public models?

    python benchmarks/identity.py                            # every model, one point a layer
    python benchmarks/identity.py --granularity op           # every operation
    python benchmarks/identity.py --models resnet18 timm/vit_tiny_patch16_224

Every point is checked at batch 1 and 3, and the tail gets what a codec would give it: fresh contiguous copies that
share no memory. Weights and batch-norm statistics are random, so that a batch norm left out or doubled shows.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from harness.measured_rows import record
from splitsem.splitting.graph import SplitGraph
from splitsem.trees import leaves


class SmallCNN(nn.Sequential):
    """Three stages of convolution, batch norm and ReLU, then a classifier."""

    def __init__(self) -> None:
        stages = [
            nn.Sequential(nn.Conv2d(c, n, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n), nn.ReLU(inplace=True))
            for c, n in ((3, 16), (16, 32), (32, 64))
        ]
        super().__init__(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class SmallUNet(nn.Module):
    """Two levels with skips that cross every cut between them."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.middle = _block(3, 16), _block(16, 32), _block(32, 64)
        self.up2, self.dec2 = nn.ConvTranspose2d(64, 32, 2, 2), _block(64, 32)
        self.up1, self.dec1 = nn.ConvTranspose2d(32, 16, 2, 2), _block(32, 16)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, 5, height, width)``."""
        skip1 = self.enc1(x)
        skip2 = self.enc2(nn.functional.max_pool2d(skip1, 2))
        y = self.middle(nn.functional.max_pool2d(skip2, 2))
        y = self.dec2(torch.cat([self.up2(y), skip2], 1))
        return self.head(self.dec1(torch.cat([self.up1(y), skip1], 1)))


class Forecaster(nn.Module):
    """An LSTM over a window, then a linear read-out of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.readout = nn.LSTM(4, 32, num_layers=2, batch_first=True), nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Forecast ``(batch, 6)``."""
        return self.readout(self.lstm(x)[0][:, -1])


def _block(c: int, n: int) -> nn.Sequential:
    layers = [nn.Conv2d(c, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(n, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU(inplace=True))


def _torchvision(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, **kwargs)


def _timm(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **kwargs)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cnn": (SmallCNN, (3, 32, 32)),
    "unet": (SmallUNet, (3, 32, 32)),
    "lstm": (Forecaster, (12, 4)),
    **{name: (_torchvision(name), (3, 64, 64)) for name in ("resnet18", "mobilenet_v3_large", "efficientnet_b0",
                                                            "densenet121", "alexnet", "vgg11", "swin_t",
                                                            "convnext_tiny")},
    "googlenet": (_torchvision("googlenet", init_weights=False), (3, 64, 64)),
    "vit_b_16": (_torchvision("vit_b_16", image_size=64), (3, 64, 64)),
    "lraspp_mobilenet_v3_large": (_torchvision("lraspp_mobilenet_v3_large", weights_backbone=None), (3, 64, 64)),
    "deeplabv3_mobilenet_v3_large": (
        _torchvision("deeplabv3_mobilenet_v3_large", weights_backbone=None, aux_loss=True),
        (3, 64, 64),
    ),
    "timm/resnet18": (_timm("resnet18"), (3, 64, 64)),
    "timm/mobilenetv3_large_100": (_timm("mobilenetv3_large_100"), (3, 64, 64)),
    "timm/vit_tiny_patch16_224": (_timm("vit_tiny_patch16_224", img_size=64), (3, 64, 64)),
    "timm/swin_tiny_patch4_window7_224": (_timm("swin_tiny_patch4_window7_224", img_size=112), (3, 112, 112)),
    "timm/mobilevit_s": (_timm("mobilevit_s"), (3, 64, 64)),
}  # fmt: skip


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics that matter, and every other zero-initialised weight a value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.02, generator=generator)
    return model.eval()


def worst_difference(model: nn.Module, graph: SplitGraph, batches: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """The largest |tail(head(x)) − model(x)| over all points and batch sizes; NaN if only one of both is finite."""
    worst = 0.0
    inputs = [torch.rand(n, *shape, generator=torch.Generator().manual_seed(n)) for n in batches]
    wanted = [leaves(whole) for whole in map(model, inputs)]
    for point in graph.points:
        cut = graph.cut(point)
        for x, whole in zip(inputs, wanted, strict=True):
            received = [z.clone(memory_format=torch.contiguous_format) for z in cut.head(x)]
            split = cut.tail(*cut.received(received))
            for y_hat, y in zip(leaves(split), whole, strict=True):
                worst = max(worst, float((y_hat - y).abs().max())) if not torch.equal(y_hat, y) else worst
    return worst


def rows(names: list[str], granularity: str) -> Iterator[tuple[str, ...]]:
    """A table row for each model."""
    for name in names:
        torch.manual_seed(0)
        build, shape = MODELS[name]
        model = randomise(build())
        start = time.perf_counter()
        graph = SplitGraph(model, shape, granularity=granularity)  # type: ignore[arg-type]
        built = time.perf_counter()
        worst = worst_difference(model, graph, (1, 3), shape)
        crossing = Counter(len(p.tensors) for p in graph.points)
        refused = Counter(graph.refused.values())
        yield (
            name,
            str(len(graph.operations)),
            str(len(graph.points)),
            str(sum(p.is_bottleneck for p in graph.points)),
            " ".join(f"{n}:{count}" for n, count in sorted(crossing.items())),
            f"{worst:g}",
            f"{built - start:.1f}",
            f"{time.perf_counter() - built:.1f}",
            "; ".join(f"{count} {why}" for why, count in refused.items()) or "-",
        )


def main() -> None:
    """Print the table; exit with an error when any difference is not zero."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--granularity", choices=("layer", "op"), default="layer")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    args = parser.parse_args()
    torch.set_num_threads(1)
    head = (
        "model",
        "operations",
        "points",
        "bottlenecks",
        "tensors:points",
        "max|diff|",
        "export s",
        "check s",
        "refused",
    )
    widths = (30, 10, 6, 11, 34, 9, 8, 8, 0)
    exact = True
    print(f"torch {torch.__version__}, granularity {args.granularity}, batch 1 and 3, one thread")
    print("  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)))
    with torch.no_grad():
        for row in rows(args.models, args.granularity):
            exact &= float(row[5]) == 0
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), flush=True)
    print("exact at every point" if exact else "NOT exact")
    what = f"head + tail against the whole model, every point, granularity {args.granularity}, batch 1 and 3"
    record(what, "max. difference 0" if exact else "not exact", "0", not exact)
    raise SystemExit(not exact)


if __name__ == "__main__":
    main()
