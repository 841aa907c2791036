"""SymbolCodec: the base of learned codecs that send a fixed number of symbols of fixed length, and bear wrong bits.

Shapes: B samples, N symbols in each.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from splitsem.codecs import tolerant
from splitsem.codecs.codec import Tensors
from splitsem.codecs.expected import Head
from splitsem.codecs.learned.blocks import Centres, bit_error_rate
from splitsem.codecs.learned.learned import Coded, LearnedCodec, Stage
from splitsem.errors import PayloadError
from splitsem_device.entropy.bits import pack_bits, packed_size, unpack_bits


class SymbolCodec(LearnedCodec):
    """Sends ``num_symbols`` symbols of ``centres.bits_per_symbol`` bits a sample, packed, in the tolerant format.

    The header says dtype and number of samples; what a symbol means is in the weights that both ends share. A payload
    for B samples has a body of exactly ``⌈B · num_symbols · bits_per_symbol / 8⌉`` bytes.

    Attributes:
        centres: the levels; set by the subclass.
        num_symbols: N; set by the subclass.
        code_shape: channels, height and width of the code, N in all; set by the subclass.
    """

    centres: Centres
    num_symbols: int
    code_shape: tuple[int, int, int]

    def __init__(
        self,
        tensor_shape: Sequence[int],
        stages: Mapping[str, Stage] | None,
        weights: str | None,
        snr_range_db: Sequence[float] | None,
    ) -> None:
        super().__init__(tensor_shape, stages, weights, snr_range_db)

    @abstractmethod
    def to_code(self, x_BCHW: Tensor) -> Tensor:
        """The edge's half: standardised tensor to code values ``(B, N)``, before rounding."""

    @abstractmethod
    def from_code(self, values_BN: Tensor, snr_db_B: Tensor) -> Tensor:
        """The server's half: received levels to the standardised tensor ``(B, C, ≥ H, ≥ W)``."""

    def code(self, z: Tensor, snr_db: float | None) -> Coded:
        """See LearnedCodec; the bits of the symbols are flipped as BPSK over white noise flips them."""
        error_rate = 0.0 if snr_db is None else bit_error_rate(snr_db)
        received = self.centres(self.to_code(self.standardise(z)), error_rate)
        z_hat = self.reconstruct(received.values, [snr_db] * len(z), z.dtype)
        return Coded(z_hat, received.values, received.damage)

    def reconstruct(self, values_BN: Tensor, seen_db: Sequence[float | None], dtype: torch.dtype) -> Tensor:
        """``z_hat`` from received levels, and the signal-to-noise ratio that each sample's receiver saw."""
        return self.restore(self.from_code(values_BN, self.known_snr_db(seen_db)), dtype)

    def words(self, z: Tensor) -> Tensor:
        """The edge's half: symbols ``(B, N)``, uint8, of the crossing tensor ``(B, C, H, W)``."""
        return self.centres.words(self.to_code(self.standardise(z)))

    @torch.no_grad()
    def encode(self, z: Tensors) -> bytes:
        """See Codec. Raises ConfigError for other tensors than the one it was built for."""
        tensor = self._only(z)
        words = self.words(tensor)
        body = pack_bits(words.reshape(-1).cpu().numpy(), self.centres.bits_per_symbol)
        return tolerant.pack(self.codec_id, [tolerant.TolerantPart(tensor.dtype, (len(tensor),), b"", body)])

    @torch.no_grad()
    def decode(self, payload: bytes) -> Tensors:
        """See Codec; any bits of the body are symbols of some code."""
        values, dtype = self._read(payload)
        return (self.reconstruct(values, [self.snr_db] * len(values), dtype).cpu(),)

    @torch.no_grad()
    def decode_all(self, payloads: Sequence[bytes], snr_db: Sequence[float | None]) -> list[Tensors | None]:
        """See Codec; the decoder's network runs once for payloads that follow each other and have the same dtype."""
        read: list[tuple[Tensor, torch.dtype] | None] = []
        for payload in payloads:
            try:
                read.append(self._read(payload))
            except PayloadError:
                read.append(None)
        tensors: list[Tensors | None] = [None] * len(payloads)
        good = [place for place, code in enumerate(read) if code is not None]
        for dtype, group in groupby(good, key=lambda place: read[place][1]):  # type: ignore[index]
            places = list(group)
            codes = [read[place][0] for place in places]  # type: ignore[index]
            seen_db = [snr_db[place] for place, code in zip(places, codes, strict=True) for _ in code]
            z_hat = self.reconstruct(torch.cat(codes), seen_db, dtype).cpu()
            for place, tensor in zip(places, z_hat.split([len(code) for code in codes]), strict=True):
                tensors[place] = (tensor,)
        return tensors

    def _read(self, payload: bytes) -> tuple[Tensor, torch.dtype]:
        """The received levels ``(B, N)``, and the dtype of what was encoded."""
        ((dtype, (batch,), settings, body),) = tolerant.unpack(payload, self.codec_id, 1, self._check_heads)
        if settings:
            raise PayloadError(f"expected a code without settings, got {len(settings)} bytes of them")
        num_words, bits = batch * self.num_symbols, self.centres.bits_per_symbol
        words = torch.from_numpy(unpack_bits(memoryview(body), num_words, bits).astype(np.uint8))
        return self.centres.values(words.to(self.mean.device).reshape(batch, -1)), dtype

    def _check_heads(self, heads: Sequence[Head]) -> None:
        batch, bits = self.batch_of_code(heads[0]), self.centres.bits_per_symbol
        if heads[0].num_bytes != (size := packed_size(batch * self.num_symbols, bits)):
            raise PayloadError(
                f"expected {size} bytes for {batch} × {self.num_symbols} symbols of {bits} "
                f"bits, got {heads[0].num_bytes}: are both ends configured alike?"
            )

    def protected_bytes(self, payload: bytes) -> int:
        """The header; wrong bits behind it are wrong symbols, which the decoder has learned to bear."""
        return tolerant.header_bytes(payload)
