"""Jpeg, Webp, Png and Pixels: send the picture itself at the split point ``input`` of image tasks, each as a file."""

import io
import struct
from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from torch import Tensor

from splitsem.codecs import wire
from splitsem.codecs.picture_files import check_jpeg, check_png, check_webp
from splitsem.codecs.tensorwise import StraightThrough, TensorwiseCodec
from splitsem.errors import ConfigError, PayloadError

# what Pillow's readers raise on files that are not what they seem
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error, EOFError, RuntimeError)
_MODES = {1: "L", 3: "RGB"}


class PictureCodec(TensorwiseCodec):
    """Carries float32 images in [0, 1], ``(B, 1 | 3, H, W)``, as 8-bit files; gradients pass straight through.

    Attributes:
        is_lossless: whether the file gives back each 8-bit pixel; ``forward`` then makes no file.
    """

    is_lossless: bool = False

    @abstractmethod
    def write_file(self, image: Image.Image) -> bytes:
        """One sample as a file."""

    @abstractmethod
    def open_file(self, data: bytes, channels: int, size: tuple[int, int]) -> Image.Image:
        """The file's image, pixels not yet decoded.

        Raises PayloadError unless it is of the kind that ``write_file`` makes of a picture of so many channels and
        (width, height) = ``size``.
        """

    def approximate(self, z: Tensor) -> Tensor:
        """See TensorwiseCodec; runs the real coder where it loses something."""
        on_cpu = z.detach().cpu()
        if self.is_lossless:
            z_hat = _values(self._pixels_of(on_cpu))
        else:
            z_hat = self.decode_tensor(wire.Part(z.dtype, tuple(z.shape), self.encode_tensor(on_cpu)))
        z_hat = z_hat.to(z.device)
        return StraightThrough.apply(z, z_hat, torch.ones_like(z, dtype=torch.bool))

    def encode_tensor(self, z: Tensor) -> bytes:
        """See TensorwiseCodec."""
        body = []
        for pixels in self._pixels_of(z):
            data = self.write_file(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))
            body += [wire.varint(len(data)), data]
        return b"".join(body)

    def _pixels_of(self, z: Tensor) -> NDArray[np.uint8]:
        """The 8-bit pixels ``(B, H, W, 1 | 3)``. Raises ConfigError for what is no picture."""
        is_image = z.dtype is torch.float32 and z.dim() == 4 and z.shape[1] in _MODES
        if not (is_image and bool(((z >= 0) & (z <= 1)).all())):
            raise ConfigError(
                f"{type(self).__name__} carries pictures only, float32 (B, 1|3, H, W) in [0, 1], and got {z.dtype} "
                f"{tuple(z.shape)} in [{z.min():.3g}, {z.max():.3g}]: use it at the split point `input`"
            )
        pixels_BHWC: NDArray[np.uint8] = (z * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return pixels_BHWC

    def decode_tensor(self, part: wire.Part) -> Tensor:
        """See TensorwiseCodec."""
        if part.dtype is not torch.float32 or len(part.shape) != 4 or part.shape[1] not in _MODES:
            raise PayloadError(f"expected float32 pictures (B, 1|3, H, W), got {part.dtype} {part.shape}")
        reader = wire.Reader(part.body)
        files = [bytes(reader.take(reader.varint("file size", len(part.body)), "file")) for _ in range(part.shape[0])]
        reader.finish()
        return _values(np.stack([self._pixels(data, part.shape[1:]) for data in files]))

    def _pixels(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        channels, height, width = shape
        try:
            image = self.open_file(data, channels, (width, height)).convert(_MODES[channels])
        except PayloadError:
            raise
        except _DAMAGE as exc:
            raise PayloadError(f"expected a {type(self).__name__} file of {width}×{height}, got: {exc}") from exc
        return np.asarray(image).reshape(height, width, channels)


def _values(pixels_BHWC: NDArray[np.uint8]) -> Tensor:
    """Pictures ``(B, 1 | 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).float().div_(255).contiguous()


class Jpeg(PictureCodec):
    """JPEG with optimised tables and 4:2:0 chroma; ``quality`` 1…100 (1…95 is the useful range)."""

    codec_id = wire.CodecId.JPEG

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        self.quality = _checked(quality)

    def write_file(self, image: Image.Image) -> bytes:
        """See PictureCodec."""
        file = io.BytesIO()
        image.save(file, "JPEG", quality=self.quality, optimize=True)
        return file.getvalue()

    def open_file(self, data: bytes, channels: int, size: tuple[int, int]) -> Image.Image:
        """See PictureCodec."""
        check_jpeg(data, channels, size)
        return JpegImagePlugin.JpegImageFile(io.BytesIO(data))


class Webp(PictureCodec):
    """WebP; ``lossless`` keeps the 8-bit pixels exactly, and ``quality`` is then the effort spent."""

    codec_id = wire.CodecId.WEBP

    def __init__(self, quality: int = 75, lossless: bool = False) -> None:
        super().__init__()
        self.quality, self.lossless = _checked(quality), lossless
        self.is_lossless = self.is_samplewise = lossless

    def write_file(self, image: Image.Image) -> bytes:
        """See PictureCodec."""
        if max(image.size) > 16383:
            raise ValueError(f"WebP holds at most 16383 pixels a side, got {image.size}")
        file = io.BytesIO()
        image.save(file, "WEBP", quality=self.quality, lossless=self.lossless, method=4)
        return file.getvalue()

    def open_file(self, data: bytes, channels: int, size: tuple[int, int]) -> Image.Image:
        """See PictureCodec; Pillow allocates all pixels on opening."""
        check_webp(data, size)
        return WebPImagePlugin.WebPImageFile(io.BytesIO(data))


class Png(PictureCodec):
    """PNG, which keeps the 8-bit pixels exactly, at the library's usual effort."""

    is_lossless = is_samplewise = True
    codec_id = wire.CodecId.PNG

    def write_file(self, image: Image.Image) -> bytes:
        """See PictureCodec."""
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    def open_file(self, data: bytes, channels: int, size: tuple[int, int]) -> Image.Image:
        """See PictureCodec."""
        check_png(data, channels, size)
        return PngImagePlugin.PngImageFile(io.BytesIO(data))


class Pixels(PictureCodec):
    """The 8-bit pixels as they are: what a camera without any coder would send."""

    is_lossless = is_samplewise = True
    codec_id = wire.CodecId.PIXELS

    def write_file(self, image: Image.Image) -> bytes:
        """See PictureCodec."""
        return image.tobytes()

    def open_file(self, data: bytes, channels: int, size: tuple[int, int]) -> Image.Image:
        """See PictureCodec."""
        if len(data) != (expected := size[0] * size[1] * channels):
            raise PayloadError(f"expected {expected} bytes of pixels, got {len(data)}")
        return Image.frombytes(_MODES[channels], size, data)


def _checked(quality: int) -> int:
    if not (isinstance(quality, int) and 1 <= quality <= 100):
        raise ValueError(f"quality must be 1…100, got {quality}")
    return quality
