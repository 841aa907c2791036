"""PictureInput says how a picture becomes a network's input, and makes it so with Pillow, as splitsem's tasks do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Fit = Literal["crop", "stretch", "pad"]
Resample = Literal["bilinear", "bicubic"]
_GREY = 128  # the uint8 nearest to 0.5


class PictureInput(NamedTuple):
    """From a picture of any size to float32 ``(1, channels, height, width)``: ``(pixel / 255 − mean) / std``.

    Attributes:
        size: height and width of the input in pixels.
        channels: 3 for RGB, 1 for grey.
        fit: ``crop``: the shorter side becomes ``resize_ratio`` times the input's, and the middle is taken;
            ``stretch``: both sides become the input's; ``pad``: the longer side becomes the input's, on grey.
        resize_ratio: of ``crop``.
        resample: how pixels are made of pixels.
        mean: for each channel, in [0, 1]; zeros where the network does that itself.
        std: for each channel; ones where the network does that itself.
        layout: order of the input's dimensions; always ``NCHW``.
    """

    size: Sequence[int]
    channels: int
    fit: Fit = "crop"
    resize_ratio: float = 1.0
    resample: Resample = "bilinear"
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    layout: str = "NCHW"

    def make(self, picture: "Image") -> NDArray[np.float32]:
        """The input of an upright picture, as Pillow holds it."""
        from PIL import Image

        rgb = picture.convert("RGB" if self.channels == 3 else "L")
        pixels = np.asarray(self._fitted(rgb, Image.Resampling[self.resample.upper()]), np.float32)
        pixels_hwc: NDArray[np.float32] = pixels.reshape(*self.size, self.channels) / np.float32(255)
        if any(self.mean) or any(one != 1 for one in self.std):
            mean, std = (np.array(values).astype(np.float32) for values in (self.mean, self.std))
            pixels_hwc = (pixels_hwc - mean) / std
        return np.ascontiguousarray(pixels_hwc.transpose(2, 0, 1)[None], np.float32)

    def _fitted(self, picture: "Image", resample: Any) -> "Image":
        (height, width), (wide, high) = self.size, picture.size
        if self.fit == "stretch":
            return picture if (wide, high) == (width, height) else picture.resize((width, height), resample)
        if self.fit == "pad":
            return _padded(picture, (width, height), resample)
        shorter = round(min(height, width) * self.resize_ratio)
        short = min(wide, high)
        wide, high = (shorter, int(shorter * high / short)) if wide <= high else (int(shorter * wide / short), shorter)
        if (wide, high) != picture.size:
            picture = picture.resize((wide, high), resample)
        left, top = round((wide - width) / 2), round((high - height) / 2)
        return picture.crop((left, top, left + width, top + height))


def _padded(picture: "Image", size: tuple[int, int], resample: Any) -> "Image":
    """The picture in the middle of grey, as large as fits."""
    from PIL import Image

    scale = min(size[0] / picture.width, size[1] / picture.height)
    inner = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    made = Image.new(picture.mode, size, (_GREY,) * len(picture.getbands()))
    made.paste(picture.resize(inner, resample), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return made


def of_card(card: dict[str, Any]) -> PictureInput:
    """A description in a JSON file. Raises ValueError for other fields, or a way that this version does not know."""
    if card.keys() != set(PictureInput._fields):
        raise ValueError(f"a picture's input is described by {', '.join(PictureInput._fields)}")
    made = PictureInput(**card)
    if made.fit not in ("crop", "stretch", "pad") or made.resample not in ("bilinear", "bicubic"):
        raise ValueError(f"fit {made.fit!r} and resample {made.resample!r} are not known here")
    if made.layout != "NCHW" or made.channels not in (1, 3) or len(made.size) != 2:
        raise ValueError(f"a picture's input is NCHW of 1 or 3 channels, got {made.layout}, {made.channels}")
    return made
