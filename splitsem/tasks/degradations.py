"""Corruptions of the whole picture, from blur to occlusion, and all corruptions by the names that settings use.

Lengths are shares of the picture's shorter side, so that a severity means the same at 8 and at 224 pixels.
"""

import inspect
from collections.abc import Mapping
from io import BytesIO
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from splitsem import extras
from splitsem.tasks.corruption import Corruption, GaussianNoise, SaltAndPepper, ShotNoise

FOG_OCTAVES = (2, 4, 8, 16)  # cells a side of each layer of fog; each is half as strong as the one before
FOG_BRIGHTNESS = (0.5, 1.0)  # brightness of the thinnest and the thickest fog
GREY = 0.5


class GaussianBlur(Corruption):
    """Out of focus: a Gaussian filter.

    Args:
        std: σ as a share of the shorter side.
        severity: 1…5.
    """

    name, parameter, severities = "gaussian_blur", "std", (0.015, 0.025, 0.035, 0.045, 0.06)
    limits = (0, 0.5)

    def __init__(self, std: float | None = None, severity: int | None = None) -> None:
        super().__init__(std, severity)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Filter with a kernel of ±3σ."""
        with extras.needed("vision", "blurring pictures"):
            from torchvision.transforms.v2.functional import gaussian_blur  # takes seconds, which only this one pays

        std_pixels = self.value * min(x.shape[2:])
        reach = min(ceil(3 * std_pixels), min(x.shape[2:]) - 1)  # its reflecting border allows no more
        return gaussian_blur(x, [2 * reach + 1] * 2, [std_pixels] * 2) if reach else x


class MotionBlur(Corruption):
    """The camera moved: the mean along a straight line, of another direction in each picture.

    Args:
        length: length of the line, as a share of the shorter side.
        severity: 1…5.
    """

    name, parameter, severities = "motion_blur", "length", (0.08, 0.14, 0.2, 0.27, 0.35)
    limits = (0, 1)

    def __init__(self, length: float | None = None, severity: int | None = None) -> None:
        super().__init__(length, severity)

    def draw(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray:
        """The angle in [0, π)."""
        return rng.random(1, np.float32) * np.float32(np.pi)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Filter each picture with its own kernel; borders are repeated."""
        half_length = self.value * min(x.shape[2:]) / 2
        reach = ceil(half_length)
        offset = torch.arange(-reach, reach + 1, dtype=x.dtype)
        angle = drawn.view(-1, 1, 1)
        along = offset * angle.cos() + offset[:, None] * angle.sin()
        across = offset[:, None] * angle.cos() - offset * angle.sin()
        beyond = (along.abs() - half_length).clamp_min(0)
        kernels = (1 - torch.hypot(across, beyond)).clamp_min(0)  # a line one pixel wide, with soft edges
        kernels = (kernels / kernels.sum((1, 2), keepdim=True)).repeat_interleave(x.shape[1], 0).unsqueeze(1)
        padded = F.pad(x, [reach] * 4, mode="replicate")
        return F.conv2d(padded.flatten(0, 1).unsqueeze(0), kernels, groups=len(kernels)).view_as(x)


class Pixelate(Corruption):
    """Too few pixels: the picture is averaged down to a share of them and enlarged again.

    Args:
        scale: share of the pixels that is left along each side; smaller is worse.
        severity: 1…5.
    """

    name, parameter, severities = "pixelate", "scale", (1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6)
    limits = (0, 1)

    def __init__(self, scale: float | None = None, severity: int | None = None) -> None:
        super().__init__(scale, severity)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Average and enlarge; at least one pixel is left."""
        size = [max(round(self.value * side), 1) for side in x.shape[2:]]
        return F.interpolate(F.interpolate(x, size, mode="area"), x.shape[2:], mode="nearest-exact")


class Jpeg(Corruption):
    """Compressed too far: grey or colour pictures are written as JPEG and read again.

    Args:
        quality: 1…100; lower is worse.
        severity: 1…5 for the values of Hendrycks and Dietterich 2019.
    """

    name, parameter, severities = "jpeg", "quality", (25, 18, 15, 10, 7)
    limits = (1, 100)

    def __init__(self, quality: int | None = None, severity: int | None = None) -> None:
        super().__init__(quality, severity)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Send each picture through Pillow. Raises ValueError unless there are one or three channels."""
        if x.shape[1] not in (1, 3):
            raise ValueError(f"jpeg needs pictures of 1 or 3 channels, got {x.shape[1]}")
        levels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).squeeze(3).numpy()
        seen = np.stack([_through_jpeg(picture, round(self.value)) for picture in levels])
        return torch.from_numpy(seen).view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2) / 255


def _through_jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """A picture ``(height, width)`` or ``(height, width, 3)`` written and read."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


class Contrast(Corruption):
    """Flat light: ``mean + factor · (x − mean)`` with the picture's own mean in each channel.

    Args:
        factor: contrast that is left; smaller is worse.
        severity: 1…5 for the values of Hendrycks and Dietterich 2019.
    """

    name, parameter, severities = "contrast", "factor", (0.4, 0.3, 0.2, 0.1, 0.05)

    def __init__(self, factor: float | None = None, severity: int | None = None) -> None:
        super().__init__(factor, severity)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Move all values towards the mean."""
        mean = x.mean((2, 3), keepdim=True)
        return mean + self.value * (x - mean)


class Brightness(Corruption):
    """Over- or underexposed: ``x + shift``, clipped.

    Args:
        shift: −1…1 of the full range.
        severity: 1…5, brighter, for the values of Hendrycks and Dietterich 2019.
    """

    name, parameter, severities = "brightness", "shift", (0.1, 0.2, 0.3, 0.4, 0.5)
    limits = (-1, 1)

    def __init__(self, shift: float | None = None, severity: int | None = None) -> None:
        super().__init__(shift, severity)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Shift all values."""
        return x + self.value


class Fog(Corruption):
    """Fog in drifts: ``(1 − density) · x + density · fog``, the fog being smooth noise of several scales.

    Args:
        density: share of the light that comes from the fog, 0…1.
        severity: 1…5.
    """

    name, parameter, severities = "fog", "density", (0.3, 0.45, 0.6, 0.7, 0.8)
    limits = (0, 1)

    def __init__(self, density: float | None = None, severity: int | None = None) -> None:
        super().__init__(density, severity)

    def draw(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray:
        """Uniform numbers for the cells of all layers."""
        return rng.random(sum(cells**2 for cells in FOG_OCTAVES), np.float32)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Blend in the sum of the layers, scaled to the fog's range of brightness, the same in all channels."""
        layers = drawn.split([cells**2 for cells in FOG_OCTAVES], dim=1)
        fog = torch.zeros(len(x), 1, *x.shape[2:])
        for octave, (cells, layer) in enumerate(zip(FOG_OCTAVES, layers, strict=True)):
            grid = layer.view(-1, 1, cells, cells)
            fog += F.interpolate(grid, x.shape[2:], mode="bilinear", align_corners=True) / 2**octave
        thinnest, thickest = fog.amin((2, 3), keepdim=True), fog.amax((2, 3), keepdim=True)
        fog = (fog - thinnest) / (thickest - thinnest).clamp_min(1e-6)
        dark, bright = FOG_BRIGHTNESS
        return (1 - self.value) * x + self.value * (dark + (bright - dark) * fog)


class Occlusion(Corruption):
    """Something in front: a grey square, at another place in each picture.

    Args:
        area: the square's share of the picture, 0…1.
        severity: 1…5.
    """

    name, parameter, severities = "occlusion", "area", (0.05, 0.1, 0.16, 0.23, 0.3)
    limits = (0, 1)

    def __init__(self, area: float | None = None, severity: int | None = None) -> None:
        super().__init__(area, severity)

    def draw(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray:
        """Where the square is: shares of the free room above and to the left."""
        return rng.random(2, np.float32)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Cover with grey; the square is whole and inside the picture."""
        covered = torch.ones(len(x), 1, 1, 1, dtype=torch.bool)
        for dim, share in zip((2, 3), drawn.unbind(1), strict=True):
            side = x.shape[dim]
            width = round(self.value**0.5 * side)
            first = (share * (side - width + 1)).long().view(-1, 1, 1, 1)
            place = torch.arange(side).view([-1 if d == dim else 1 for d in range(4)])
            covered = covered & (place >= first) & (place < first + width)
        return x.where(~covered, GREY)


FAMILIES: dict[str, type[Corruption]] = {
    family.name: family
    for family in (
        GaussianNoise,
        SaltAndPepper,
        ShotNoise,
        GaussianBlur,
        MotionBlur,
        Pixelate,
        Jpeg,
        Contrast,
        Brightness,
        Fog,
        Occlusion,
    )
}


def corruption(settings: Corruption | Mapping[str, Any]) -> Corruption:
    """A corruption from its settings: ``{corruption: gaussian_noise, std: 0.2}`` or ``{corruption: fog, severity: 3}``.

    Args:
        settings: the family's name under ``corruption`` and its parameter or severity; a finished corruption, which is
            what Hydra makes of ``{_target_: my.Rain, ...}``, stays as it is.

    Raises:
        ValueError: no such family, no such parameter, or a value out of range; the message says what is allowed.
    """
    if isinstance(settings, Corruption):
        return settings
    if not isinstance(settings, Mapping) or "corruption" not in settings:
        raise ValueError(f"a domain must be like {{corruption: fog, severity: 3}}, got {settings!r}")
    given = {str(name): value for name, value in settings.items() if name != "corruption"}
    name = settings["corruption"]
    if name not in FAMILIES:
        raise ValueError(f"corruption must be one of {', '.join(FAMILIES)}, got {name!r}")
    allowed = inspect.signature(FAMILIES[name]).parameters
    if unknown := sorted(given.keys() - allowed.keys()):
        raise ValueError(f"{name} takes {' or '.join(allowed)}, got {', '.join(unknown)}")
    return FAMILIES[name](**given)
