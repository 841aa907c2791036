"""UnitChain: a network that is an ordered chain of named units and is cut between them only."""

from collections.abc import Mapping
from itertools import chain

from torch import Tensor, nn


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
