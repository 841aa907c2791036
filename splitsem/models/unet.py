"""UNet: a small encoder-decoder for dense prediction whose skips are thin, so that deep cuts are bottlenecks."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class UNet(nn.Module):
    """U-Net with a space-to-depth stem, narrow skips and sub-pixel output (Ronneberger et al., arXiv 1505.04597).

    Everything between the stem (stride 2) and the classifier (pixel shuffle, Shi et al., arXiv 1609.05158) works at
    half resolution or less. Each skip passes a 1×1 convolution on the encoder's side: in a classic U-Net the skips that
    cross a cut outweigh the input many times; here fewer values than the picture's cross between ``enc2`` and ``dec2``.

    Stages, in order: ``enc1 skip1 … enc<depth> skip<depth> bottleneck dec<depth> … dec1 classifier``.

    Args:
        input_shape: (channels, height, width) of the picture; height and width divisible by 2^(depth + 1).
        output_shape: (classes, height, width) of the logits.
        width: channels of ``enc1``; each level below has twice as many.
        depth: encoder levels above the bottleneck.
        skip_width: channels of ``skip1``; each level below has twice as many.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        output_shape: tuple[int, int, int],
        width: int = 16,
        depth: int = 3,
        skip_width: int = 4,
    ) -> None:
        super().__init__()
        if min(width, depth, skip_width) < 1:
            raise ValueError(f"width, depth and skip_width must be at least 1, got {(width, depth, skip_width)}")
        if len(input_shape) != 3 or len(output_shape) != 3 or tuple(input_shape[1:]) != tuple(output_shape[1:]):
            raise ValueError(
                f"input_shape and output_shape must be (channels, height, width) of one size, "
                f"got {tuple(input_shape)} and {tuple(output_shape)}"
            )
        if any(side % 2 ** (depth + 1) for side in input_shape[1:]):
            raise ValueError(
                f"height and width must be divisible by {2 ** (depth + 1)} at depth {depth}, "
                f"got {tuple(input_shape[1:])}"
            )
        self.depth = depth
        channels = [width * 2**level for level in range(depth)]
        skips = [skip_width * 2**level for level in range(depth)]
        for level in range(depth):
            source = input_shape[0] if level == 0 else channels[level - 1]
            setattr(self, f"enc{level + 1}", _encoder(source, channels[level]))
            setattr(self, f"skip{level + 1}", _conv(channels[level], skips[level], kernel_size=1))
        self.bottleneck = nn.Sequential(
            *_encoder(channels[-1], channels[-1]), _conv(channels[-1], channels[-1] // 2, 1)
        )
        below = channels[-1] // 2
        for level in reversed(range(depth)):
            setattr(self, f"dec{level + 1}", _Decoder(below, skips[level], channels[level]))
            below = channels[level]
        self.classifier = nn.Sequential(nn.Conv2d(width, 4 * output_shape[0], 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes, height, width) of pictures (batch, channels, height, width) in [0, 1]."""
        skips = []
        for level in range(1, self.depth + 1):
            x = self.get_submodule(f"enc{level}")(x)
            skips.append(self.get_submodule(f"skip{level}")(x))
        x = self.bottleneck(x)
        for level in range(self.depth, 0, -1):
            x = self.get_submodule(f"dec{level}")(x, skips.pop())
        return self.classifier(x)


class _Decoder(nn.Module):
    """Narrows ``x``, doubles its resolution, joins the skip and convolves twice."""

    def __init__(self, below: int, skip: int, channels: int) -> None:
        super().__init__()
        self.narrow = _conv(below, channels, kernel_size=1)
        self.conv1 = _conv(channels + skip, channels)
        self.conv2 = _conv(channels, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = functional.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest")
        return self.conv2(self.conv1(torch.cat((x, skip), dim=1)))


def _encoder(source: int, channels: int) -> nn.Sequential:
    """Halves the resolution, then refines."""
    return nn.Sequential(_conv(source, channels, kernel_size=4, stride=2), _conv(channels, channels))


def _conv(source: int, channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    padding = (kernel_size - 1) // 2
    return nn.Sequential(
        nn.Conv2d(source, channels, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),  # not in place: a cut may lie before it
    )
