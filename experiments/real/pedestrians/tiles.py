"""Tiles: the channels of a feature side by side in one 8-bit picture, as MPEG's feature coding has it."""

from collections.abc import Sequence
from math import isqrt

import numpy as np
import torch
from sequences import Picture
from torch import Tensor


class Tiles:
    """Maps features ``(1, channels, height, width)`` to 8-bit pictures and back; the range is the same for all frames.

    Args:
        examples: features of other frames than those that are coded; their smallest and largest value are the range.
    """

    def __init__(self, examples: Sequence[Tensor]) -> None:
        self.low = min(float(z.min()) for z in examples)
        self.high = max(float(z.max()) for z in examples)
        _, channels, self.height, self.width = examples[0].shape
        self.rows = max(rows for rows in range(1, isqrt(channels) + 1) if channels % rows == 0)
        self.columns = channels // self.rows

    def picture(self, z: Tensor) -> Picture:
        """The feature as a picture of ``rows · height`` by ``columns · width``."""
        q = ((z[0] - self.low) / (self.high - self.low) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        grid = q.reshape(self.rows, self.columns, self.height, self.width).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(grid.reshape(self.rows * self.height, self.columns * self.width))

    def feature(self, picture: Picture) -> Tensor:
        """What the tail receives."""
        grid = picture.reshape(self.rows, self.height, self.columns, self.width).transpose(0, 2, 1, 3)
        q = torch.from_numpy(np.ascontiguousarray(grid.reshape(-1, self.height, self.width))).float()
        return (q / 255 * (self.high - self.low) + self.low)[None]
