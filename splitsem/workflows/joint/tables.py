"""The tables that joint optimisation works on: of both machines and the link, measured once or read from files."""

import hashlib
import logging
from pathlib import Path

import filelock
import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.cost.branch_frame import branch_frame
from splitsem.cost.branch_lut import BranchLut
from splitsem.cost.branch_lut_file import read_branch_lut, write_branch_lut
from splitsem.cost.hardware_lut import HardwareLut, merge, write_hardware_lut
from splitsem.cost.link_fit import LinkFit, fit_link
from splitsem.cost.machine_rates import measure_rates
from splitsem.cost.slowed import slowed
from splitsem.device import Device, describe_machine
from splitsem.errors import ConfigError
from splitsem.lightning.fingerprint import fingerprint
from splitsem.models.repvgg import HyperRepVgg
from splitsem.transport.link import Link
from splitsem.workflows.job import Metrics

log = logging.getLogger(__name__)


def of_both(
    cfg: DictConfig, model: str, network: HyperRepVgg, device: Device, server: str | None, edge_slowdown: float
) -> HardwareLut:
    """Tables of edge and server, without a link.

    A file that is given is that machine; else the server is this machine, and the edge is this machine slowed.

    Args:
        cfg: the configuration.
        model: its name.
        network: all branches; trained or not, the times are the same.
        device: where this machine's units run.
        server: the file of the server's table, if there is one.
        edge_slowdown: the edge takes so many times as long as this machine, if it has no file.

    Raises:
        ConfigError: a file is of another model or γ set, or the factor cannot be.
    """
    edge = cfg.workflow.edge_lut
    try:
        own = None if edge and server else _this_machine(cfg, model, network, device)
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
    pd.concat(tables).to_csv(folder / "hardware_lut.csv", index=False)
    assert hardware.link is not None
    return {
        "num_units": len(hardware.edge.units),
        "edge_timing": hardware.edge.units[0].origin,
        "server_timing": hardware.server.units[0].origin,
        "link_base_s": hardware.link.base_s,
        "link_s_per_byte": hardware.link.s_per_byte,
    }


def simulated_link(cfg: DictConfig, network: HyperRepVgg) -> LinkFit:
    """The line through the configured link's own times for what crosses at each cut. Raises as ``simulated``."""
    link = simulated(cfg)
    facts = network.facts()
    shapes = [facts[0].input_shape, *(fact.output_shape for fact in facts)]
    sizes = sorted({4 * torch.Size(shape).numel() for shape in shapes})
    return fit_link([(size, link.send(bytes(size)).link_s) for size in sizes])


def simulated(cfg: DictConfig) -> Link:
    """The configured link, fresh.

    Raises:
        ConfigError: the transport has no times without its other end.
    """
    link = instantiate(cfg.transport)
    if not isinstance(link, Link):
        raise ConfigError("workflow.mode=pseudo needs a simulated link, e.g. transport=wifi")
    return link


def _read(path: str, model: str, network: HyperRepVgg) -> BranchLut:
    lut = read_branch_lut(path)
    lut.check_fits(model, network.facts())
    return lut


def _this_machine(cfg: DictConfig, model: str, network: HyperRepVgg, device: Device) -> BranchLut:
    """This machine's table, from the cache where it was measured before; several processes measure it once."""
    path = Path(cfg.cache_dir) / "lut" / f"{model}-{_key(cfg, model, network, device)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if path.exists():
            log.info("LUT of this machine: %s", path)
            return _read(str(path), model, network)
        log.info("Measuring %s in all ways γ on this machine (kept for later runs in %s)", model, path)
        device.set_threads()
        rates = measure_rates(device, cfg.workflow.rates_s)
        lut = instantiate(cfg.workflow.meter).measure(model, network, device, rates)
        write_branch_lut(lut, path)
    return _read(str(path), model, network)


def _key(cfg: DictConfig, model: str, network: HyperRepVgg, device: Device) -> str:
    """Of what decides the times: the units, the machine, how it is used and measured. Weights do not."""
    facts = {
        "model": model,
        "units": [[fact.name, fact.input_shape, sorted(fact.flops.items())] for fact in network.facts()],
        "machine": describe_machine(),
        "device": [device.torch_device.type, device.precision, torch.get_num_threads()],
        "meter": OmegaConf.to_container(cfg.workflow.meter),
        "rates_s": cfg.workflow.rates_s,
    }
    return fingerprint(facts, code(cfg, network))


def code(cfg: DictConfig, network: HyperRepVgg) -> list[object]:
    """What measures a table."""
    return [instantiate(cfg.workflow.meter), network, measure_rates]


def digest(text: str) -> str:
    """A short name of a file's text."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]
