"""Machine: the interface to a modelled or measured computer."""

from abc import ABC, abstractmethod
from typing import Literal

from splitsem.split.half import Half


class Machine(ABC):
    """A computer that runs one side of a cut.

    Attributes:
        active_w: electrical power while computing, in watts.
        idle_w: electrical power while waiting, in watts.
        timing: where its times come from: ``"roofline"``, ``"lut"`` or ``"measured"``.
    """

    active_w: float
    idle_w: float
    timing: Literal["roofline", "lut", "measured"]

    @abstractmethod
    def time_s(self, half: Half) -> float:
        """Seconds this machine needs for one sample through ``half``; 0.0 where nothing is computed."""
