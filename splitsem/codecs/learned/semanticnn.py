"""SemanticNN: a shallow encoder, learned levels, and a decoder that knows the link's noise (arXiv 2511.11038).

Shapes: B samples, C channels, H × W positions; K channels of the code at h × w positions.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.codecs.learned.blocks import Centres, Gdn, SnrAttention, Start, normalise_power
from splitsem.codecs.learned.blocks import Mapping as BitMapping
from splitsem.codecs.learned.learned import LearnedId, Stage
from splitsem.codecs.learned.symbol_codec import SymbolCodec

_STRIDE = 4
_MOST_CHANNELS = 128
CentresKind = Literal["learned", "even", "random"]


class SemanticNN(SymbolCodec):
    """One convolution, GDN, PReLU, power normalisation and 2^b levels; five transposed convolutions back.

    It differs from the paper by levels that learn, by real errors in training, on the bits of the symbols, by a linear
    last layer (features are not confined to 0…1), and by a code of fixed length (a wrong bit ruins a Huffman code).

    Args:
        tensor_shape: ``(C, H, W)`` of the crossing tensor.
        code_channels: K; None is half of C, as published, and at most 128: half of a deep layer's 2,048 would make an
            encoder of 134 MB.
        bits_per_symbol: b; 3 as published.
        encoder_widths: channels of convolutions before the code: two that halve height and width, then any that do
            not. Empty as published: a single 4×4 convolution of stride 4.
        decoder_width: channels inside the decoder.
        snr_range_db: see LearnedCodec.
        mapping: ``gray`` or ``natural``, how levels become bits.
        centres: ``learned``, from an even start; ``even`` or ``random`` stay as they start, random as published.
        stages: see LearnedCodec.
        weights: see LearnedCodec.
    """

    codec_id = LearnedId.SEMANTICNN

    def __init__(
        self,
        tensor_shape: Sequence[int],
        code_channels: int | None = None,
        bits_per_symbol: int = 3,
        encoder_widths: Sequence[int] = (),
        decoder_width: int = 64,
        snr_range_db: Sequence[float] = (-6.0, 7.0),
        mapping: BitMapping = "gray",
        centres: CentresKind = "learned",
        stages: Mapping[str, Stage] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(tensor_shape, stages, weights, snr_range_db)
        channels, height, width = self.tensor_shape
        code_channels = min(max(1, channels // 2), _MOST_CHANNELS) if code_channels is None else code_channels
        for name, value in {"code_channels": code_channels, "decoder_width": decoder_width}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if len(encoder_widths) == 1 or any(w < 1 for w in encoder_widths):
            raise ValueError(f"encoder_widths must be none, or two or more positive widths, got {list(encoder_widths)}")
        if centres not in get_args(CentresKind):
            raise ValueError(f"centres must be one of {', '.join(get_args(CentresKind))}, got {centres!r}")
        self.code_shape = (code_channels, -(-height // _STRIDE), -(-width // _STRIDE))
        self.num_symbols = code_channels * self.code_shape[1] * self.code_shape[2]
        self.encoder = _encoder(channels, tuple(encoder_widths), code_channels)
        start: Start = "random" if centres == "random" else "even"
        self.centres = Centres(bits_per_symbol, mapping, are_learned=centres == "learned", start=start)
        self.decoder = Decoder(code_channels, decoder_width, channels)

    def device_modules(self) -> Sequence[nn.Module]:
        """See LearnedCodec."""
        return self.encoder, self.centres

    def to_code(self, x_BCHW: Tensor) -> Tensor:
        """See SymbolCodec."""
        _, height, width = x_BCHW.shape[1:]
        padded = F.pad(x_BCHW, (0, -width % _STRIDE, 0, -height % _STRIDE))
        return normalise_power(self.encoder(padded).flatten(1))

    def from_code(self, values_BN: Tensor, snr_db_B: Tensor) -> Tensor:
        """See SymbolCodec."""
        return self.decoder(values_BN.reshape(-1, *self.code_shape), snr_db_B)


def _encoder(channels: int, widths: tuple[int, ...], code_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (fan_in, fan_out) in enumerate(pairwise((channels, *widths))):
        stride = 2 if number < 2 else 1
        layers += [nn.Conv2d(fan_in, fan_out, 3, stride, padding=1), Gdn(fan_out), nn.PReLU(fan_out)]
    if widths:
        layers.append(nn.Conv2d(widths[-1], code_channels, 1))
    else:
        layers += [nn.Conv2d(channels, code_channels, _STRIDE, _STRIDE), Gdn(code_channels), nn.PReLU(code_channels)]
    return nn.Sequential(*layers)


class Decoder(nn.Module):
    """Five transposed convolutions with inverse GDN and PReLU, each but the last followed by attention to the SNR.

    Args:
        code_channels: K.
        width: channels inside; half as many from the second doubling on.
        channels: C.
    """

    def __init__(self, code_channels: int, width: int, channels: int) -> None:
        super().__init__()
        narrow = max(1, width // 2)
        plan = [(code_channels, width, 1), (width, width, 1), (width, width, 2), (width, narrow, 2)]
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(i, o, 3, stride, padding=1, output_padding=stride - 1) for i, o, stride in plan
        )
        self.norms = nn.ModuleList(nn.Sequential(Gdn(o, inverse=True), nn.PReLU(o)) for _, o, _ in plan)
        self.attentions = nn.ModuleList(SnrAttention(o) for _, o, _ in plan)
        self.last = nn.ConvTranspose2d(narrow, channels, 3, padding=1)

    def forward(self, code_BKhw: Tensor, snr_db_B: Tensor) -> Tensor:
        """``(B, C, 4h, 4w)``."""
        x = code_BKhw
        for conv, norm, attention in zip(self.convs, self.norms, self.attentions, strict=True):
            x = attention(norm(conv(x)), snr_db_B)
        return self.last(x)
