"""Corruptions of single pixels: Gaussian noise, salt and pepper, shot noise."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from splitsem.tasks.corruption import Corruption


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
        """As a share of full brightness."""
        return drawn / self.value
