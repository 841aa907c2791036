"""Darknet: the networks of YOLOv3 and YOLOv3-tiny, from darknet's own files.

Redmon and Farhadi, "YOLOv3: an incremental improvement", arXiv:1804.02767, 2018.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.detections import suppress
from splitsem.errors import ModelError
from splitsem.models.detection.darknet_files import Section, read_cfg, read_weights_file
from splitsem.models.detection.detector import Detector
from splitsem.models.detection.yolo_heads import centres, check_pictures

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky": partial(nn.LeakyReLU, 0.1),
    "linear": nn.Identity,
    "relu": nn.ReLU,
}
_SHORT = {"convolutional": "conv", "maxpool": "pool"}


class Scale(NamedTuple):
    """One of the maps that a YOLO network makes.

    Attributes:
        layer: number of the layer that makes it.
        stride: pixels of the picture from one place of the map to the next.
        anchors: width and height in pixels of the boxes that the network corrects, one pair an anchor.
        num_classes: classes of each box.
    """

    layer: int
    stride: int
    anchors: tuple[tuple[int, int], ...]
    num_classes: int


class DarknetPool(nn.Module):
    """Max pooling as darknet does it: what lies beyond the edge counts nothing, not zero.

    With stride 1 the map keeps its size: ``padding`` places are added, of an odd number the last at the end.
    """

    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        before = padding // 2
        self.pads = (before, padding - before) * 2 if padding else ()

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, height, width)``, both sizes divided by the stride."""
        padded = F.pad(x, self.pads, value=float("-inf")) if self.pads else x
        return F.max_pool2d(padded, self.size, self.stride)


class Darknet(nn.Module):
    """The layers of a cfg up to the raw maps of its ``[yolo]`` sections.

    A layer is called by its kind and darknet's number, e.g. ``conv0`` and ``pool7``; a convolution's weights are those
    of ``torch.nn.Conv2d`` and, where it is normalised, ``torch.nn.BatchNorm2d``.

    Args:
        sections: from ``read_cfg``.

    Attributes:
        scales: what the maps are, in the order in which ``forward`` returns them.

    Raises:
        ModelError: a section refers to a layer that is not there, or its options contradict each other.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        super().__init__()
        self._sources: list[tuple[int, ...]] = []
        self._names: list[str] = []
        self.scales: list[Scale] = []
        made: list[tuple[int, int]] = []  # channels and stride of each layer
        for number, section in enumerate(sections):
            sources = _sources(section, number)
            given = [made[source] if source >= 0 else (3, 1) for source in sources]
            channels, stride = _combined(section, given)
            module: nn.Module = nn.Identity()
            name = f"{_SHORT.get(section.kind, section.kind)}{number}"
            match section.kind:
                case "convolutional":
                    module, step = _convolution(section, channels), section.number("stride", 1)
                    channels, stride = section.number("filters"), stride * step
                case "maxpool":
                    size, step = section.number("size"), section.number("stride")
                    padding = section.number("padding", 0 if size == step else size - 1)
                    module, stride = DarknetPool(size, step, padding), stride * step
                case "upsample":
                    step = section.number("stride")
                    module, stride = nn.Upsample(scale_factor=step, mode="nearest"), stride // step
                case "shortcut":
                    module = _activation(section, "linear")
                case "yolo":
                    self.scales.append(_scale(section, number, channels, stride))
            self.add_module(name, module)
            self._names.append(name)
            self._sources.append(sources)
            made.append((channels, stride))
        if not self.scales:
            raise ModelError("a darknet cfg needs a [yolo] section: only detectors are read")
        self._kinds = [section.kind for section in sections]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """From pictures ``(batch, 3, height, width)`` in [0, 1] to maps ``(batch, anchors · (5 + classes), h, w)``."""
        made: list[Tensor] = []
        for name, kind, sources in zip(self._names, self._kinds, self._sources, strict=True):
            given = [made[source] if source >= 0 else x for source in sources]
            if kind == "route":
                made.append(torch.cat(given, 1) if len(given) > 1 else given[0])
            else:
                one = given[0] + given[1] if kind == "shortcut" else given[0]
                made.append(self.get_submodule(name)(one))
        return tuple(made[scale.layer] for scale in self.scales)

    def weight_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the weights in the order of darknet's file: of a convolution, its own weights go last."""
        named = []
        for name in self._names:
            own = self.get_submodule(name).state_dict()
            order = ("bn.bias", "bn.weight", "bn.running_mean", "bn.running_var", "conv.bias", "conv.weight")
            named += [(f"{name}.{key}", tuple(own[key].shape)) for key in order if key in own]
        return named


class YoloBoxes(nn.Module):
    """From a YOLO network's raw maps to detections: equations of section 2.1, then non-maximum suppression.

    With an anchor ``(w, h)`` at place ``(i, j)`` of a map of stride ``s``, and ``σ`` the sigmoid: the centre is
    ``s (i + σ(tx)), s (j + σ(ty))``, the size ``w exp(tw), h exp(th)``, and a class's score ``σ(t_object) σ(t_class)``.

    Args:
        scales: what the maps are.
        most, score_threshold, iou_threshold: see ``splitsem.detections.suppress``.
    """

    def __init__(self, scales: Sequence[Scale], most: int, score_threshold: float, iou_threshold: float) -> None:
        super().__init__()
        self.scales, self.most = tuple(scales), most
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Detections ``(batch, most, 6)``."""
        parts = [self._decoded(raw.float(), scale) for raw, scale in zip(maps, self.scales, strict=True)]
        corners, scores = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        return suppress(corners, scores, self.score_threshold, self.iou_threshold, self.most)

    def _decoded(self, raw: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
        """Corners ``(batch, places, 4)`` and scores ``(batch, places, classes)`` of one map."""
        batch, _, height, width = raw.shape
        raw = raw.view(batch, len(scale.anchors), 5 + scale.num_classes, height, width).movedim(2, -1)
        places = centres(height, width, raw, offset=0).view(height, width, 2)
        middle = (raw[..., :2].sigmoid() + places) * scale.stride
        sizes = raw[..., 2:4].exp() * raw.new_tensor(scale.anchors)[:, None, None, :]
        corners = torch.cat([middle - sizes / 2, middle + sizes / 2], -1)
        scores = raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()
        return corners.flatten(1, 3), scores.flatten(1, 3)


def darknet_detector(
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    folder: str | None = None,
    num_classes: int | None = None,
    masks: Sequence[Sequence[int]] | None = None,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.45,
) -> Detector:
    """A YOLOv3 network with its published weights.

    Args:
        input_shape: ``(3, height, width)`` of one picture, both multiples of 32.
        output_shape: ``(most, 6)``: boxes of a picture at most.
        folder: holds one ``.cfg`` file and one ``.weights`` file, of the same network; None takes YOLOv3-tiny's, of
            ``python -m splitsem.data get yolov3-tiny``.
        num_classes: the task's classes; they must be the network's.
        masks: numbers of the anchors of each ``[yolo]`` section, where the weights were trained with others than the
            cfg names; None takes the cfg's.
        score_threshold, iou_threshold: see ``splitsem.detections.suppress``; darknet suppresses above 0.45.

    Raises:
        ModelError: a file is missing, damaged or not of this network, or the task has other pictures or classes.
    """
    if folder is None:
        from splitsem.data import path  # not needed where the files are the user's own

        folder = str(path("yolov3-tiny"))
    cfg, weights = (_only(Path(folder), ending) for ending in (".cfg", ".weights"))
    check_pictures(cfg.stem, input_shape)
    network = Darknet(_with_masks(read_cfg(cfg), masks))
    own_classes = network.scales[0].num_classes
    if num_classes not in (None, own_classes):
        raise ModelError(
            f"{cfg.stem} knows {own_classes} classes, the task has {num_classes}: take a task of its classes"
        )
    network.load_state_dict(read_weights_file(weights, network.weight_shapes()), strict=False)
    detector = Detector(network, YoloBoxes(network.scales, output_shape[0], score_threshold, iou_threshold)).eval()
    detector.brings_weights = True  # type: ignore[assignment]  # torch declares no attributes of a module
    return detector


def _with_masks(sections: Sequence[Section], masks: Sequence[Sequence[int]] | None) -> list[Section]:
    num_scales = sum(section.kind == "yolo" for section in sections)
    if masks is None:
        return list(sections)
    if len(masks) != num_scales:
        raise ModelError(
            f"masks must have one list for each of the cfg's {num_scales} [yolo] sections, got {len(masks)}"
        )
    left = iter(masks)
    return [
        replace(section, options={**section.options, "mask": ",".join(map(str, next(left)))})
        if section.kind == "yolo"
        else section
        for section in sections
    ]


def _only(folder: Path, ending: str) -> Path:
    found = sorted(folder.glob(f"*{ending}"))
    if len(found) != 1:
        raise ModelError(f"the folder {folder} must hold one {ending} file of a YOLOv3 network, got {len(found)}")
    return found[0]


def _sources(section: Section, number: int) -> tuple[int, ...]:
    """The layers that a layer takes its inputs from; −1 is the picture."""
    if section.kind not in ("route", "shortcut"):
        return (number - 1,)
    named = section.numbers("layers" if section.kind == "route" else "from")
    sources = tuple(layer if layer >= 0 else number + layer for layer in named)
    if not all(0 <= source < number for source in sources):
        raise section.fault(f"refers to layer {named}, and it is layer {number} itself")
    return sources if section.kind == "route" else (number - 1, *sources)


def _combined(section: Section, given: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Channels and stride of what a layer is given."""
    channels, strides = [channels for channels, _ in given], {stride for _, stride in given}
    is_sum = section.kind == "shortcut"
    if len(strides) > 1 or (is_sum and (len(given) != 2 or len(set(channels)) > 1)):
        raise section.fault(
            f"joins maps that do not fit each other, of (channels, stride) {', '.join(map(str, given))}"
        )
    return channels[0] if is_sum else sum(channels), strides.pop()


def _convolution(section: Section, channels: int) -> nn.Sequential:
    size, stride, groups = section.number("size"), section.number("stride", 1), section.number("groups", 1)
    padding = size // 2 if section.number("pad", 0) else section.number("padding", 0)
    is_normalised = bool(section.number("batch_normalize", 0))
    filters = section.number("filters")
    if channels % groups or filters % groups:
        raise section.fault(f"groups={groups} must divide its {channels} channels in and {filters} out")
    conv = nn.Conv2d(channels, filters, size, stride, padding, groups=groups, bias=not is_normalised)
    layers = nn.Sequential()
    layers.add_module("conv", conv)
    if is_normalised:
        layers.add_module("bn", nn.BatchNorm2d(filters))
    activation = _activation(section, "logistic")
    if not isinstance(activation, nn.Identity):
        layers.add_module("act", activation)
    return layers


def _activation(section: Section, default: str) -> nn.Module:
    name = section.options.get("activation", default)
    if name not in _ACTIVATIONS:
        raise section.fault(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {name}")
    return _ACTIVATIONS[name]()


def _scale(section: Section, number: int, channels: int, stride: int) -> Scale:
    flat = section.numbers("anchors")
    if len(flat) % 2 or min(flat) < 1:
        raise section.fault(f"anchors must be pairs of a width and a height above 0, got {len(flat)} numbers: {flat}")
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    mask, num_classes = section.numbers("mask"), section.number("classes")
    if not all(0 <= index < len(pairs) for index in mask):
        raise section.fault(f"mask {mask} must name some of its {len(pairs)} anchors")
    if channels != len(mask) * (5 + num_classes):
        raise section.fault(f"needs {len(mask) * (5 + num_classes)} channels before it, got {channels}")
    return Scale(number, stride, tuple(pairs[index] for index in mask), num_classes)
