"""UpdateGuard: which updates of a round may count, and how much, so that no single client decides the network."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from splitsem.errors import PayloadError
from splitsem.federated.state import Layout, State

_MOST_STEPS = 2**31  # that a counter may rise in a round
_MOST_GROWTH = 1000.0  # of the weights' norm over a whole run


class UpdateGuard:
    """Holds clients to what they are, and refuses updates that are much longer than those of the others.

    **Length**: an update longer than ``max_norm_ratio`` times the reference is refused. The reference is the median
    length of the round's updates, or that of the last round where it is larger. A bound on the norm keeps a boosted
    update from replacing the network (Sun et al. 2019, arXiv 1911.07963), and the median holds while fewer than half
    of the updates are false (Yin et al. 2018, arXiv 1803.01498); here it is the *lower* median, so that one of two
    cannot raise it. A client alone has no median; while there is no last round either, one or two clients may change
    the network by its own length. In no case may an update be longer than ``max_norm_ratio`` times the network. Weights
    and running statistics are measured apart; statistics have no length to be compared with, so they are held to
    medians only.

    **Integers**: a counter may not fall. A tensor of integers that most clients leave as it is, such as an index, is
    left so by all.

    **Weight in the mean**: a client counts by the samples of its part, which the server knows, or else by what it
    declared first, up to ``max_examples``; another number later is refused. A client's number belongs to one node.

    Args:
        layout: layout of the network.
        max_norm_ratio: bound of an update's length, in medians; None refuses none for its length.
        num_examples: each client's number of samples, by client; None: what clients declare.
        max_examples: most samples that a client may declare, where ``num_examples`` is None.

    Attributes:
        lengths: reference of the last round: median length of the updates that counted, for weights and statistics.
        declared: samples that each client has declared.
    """

    def __init__(
        self,
        layout: Layout,
        max_norm_ratio: float | None = 5.0,
        num_examples: Sequence[int] | None = None,
        max_examples: int = 1_000_000,
    ) -> None:
        if max_norm_ratio is not None and not 1 <= max_norm_ratio < math.inf:
            raise ValueError(f"max_norm_ratio must be at least 1, or null, got {max_norm_ratio}")
        if max_examples < 1:
            raise ValueError(f"max_examples must be at least 1, got {max_examples}")
        self.layout, self.max_norm_ratio = layout, max_norm_ratio
        self.num_examples, self.max_examples = num_examples, max_examples
        weights = [name for name in layout.names if name not in layout.counters | layout.statistics]
        self._groups = {"weights": weights, "statistics": sorted(layout.statistics)}
        self.lengths: dict[str, float] = {}
        self.declared: dict[int, int] = {}
        self._nodes: dict[int, int] = {}  # by client

    def check_sender(self, node: int, client: int, num_examples: float, asked: Collection[int]) -> None:
        """Raise PayloadError unless a reply's client and number of samples are those of this node.

        Args:
            node: the node that answered.
            client: the client that it says it is.
            num_examples: the number of samples that it says it trained on.
            asked: the nodes that train in this round.
        """
        most = None if self.num_examples is None else len(self.num_examples)
        if client < 0 or (most is not None and client >= most):
            raise PayloadError(f"expected a client's number of 0…{'' if most is None else most - 1}, got {client}")
        if (holder := self._nodes.get(client, node)) != node and holder in asked:
            raise PayloadError(f"expected another number than {client}, which is client {holder}'s")
        if any(number != client and known == node for number, known in self._nodes.items()):
            raise PayloadError(f"expected the number that this client had before, got {client}")
        if self.num_examples is not None:
            if num_examples != (right := self.num_examples[client]):
                raise PayloadError(f"expected num-examples of {right}, the samples of its part, got {num_examples:g}")
        elif not num_examples <= self.max_examples or num_examples != int(num_examples):
            raise PayloadError(
                f"expected num-examples of 1…{self.max_examples} (federated.max_examples), got {num_examples:g}"
            )
        elif num_examples != (first := self.declared.setdefault(client, int(num_examples))):
            raise PayloadError(f"expected num-examples of {first}, as declared first, got {num_examples:g}")
        self._nodes[client] = node

    def refused(self, target: State, updates: Mapping[int, State], is_noised: bool = False) -> dict[int, str]:
        """Why updates may not count, by the nodes that sent them; remembers the lengths of the others.

        Args:
            target: the network that was sent.
            updates: differences to it, finite, by node; counters are whole.
            is_noised: whether clients have added noise, which may be longer than the network: then medians alone bound.
        """
        why = self._with_wrong_integers(target, updates)
        if self.max_norm_ratio is None:
            return why
        for group, names in self._groups.items() if updates else ():
            lengths = {node: _length(update, names) for node, update in updates.items()}
            of_network = _length(target, names) if group == "weights" and not is_noised else 0.0
            limit = self._limit(group, sorted(lengths.values()), of_network)
            why |= {
                node: f"its {group} change by {length:.3g}, and {limit:.3g} is the most (federated.max_norm_ratio)"
                for node, length in lengths.items()
                if node not in why and not length <= limit
            }
            if counted := sorted(length for node, length in lengths.items() if node not in why):
                self.lengths[group] = _lower_median(counted)
        return why

    def _limit(self, group: str, lengths: list[float], of_network: float) -> float:
        assert self.max_norm_ratio is not None
        is_bounded = of_network > 0
        reference = max(_lower_median(lengths) if len(lengths) > 1 else 0.0, self.lengths.get(group, 0.0))
        if len(lengths) < 3 and group not in self.lengths:
            reference = max(reference, of_network / self.max_norm_ratio if is_bounded else math.inf)
        return self.max_norm_ratio * (min(reference, of_network) if is_bounded else reference or math.inf)

    def _with_wrong_integers(self, target: State, updates: Mapping[int, State]) -> dict[int, str]:
        why: dict[int, str] = {}
        for name in sorted(self.layout.counters):
            old = target[name].double()
            changes = {node: update[name].double() - old for node, update in updates.items()}
            changed = [node for node, change in changes.items() if bool((change != 0).any())]
            if 2 * len(changed) < len(changes):
                why |= {node: f"it changes {name}, which the others leave as it is" for node in changed}
            for node, change in changes.items():
                if not bool(((change >= 0) & (change <= _MOST_STEPS)).all()):
                    why[node] = f"its counter {name} falls, or leaps"
        return why

    def fault(self, state: State, initial: State) -> str | None:
        """What speaks against a network as the global one: a value that is not finite, or weights beyond all bounds.

        Args:
            state: the network.
            initial: the network of the first round.
        """
        for name, tensor in state.items():
            if not bool(tensor.isfinite().all()):
                return f"{name} holds NaN or infinity"
        names = self._groups["weights"]
        length, most = _length(state, names), _MOST_GROWTH * max(1.0, _length(initial, names))
        return f"its weights are of length {length:.3g}, and began with less than {most:.3g}" if length > most else None

    def facts(self) -> dict[str, Any]:
        """What a resumed run needs of this, as JSON."""
        return {"lengths": self.lengths, "declared": self.declared}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Undo ``facts``; nodes may have new numbers."""
        self.lengths = {str(group): float(length) for group, length in facts["lengths"].items()}
        self.declared = {int(client): int(count) for client, count in facts["declared"].items()}


def _length(tensors: Mapping[str, Tensor], names: Collection[str]) -> float:
    """Euclidean norm; infinite where squares overflow."""
    return float(torch.stack([torch.linalg.vector_norm(tensors[n].double()) for n in names]).norm()) if names else 0.0


def _lower_median(values: Sequence[float]) -> float:
    """The middle one of rising values, the lower of two."""
    return values[(len(values) - 1) // 2]
