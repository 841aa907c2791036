"""Profiled is the machine of a machine file: measured halves where the file has them, else predicted ones."""

import functools
import logging
from collections.abc import Mapping
from functools import cached_property

from splitsem.cost.machine_file import MachineFile, Predictor, differences, read_machine_file, time_of
from splitsem.cost.machines import Machine, check_power
from splitsem.errors import MachineError
from splitsem.placement import describe_run
from splitsem.splitting.half import Half, OpCost

log = logging.getLogger(__name__)


@functools.cache
def _say_once(line: str) -> None:
    """Warn: a machine is made anew for each part of a run, and a reader needs its line once."""
    log.warning("%s", line)


class Profiled(Machine):
    """Times of a machine that ``workflow=profile hardware.save=NAME`` measured.

    A half of a network in the file has its measured time. Any other time is predicted from the operations in the file
    (see ``cost.op_regression``), with the error that the file's networks have when their family is left out.

    Args:
        file: see ``cost.machine_file``.
        active_w: power while computing, in watts.
        idle_w: power while waiting, in watts.
        coding_bytes_per_s: what ``python -m splitsem.cost.coding_rate`` says there.

    Raises:
        MachineError: the file cannot be read.
    """

    timing = "predicted"

    def __init__(self, file: str, active_w: float, idle_w: float, coding_bytes_per_s: float | None = None) -> None:
        check_power(active_w, idle_w)
        self.active_w, self.idle_w, self.coding_bytes_per_s = active_w, idle_w, coding_bytes_per_s
        self.known: MachineFile = read_machine_file(file)
        self._is_compared = False

    @cached_property
    def predictor(self) -> Predictor:
        """Of all networks in the file; fitted when it is first asked."""
        return Predictor([*self.known.networks.values()])

    def time_s(self, half: Half) -> float:
        """Seconds of one sample through ``half``: measured, else predicted."""
        if not half.ops:
            return 0.0
        self._compare_once(half.example[0].device.type)
        measured = self._measured_s(half)
        if measured is not None:
            return measured
        self._say_predicted(half)
        return self.predictor.time_s(half.ops)

    def say_foreign(self, words: Mapping[str, str], whose: str) -> None:
        """Warn where the file is of another machine, torch or number of threads than the words say of ``whose``."""
        if other := differences(self.known, words, whose):
            _say_once(f"{self.known.source} was measured with {other}: its times are of that machine as it was then")

    def _compare_once(self, accelerator: str | None = None) -> None:
        """Compare the file with this machine once its threads are set; a file of another one is fine for planning."""
        if not self._is_compared:
            self._is_compared = True
            self.say_foreign(describe_run(accelerator), "this")

    def _say_predicted(self, half: Half) -> None:
        is_known = any(network.fingerprint == half.fingerprint for network in self.known.networks.values())
        lacks = "some halves of this network (profiled at other points)" if is_known else "this network"
        errors = self.known.errors.get("all")
        error = (
            "with an unknown error, as it has networks of one family only"
            if errors is None
            else f"median error {errors.median:.0%}, 90 % within {errors.p90:.0%}"
        )
        _say_once(
            f"{self.known.source} has no times of {lacks}: they are predicted, {error}; to measure them there: "
            "workflow=profile hardware.save=NAME"
        )

    def op_s(self, op: OpCost) -> float:
        """Predicted seconds of one operation."""
        self._compare_once()
        return self.predictor.op_s(op)

    def error(self, half: Half) -> float | None:
        """The relative error within which nine of ten predicted times were; 0 for a half that was measured.

        None where the file has networks of one family only, so that no error is known.
        """
        if not half.ops or self._measured_s(half) is not None:
            return 0.0
        return None if "all" not in self.known.errors else self.known.errors["all"].p90

    def interval_s(self, half: Half) -> tuple[float, float]:
        """The predicted time within that error, low and high. Raises MachineError where no error is known."""
        error, time_s = self.error(half), self.time_s(half)
        if error is None:
            raise MachineError(
                f"{self.known.source} has networks of one family only, so that no error is known: profile another "
                "network with the same hardware.save"
            )
        return time_s / (1 + error), time_s * (1 + error)

    def _measured_s(self, half: Half) -> float | None:
        for network in self.known.networks.values():
            if network.fingerprint == half.fingerprint:
                timing = time_of(network, half.point, half.side)
                return None if timing is None else timing.median_s
        return None
