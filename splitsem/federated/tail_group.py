"""TailGroup: the federated server's access to the tail that its clients train together on another server."""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

from splitsem.federated.state import State
from splitsem.training.plan import TrainingPlan
from splitsem.training.tail import TrainingTail


class TailGroup:
    """One group of clients, under a name that no other run has.

    Args:
        make_tail: an end that reaches the server of the tail; called anew for each session.
        plan: what all agree on; seed, samples and steps are each client's own.
        is_averaged: whether the clients' tails are averaged after each round, see ``CommonTail``.
    """

    def __init__(self, make_tail: Callable[[], TrainingTail], plan: TrainingPlan, is_averaged: bool) -> None:
        self.make_tail = make_tail
        self.plan = replace(plan, group=uuid.uuid4().hex, is_averaged=is_averaged, num_samples=0, constant_rate=True)

    def plan_of(self, seed: int, num_samples: int, total_steps: int) -> TrainingPlan:
        """The plan of one client in one round."""
        return replace(self.plan, seed=seed, num_samples=num_samples, total_steps=total_steps)

    def check(self) -> None:
        """Reach the server and agree with it, so that a disagreement is said once. Raises as ``TrainingTail`` does."""
        with self._session():
            pass

    def end_round(self) -> State:
        """Have the common tail made of what the clients handed in; returns its weights, under the model's names."""
        with self._session() as tail:
            tail.end_round()
            return tail.weights()

    def disband(self) -> None:
        """Let the server forget the tail."""
        with self._session() as tail:
            tail.disband()

    @contextlib.contextmanager
    def _session(self) -> Iterator[TrainingTail]:
        tail = self.make_tail()
        try:
            tail.open(self.plan)
            yield tail
        finally:
            tail.close()
