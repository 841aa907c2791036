"""mode=real: tables of both processes, a link fitted to frames, and what the chosen networks take on the wire."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import OmegaConf

from splitsem.cost.hardware_lut import HardwareLut, hardware_lut_json
from splitsem.cost.link_fit import LinkFit, fit_link
from splitsem.models.branches import whole_gamma
from splitsem.workflows import joint_tables
from splitsem.workflows.joint_store import Document, t_eff_s

if TYPE_CHECKING:
    from splitsem.workflows.joint_real import RealPair
    from splitsem.workflows.joint_run import JointRun

log = logging.getLogger(__name__)
_MOST_SIZES = 6


def hardware(joint: JointRun, pair: RealPair) -> HardwareLut:
    """This machine as the edge, the server's process by its own measurement, and the link between the two."""
    joint.trained  # noqa: B018 (before the processes ask for it)
    server = joint.settings.server_lut or str(pair.server_table())
    lut = joint_tables.tables(joint.cfg, joint.model, joint.untrained, joint.device, server, edge_slowdown=1.0)
    facts = _facts(joint) | {"tables": joint_tables.digest(hardware_lut_json(lut)), "trained": joint.trained.key}
    found = joint.store.get("link", facts, lambda: asdict(_fit(joint, pair, lut)))
    return replace(lut, link=LinkFit(**found))


def _fit(joint: JointRun, pair: RealPair, lut: HardwareLut) -> LinkFit:
    """The line through all that is neither head nor tail, coding included, of frames alone on the link."""
    settings = joint.settings
    edge, server = (table.to_arrays(settings.calibrated, settings.undisturbed) for table in (lut.edge, lut.server))
    gammas = [whole_gamma(unit.ways, folded=True) for unit in lut.edge.units]
    rows = np.arange(len(gammas))
    heads = np.concatenate([[0.0], np.cumsum(edge.time_s[rows, gammas])])
    tails = np.concatenate([np.cumsum(server.time_s[rows, gammas][::-1])[::-1], [0.0]])
    _, cuts = np.unique(edge.link_bytes, return_index=True)
    cuts = cuts[np.unique(np.linspace(0, len(cuts) - 1, _MOST_SIZES).round().astype(int))]
    log.info("Frames of %d sizes over the link", len(cuts))
    jobs = pair.offload(gammas, [int(cut) for cut in cuts])
    pairs = zip(cuts, jobs, strict=True)
    return fit_link(
        [(edge.link_bytes[cut], max(0.0, job["measured_latency_s"] - heads[cut] - tails[cut])) for cut, job in pairs]
    )


def measured(joint: JointRun, pair: RealPair) -> Document:
    """``measured_*`` of the chosen network, of both baselines at their cuts, and errors of the predictions."""
    chosen = {"": joint.joint["best"]}
    for label, name in (("baseline_", "all_parallel"), ("fused_", "all_fused")):
        chosen[label] = joint.throughput["solutions"][name]
    facts = _facts(joint) | joint.network_facts() | {"solutions": chosen}
    return joint.store.get("measured", facts, lambda: _measured(pair, chosen))


def _measured(pair: RealPair, chosen: dict[str, Document]) -> Document:
    found: Document = {}
    for label, solution in chosen.items():
        (job,) = pair.offload(solution["gammas"], [solution["lambda"]])
        latency_s, throughput_hz = job["measured_latency_s"], job["measured_throughput_hz"]
        took_s = t_eff_s({"latency_s": latency_s, "cycle_s": 1 / throughput_hz})
        found |= {
            f"measured_{label}latency_s": latency_s,
            f"measured_{label}throughput_hz": throughput_hz,
            f"measured_{label}t_eff_s": took_s,
            f"{label}t_eff_prediction_error": abs(t_eff_s(solution) - took_s) / took_s,
            f"wire_{label}accuracy": job["score"],
        }
    own_hz = found["measured_throughput_hz"]
    for label in ("baseline", "fused"):
        found[f"measured_gain_over_{label}"] = own_hz / found[f"measured_{label}_throughput_hz"] - 1
    return found


def _facts(joint: JointRun) -> Document:
    names = ("server_prefix", "num_timed", "num_samples", "calibrated", "undisturbed")
    settings = OmegaConf.to_container(joint.settings, resolve=True)
    assert isinstance(settings, dict)
    transport = OmegaConf.to_container(joint.cfg.transport, resolve=True)
    return {name: settings[name] for name in names} | {"transport": transport}
