"""The tables of both machines and the link that joint optimisation uses, measured once or read from files."""

import hashlib
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from splitsem.cost.branch_lut import BranchLut, branch_frame, slowed
from splitsem.cost.fits import AnswerWay, LinkFit, fit_link
from splitsem.cost.hardware_lut import HardwareLut, merge, read_branch_lut, write_branch_lut, write_hardware_lut
from splitsem.cost.lut import Lut, Side, check_factor, measure_lut, read_lut, slowed_halves, write_lut
from splitsem.cost.machines import Machine
from splitsem.cost.measure import NOTHING, measure_rates
from splitsem.errors import ConfigError
from splitsem.files import read_or_make, write_csv
from splitsem.links.link import Link
from splitsem.models.repvgg import HyperRepVgg
from splitsem.placement import Placement, describe_machine
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.half import Half
from splitsem.tasks.task import Task
from splitsem.training.fingerprint import fingerprint
from splitsem.workflows.assemble import answering, simulated_link
from splitsem.workflows.result import Metrics

log = logging.getLogger(__name__)


def hardware_of_both(
    cfg: DictConfig, model: str, network: HyperRepVgg, placement: Placement, server: str | None, edge_slowdown: float
) -> HardwareLut:
    """The tables of edge and server, without a link.

    A given file stands for its machine; else the server is this machine, and the edge is this machine slowed.

    Args:
        cfg: the configuration.
        model: name of the model.
        network: the network with all branches; its times do not depend on training.
        placement: where torch runs this machine's units.
        server: the file of the server's table, if there is one.
        edge_slowdown: the edge's times ÷ this machine's times, for an edge without a file.

    Raises:
        ConfigError: a file is of another model or γ set, or the factor cannot be.
    """
    edge = cfg.workflow.edge_lut
    try:
        own = None if edge and server else _this_machine(cfg, model, network, placement)
        edge_lut = slowed(own, edge_slowdown) if own and not edge else _read(edge, model, network)
    except ValueError as exc:
        raise ConfigError(f"workflow.edge_slowdown: {exc}") from exc
    return merge(edge_lut, own if own and not server else _read(str(server), model, network))


def write(hardware: HardwareLut, folder: Path) -> Metrics:
    """Leave ``hardware_lut_complete.json`` and both tables as CSV in ``folder``."""
    write_hardware_lut(hardware, folder / "hardware_lut_complete.json")
    tables = [
        branch_frame(lut).assign(tier=tier) for tier, lut in (("edge", hardware.edge), ("server", hardware.server))
    ]
    write_csv(pd.concat(tables), folder / "hardware_lut.csv")
    assert hardware.link is not None
    return {
        "num_units": len(hardware.edge.units),
        "edge_timing": hardware.edge.units[0].origin,
        "server_timing": hardware.server.units[0].origin,
        "link_base_delay_s": hardware.link.delay_s,
        "link_s_per_byte": hardware.link.s_per_byte,
    }


def link_fit(cfg: DictConfig, network: HyperRepVgg) -> LinkFit:
    """The line through what the configured link says of each cut's crossing tensors. Raises as ``simulated_link``.

    Its slope is that of the seconds in which the link is busy, its delay the mean of what a payload takes beyond that.
    """
    link = simulated_link(cfg)
    facts = network.facts()
    shapes = [facts[0].input_shape, *(fact.output_shape for fact in facts)]
    sizes = sorted({4 * torch.Size(shape).numel() for shape in shapes})
    reports = [link.send(bytes(size)) for size in sizes]
    busy = fit_link([(size, report.link_busy_s) for size, report in zip(sizes, reports, strict=True)])
    beyond = (report.link_s - busy.s_per_byte * size for size, report in zip(sizes, reports, strict=True))
    return replace(busy, delay_s=statistics.fmean(beyond))


def answer_way(cfg: DictConfig, task: Task, link: Link | None) -> AnswerWay:
    """Where the answer is needed, and its way back over ``link``; None: times of whole frames hold it already.

    Raises:
        ConfigError: the task does not say what its answer is.
    """
    coder, at = answering(cfg, task)
    answer = coder.encode(torch.zeros(1, *task.output_shape))
    if link is None or at == "server":
        return AnswerWay(at, len(answer))
    report = link.send_back(answer)
    return AnswerWay(at, len(answer), report.link_s, report.link_busy_s)


def _read(path: str, model: str, network: HyperRepVgg) -> BranchLut:
    lut = read_branch_lut(path)
    lut.check_fits(model, network.facts())
    return lut


def _this_machine(cfg: DictConfig, model: str, network: HyperRepVgg, placement: Placement) -> BranchLut:
    """This machine's table, measured or from the cache; several processes measure the table once."""
    path = Path(cfg.cache_dir) / "lut" / f"{model}-{_key(cfg, model, network, placement)}.json"

    def read(path: Path) -> BranchLut:
        log.info("LUT of this machine: %s", path)
        return _read(str(path), model, network)

    def measure() -> BranchLut:
        log.info("Measuring %s in all ways γ on this machine (kept for later runs in %s)", model, path)
        placement.set_threads()
        rates = measure_rates(placement, cfg.workflow.rates_s)
        lut: BranchLut = instantiate(cfg.workflow.meter).measure(model, network, placement, rates)
        return lut

    return read_or_make([path], read, measure, write_branch_lut)[0]


def _key(cfg: DictConfig, model: str, network: HyperRepVgg, placement: Placement) -> str:
    """The key of what decides the times, which weights do not: units, machine, and how it is used and measured."""
    facts = {
        "model": model,
        "units": [[fact.name, fact.input_shape, sorted(fact.flops.items())] for fact in network.facts()],
        "machine": describe_machine(),
        "device": [placement.torch_device.type, placement.precision, torch.get_num_threads()],
        "meter": OmegaConf.to_container(cfg.workflow.meter),
        "rates_s": cfg.workflow.rates_s,
    }
    return fingerprint(facts, code(cfg, network))


def code(cfg: DictConfig, network: HyperRepVgg) -> list[object]:
    """The code that measures a table."""
    return [instantiate(cfg.workflow.meter), network, measure_rates]


def digest(text: str) -> str:
    """A short name of a file's text."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Tier:
    """One of the two machines, edge or server.

    Attributes:
        time_s: seconds of the machine's half of the network, by split point.
        coding: time of coding on the machine ÷ time of coding here: of a modelled machine ``Machine.coding_factor``, of
            a table the ratio of its time for the whole network to the time here.
        spread_s: half the distance from the 10th to the 90th percentile of the measured seconds, by split point; 0 of
            a modelled machine.
        timing: where the times come from: ``measured``, ``assumed``, ``lut``, or the ``timing`` of a modelled machine.
        lut: the machine's table, where there is one.
    """

    time_s: Mapping[str, float]
    coding: float
    spread_s: Mapping[str, float]
    timing: str
    lut: Lut | None


def tiers_of_both(cfg: DictConfig, model: str, graph: CutGraph, placement: Placement) -> tuple[Tier, Tier]:
    """The edge with the times of heads, and the server with the times of tails.

    By default the server is this machine and the edge this machine × ``workflow.edge_slowdown``. A LUT file
    (``workflow=profile``) stands for its machine; ``workflow.times=hardware`` takes both from the group ``hardware``.

    Raises:
        ConfigError: a file is of another model, or a setting cannot be.
    """
    settings = cfg.workflow
    check_settings(settings)
    placement.set_threads()
    halves = [half for point in graph.points for half in graph.cut(point).halves()]
    if settings.times == "hardware":
        return (
            _modelled(instantiate(cfg.hardware.edge), "head", halves),
            _modelled(instantiate(cfg.hardware.server), "tail", halves),
        )
    here = this_machine(cfg, model, graph, halves, placement)
    factor = settings.edge_slowdown
    slow, timing = slowed_halves(here, factor), "measured" if factor == 1 else "assumed"
    return (
        _of_file(settings.edge_lut, "head", halves, here) or _tier(slow, "head", halves, factor, timing),
        _of_file(settings.server_lut, "tail", halves, here) or _tier(here, "tail", halves, 1.0, "measured"),
    )


def write_cut_times(edge: Tier, server: Tier, folder: Path) -> Metrics:
    """Leave ``cut_times.csv``, and a LUT file for each machine that has a table, in ``folder``."""
    for name, tier in (("edge", edge), ("server", server)):
        if tier.lut is not None:
            write_lut(tier.lut, folder / f"{name}_lut.json")
    times = {"head_s": edge.time_s.values(), "tail_s": server.time_s.values()}
    table = pd.DataFrame({"lambda": range(len(edge.time_s)), "split_point": list(edge.time_s), **times})
    write_csv(table, folder / "cut_times.csv")
    return {"num_points": len(table), "edge_timing": edge.timing, "server_timing": server.timing}


def check_settings(settings: DictConfig) -> None:
    """Raise ConfigError for settings of ``workflow`` that cannot be, before anything is measured."""
    if settings.times not in ("measured", "hardware"):
        raise ConfigError(f"workflow.times must be measured or hardware, got {settings.times}")
    for name in ("edge_lut", "server_lut"):
        if settings[name] is not None:
            try:
                read_lut(settings[name])
            except ConfigError as exc:
                raise ConfigError(f"workflow.{name}: {exc}; workflow=profile writes one") from exc
    try:
        check_factor(settings.edge_slowdown)
    except ValueError as exc:
        raise ConfigError(f"workflow.edge_slowdown: {exc}") from exc


def this_machine(cfg: DictConfig, model: str, graph: CutGraph, halves: Sequence[Half], placement: Placement) -> Lut:
    """This machine's table, measured or from the cache; several processes measure the table once."""
    facts = {
        "fingerprint": graph.fingerprint,
        "points": [point.name for point in graph.points],
        "machine": describe_machine(),
        "device": [placement.torch_device.type, placement.precision, torch.get_num_threads()],
        "budget_s": cfg.workflow.half_s,
    }
    path = Path(cfg.cache_dir) / "lut" / f"{model}-{fingerprint(facts, (measure_lut,))}.json"

    def read(path: Path) -> Lut:
        log.info("LUT of this machine: %s", path)
        return read_lut(path)

    def measure() -> Lut:
        bar = tqdm(halves, "Measuring heads and tails", unit="half", disable=None)  # drawn on a terminal only
        return measure_lut(bar, budget_s=cfg.workflow.half_s)

    return read_or_make([path], read, measure, write_lut)[0]


def _of_file(path: str | None, side: Side, halves: Sequence[Half], here: Lut) -> Tier | None:
    if path is None:
        return None
    lut = read_lut(path)
    whole = _whole(halves, side)
    return _tier(lut, side, halves, lut.time_s(whole) / here.time_s(whole), "lut")


def _modelled(machine: Machine, side: Side, halves: Sequence[Half]) -> Tier:
    time_s = {half.point: machine.time_s(half) for half in halves if half.side == side}
    return Tier(time_s, machine.coding_factor(), dict.fromkeys(time_s, 0.0), machine.timing, None)


def _tier(lut: Lut, side: Side, halves: Sequence[Half], coding: float, timing: str) -> Tier:
    points = {half.point: half for half in halves if half.side == side}
    timings = {point: lut.times.get(point, {}).get(side, NOTHING) for point in points}
    spread_s = {point: (timing.p90_s - timing.p10_s) / 2 for point, timing in timings.items()}
    return Tier({point: lut.time_s(half) for point, half in points.items()}, coding, spread_s, timing, lut)


def _whole(halves: Sequence[Half], side: Side) -> Half:
    """The half that is the whole network: the last head, the first tail."""
    sides = [half for half in halves if half.side == side]
    return sides[-1] if side == "head" else sides[0]
