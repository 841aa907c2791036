"""Machine is the interface to a modelled or measured computer; Roofline models one, Local measures this one."""

from abc import ABC, abstractmethod
from math import isfinite, sqrt
from typing import Literal, Protocol, runtime_checkable

from splitsem.cost.coding_rate import coding_rate_here
from splitsem.cost.lut import read_lut
from splitsem.cost.measure import measure
from splitsem.errors import MachineError
from splitsem.splitting.half import Half, OpCost

_RAMP = 4.0  # fitted on a CPU over networks of many sizes; see docs/decisions/machine-models.md


class Machine(ABC):
    """A computer that runs one side of a cut.

    Attributes:
        active_w: electrical power while computing, in watts.
        idle_w: electrical power while waiting, in watts.
        timing: source of the machine's times: ``"roofline"``, ``"lut"``, ``"measured"`` or ``"predicted"``.
        coding_bytes_per_s: see ``cost.coding_rate``; None where it is not known, or is this process's own.
    """

    coding_bytes_per_s: float | None = None
    active_w: float
    idle_w: float
    timing: Literal["roofline", "lut", "measured", "predicted"]

    @abstractmethod
    def time_s(self, half: Half) -> float:
        """Seconds this machine needs for one sample through ``half``; 0.0 where nothing is computed."""

    def coding_factor(self) -> float:
        """Seconds of coding on this machine for each second of it that this process measures.

        Raises:
            MachineError: the machine has no coding rate, which its other figures do not tell.
        """
        if self.coding_bytes_per_s is None:
            raise MachineError(
                "a modelled machine needs coding_bytes_per_s in its file: run python -m splitsem.cost.coding_rate there"
            )
        return coding_rate_here() / self.coding_bytes_per_s


@runtime_checkable
class ByOperation(Protocol):
    """A machine whose time for a half is the sum of its operations' times."""

    def op_s(self, op: OpCost) -> float:
        """Seconds of one operation for one sample."""


class Roofline(Machine):
    """``Σ over ops of max(a + 4·√(a·overhead), bytes / memory rate) + steps·overhead + kernels / repack rate`` seconds.

    The roofline model (Williams, Waterman, Patterson, CACM 52(4), 2009), operation by operation, with
    ``a = flops / (efficiency · peak)``: arithmetic or memory bounds each operation, operations never overlap, and each
    launch costs a fixed overhead, which a recurrent layer pays at each step. Short operations do not reach the
    efficiency of long ones: one of n overheads of arithmetic reaches ``1 / (1 + 4/√n)`` of it (the steps of a recurrent
    layer are matrix-vector products, which memory bounds). Libraries that lay out a convolution's weights anew at each
    call need time for that. An operation that neither computes nor moves a byte (a view) is free.

    Args:
        peak_flops_per_s: peak FP32 rate of the whole chip, a multiply-add counting two.
        memory_bytes_per_s: sustained (not nominal) DRAM bandwidth.
        active_w: power while computing, in watts.
        idle_w: power while waiting, in watts.
        efficiency: fraction of the peak that the longest batch-1 FP32 convolutions reach; applies to arithmetic only.
        overhead_s: launch and dispatch of one operation or of one recurrent step, in seconds.
        repack_bytes_per_s: rate at which a convolution's weights are laid out anew at each call; None: they are not.
        coding_bytes_per_s: what ``python -m splitsem.cost.coding_rate`` says there.
        lut: path of a measured latency table (see splitsem.cost.lut); when given, times come from it alone.
    """

    timing: Literal["roofline", "lut", "measured", "predicted"]

    def __init__(
        self,
        peak_flops_per_s: float,
        memory_bytes_per_s: float,
        active_w: float,
        idle_w: float,
        efficiency: float = 1.0,
        overhead_s: float = 0.0,
        repack_bytes_per_s: float | None = None,
        coding_bytes_per_s: float | None = None,
        lut: str | None = None,
    ) -> None:
        rates = {
            "peak_flops_per_s": peak_flops_per_s,
            "memory_bytes_per_s": memory_bytes_per_s,
            "repack_bytes_per_s": repack_bytes_per_s,
            "coding_bytes_per_s": coding_bytes_per_s,
        }
        for name, value in rates.items():
            if value is not None and not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not 0 < efficiency <= 1:
            raise ValueError(f"efficiency must be above 0 and at most 1, got {efficiency}")
        if not (isfinite(overhead_s) and overhead_s >= 0):
            raise ValueError(f"overhead_s must be finite and not negative, got {overhead_s}")
        check_power(active_w, idle_w)
        self.peak_flops_per_s = peak_flops_per_s
        self.memory_bytes_per_s = memory_bytes_per_s
        self.active_w = active_w
        self.idle_w = idle_w
        self.efficiency = efficiency
        self.overhead_s = overhead_s
        self.repack_bytes_per_s = repack_bytes_per_s
        self.coding_bytes_per_s = coding_bytes_per_s
        self._lut = None if lut is None else read_lut(lut)
        self.timing = "roofline" if self._lut is None else "lut"

    @property
    def knee(self) -> float:
        """FLOP per byte above which a long operation is bound by arithmetic: ``efficiency · peak / memory rate``."""
        return self.efficiency * self.peak_flops_per_s / self.memory_bytes_per_s

    def time_s(self, half: Half) -> float:
        """Seconds for one sample through ``half``, from the LUT if given (MachineError: it lacks it)."""
        if not half.ops:
            return 0.0
        if self._lut is not None:
            return self._lut.time_s(half)
        return sum(self.op_s(op) for op in half.ops)

    def op_s(self, op: OpCost) -> float:
        """Seconds of one operation for one sample."""
        if op.flops == 0 and op.bytes == 0:
            return 0.0
        compute_s = op.flops / (self.efficiency * self.peak_flops_per_s)
        if op.steps == 1:
            compute_s += _RAMP * sqrt(compute_s * self.overhead_s)
        repack_s = 0.0 if self.repack_bytes_per_s is None else op.kernel_bytes / self.repack_bytes_per_s
        return max(compute_s, op.bytes / self.memory_bytes_per_s) + op.steps * self.overhead_s + repack_s


def check_power(active_w: float, idle_w: float) -> None:
    """Raise ValueError unless ``0 <= idle_w <= active_w`` and both are finite."""
    if not (isfinite(active_w) and 0 <= idle_w <= active_w):
        raise ValueError(f"need 0 <= idle_w <= active_w, both finite, got idle_w={idle_w} and active_w={active_w}")


class Local(Machine):
    """Median wall time of each half on this machine, batch 1, after a warm-up.

    Powers are arguments, since not every machine can measure them; the energy computed from them is an estimate.

    Args:
        active_w: power while computing, in watts.
        idle_w: power while waiting, in watts.
        repeats: at most this many timed runs of a half (at least 3).
        warmup: untimed runs before the timed ones.
        budget_s: stop repeating after this many seconds a half, so that a sweep stays fast.
        lut: path of a measured latency table; when given, nothing is measured and times come from it alone.
    """

    timing: Literal["roofline", "lut", "measured", "predicted"]

    def __init__(
        self,
        active_w: float,
        idle_w: float,
        repeats: int = 50,
        warmup: int = 3,
        budget_s: float = 0.2,
        lut: str | None = None,
    ) -> None:
        check_power(active_w, idle_w)
        if repeats < 3:
            raise ValueError(f"repeats must be at least 3, got {repeats}")
        if warmup < 0:
            raise ValueError(f"warmup must not be negative, got {warmup}")
        if not (isfinite(budget_s) and budget_s > 0):
            raise ValueError(f"budget_s must be positive and finite, got {budget_s}")
        self.active_w = active_w
        self.idle_w = idle_w
        self.repeats = repeats
        self.warmup = warmup
        self.budget_s = budget_s
        self._lut = None if lut is None else read_lut(lut)
        self.timing = "measured" if self._lut is None else "lut"

    def coding_factor(self) -> float:
        """See Machine: what this process measures is this machine's, and stays as it is."""
        return 1.0

    def time_s(self, half: Half) -> float:
        """Median seconds for one sample through ``half``, measured now, or read from the LUT (MachineError)."""
        if not half.ops:
            return 0.0
        if self._lut is not None:
            return self._lut.time_s(half)
        return measure(half, self.repeats, self.warmup, self.budget_s).median_s
