"""SplitSite: what a client of split-federated training trains with — its head here, the common tail on a server."""

import time
from dataclasses import dataclass

from torch.utils.data import Subset

from splitsem.codecs.codec import Codec
from splitsem.federated.site import Site, Trained
from splitsem.federated.state import State
from splitsem.federated.tail_group import TailGroup
from splitsem.split.trainable import TrainableCut
from splitsem.training.head_trainer import HeadTrainer


@dataclass(kw_only=True)
class SplitSite(Site):
    """As ``Site``, but only the head of ``model`` is a client's: ``layout`` is the head's, and the samples stay here.

    A client trains its head against a copy of the common tail, and hands that in when all its steps are done: one that
    dies before leaves no trace in either.

    Args:
        cut: head and tail of ``model``.
        codec: encodes the features.
        group: reaches the tail.
    """

    cut: TrainableCut
    codec: Codec
    group: TailGroup

    def train(self, state: State, own: State, client: int, server_round: int, proximal_mu: float) -> Trained:
        """Train the head ``state`` on a client's samples; see ``Site.train``. ``proximal_mu`` must be 0."""
        from splitsem.lightning.split_module import train_local_split  # imports Lightning

        if proximal_mu:
            raise ValueError(f"proximal_mu must be 0 where the tail is out of reach, got {proximal_mu}")
        self._load(state, own)
        self.model.zero_grad(set_to_none=True)  # of a client that died between its gradients and its step
        samples = Subset(self.task.splits().train, self._part(client).tolist())
        seed, num_samples = self._seed(client, server_round), len(samples)
        plan = self.group.plan_of(seed, num_samples, self.fit.local_steps(num_samples))
        tail = self.group.make_tail()
        began = time.perf_counter()
        try:
            trainer = HeadTrainer(self.model, self.cut, self.codec, tail, plan)
            loss = train_local_split(self.fit, trainer, samples, seed)
            tail.commit()
        finally:
            tail.close()
        traffic = tail.traffic
        steps = {
            "steps-uplink-bytes": traffic.uplink_bytes,
            "steps-downlink-bytes": traffic.downlink_bytes,
            "steps-label-bytes": traffic.label_bytes,
            "steps-raw-bytes": traffic.raw_bytes + traffic.label_bytes,
        }
        return Trained(self.layout.of(self.model), num_samples, loss, time.perf_counter() - began, steps)

    def _load(self, state: State, own: State) -> None:
        """The head; the tail of ``model`` stays as it was last installed."""
        self.model.load_state_dict({**self.model.state_dict(), **state, **(own or self._first_own)})
