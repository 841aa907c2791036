"""CommonTail: the one tail that a group of devices trains, each on a copy that counts when it is handed in."""

import threading
import time
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from splitsem.errors import BusyError, ConfigError
from splitsem.split.trainable import TrainableCut
from splitsem.training.plan import TrainingPlan

State = dict[str, Tensor]


class CommonTail:
    """The tail of split-federated learning: Thapa et al., AAAI 2022, arXiv 2004.12088.

    A device trains a copy and commits it: one that dies before leaves no trace. Safe to call from threads.

    Args:
        cut: the network as it starts.
        is_averaged: True: all devices of a round start from the same tail, and the round ends with the mean of what
            they committed, weighted by their samples (SplitFedV1). False: each starts from what the one before it
            committed (SplitFedV2).

    Attributes:
        state: the tail from which a device starts now, under the model's names.
        version: counts the changes of ``state``.
    """

    def __init__(self, cut: TrainableCut, is_averaged: bool) -> None:
        self.cut, self.is_averaged = cut, is_averaged
        self.state: State = {name: tensor.detach().clone() for name, tensor in cut.tail.state().items()}
        self.version = 0
        self._sums: State = {}
        self._num_samples = 0
        self._lock = threading.Lock()

    def start(self) -> tuple[State, int]:
        """The tail that a device starts from, and its version."""
        with self._lock:
            return self.state, self.version

    def commit(self, state: Mapping[str, Tensor], num_samples: int, version: int) -> None:
        """Hand in a trained copy of the tail.

        Args:
            state: its weights and statistics.
            num_samples: how many samples it was trained on, its weight in a mean.
            version: of the tail that it started from.

        Raises:
            ConfigError: the tail has changed since, or there is nothing to weigh the copy by.
        """
        if num_samples < 1:
            raise ConfigError(f"a trained tail stands for at least 1 sample, got {num_samples}")
        with self._lock:
            if version != self.version:
                raise ConfigError(
                    "the common tail has changed since this device began: its round is over, or another one trained at "
                    "the same time, which is for federated.tail=averaged"
                )
            if not self.is_averaged:
                self.state = {name: tensor.detach().clone() for name, tensor in state.items()}
                self.version += 1
                return
            for name, tensor in state.items():
                part = tensor.detach().double() * num_samples
                self._sums[name] = self._sums[name] + part if name in self._sums else part
            self._num_samples += num_samples

    def end_round(self) -> None:
        """Take the mean of what was committed; what is committed later belongs to no round and is refused."""
        with self._lock:
            if self._num_samples:
                means = {name: total / self._num_samples for name, total in self._sums.items()}
                self.state = {
                    name: (mean if like.is_floating_point() else mean.round()).to(like.dtype)
                    for name, mean, like in ((name, means[name], self.state[name]) for name in self.state)
                }
            self._sums, self._num_samples = {}, 0
            self.version += 1


class CommonTails:
    """The common tails of a server, by the name of their group. Called with the engine's lock held.

    Args:
        max_tails: how many there may be at one time.
        idle_s: seconds without a device after which one is forgotten.
        clock: seconds from any origin.
    """

    def __init__(self, max_tails: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_tails, self.idle_s, self._clock = max_tails, idle_s, clock
        self._tails: dict[str, CommonTail] = {}
        self._used_s: dict[str, float] = {}

    def of(self, plan: TrainingPlan, make_cut: Callable[[], TrainableCut]) -> CommonTail | None:
        """The tail of a plan's group, made for its first device; None for a plan without a group.

        Raises BusyError when there are as many as may be, ConfigError when the group trains another tail, or otherwise.
        """
        if not plan.group:
            return None
        known = self._tails.get(plan.group)
        if known is None:
            if len(self._tails) >= self.max_tails:
                raise BusyError(f"the server trains for {len(self._tails)} groups already, and takes no more")
            known = self._tails[plan.group] = CommonTail(make_cut(), plan.is_averaged)
        point = known.cut.evaluation.point.name
        if (point, known.is_averaged) != (plan.point, plan.is_averaged):
            raise ConfigError(
                f"this group trains the tail at {point}, averaged: {known.is_averaged}; the device wants "
                f"{plan.point}, averaged: {plan.is_averaged}: give all devices the same split.point and federated.tail"
            )
        self._used_s[plan.group] = self._clock()
        return known

    def disband(self, group: str) -> None:
        """Forget the tail of a group; harmless when there is none."""
        self._tails.pop(group, None)
        self._used_s.pop(group, None)

    def forget_idle(self, groups_in_use: Collection[str]) -> None:
        """Forget the tails that nobody has used for ``idle_s``, but none of ``groups_in_use``."""
        now = self._clock()
        self._used_s |= {group: now for group in groups_in_use if group in self._tails}
        for group in [g for g, used_s in self._used_s.items() if now - used_s > self.idle_s]:
            self.disband(group)
