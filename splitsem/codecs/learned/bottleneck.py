"""Bottleneck: a plain convolutional autoencoder with uniform levels, the baseline of the learned codecs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from splitsem.codecs.learned.blocks import Centres
from splitsem.codecs.learned.learned import LearnedId, Stage
from splitsem.codecs.learned.symbol_codec import SymbolCodec


class Bottleneck(SymbolCodec):
    """3×3 convolutions of stride 2 down to the code, tanh, 2^b evenly spaced levels, and the mirror image back.

    Training has no channel: the symbols have a fixed length, but the decoder never learns from a wrong symbol.

    Args:
        tensor_shape: ``(C, H, W)`` of the crossing tensor.
        code_channels: channels of the code.
        bits_per_symbol: b.
        widths: channels of the convolutions before the code's; each, and the code's own, halves height and width.
        stages: see LearnedCodec.
        weights: see LearnedCodec.
    """

    codec_id = LearnedId.BOTTLENECK

    def __init__(
        self,
        tensor_shape: Sequence[int],
        code_channels: int = 8,
        bits_per_symbol: int = 4,
        widths: Sequence[int] = (32,),
        stages: Mapping[str, Stage] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(tensor_shape, stages, weights, snr_range_db=None)
        if code_channels < 1 or any(width < 1 for width in widths):
            raise ValueError(f"code_channels and widths must be at least 1, got {code_channels} and {list(widths)}")
        channels, height, width = self.tensor_shape
        plan = (channels, *widths, code_channels)
        stride = 1 << (len(plan) - 1)
        self.code_shape = (code_channels, -(-height // stride), -(-width // stride))
        self.num_symbols = code_channels * self.code_shape[1] * self.code_shape[2]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for fan_in, fan_out in pairwise(plan):
            down += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), nn.ReLU()]
        for fan_in, fan_out in pairwise(reversed(plan)):
            up += [nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1), nn.ReLU()]
        self.encoder, self.decoder = nn.Sequential(*down[:-1], nn.Tanh()), nn.Sequential(*up[:-1])
        self.centres = Centres(bits_per_symbol, "natural", are_learned=False, spread=1.0)

    def device_modules(self) -> Sequence[nn.Module]:
        """See LearnedCodec."""
        return self.encoder, self.centres

    def to_code(self, x_BCHW: Tensor) -> Tensor:
        """See SymbolCodec."""
        return self.encoder(x_BCHW).flatten(1)

    def from_code(self, values_BN: Tensor, snr_db_B: Tensor) -> Tensor:
        """See SymbolCodec; knows nothing of noise."""
        return self.decoder(values_BN.reshape(-1, *self.code_shape))
