"""Quantised feature maps to tune entropy coders on, and others to report them on; networks, points, pictures disjoint.

``tuning``: EfficientNet-Lite0 on ``photographs`` and YOLOv3-tiny on ``pedestrians``. ``held_out``: the MobileNetV2 of a
tracker and PP-OCRv4's text detector with their makers' weights, on ``more-photographs``; resnet18 and
mobilenet_v3_large, for which no registry package has weights, trained here to tell which photograph a crop is from; the
demo's U-Net, on scenes, and the LSTM, on a generated series, trained here too. Trained weights are kept in ``.cache``.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from splitsem.codecs.quantise import Quantise
from splitsem.data import path
from splitsem.tasks.task import Task

KEPT = Path(".cache/coder_maps")
Forward = Callable[[nn.Module], object]


class Map(NamedTuple):
    """What an entropy coder is given: ``symbols`` is 1-d, uint8; ``fill`` is the symbol of the value zero."""

    network: str
    point: str
    shape: tuple[int, ...]
    bit_width: int
    fill: int
    symbols: np.ndarray


def tuning(bit_widths: tuple[int, ...]) -> Iterator[Map]:
    """The maps that constants may be chosen on."""
    from splitsem.models.detection.darknet import darknet_detector
    from splitsem.models.efficientnet_lite import efficientnet_lite0

    net = efficientnet_lite0((3, 224, 224), (1000,)).eval()
    points = ("bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.2.1.bn1", "blocks.3.1.bn2")
    for x in _pictures("photographs", ("china.jpg", "flower.jpg", "astronaut.png"), 224):
        yield from _quantised("efficientnet", _features(net, points, partial(_call, x)), bit_widths)
    yolo = darknet_detector((3, 416, 416), (80,)).eval()
    layers = [name for name, module in yolo.named_modules() if isinstance(module, nn.MaxPool2d | nn.LeakyReLU)][1:9]
    for x in _pictures("photographs", ("motorcycle_left.png", "coffee.png"), 416):
        yield from _quantised("yolov3-tiny", _features(yolo, layers, partial(_call, x)), bit_widths)


def held_out(bit_widths: tuple[int, ...]) -> Iterator[Map]:
    """The maps that a result is reported on."""
    from torchvision.models import mobilenet_v3_large, resnet18

    from splitsem.models.mobilenetv2_embedder import mobilenetv2_embedder

    names = ("fruits.jpg", "messi5.jpg", "graf1.png")
    pictures = list(_pictures("more-photographs", names, 224))
    torch.manual_seed(0)
    made: dict[str, tuple[nn.Module, tuple[str, ...]]] = {
        "mobilenetv2": (
            mobilenetv2_embedder((3, 224, 224), (1280,)).eval(),
            ("features.1", "features.3", "features.6", "features.10", "features.13", "features.17"),
        ),
        "resnet18": (
            _kept("resnet18", resnet18(num_classes=16), _train_on_crops),
            ("relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
        ),
        "mobilenet_v3": (
            _kept("mobilenet_v3", mobilenet_v3_large(num_classes=16), _train_on_crops),
            ("features.0", "features.2", "features.4", "features.6", "features.9", "features.12", "features.16"),
        ),
    }
    for name, (net, points) in made.items():
        for x in pictures:
            yield from _quantised(name, _features(net, points, partial(_call, x)), bit_widths)
    for x in _pictures("more-photographs", names[:2], 480):
        yield from _quantised("pp-ocrv4", _ocr_features(x), bit_widths)
    for name, net, points, inputs in (_unet(), _lstm()):
        for x in inputs:
            yield from _quantised(name, _features(net, points, partial(_call, x)), bit_widths)


def _quantised(network: str, features: dict[str, Tensor], bit_widths: tuple[int, ...]) -> Iterator[Map]:
    for point, z in features.items():
        for bit_width in bit_widths:
            symbols, affine = Quantise(bit_width).symbols(z)
            yield Map(network, point, tuple(z.shape), bit_width, int(affine.zero_point[0, 0]), symbols)


def _call(x: Tensor, net: nn.Module) -> None:
    net(x)


def _features(net: nn.Module, points: tuple[str, ...] | list[str], forward: Forward) -> dict[str, Tensor]:
    """What the named modules give, of one sample."""
    modules = dict(net.named_modules())
    features: dict[str, Tensor] = {}

    def keep(name: str, z: Any) -> None:
        features[name] = (z if isinstance(z, Tensor) else z[0]).detach().clone()  # an LSTM's output, without its state

    hooks = [modules[p].register_forward_hook(lambda module, args, z, p=p: keep(p, z)) for p in points]
    with torch.no_grad():
        forward(net)
    for hook in hooks:
        hook.remove()
    return features


def _pictures(shelf: str, names: tuple[str, ...], size: int) -> Iterator[Tensor]:
    """Photographs in [0, 1], ``(1, 3, size, size)``, the middle square."""
    from PIL import Image, ImageOps

    for name in names:
        with Image.open(path(shelf) / name) as file:
            picture = ImageOps.fit(file.convert("RGB"), (size, size))
        yield torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255


def _kept(name: str, net: nn.Module, train: Callable[[nn.Module], None]) -> nn.Module:
    """The network with its trained weights, kept from before or trained now."""
    file = KEPT / f"{name}.pth"
    if not file.exists():
        train(net)
        KEPT.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), file)
    net.load_state_dict(torch.load(file, weights_only=True))
    return net.eval()


def _train_on_crops(net: nn.Module) -> None:
    """250 steps: which of 16 photographs is this crop of 96 × 96 from? They are none that maps are made of."""
    shelf = path("more-photographs")
    seen = sorted(p.name for p in shelf.iterdir() if p.suffix in (".jpg", ".png"))
    names = tuple(n for n in seen if n not in ("fruits.jpg", "messi5.jpg", "graf1.png"))[:16]
    pictures = torch.cat(list(_pictures("more-photographs", names, 256)))
    optimiser, rng = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2), torch.Generator().manual_seed(0)
    net.train()
    for _ in range(250):
        which = torch.randint(0, 16, (16,), generator=rng)
        places = torch.randint(0, 160, (16, 2), generator=rng).tolist()
        crops = torch.stack(
            [pictures[k, :, r : r + 96, c : c + 96] for k, (r, c) in zip(which.tolist(), places, strict=True)]
        )
        loss = functional.cross_entropy(net(crops * torch.rand(16, 1, 1, 1, generator=rng).add(0.5)), which)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _train_on_task(task: Task, num_steps: int) -> Callable[[nn.Module], None]:
    def train(net: nn.Module) -> None:
        loader = torch.utils.data.DataLoader(task.splits().train, 16, shuffle=True)
        optimiser, step = torch.optim.AdamW(net.parameters(), 3e-3), 0
        net.train()
        while step < num_steps:
            for x, y in loader:
                loss = task.loss(net(x), y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                step += 1

    return train


def _unet() -> tuple[str, nn.Module, tuple[str, ...], list[Tensor]]:
    from splitsem.models.unet import UNet
    from splitsem.tasks.disaster import Disaster

    task = Disaster()
    net = _kept("unet", UNet((3, 64, 64), (12, 64, 64)), _train_on_task(task, 300))
    points = ("enc1", "skip1", "enc2", "skip2", "enc3", "skip3", "bottleneck", "dec3", "dec2", "dec1")
    return "unet", net, points, [task.splits().test[k][0][None] for k in range(3)]


def _lstm() -> tuple[str, nn.Module, tuple[str, ...], list[Tensor]]:
    from splitsem.models.lstm import LstmForecaster
    from splitsem.tasks.netqos import NetQos

    task = NetQos()
    x, y = task.splits().train[0]
    net = _kept("lstm", LstmForecaster(tuple(x.shape), tuple(y.shape)), _train_on_task(task, 500))
    return "lstm", net, ("embed", "lstm1", "lstm2"), [task.splits().test[500 * k][0][None] for k in range(3)]


def _ocr_features(x: Tensor) -> dict[str, Tensor]:
    """Activations of PP-OCRv4's detector (a backbone like MobileNetV3), by onnxruntime."""
    import onnx
    import onnxruntime

    model = onnx.load(path("pp-ocrv4") / "ch_PP-OCRv4_det_infer.onnx")
    names = [n.output[0] for n in model.graph.node if n.op_type in ("HardSwish", "HardSigmoid", "Relu", "Add")]
    chosen = names[4 :: max(len(names) // 8, 1)]
    for name in chosen:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    values = session.run(chosen, {session.get_inputs()[0].name: ((x - 0.5) / 0.5).numpy()})
    return {
        name: torch.from_numpy(z) for name, z in zip(chosen, values, strict=True) if z.ndim == 4 and z.shape[-1] > 4
    }
