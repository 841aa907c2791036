"""What a model may offer beyond its forward pass; training and assembly use it where it is there."""

from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Deployable(Protocol):
    """Trained in one form, scored, cut and timed in another one that is made from the trained weights.

    Attributes:
        deploy_settings: the constructor's arguments that concern only the second form: trainings that differ in
            nothing else are one training.
    """

    deploy_settings: ClassVar[tuple[str, ...]]

    def deployed(self) -> nn.Module:
        """The form to score and time, in eval mode; the model itself stays as it is."""


@runtime_checkable
class Regularised(Protocol):
    """Adds a term of its own to the training loss."""

    def regularisation(self) -> Tensor:
        """The term, a scalar that gradients flow through."""


@runtime_checkable
class HyperWeighted(Protocol):
    """Has hyper-weights α that may learn alone, after the weights.

    Attributes:
        alpha_epochs: for how many epochs they do; 0: not at all.
    """

    alpha_epochs: int

    def learn(self, weights: bool, alpha: bool) -> None:
        """Say what training changes: the weights, every α, or both."""
