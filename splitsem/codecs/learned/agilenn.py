"""AgileNN: the few features that matter most stay on the edge, which makes logits of them; all others are sent.

Shapes: B samples, C channels, H × W positions; F features, k of them local; K channels of the code at h × w positions.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitsem.codecs.codec import Tensors
from splitsem.codecs.learned.blocks import Centres, normalise_power
from splitsem.codecs.learned.learned import Coded, LearnedId, Stage
from splitsem.codecs.learned.symbol_codec import SymbolCodec

_STRIDE = 4
_POOLED = 4  # positions, each way, that the local head sees


class AgileNN(SymbolCodec):
    """A convolution makes features; the first k go through a tiny head on the edge, the others into the code.

    After Huang and Gao, "Real-time neural network inference on extremely weak devices: agile offloading with
    explainable AI", MobiCom 2022. The result is ``α · local + (1 − α) · output`` of the edge's and the server's logits,
    with a learned α; where the payload or the answer was lost, the result is the local logits alone. Training makes the
    k features the important ones (``skewness_loss``). This codec differs from the paper: the features come from a layer
    of its own (the paper retrains the network's features), and a convolution of stride 4 shortens the code (the paper
    sends every feature).

    Args:
        tensor_shape: ``(C, H, W)`` of the crossing tensor.
        num_classes: number of the task's classes.
        feature_channels: F.
        local_channels: k, at least 1 and below F.
        code_channels: K.
        bits_per_symbol: b.
        decoder_width: channels inside the decoder.
        local_importance: ρ, what the local features' share of all importance shall exceed, in (0, 1).
        stages: see LearnedCodec.
        weights: see LearnedCodec.
    """

    codec_id = LearnedId.AGILENN

    def __init__(
        self,
        tensor_shape: Sequence[int],
        num_classes: int,
        feature_channels: int = 16,
        local_channels: int = 4,
        code_channels: int = 11,
        bits_per_symbol: int = 3,
        decoder_width: int = 64,
        local_importance: float = 0.5,
        stages: Mapping[str, Stage] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(tensor_shape, stages, weights, snr_range_db=None)
        widths = {"num_classes": num_classes, "code_channels": code_channels, "decoder_width": decoder_width}
        for name, value in widths.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 1 <= local_channels < feature_channels:
            raise ValueError(
                f"local_channels must be at least 1 and below feature_channels, got {local_channels} "
                f"and {feature_channels}"
            )
        if not 0 < local_importance < 1:
            raise ValueError(f"local_importance must be in (0, 1), got {local_importance}")
        channels, height, width = self.tensor_shape
        sent_channels = feature_channels - local_channels
        self.local_channels, self.local_importance = local_channels, local_importance
        self.code_shape = (code_channels, -(-height // _STRIDE), -(-width // _STRIDE))
        self.num_symbols = code_channels * self.code_shape[1] * self.code_shape[2]
        self.extract_local = nn.Sequential(nn.Conv2d(channels, local_channels, 3, padding=1), nn.ReLU())
        self.extract_sent = nn.Sequential(nn.Conv2d(channels, sent_channels, 3, padding=1), nn.ReLU())
        self.local_head = LocalHead(local_channels, num_classes)
        self.encoder = nn.Conv2d(sent_channels, code_channels, _STRIDE, _STRIDE)
        self.centres = Centres(bits_per_symbol)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(code_channels, decoder_width, 4, stride=2, padding=1),
            nn.PReLU(decoder_width),
            nn.ConvTranspose2d(decoder_width, decoder_width, 4, stride=2, padding=1),
            nn.PReLU(decoder_width),
            nn.Conv2d(decoder_width, channels, 3, padding=1),
        )

    def device_modules(self) -> Sequence[nn.Module]:
        """See LearnedCodec."""
        return self.extract_local, self.extract_sent, self.local_head, self.encoder, self.centres

    def code(self, z: Tensor, snr_db: float | None) -> Coded:
        """See LearnedCodec."""
        return super().code(z, snr_db)._replace(local=self._local(z))

    def to_code(self, x_BCHW: Tensor) -> Tensor:
        """See SymbolCodec."""
        return self._compress(self.extract_sent(x_BCHW))

    def from_code(self, values_BN: Tensor, snr_db_B: Tensor) -> Tensor:
        """See SymbolCodec; is not told the noise."""
        return self.decoder(values_BN.reshape(-1, *self.code_shape))

    @torch.no_grad()
    def local_output(self, z: Tensors) -> Tensor:
        """See Codec: logits ``(B, num_classes)`` of the local features."""
        return self._local(self._only(z))

    def combine(self, local: Tensor, output: Tensor | None) -> Tensor:
        """See Codec: ``α · local + (1 − α) · output``, or the local logits alone."""
        if output is None:
            return local
        share = self.local_head.mix.sigmoid()
        return share * local + (1 - share) * output.to(local.device)

    def features(self, z: Tensor) -> Tensor:
        """All features ``(B, F, H, W)`` of the crossing tensor, the local ones first."""
        x_BCHW = self.standardise(z)
        return torch.cat([self.extract_local(x_BCHW), self.extract_sent(x_BCHW)], 1)

    def from_features(self, features_BFHW: Tensor) -> tuple[Tensor, Tensor]:
        """``z_hat`` and the local logits of features, nothing rounded, so that both can be differentiated twice."""
        values_BN = self._compress(features_BFHW[:, self.local_channels :])
        z_hat = self.reconstruct(values_BN, [None] * len(values_BN), torch.float32)
        return z_hat, self.local_head(features_BFHW[:, : self.local_channels])

    def skewness_loss(self, importance_BF: Tensor) -> Tensor:
        """``mean(max(0, ρ − Σ_local I) + max(0, max_sent I − min_local I))``, where a sample's shares I sum to 1.

        The paper's skewness and disorder losses: the local features hold ρ of all importance, and no sent feature has
        more than any local one.

        Args:
            importance_BF: importance of each feature of each sample, not negative.
        """
        share_BF = importance_BF / importance_BF.sum(1, keepdim=True).clamp(min=1e-12)
        local, sent = share_BF[:, : self.local_channels], share_BF[:, self.local_channels :]
        skewness = (self.local_importance - local.sum(1)).relu()
        disorder = (sent.amax(1) - local.amin(1)).relu()
        return (skewness + disorder).mean()

    def _local(self, z: Tensor) -> Tensor:
        return self.local_head(self.extract_local(self.standardise(z)))

    def _compress(self, sent_BFHW: Tensor) -> Tensor:
        height, width = sent_BFHW.shape[2:]
        padded = F.pad(sent_BFHW, (0, -width % _STRIDE, 0, -height % _STRIDE))
        return normalise_power(self.encoder(padded).flatten(1))


class LocalHead(nn.Module):
    """Averages features in a grid of 4 × 4 and makes logits of them by one linear layer.

    Attributes:
        mix: α of the combined logits before its sigmoid.

    Args:
        channels: number of feature channels.
        num_classes: number of logits.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * _POOLED**2, num_classes)
        self.mix = nn.Parameter(torch.zeros(()))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """``(B, num_classes)``."""
        return self.linear(F.adaptive_avg_pool2d(x_BCHW, _POOLED).flatten(1))
