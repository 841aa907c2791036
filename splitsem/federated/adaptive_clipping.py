"""Clipping norms that follow a quantile of the updates' lengths: Flower's wrappers, with their step corrected."""

import math

import numpy as np

from splitsem.federated.flower import (
    ArrayRecord,
    DifferentialPrivacyAdaptiveBase,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
)


class _TowardsQuantile(DifferentialPrivacyAdaptiveBase):
    """Adaptive clipping as published (Andrew et al. 2021, arXiv 1905.03871, algorithm 1): C ← C · exp(η (b − q)).

    b is the noised share of updates that were clipped, q ``target_clipped_quantile``. Flower 1.41's own has the sign
    the other way, so that a norm that is too short becomes shorter, and takes the next round's norm for this round's
    noise. The norm is an array, because those are in a checkpoint.
    """

    @property
    def clipping_norm(self) -> float:
        """Of the coming round."""
        return float(self._norm[0])

    @clipping_norm.setter
    def clipping_norm(self, value: float) -> None:
        self._norm = [np.float64(value)]

    def _geometric_update(self, clipped_fraction: float) -> None:
        step = self.clip_norm_lr * (clipped_fraction - self.target_clipped_quantile)
        self._next_norm = self.clipping_norm * math.exp(step)

    def _add_noise_to_aggregated_arrays(self, aggregated: ArrayRecord) -> ArrayRecord:
        noised = super()._add_noise_to_aggregated_arrays(aggregated)
        self.clipping_norm = self._next_norm
        return noised


class ClientSideAdaptiveClipping(_TowardsQuantile, DifferentialPrivacyClientSideAdaptiveClipping):
    """Flower's DifferentialPrivacyClientSideAdaptiveClipping, whose norm goes to the quantile; the same arguments."""


class ServerSideAdaptiveClipping(_TowardsQuantile, DifferentialPrivacyServerSideAdaptiveClipping):
    """Flower's DifferentialPrivacyServerSideAdaptiveClipping, whose norm goes to the quantile; the same arguments."""
