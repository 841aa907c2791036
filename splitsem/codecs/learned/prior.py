"""FactorisedPrior: learned probabilities of a code's integers, one table a channel; what the entropy coder is given.

Shapes: B samples, K channels, P positions of the code.
"""

import numpy as np
import torch
from torch import Tensor, nn

from splitsem.codecs.entropy import shared

_LEAST_PROBABILITY = 1e-6


class FactorisedPrior(nn.Module):
    """Probability of each integer in −R…R by channel, as learned logits; anything beyond is an escape.

    Training sees integers with uniform noise of ±½ (Ballé et al., arXiv 1611.01704); their probability is interpolated
    between the neighbouring integers', which is the integrated density of a piecewise constant one. ``freeze`` turns
    the learned probabilities into the integer tables that both ends share and the coder uses: tables are never computed
    twice, because two machines may disagree in the last bit.

    Args:
        channels: K.
        largest: R.
    """

    tables: Tensor

    def __init__(self, channels: int, largest: int = 15) -> None:
        super().__init__()
        self.largest = largest
        steps = torch.arange(-largest - 1, largest + 2)  # one more on either side: the escape
        self.logits = nn.Parameter((-steps.abs().float() / 2).repeat(channels, 1))
        self.register_buffer("tables", torch.zeros(channels, 2 * largest + 2, dtype=torch.int32))
        self.freeze()

    def bits(self, y_BKP: Tensor) -> Tensor:
        """Estimated bits of each value, rounded or noisy, with gradients to values and probabilities; same shape."""
        probability_KS = self.logits.softmax(1)
        place = (y_BKP + self.largest + 1).clamp(0, 2 * self.largest + 2 - 1e-3)
        lower = place.detach().floor()
        share = place - lower
        rows = torch.arange(len(probability_KS), device=y_BKP.device)[None, :, None].expand_as(lower)
        below, above = probability_KS[rows, lower.long()], probability_KS[rows, lower.long() + 1]
        probability = below * (1 - share) + above * share
        beyond = (y_BKP.abs() - self.largest).clamp(min=0)  # the escape's raw bits, and a slope that leads back
        return -(probability + _LEAST_PROBABILITY).log2() + beyond

    @torch.no_grad()
    def freeze(self) -> None:
        """Make the integer tables from what was learned."""
        probability_KS = self.logits.double().softmax(1).cpu().numpy()
        escape = probability_KS[:, :1] + probability_KS[:, -1:]
        tables = shared.to_frequencies(np.concatenate([probability_KS[:, 1:-1], escape], 1))
        self.tables.copy_(torch.from_numpy(tables))

    def encode(self, integers_KP: Tensor) -> bytes:
        """One sample's integers as bytes."""
        return shared.encode_rows(integers_KP.cpu().numpy(), self.tables.cpu().numpy().astype(np.int64))

    def decode(self, data: bytes | memoryview, num_positions: int) -> Tensor:
        """Undo ``encode``: ``(K, P)``, float32. Raises PayloadError."""
        symbols = shared.decode(data, self._rows(num_positions), self.tables.cpu().numpy().astype(np.int64))
        return torch.tensor(symbols, dtype=torch.float32).reshape(-1, num_positions) - self.largest

    def _rows(self, num_positions: int) -> list[int]:
        return [row for row in range(len(self.tables)) for _ in range(num_positions)]
