"""Differentiable channels for training with the channel in the loop; torch only, drawn anew at each call.

All take ``forward(x, snr_db)``: ``x`` is ``(batch, ...)``, ``snr_db`` a number or one a sample, ``(batch,)``: Eb/N0 of
BPSK, as in link reports; ``Erasures`` takes a loss rate in its place. They damage in training as in evaluation: leave
them out, or give a high SNR, for a clean pass. They count nothing and know no link; codecs get one by constructor.
"""

import torch
from torch import Tensor, nn

Scalars = Tensor | float


def bit_error_rate(snr_db: Scalars) -> Tensor:
    """``½·erfc(√(Eb/N0))``, elementwise."""
    return 0.5 * torch.special.erfc(10 ** (torch.as_tensor(snr_db, dtype=torch.float32) / 20))


def codeword_transitions(ber: Scalars, codewords: Tensor) -> Tensor:
    """``P[..., i, j]``: the probability that symbol i arrives as symbol j when each bit flips with probability ``ber``.

    ``ber^d·(1−ber)^(B−d)`` with d the Hamming distance of the codewords; differentiable in ``ber``. A soft assignment
    times it is the expected symbol after the channel, with exact gradients.

    Args:
        ber: ``(...)``.
        codewords: ``(L, B)`` of 0 and 1: the bits of each of L symbols, e.g. natural or Gray binary.

    Returns:
        ``(..., L, L)``; rows sum to 1 where all ``2^B`` words are symbols.
    """
    p = torch.as_tensor(ber, dtype=torch.float32, device=codewords.device)[..., None, None]
    distance = (codewords[:, None, :] != codewords[None, :, :]).sum(2)
    return p.pow(distance) * (1 - p).pow(codewords.shape[1] - distance)


class BitFlips(nn.Module):
    """Flips bits as a binary symmetric channel does; gradients pass straight through (Bengio 2013, arXiv 1308.3432)."""

    def forward(self, bits: Tensor, snr_db: Scalars) -> Tensor:
        """``b`` or, where flipped, ``1 − b``, with the gradient of ``b``; bits are 0 or 1, or soft values between."""
        flips = torch.rand_like(bits) < _per_sample(bit_error_rate(snr_db), bits)
        flipped = torch.where(flips, 1 - bits, bits)
        return bits + (flipped - bits).detach()


class GaussianNoise(nn.Module):
    """Adds white Gaussian noise of variance N0/2 to real symbols of mean energy 1: ``½ / 10^(snr_db/10)``.

    Sent as ±1 and decided by their sign, symbols are wrong at the bit error rate of BPSK.
    """

    def forward(self, symbols: Tensor, snr_db: Scalars) -> Tensor:
        """``symbols + noise``; the caller keeps the mean energy of a sample at 1 (see ``normalise_power``)."""
        return symbols + _noise_std(symbols, snr_db) * torch.randn_like(symbols)


class RayleighFading(nn.Module):
    """Scales real symbols by a Rayleigh gain of mean power 1, adds noise, undoes the gain, which the receiver knows.

    Args:
        block_symbols: consecutive symbols of a sample with one gain; None: one gain a sample.
    """

    def __init__(self, block_symbols: int | None = None) -> None:
        super().__init__()
        if block_symbols is not None and block_symbols < 1:
            raise ValueError(f"block_symbols must be at least 1 or None, got {block_symbols}")
        self.block_symbols = block_symbols

    def forward(self, symbols: Tensor, snr_db: Scalars) -> Tensor:
        """``symbols + noise / gain``."""
        flat = symbols.reshape(len(symbols), -1)
        block = self.block_symbols or flat.shape[1]
        num_blocks = -(-flat.shape[1] // block)
        powers = torch.empty(len(flat), num_blocks, device=symbols.device, dtype=symbols.dtype).exponential_()
        gains = powers.clamp(min=1e-6).sqrt().repeat_interleave(block, 1)[:, : flat.shape[1]].reshape(symbols.shape)
        return symbols + _noise_std(symbols, snr_db) * torch.randn_like(symbols) / gains


class Erasures(nn.Module):
    """Sets packets of consecutive values to zero; what is lost has no gradient.

    Args:
        packet_values: values of a packet.
    """

    def __init__(self, packet_values: int) -> None:
        super().__init__()
        if packet_values < 1:
            raise ValueError(f"packet_values must be at least 1, got {packet_values}")
        self.packet_values = packet_values

    def forward(self, x: Tensor, rate: Scalars) -> Tensor:
        """``x`` with each packet of each sample lost with probability ``rate``."""
        flat = x.reshape(len(x), -1)
        num_packets = -(-flat.shape[1] // self.packet_values)
        draws = torch.rand(len(x), num_packets, device=x.device)
        kept = draws >= _per_sample(torch.as_tensor(rate, dtype=torch.float32), draws)
        mask = kept.repeat_interleave(self.packet_values, 1)[:, : flat.shape[1]]
        return (flat * mask).reshape(x.shape)


def normalise_power(symbols: Tensor) -> Tensor:
    """Each sample scaled to mean energy 1, as a transmitter of fixed power sends it; differentiable."""
    energy = symbols.reshape(len(symbols), -1).square().mean(1)
    return symbols / _per_sample(energy.clamp(min=1e-12).sqrt(), symbols)


def _noise_std(like: Tensor, snr_db: Scalars) -> Tensor:
    db = torch.as_tensor(snr_db, dtype=torch.float32)
    return _per_sample((0.5 / 10 ** (db / 10)).sqrt(), like)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """A number, or one a sample, shaped to broadcast over ``like``."""
    if values.dim() == 0:
        return values.to(like.device)
    if values.shape != (len(like),):
        raise ValueError(f"expected one value for each of {len(like)} samples, got shape {tuple(values.shape)}")
    return values.to(like.device).reshape(-1, *[1] * (like.dim() - 1))
