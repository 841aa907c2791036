"""DeepCOD: a one-layer encoder with few levels and an attentive, residual decoder (Yao et al., SenSys 2020).

Shapes: B samples, C channels, H × W positions; K channels of the code at h × w positions.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.codecs.learned.blocks import Centres, normalise_power
from splitsem.codecs.learned.learned import LearnedId, Stage
from splitsem.codecs.learned.symbol_codec import SymbolCodec

_NUM_HEADS = 4


class DeepCod(SymbolCodec):
    """One convolution and 2^b learned levels on the edge; self-attention and residual upsampling on the server.

    After "Deep compressive offloading: speeding up neural network inference by trading edge computation for network
    latency". The stages say the loss: errors at the tail's layers and logits, with gradients (the published hooks
    detach them), and the task's loss. As published, training meets no channel; ``snr_range_db`` adds one.

    Args:
        tensor_shape: ``(C, H, W)`` of the crossing tensor.
        code_channels: K.
        bits_per_symbol: b; 3 as published.
        stride: stride and kernel size of the encoder's convolution: 2, as published, or 4.
        decoder_width: channels inside the decoder, a multiple of 4.
        snr_range_db: see LearnedCodec; None trains without a channel.
        stages: see LearnedCodec.
        weights: see LearnedCodec.
    """

    codec_id = LearnedId.DEEPCOD

    def __init__(
        self,
        tensor_shape: Sequence[int],
        code_channels: int = 4,
        bits_per_symbol: int = 3,
        stride: int = 2,
        decoder_width: int = 32,
        snr_range_db: Sequence[float] | None = None,
        stages: Mapping[str, Stage] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(tensor_shape, stages, weights, snr_range_db)
        if code_channels < 1:
            raise ValueError(f"code_channels must be at least 1, got {code_channels}")
        if stride not in (2, 4):
            raise ValueError(f"stride must be 2 or 4, got {stride}")
        if decoder_width < 4 or decoder_width % 4:
            raise ValueError(f"decoder_width must be a multiple of 4, got {decoder_width}")
        channels, height, width = self.tensor_shape
        self.stride = stride
        self.code_shape = (code_channels, -(-height // stride), -(-width // stride))
        self.num_symbols = code_channels * self.code_shape[1] * self.code_shape[2]
        self.encoder = nn.Conv2d(channels, code_channels, stride, stride)
        self.centres = Centres(bits_per_symbol)
        ups = [ResidualUp(decoder_width) for _ in range(stride // 2)]
        self.decoder = nn.Sequential(
            nn.Conv2d(code_channels, decoder_width, 3, padding=1),
            SelfAttention(decoder_width),
            *ups,
            nn.Conv2d(decoder_width, channels, 3, padding=1),
        )

    def device_modules(self) -> Sequence[nn.Module]:
        """See LearnedCodec."""
        return self.encoder, self.centres

    def to_code(self, x_BCHW: Tensor) -> Tensor:
        """See SymbolCodec."""
        height, width = x_BCHW.shape[2:]
        padded = F.pad(x_BCHW, (0, -width % self.stride, 0, -height % self.stride))
        return normalise_power(self.encoder(padded).flatten(1))

    def from_code(self, values_BN: Tensor, snr_db_B: Tensor) -> Tensor:
        """See SymbolCodec; is not told the noise."""
        return self.decoder(values_BN.reshape(-1, *self.code_shape))


class SelfAttention(nn.Module):
    """Self-attention of every position to all others, with four heads and a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # nn.MultiheadAttention takes another path without gradients, whose last bits differ
        self.project = nn.Conv2d(channels, 3 * channels, 1)
        self.merge = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape."""
        batch, channels, *size = x_BCHW.shape
        query, key, value = self.project(x_BCHW).reshape(batch, 3, _NUM_HEADS, channels // _NUM_HEADS, -1).unbind(1)
        weight = (query.transpose(2, 3) @ key / (channels // _NUM_HEADS) ** 0.5).softmax(-1)
        seen = (value @ weight.transpose(2, 3)).reshape(batch, channels, *size)
        return x_BCHW + self.merge(seen)


class ResidualUp(nn.Module):
    """Doubles height and width: a transposed convolution and a 3×3 one, added to the nearest neighbours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.body = nn.Sequential(up, nn.PReLU(channels), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """``(B, C, 2H, 2W)``."""
        return F.interpolate(x_BCHW, scale_factor=2.0) + self.body(x_BCHW)
