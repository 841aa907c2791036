"""The tables and figures of a profile: layers and split points with what each costs, as CSV, Parquet and XLSX."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd

from splitsem.cost.layer_profile import LayerProfile
from splitsem.cost.lut import Lut, Side
from splitsem.cost.measure import MachineRates, Timing
from splitsem.files import write_csv
from splitsem.report.layer_figures import layer_bars
from splitsem.report.roofline_figure import roofline
from splitsem.splitting.graph import SplitGraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_roofline", "layer_bars", "layer_table", "point_table", "write_tables"]
log = logging.getLogger(__name__)
_PACKAGES = {"parquet": "pyarrow", "xlsx": "openpyxl"}


def layer_table(graph: SplitGraph, found: LayerProfile) -> pd.DataFrame:
    """A row for each operation that computes, in order.

    ``median_s`` and ``p95_s`` over rounds, ``low_s`` to ``high_s`` the 95 % interval of the median; ``flops`` and
    ``bytes`` moved by one sample; ``weight_bytes`` of the weights that it is the first to need and ``parameters``, four
    bytes each; ``peak_bytes``, the most that was allocated while it ran, weights aside, measured, and beside it the
    estimate ``live_bytes``, the tensors that the graph needs then (without what a kernel takes for itself).
    ``energy_j`` is its share, by time, of the power during the rounds.
    """
    layers, watched = found.times, found.watched
    peak_bytes = _peaks(found)
    parts = graph.parts()
    until = [max(part.readers, default=len(parts) if part.is_result else k) for k, part in enumerate(parts)]
    by_name = dict(zip((cost.name for cost in layers.costs), layers.times, strict=True))
    rows = []
    for k, part in enumerate(parts):
        live = sum(other.raw_bytes for j, other in enumerate(parts[: k + 1]) if until[j] >= k)
        for cost in part.costs:
            if cost.name not in by_name:
                continue
            is_own = cost is part.costs[-1]
            rows.append(
                {
                    "layer": part.name if is_own else f"{part.name}: {cost.name}",
                    "kind": cost.kind,
                    **_seconds(by_name[cost.name], ""),
                    "flops": cost.flops,
                    "bytes": cost.bytes,
                    "weight_bytes": part.weight_bytes if is_own else 0,
                    "parameters": part.weight_bytes // 4 if is_own else 0,
                    "peak_bytes": peak_bytes[cost.name],
                    "live_bytes": live,
                    "energy_j": by_name[cost.name].median_s * watched.watts,
                    "energy_source": watched.source,
                }
            )
    table = pd.DataFrame(rows)
    return table.assign(flop_per_byte=table["flops"] / table["bytes"], flops_per_s=table["flops"] / table["median_s"])


def point_table(graph: SplitGraph, lut: Lut, found: LayerProfile) -> pd.DataFrame:
    """A row for each split point: times, work, parameters, memory and energy of its head and its tail on a machine.

    ``head_peak_bytes`` is the largest measured ``peak_bytes`` of the half's layers, and ``head_live_bytes`` the
    estimate by the graph, both with the weights of the half. A half that the LUT does not have is left out.
    """
    parts, watched, peak_bytes = graph.parts(), found.watched, _peaks(found)
    places = {part.name: k for k, part in enumerate(parts)}
    until = [max(part.readers, default=len(parts) if part.is_result else k) for k, part in enumerate(parts)]
    live = [sum(p.raw_bytes for j, p in enumerate(parts[: k + 1]) if until[j] >= k) for k in range(len(parts))]
    rows = []
    for point in graph.points:
        k = places.get(point.name, len(parts) - 1)
        halves: tuple[tuple[Side, Any, int, list[int]], ...] = (
            ("head", point.head_ops, point.head_param_bytes, live[: k + 1]),
            ("tail", point.tail_ops, point.tail_param_bytes, live[k:]),
        )
        row: dict[str, Any] = {"split_point": point.name, "split_index": point.index, "raw_bytes": point.raw_bytes}
        for side, ops, held, alive in halves:
            if side not in lut.times[point.name]:
                continue
            timing = lut.times[point.name][side]
            row |= _seconds(timing, f"{side}_") | {
                f"{side}_flops": sum(op.flops for op in ops),
                f"{side}_bytes": sum(op.bytes for op in ops),
                f"{side}_parameters": held // 4,
                f"{side}_peak_bytes": (max((peak_bytes.get(op.name, 0) for op in ops), default=0) + held) if ops else 0,
                f"{side}_live_bytes": (max(alive, default=0) + held) if ops else 0,
                f"{side}_energy_j": timing.median_s * watched.watts,
            }
        rows.append(row | {"energy_source": watched.source})
    return pd.DataFrame(rows)


def write_tables(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Leave each table as CSV and Parquet and all of them in one workbook; the names of the files.

    A format whose package is missing is left out, with a line that says so.
    """
    names = []
    for name, table in tables.items():
        write_csv(table, folder / f"{name}.csv")
        names.append(f"{name}.csv")
    for ending, package in _PACKAGES.items():
        if find_spec(package) is None:
            log.info("The tables are not written as %s, which needs %s: pip install %s", ending, package, package)
    if find_spec("pyarrow") is not None:
        for name, table in tables.items():
            table.to_parquet(folder / f"{name}.parquet", index=False)
            names.append(f"{name}.parquet")
    if find_spec("openpyxl") is not None:
        with pd.ExcelWriter(folder / "profile.xlsx") as book:
            for name, table in tables.items():
                table.to_excel(book, sheet_name=name, index=False)
        names.append("profile.xlsx")
    return names


def draw_roofline(layers: pd.DataFrame, rates: MachineRates, subtitle: str) -> "Figure":
    """The roofline with a mark for each layer."""
    units = layers.assign(
        unit=layers["layer"], unit_index=range(len(layers)), branches="", gamma=0, flops_per_s=layers["flops_per_s"]
    )
    title = "Roofline: what layers reach of what the machine can"
    return roofline(units, rates.peak_flops_per_s, rates.memory_bytes_per_s, title, subtitle)


def _peaks(found: LayerProfile) -> dict[str, int]:
    return dict(zip((cost.name for cost in found.times.costs), found.times.peak_bytes, strict=True))


def _seconds(timing: Timing, prefix: str) -> dict[str, float | None]:
    seconds = msgspec.structs.asdict(timing)
    return {f"{prefix}{name}": seconds[name] for name in ("median_s", "p95_s", "low_s", "high_s")}
