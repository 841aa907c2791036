"""MachineFile: what was measured of several networks on one machine, operation by operation, in a JSON file.

    {"schema": "splitsem.machine/1", "unit": "s", "torch": "2.14.1", "machine": {"processor": ...},
     "networks": {"resnet18 3x64x64": {"family": "resnet", "fingerprint": "...", "whole_s": 0.017,
                  "ops": [{"kind": "conv2d", "flops": ..., "bytes": ..., ..., "median_s": ...}, ...],
                  "points": {"layer1": {"head_s": {...}, "tail_s": {...}}}}},
     "errors": {"resnet": {"num": 6, "median": 0.05, "p90": 0.11}}}

``workflow=profile hardware.save=NAME`` writes or adds to a file; ``cost.profiled.Profiled`` is the machine of a file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from splitsem.cost.layers import LayerTimes
from splitsem.cost.lut import Lut, Side
from splitsem.cost.measure import Timing
from splitsem.cost.op_regression import OpRegression, Regression, fit_whole
from splitsem.errors import MachineError
from splitsem.json_files import Amount, Count, JsonFile, Size, parse, read_text, write_text
from splitsem.splitting.half import OpCost, OpShape

SCHEMA = "splitsem.machine/1"


class OpTime(msgspec.Struct, frozen=True):
    """One operation and its median seconds."""

    kind: str
    flops: Amount
    bytes: Amount
    steps: Size
    kernel_bytes: Amount
    shape: tuple[Count, ...]
    median_s: Amount

    def __post_init__(self) -> None:
        if not len(OpShape._fields) - 1 <= len(self.shape) <= len(OpShape._fields):  # older files know no ``permuted``
            raise ValueError(f"an operation's shape has {len(OpShape._fields)} numbers, got {len(self.shape)}")

    @property
    def cost(self) -> OpCost:
        """As a machine sees it."""
        return OpCost("", self.flops, self.bytes, self.steps, self.kernel_bytes, self.kind, OpShape(*self.shape))


class PointTimes(msgspec.Struct, frozen=True):
    """Measured halves of a split point."""

    head_s: Timing | None = None
    tail_s: Timing | None = None


class MeasuredNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """One network on the machine.

    Attributes:
        family: networks of one family are left out together when errors are found.
        fingerprint: of the network; its own halves have the times of ``points``.
        whole_s: the network in one go.
        ops: all operations, in order.
        points: measured halves by split point; may be empty.
    """

    family: str
    fingerprint: str
    whole_s: Amount
    ops: tuple[OpTime, ...]
    points: dict[str, PointTimes] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, family: str, fingerprint: str, layers: LayerTimes, lut: Lut | None = None) -> "MeasuredNetwork":
        """From measurements of the operations and, where there are some, of the halves."""
        ops = tuple(
            OpTime(op.kind, op.flops, op.bytes, op.steps, op.kernel_bytes, op.shape, each.median_s)
            for op, each in zip(layers.costs, layers.times, strict=True)
        )
        points = {
            point: PointTimes(sides.get("head"), sides.get("tail"))
            for point, sides in (lut.times if lut else {}).items()
        }
        return cls(family=family, fingerprint=fingerprint, whole_s=layers.whole.median_s, ops=ops, points=points)


class Errors(msgspec.Struct, frozen=True):
    """Relative errors of the times of a family's networks, predicted by those of other families alone.

    Attributes:
        num: times that were predicted.
        median: of |predicted ÷ measured − 1|.
        p90: 90 % of them are no larger.
    """

    num: int
    median: Amount
    p90: Amount

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Errors":
        """Of predicted ÷ measured.

        >>> Errors.of([1.1, 0.9, 1.0]).median
        0.1
        """
        errors = np.abs(np.asarray(ratios, dtype=float) - 1)
        return cls(len(errors), round(float(np.median(errors)), 6), round(float(np.percentile(errors, 90)), 6))


class _File(JsonFile, kw_only=True):
    torch: str
    machine: dict[str, str]
    networks: dict[str, MeasuredNetwork]
    errors: dict[str, Errors] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class MachineFile:
    """One machine.

    Attributes:
        machine: in words.
        torch: version of torch in the measurements.
        networks: by name.
        errors: by family, see ``left_out``; ``all`` is over all families.
        source: the file, for messages.
    """

    machine: Mapping[str, str]
    torch: str
    networks: Mapping[str, MeasuredNetwork] = field(default_factory=dict)
    errors: Mapping[str, Errors] = field(default_factory=dict)
    source: str = "this machine file"

    def with_network(self, name: str, network: MeasuredNetwork) -> "MachineFile":
        """The file with one network more, or measured anew, and its errors found again."""
        networks = {**self.networks, name: network}
        return replace(self, networks=networks, errors=left_out(networks))


class Predictor:
    """Seconds of parts of networks on a machine, from the operations of measured networks.

    Args:
        networks: at least one.
        settings: of the regression.
    """

    def __init__(self, networks: Sequence[MeasuredNetwork], settings: Regression | None = None) -> None:
        ops = [op for network in networks for op in network.ops]
        self.regression = OpRegression([op.cost for op in ops], [op.median_s for op in ops], settings)
        sums_s = [sum(op.median_s for op in network.ops) for network in networks]
        counts = [len(network.ops) for network in networks]
        self.factor, self.each_s = fit_whole(sums_s, counts, [network.whole_s for network in networks])

    def time_s(self, ops: Sequence[OpCost]) -> float:
        """Predicted seconds of operations in one go."""
        computing = [op for op in ops if op.flops or op.bytes]
        if not computing:
            return 0.0
        return self.factor * float(self.regression.times_s(computing).sum()) + self.each_s * len(computing)

    def op_s(self, op: OpCost) -> float:
        """The share of one operation."""
        return self.time_s([op])


def left_out(networks: Mapping[str, MeasuredNetwork], settings: Regression | None = None) -> dict[str, Errors]:
    """Errors of each family's whole networks, predicted from the other families; none of fewer than two families."""
    families = sorted({network.family for network in networks.values()})
    if len(families) < 2:
        return {}
    ratios: dict[str, list[float]] = {}
    for family in families:
        predictor = Predictor([one for one in networks.values() if one.family != family], settings)
        own = [one for one in networks.values() if one.family == family]
        ratios[family] = [predictor.time_s([op.cost for op in one.ops]) / one.whole_s for one in own]
    everything = [ratio for some in ratios.values() for ratio in some]
    return {family: Errors.of(some) for family, some in ratios.items()} | {"all": Errors.of(everything)}


def write_machine_file(machine: MachineFile, path: str | Path) -> None:
    """Write a file as JSON, whole or not at all."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "unit": "s",
        "torch": machine.torch,
        "machine": dict(machine.machine),
        "errors": msgspec.to_builtins(machine.errors),
        "networks": msgspec.to_builtins(machine.networks),
    }
    write_text(json.dumps(document, allow_nan=False) + "\n", path)


def read_machine_file(path: str | Path) -> MachineFile:
    """Read a file and check all of it.

    Raises:
        MachineError: it is missing, no JSON, of another schema, has an impossible value, or no network.
    """

    def made(file: _File) -> MachineFile:
        if not file.networks:
            raise ValueError("it has no network")
        return MachineFile(file.machine, file.torch, file.networks, file.errors, str(path))

    return parse(read_text(path, "machine file"), str(path), "machine file", SCHEMA, _File, made)


def time_of(network: MeasuredNetwork, point: str, side: Side) -> Timing | None:
    """The measured time of one half; None where it was not measured."""
    times = network.points.get(point)
    return None if times is None else times.head_s if side == "head" else times.tail_s


def check_same(machine: MachineFile, words: Mapping[str, str]) -> None:
    """Raise MachineError where a file that is added to is of another machine, or of another version of torch."""
    if other := differences(machine, words, "this"):
        raise MachineError(f"{machine.source} was measured with {other}: measure its networks anew under another name")


def differences(machine: MachineFile, words: Mapping[str, str], whose: str) -> str:
    """What the file says of its machine and its torch that ``words`` say otherwise, in words; empty: nothing."""
    known = {**machine.machine, "torch": machine.torch}
    differing = (name for name in words if known.get(name, words[name]) != words[name])
    return "; ".join(f"{name} {known[name]}, {whose} is {words[name]}" for name in differing)
