"""What a model may offer beyond its forward pass, for training and assembly to use; and a chain of named units."""

from collections.abc import Mapping
from itertools import chain
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Deployable(Protocol):
    """A model that is trained in one form, and scored, cut and timed in another form made from the trained weights.

    Attributes:
        deploy_settings: the constructor's arguments that concern only the second form: networks that differ in
            nothing else share one training.
    """

    deploy_settings: ClassVar[tuple[str, ...]]

    def deployed(self) -> nn.Module:
        """The form to score and time, in eval mode; the model itself stays as it is."""


@runtime_checkable
class Regularised(Protocol):
    """A model that adds a term of its own to the training loss."""

    def regularisation(self) -> Tensor:
        """The term, a scalar that gradients flow through."""


@runtime_checkable
class BringsWeights(Protocol):
    """A model that its constructor gave published weights, so that it needs no training.

    Attributes:
        brings_weights: True.
    """

    brings_weights: bool


@runtime_checkable
class Frozen(Protocol):
    """A model that cannot learn, whatever the task.

    Attributes:
        why_frozen: the reason, a main clause.
    """

    why_frozen: str


@runtime_checkable
class HyperWeighted(Protocol):
    """A model with hyper-weights α that may learn alone, after the weights.

    Attributes:
        alpha_epochs: number of epochs in which α learns alone; may be 0.
    """

    alpha_epochs: int

    def learn(self, weights: bool, alpha: bool) -> None:
        """Say what training changes: the weights, every α, or both."""


class UnitChain(nn.Module):
    """Runs its units one after the other.

    Args:
        units: name → module, in order; ``stage1.0`` and ``stage1.1`` become members of a list ``stage1``.

    Attributes:
        unit_names: the names in order. ``SplitGraph`` offers exactly the cuts after them, so that split point λ leaves
            λ units to the edge.
    """

    def __init__(self, units: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, unit in units.items():
            parent, _, place = name.rpartition(".")
            if not parent:
                self.add_module(name, unit)
                continue
            if place == "0":
                self.add_module(parent, nn.ModuleList())
            members = self.get_submodule(parent)
            assert isinstance(members, nn.ModuleList)
            members.append(unit)
        self.unit_names = tuple(units)

    @property
    def units(self) -> tuple[nn.Module, ...]:
        """The units themselves, in order; what ``forward`` runs."""
        members = (child if isinstance(child, nn.ModuleList) else (child,) for child in self.children())
        return tuple(chain.from_iterable(members))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` through all units."""
        for unit in self.units:
            x = unit(x)
        return x
