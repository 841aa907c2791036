"""WarmUp: sparse updates that begin dense, since the first rounds move all weights and would wait to be sent."""

from splitsem.federated.payload_size import Rate


class WarmUp:
    """The share of values that travel falls exponentially from ``first`` to ``keep_ratio``, alike for all clients.

    ``first · (keep_ratio / first)^((round − 1) / num_rounds)`` in the first ``num_rounds`` rounds (Deep Gradient
    Compression: Lin et al., ICLR 2018, arXiv 1712.01887, with a quarter of the values at first). What is sent early is
    counted like everything that is sent.

    Args:
        keep_ratio: share of values after the warm-up, above 0.
        bit_width: of the values that travel, in all rounds.
        num_rounds: of the warm-up, at least 1.
        first: share of values in the first round, ``keep_ratio``…1.
    """

    def __init__(self, keep_ratio: float, bit_width: int, num_rounds: int, first: float = 0.25) -> None:
        if not 0 < keep_ratio <= first <= 1:
            raise ValueError(f"shares must be 0 < keep_ratio ≤ first ≤ 1, got {keep_ratio} and {first}")
        if num_rounds < 1:
            raise ValueError(f"num_rounds must be at least 1, got {num_rounds}")
        self.keep_ratio, self.bit_width, self.num_rounds, self.first = keep_ratio, bit_width, num_rounds, first
        self._share = first

    def start_round(self, server_round: int) -> None:
        """See ChoosesRates."""
        done = min((server_round - 1) / self.num_rounds, 1.0)
        self._share = self.first * (self.keep_ratio / self.first) ** done

    def choose(self, client: int, raw_values: int) -> Rate:
        """See ChoosesRates."""
        return Rate(self.bit_width, self._share)

    def sent(self, client: int, rate: Rate, payload_bytes: int, seconds: float) -> None:
        """See ChoosesRates; nothing is learned."""
