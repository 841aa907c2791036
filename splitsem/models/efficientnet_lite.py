"""efficientnet_lite0: EfficientNet-Lite0 with ImageNet weights that lie on this machine's shelf."""

from collections.abc import Sequence

from torch import Tensor, nn

from splitsem import extras
from splitsem.data import path
from splitsem.errors import ModelError
from splitsem.models.checkpoints import load_weights, read_weights
from splitsem.models.image_front import ImageFront, attach

FILE = "efficientnet-lite0-57934424.pth"
NUM_CLASSES = 1000
# The stem, the seven stages, what makes 1,280 channels, their means, the classes: where it is cut.
UNIT_NAMES = ("bn1", *(f"blocks.{stage}" for stage in range(6)), "blocks", "bn2", "global_pool", "classifier")
# (x − 127) / 128 for pixels 0…255, as the weights were trained.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def efficientnet_lite0(input_shape: Sequence[int], output_shape: Sequence[int]) -> nn.Module:
    """EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946, without squeeze-and-excitation, ReLU6) for ImageNet's classes.

    The network is timm's ``tf_efficientnet_lite0``; its modules and weights keep timm's names. Pictures in [0, 1] go
    in; the normalisation happens inside (``front``).

    Args:
        input_shape: ``(1 or 3, height, width)`` of one picture; 224×224 is what it was made for.
        output_shape: ``(1000,)``.

    Raises:
        ModelError: the weights are not here, with the command that gets them; or the task has other classes.
    """
    if tuple(output_shape) != (NUM_CLASSES,):
        raise ModelError(
            f"model=efficientnet_lite0 gives ImageNet's {NUM_CLASSES} classes, the task needs {tuple(output_shape)}: "
            "take task=photos, or train model=timm model.name=efficientnet_lite0"
        )
    file = path("efficientnet-lite0") / FILE
    with extras.needed("vision", "model=efficientnet_lite0"):
        import timm  # seconds, which other networks do not take

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    load_weights(network, _renamed(read_weights(file), network, str(file)), NUM_CLASSES, str(file))
    network.unit_names = UNIT_NAMES  # type: ignore[assignment]  # torch declares no attributes of a module
    attach(ImageFront(input_shape, MEAN, STD), network)
    network.brings_weights = True  # type: ignore[assignment]
    return network


def _renamed(weights: dict[str, Tensor], network: nn.Module, source: str) -> dict[str, Tensor]:
    """The file's weights under timm's names: the same tensors in the same order."""
    own = network.state_dict()
    if [value.shape for value in weights.values()] != [value.shape for value in own.values()]:
        raise ModelError(f"weights from {source} are not those of EfficientNet-Lite0 in the order that is known here")
    return dict(zip(own, weights.values(), strict=True))
