"""Corruptions of pictures: the interface, its random numbers, and the families that damage single pixels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_SEVERITIES = 5
_INDEX_BITS = 56


class Corruption(ABC):
    """One family of corruptions at one strength, for images in [0, 1].

    The random numbers of each image come from a generator of its own, apart from the arithmetic, which works on whole
    batches: an image is corrupted alike in any batch, in any order, in any process.

    A family has one parameter, given exactly or by a severity 1…5, as in Hendrycks and Dietterich, "Benchmarking
    Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019 (arXiv 1903.12261).

    Args:
        value: the parameter, or None.
        severity: 1 (slight) … 5 (severe), or None.

    Raises:
        ValueError: neither or both of ``value`` and ``severity`` are given, or one is out of range.

    Attributes:
        name: name of the family, as in settings.
        parameter: name of the parameter.
        severities: the parameter's value at each severity.
        limits: the parameter's least and largest value.
    """

    name: ClassVar[str]
    parameter: ClassVar[str]
    severities: ClassVar[tuple[float, float, float, float, float]]
    limits: ClassVar[tuple[float, float]] = (0, inf)

    def __init__(self, value: float | None, severity: int | None) -> None:
        if (value is None) == (severity is None):
            given = "neither is" if value is None else "both are"
            raise ValueError(f"{self.name} needs either {self.parameter} or severity, {given} given")
        if severity is not None:
            if type(severity) is not int or not 1 <= severity <= NUM_SEVERITIES:
                raise ValueError(f"severity of {self.name} must be a whole number 1…{NUM_SEVERITIES}, got {severity}")
            value = self.severities[severity - 1]
        least, most = self.limits
        if value is None or not least <= value <= most:
            rule = f"{least:g}…{most:g}" if most < inf else f"at least {least:g}"
            raise ValueError(f"{self.parameter} of {self.name} must be {rule}, got {value}")
        self.value = float(value)

    def __str__(self) -> str:
        return f"{self.name} {self.parameter} {self.value:.3g}"

    def draw(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray:
        """The random numbers for one image ``(channels, height, width)``: an array of one shape for all images."""
        return np.zeros(0, np.float32)

    @abstractmethod
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Corrupt a batch ``(batch, channels, height, width)`` with the numbers drawn for each; not yet clipped."""

    def __call__(self, x: Tensor, keys: Sequence[tuple[int, int, int]]) -> Tensor:
        """The corrupted batch, rounded to the 256 levels of a uint8 picture.

        Args:
            x: float32 in [0, 1], shape ``(batch, channels, height, width)``.
            keys: ``(seed, split, index)`` of each image; equal keys draw equal numbers.
        """
        drawn = np.stack([self.draw(image, generator(*key)) for image, key in zip(x.numpy(), keys, strict=True)])
        return (self.apply(x, torch.from_numpy(drawn)).clamp(0, 1) * 255).round() / 255


def generator(seed: int, split: int, index: int) -> np.random.Generator:
    """The random numbers of sample ``index`` of split number ``split``: a Philox stream with that key.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. No two samples share a stream.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, (split << _INDEX_BITS) + index], np.uint64)))


class GaussianNoise(Corruption):
    """Noise of a sensor in the dark: ``x + n`` with ``n ~ N(0, std²)``, each channel of each pixel by itself.

    Args:
        std: σ, in units of the full range [0, 1].
        severity: 1…5 for the values of Hendrycks and Dietterich 2019.
    """

    name, parameter, severities = "gaussian_noise", "std", (0.08, 0.12, 0.18, 0.26, 0.38)

    def __init__(self, std: float | None = None, severity: int | None = None) -> None:
        super().__init__(std, severity)

    def draw(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray:
        """Standard normal numbers, one a value."""
        return rng.standard_normal(image.shape, np.float32)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Add the noise."""
        return x + self.value * drawn


class SaltAndPepper(Corruption):
    """Dead and hot pixels: with ``probability`` a pixel becomes black or white, in equal parts, in all channels.

    Args:
        probability: p, share of the pixels.
        severity: 1…5 for the values of Hendrycks and Dietterich 2019 (impulse noise).
    """

    name, parameter, severities = "salt_and_pepper", "probability", (0.03, 0.06, 0.09, 0.17, 0.27)
    limits = (0, 1)

    def __init__(self, probability: float | None = None, severity: int | None = None) -> None:
        super().__init__(probability, severity)

    def draw(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray:
        """Uniform numbers in [0, 1), one a pixel."""
        return rng.random((1, *image.shape[1:]), np.float32)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Pepper where the number is below p/2, salt where it is within p/2 of 1."""
        return x.where(drawn >= self.value / 2, 0.0).where(drawn < 1 - self.value / 2, 1.0)


class ShotNoise(Corruption):
    """Too little light: a value is a number of photons, ``Poisson(photons · x) / photons``.

    Args:
        photons: mean number at full brightness; fewer are worse.
        severity: 1…5 for the values of Hendrycks and Dietterich 2019.
    """

    name, parameter, severities = "shot_noise", "photons", (60, 25, 12, 5, 3)
    limits = (0.1, 1e6)

    def __init__(self, photons: float | None = None, severity: int | None = None) -> None:
        super().__init__(photons, severity)

    def draw(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray:
        """Photons that arrived, one number a value."""
        return rng.poisson(self.value * image).astype(np.float32)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """The photons as a share of full brightness."""
        return drawn / self.value
