"""What heads and tails take on the two machines of a joint run: measured here, read from LUT files, or modelled."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from splitsem.cost.lut import Lut, Side, measure_lut, read_lut, write_lut
from splitsem.cost.machine import Half, Machine
from splitsem.cost.slowed import check_factor, slowed_halves
from splitsem.device import Device, describe_machine
from splitsem.errors import ConfigError
from splitsem.lightning.fingerprint import fingerprint
from splitsem.split.graph import SplitGraph

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tier:
    """One of the two machines.

    Attributes:
        time_s: seconds of its half of the network, by split point.
        coding: what encoding or decoding takes on it ÷ what it takes here: taken to be the ratio for the whole network.
        timing: where its times come from: ``measured``, ``assumed``, ``lut``, or a modelled machine's.
        lut: the table, where there is one.
    """

    time_s: Mapping[str, float]
    coding: float
    timing: str
    lut: Lut | None


def of_both(cfg: DictConfig, model: str, graph: SplitGraph, device: Device) -> tuple[Tier, Tier]:
    """The edge with heads, the server with tails.

    By default the server is this machine and the edge this machine × ``workflow.edge_slowdown``. A LUT file
    (``workflow=profile``) is that machine; ``workflow.times=hardware`` takes both from the group ``hardware``.

    Raises:
        ConfigError: a file is of another model, or a setting cannot be.
    """
    settings = cfg.workflow
    check_settings(settings)
    device.set_threads()
    halves = [half for point in graph.points for half in graph.cut(point).halves()]
    here = this_machine(cfg, model, graph, halves, device)
    if settings.times == "hardware":
        return (
            _modelled(instantiate(cfg.hardware.edge), "head", halves, here),
            _modelled(instantiate(cfg.hardware.server), "tail", halves, here),
        )
    factor = settings.edge_slowdown
    slow, timing = slowed_halves(here, factor), "measured" if factor == 1 else "assumed"
    return (
        _of_file(settings.edge_lut, "head", halves, here) or _tier(slow, "head", halves, factor, timing),
        _of_file(settings.server_lut, "tail", halves, here) or _tier(here, "tail", halves, 1.0, "measured"),
    )


def check_settings(settings: DictConfig) -> None:
    """Raise ConfigError for settings of ``workflow`` that cannot be, before anything is measured."""
    if settings.times not in ("measured", "hardware"):
        raise ConfigError(f"workflow.times must be measured or hardware, got {settings.times}")
    try:
        check_factor(settings.edge_slowdown)
    except ValueError as exc:
        raise ConfigError(f"workflow.edge_slowdown: {exc}") from exc


def this_machine(cfg: DictConfig, model: str, graph: SplitGraph, halves: Sequence[Half], device: Device) -> Lut:
    """This machine's table, from the cache where it was measured before; several processes measure it once."""
    facts = {
        "fingerprint": graph.fingerprint,
        "points": [point.name for point in graph.points],
        "machine": describe_machine(),
        "device": [device.torch_device.type, device.precision, torch.get_num_threads()],
        "budget_s": cfg.workflow.half_s,
    }
    path = Path(cfg.cache_dir) / "lut" / f"{model}-{fingerprint(facts, (measure_lut,))}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if path.exists():
            log.info("LUT of this machine: %s", path)
            return read_lut(path)
        lut = measure_lut(tqdm(halves, "Measuring heads and tails", unit="half"), budget_s=cfg.workflow.half_s)
        write_lut(lut, path)
        return lut


def _of_file(path: str | None, side: Side, halves: Sequence[Half], here: Lut) -> Tier | None:
    if path is None:
        return None
    lut = read_lut(path)
    whole = _whole(halves, side)
    return _tier(lut, side, halves, lut.time_s(whole) / here.time_s(whole), "lut")


def _modelled(machine: Machine, side: Side, halves: Sequence[Half], here: Lut) -> Tier:
    time_s = {half.point: machine.time_s(half) for half in halves if half.side == side}
    whole = _whole(halves, side)
    return Tier(time_s, time_s[whole.point] / here.time_s(whole), machine.timing, None)


def _tier(lut: Lut, side: Side, halves: Sequence[Half], coding: float, timing: str) -> Tier:
    return Tier({half.point: lut.time_s(half) for half in halves if half.side == side}, coding, timing, lut)


def _whole(halves: Sequence[Half], side: Side) -> Half:
    """The half that is the whole network: the last head, the first tail."""
    sides = [half for half in halves if half.side == side]
    return sides[-1] if side == "head" else sides[0]
