"""zoo_network: one network, cut at every offered point and compared with itself unsplit, bit for bit."""

import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from splitsem.errors import ConfigError
from splitsem.network import reason
from splitsem.placement import Placement
from splitsem.splitting.example import Example
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.point import SplitPoint
from splitsem.trees import by_path, mapped
from splitsem.workflows.zoo_list import Entry, has_pictures, in_channels_last

FIELDS = ("network", "family", "source", "input", "num_params", "num_points", "num_bottlenecks", "smallest_share",
          "smallest_at", "first_bottleneck", "first_flops_share", "cut_s", "cut_cpu_s", "check_s", "batch",
          "is_exact", "max_diff", "reason")  # fmt: skip
_BATCH = 3

Row = dict[str, Any]


class Trial(NamedTuple):
    """Inputs that the whole network and its halves get, and what the whole network makes of them."""

    name: str
    batch: int
    args: list[Any]
    kwargs: dict[str, Any]
    expected: dict[str, Tensor]
    is_plain: bool  # in the usual memory order


def send_row(entry: Entry, placement: Placement, out: Connection, log_path: Path) -> None:
    """Check a network and send its row; a process's work. What libraries print goes to a file.

    Rows go out as they get fuller, so that one stays when the process is ended.
    """
    with log_path.open("a", encoding="utf-8") as file:
        print(f"--- {entry.name}", file=file, flush=True)
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    placement.set_threads()
    with out, torch.no_grad():
        check(entry, placement, out.send)


def check(entry: Entry, placement: Placement, tell: Callable[[Row], None]) -> None:
    """Cut the network everywhere and compare; ``tell`` gets the row after each step, the last time complete."""
    row: Row = {"network": entry.name, "family": entry.family, "source": entry.source, "input": _in_words(entry.input)}
    tell(row)
    try:
        network = placement.place(entry.make())
        row["num_params"] = sum(weight.numel() for weight in network.parameters())
        trials = _trials(network, entry, placement)
        args, kwargs = mapped(placement.place_tensor, entry.example(1))
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        graph = SplitGraph(network, Example(tuple(args), kwargs))
        row["cut_s"] = round(time.perf_counter() - began_s, 2)
        row["cut_cpu_s"] = round(time.process_time() - began_cpu_s, 2)
        row |= described(graph)
        trials = trials if graph.is_batch_free else [trial for trial in trials if trial.batch == 1]
        tell({**row, "reason": "stopped while its cuts were checked"})
        began_s = time.perf_counter()
        row |= compared(network, graph, trials)
        row["check_s"] = round(time.perf_counter() - began_s, 2)
    except ConfigError as exc:
        row["reason"] = str(exc)
    except Exception as exc:  # noqa: BLE001 (a network may raise anything)
        row["reason"] = reason(exc)
    tell(row)


def described(graph: SplitGraph) -> Row:
    """What the row says of a network's points: how many, how many bottlenecks, where least crosses.

    The two ends are points, but neither is a bottleneck: nothing is cut there.
    """
    inner = graph.points[1:-1]
    input_bytes = graph.points[0].raw_bytes
    row: Row = {
        "num_points": len(graph.points),
        "num_bottlenecks": sum(p.is_bottleneck for p in inner),
        "batch": "free" if graph.is_batch_free else "fixed",
    }
    if inner:
        smallest = min(inner, key=lambda p: p.raw_bytes)
        row |= {"smallest_share": round(smallest.raw_bytes / input_bytes, 5), "smallest_at": smallest.name}
    if first := next((p for p in inner if p.is_bottleneck), None):
        row |= {"first_bottleneck": first.name, "first_flops_share": round(_flops_share(first), 4)}
    return row


def _flops_share(point: SplitPoint) -> float:
    return point.head_flops / ((point.head_flops + point.tail_flops) or 1.0)


def compared(network: nn.Module, graph: SplitGraph, trials: list[Trial]) -> Row:
    """The largest difference between the halves' and the whole network's outputs, over all points and trials."""
    for trial in trials:
        if _difference(by_path(network(*trial.args, **trial.kwargs)), trial.expected) > 0:
            raise ConfigError("the whole network gives other results from run to run, or since it was captured")
    worst, where = 0.0, ""
    for point in graph.points:
        cut = graph.cut(point)
        for trial in trials:
            z = cut.head(*trial.args, **trial.kwargs)
            y = cut.tail(*(cut.received(_copied(z)) if trial.is_plain else z))
            if (found := _difference(by_path(y), trial.expected)) > worst:
                worst, where = found, f"cut at {point.name}, {trial.name}: max |diff| {found:.3g}"
    return {"is_exact": "no" if worst else "yes", "max_diff": worst, "reason": where}


def _copied(z: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """As bytes bring it: in the usual memory order, sharing nothing with what the head holds."""
    return tuple(t.clone(memory_format=torch.contiguous_format) for t in z)


def _difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest |difference| of two outputs; infinite where their structures, shapes or types differ."""
    if found.keys() != expected.keys():
        return float("inf")
    return max((_tensor_difference(found[path], expected[path]) for path in expected), default=0.0)


def _tensor_difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if torch.equal(a, b):
        return 0.0
    apart = (a != b) & ~(a.isnan() & b.isnan())
    if not apart.any():
        return 0.0
    return float((a[apart].double() - b[apart].double()).abs().nan_to_num(nan=float("inf")).max())


def _trials(network: nn.Module, entry: Entry, placement: Placement) -> list[Trial]:
    trials = []
    for batch in (1, _BATCH):
        args, kwargs = mapped(placement.place_tensor, entry.example(batch, seed=batch))
        trials.append(Trial(f"batch {batch}", batch, args, kwargs, {}, is_plain=True))
    if has_pictures((args, kwargs)):
        args, kwargs = in_channels_last((args, kwargs))
        trials.append(Trial(f"batch {_BATCH}, channels last", _BATCH, args, kwargs, {}, is_plain=False))
    return [t._replace(expected=mapped(Tensor.clone, by_path(network(*t.args, **t.kwargs)))) for t in trials]


def _in_words(given: Any) -> str:
    """``3×64×64``; ``16 below 1000``; ``pixel_values 3×64×64, input_ids 16 below 1000``."""
    if isinstance(given, list):
        return "×".join(map(str, given)) if isinstance(given[0], int) else ", ".join(map(_in_words, given))
    if set(given) == {"shape", "below"}:
        return f"{_in_words(given['shape'])} below {given['below']}"
    return ", ".join(f"{name} {_in_words(part)}" for name, part in given.items())
