"""Differential privacy by Flower's own mods and strategy wrappers, around updates that a codec carries.

A client clips its update (and adds noise, for local privacy), encodes it and sends it. The server decodes the update,
clips it again, averages all updates and adds the server's noise last. So a client's guarantee covers what travels, and
each update that the server averages is within the norm whatever the codec has done.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from splitsem.errors import ConfigError, PayloadError
from splitsem.federated.flower import (
    ArrayRecord,
    ClientAppCallable,
    Context,
    DifferentialPrivacyAdaptiveBase,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyFixedClippingBase,
    DifferentialPrivacyServerSideAdaptiveClipping,
    FedAvg,
    LocalDpMod,
    Message,
    Mod,
    Strategy,
)
from splitsem.federated.state import Layout, State

Wrapper = DifferentialPrivacyFixedClippingBase | DifferentialPrivacyAdaptiveBase
NORM = "clipping_norm"  # in the settings that Flower's wrappers send to clients that clip

_LONGEST = 1e15  # a longer update is shortened before Flower clips it, whose float32 sums of squares overflow


class Privacy:
    """One privacy mechanism: what a client does after its training, and what surrounds the server's strategy.

    Args:
        mod: Flower's client mod, between training and encoding; None where clients do nothing.
        wrapper: wraps a strategy in one of Flower's; None where the mod adds the noise.
        measures: names of the metrics that the wrapper needs from clients.
        seed: makes the noise repeatable, for studies only: noise of a known seed protects nobody. None draws the seed
            from the operating system.
    """

    def __init__(
        self,
        mod: Mod | None = None,
        wrapper: Callable[[Strategy], Wrapper] | None = None,
        measures: Sequence[str] = (),
        seed: int | None = None,
    ) -> None:
        if mod is None and wrapper is None:
            raise ValueError("privacy needs a mod, a wrapper or both, got neither")
        if isinstance(mod, LocalDpMod) and not (mod.epsilon > 0 and 0 < mod.delta < 1):
            raise ValueError(f"epsilon must be above 0 and delta in 0…1, got {mod.epsilon} and {mod.delta}")
        self.mod, self.wrapper, self.measures, self.seed = mod, wrapper, tuple(measures), seed

    @property
    def bounds_updates(self) -> bool:
        """Whether the strategy clips every update, so that none needs another bound."""
        return self.wrapper is not None

    @property
    def mods(self) -> list[Mod]:
        """The ClientApp's mods around training only, which look at the network that a reply brings."""
        return [] if self.mod is None else [self.mod, self._seed_after_training]

    def around(self, strategy: Strategy, layout: Layout, min_clients: int, has_feedback: bool) -> Strategy:
        """The strategy as the server is to run it.

        Args:
            strategy: one of Flower's strategies.
            layout: layout of the network.
            min_clients: least number of updates with which a round closes.
            has_feedback: whether clients add what the codec dropped to their next update.

        Raises:
            ConfigError: the guarantee would not hold with these arguments.
        """
        _check_tensors(layout)
        if self.wrapper is None:
            return strategy  # whatever is done to a noised update, by codec, feedback or strategy, needs no more noise
        if type(strategy).aggregate_train is not FedAvg.aggregate_train:
            raise ConfigError(
                f"federated/privacy: the noise is for a mean of clipped updates, which {type(strategy).__name__} does "
                "not take: federated/strategy=fedavg or fedprox, or federated/privacy=local"
            )
        if self.mod is not None and has_feedback:
            raise ConfigError(
                "federated/privacy: feedback makes a clipped update longer than the clipping norm again: add "
                "federated.error_feedback=false, or clip on the server (federated/privacy=server_fixed)"
            )
        wrapped = self.wrapper(strategy)
        if wrapped.num_sampled_clients > min_clients:
            raise ConfigError(
                f"federated/privacy: noise for a mean of {wrapped.num_sampled_clients} updates is too little for a "
                f"round that closes with federated.min_clients={min_clients}: make that as large"
            )
        return wrapped

    def admit(self, update: State, config: Mapping[str, object]) -> State:
        """A decoded update as the strategy may see it: within the norm that ``config`` told the client.

        Raises PayloadError for an update that changes nothing, because Flower divides by the update's length.
        """
        if self.wrapper is None:
            return update
        length = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in update.values()))
        if length == 0:
            raise PayloadError("expected an update that changes something, got zeros")
        norm = config.get(NORM, _LONGEST)  # absent where the wrapper clips by itself
        if not isinstance(norm, float) or length <= norm:
            return update
        return {name: tensor * (norm / length) for name, tensor in update.items()}

    def metrics(self, metrics: dict[str, float]) -> dict[str, float]:
        """A reply's metrics with the same weight for every client: the noise is made for an unweighted mean."""
        if self.wrapper is None:
            return metrics
        return {"num-examples": 1.0} | {name: metrics[name] for name in self.measures}

    def seed_noise(self, *where: int) -> None:
        """Seed NumPy's global generator, from which Flower draws noise: training has seeded it with the run's seed.

        Args:
            where: round, and client for a client's noise; with a seed, equal values give equal noise.
        """
        seed = None if self.seed is None else np.random.SeedSequence([self.seed, *where]).generate_state(4)
        np.random.seed(seed)

    def _seed_after_training(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        server_round = message.content.config_records["config"]["server-round"]
        assert isinstance(server_round, int)
        self.seed_noise(server_round, 1 + int(context.node_config["partition-id"]))
        return reply


def _check_tensors(layout: Layout) -> None:
    """Raise ConfigError for tensors that would travel without the guarantee."""
    if layout.statistics:
        raise ConfigError(
            f"federated/privacy is for weights: running statistics ({min(layout.statistics)} …) are made of a client's "
            "samples too and cannot be clipped with them: add federated.statistics=local"
        )
    if bare := sorted({*layout.counters, *layout.scalars}):
        raise ConfigError(
            f"federated/privacy: Flower neither clips nor noises {bare[0]}, which holds integers or has no dimension: "
            "take another model"
        )


class _TowardsQuantile(DifferentialPrivacyAdaptiveBase):
    """Adaptive clipping as published (Andrew et al. 2021, arXiv 1905.03871, algorithm 1): C ← C · exp(η (b − q)).

    b is the noised share of updates that were clipped, q ``target_clipped_quantile``. Flower 1.41's own step has the
    opposite sign, so that a norm that is too short becomes shorter, and uses the next round's norm for this round's
    noise. The norm is an array, because a checkpoint keeps a strategy's arrays.
    """

    @property
    def clipping_norm(self) -> float:
        """The clipping norm of the coming round."""
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
    """Flower's DifferentialPrivacyClientSideAdaptiveClipping, whose norm goes to the quantile; equal arguments."""


class ServerSideAdaptiveClipping(_TowardsQuantile, DifferentialPrivacyServerSideAdaptiveClipping):
    """Flower's DifferentialPrivacyServerSideAdaptiveClipping, whose norm goes to the quantile; equal arguments."""
