"""The figures of a joint run: of whatever steps were asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from splitsem.cost.branch_frame import branch_frame, choice_frame
from splitsem.plots.gamma_map import gamma_map
from splitsem.plots.hyper_weights import branch_importance, hyper_weights
from splitsem.plots.joint_front import joint_front
from splitsem.plots.roofline import roofline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from splitsem.workflows.joint.branches import JointBranches


def draw_branches(joint: "JointBranches", steps: Sequence[str], folder: Path) -> dict[str, "Figure"]:
    """Figures by file name; those of the front and the γ map are left as PDF in ``folder`` too."""
    figures: dict[str, Figure] = {}
    if "importance" in steps:
        figures["hyper_weights"] = hyper_weights(joint.branches, joint.described)
        figures["importance"] = branch_importance(joint.branches, joint.described)
    if "lut" in steps:
        figures |= _rooflines(joint)
    if "joint" in steps:
        best = joint.joint["best"]
        table = choice_frame(joint.hardware.edge, best["gammas"], best["lambda"])
        figures["gamma_map"] = gamma_map(table, joint.described_fully)
        figures["accuracy_throughput"] = _branch_front(joint)
        for name in ("gamma_map", "accuracy_throughput"):
            figures[name].savefig(folder / f"{name}.pdf")
    return figures


def _rooflines(joint: "JointBranches") -> dict[str, "Figure"]:
    """One a machine whose roofline is known; an edge that is the server, slowed, would look the same."""
    tiers = {"edge": joint.hardware.edge, "server": joint.hardware.server}
    figures = {}
    for tier, lut in tiers.items():
        if lut.rates is None or lut.units[0].origin == "assumed":
            continue
        words = [f"{key} {lut.machine[key]}" for key in ("processor", "precision", "num_threads") if key in lut.machine]
        peak, memory = lut.rates.peak_flops_per_s, lut.rates.memory_bytes_per_s
        subtitle = " · ".join([joint.model, *words])
        figures[f"roofline_{tier}"] = roofline(branch_frame(lut), peak, memory, subtitle=subtitle)
    return figures


def _branch_front(joint: "JointBranches") -> "Figure":
    found, solutions = joint.joint, joint.throughput["solutions"]
    columns = ["throughput_hz", "accuracy_val"]
    front = pd.DataFrame(found["front"]).assign(accuracy_val=lambda f: found["accuracy_ref_val"] - f["damage"])[columns]
    best = found["best"]
    scored = pd.DataFrame(found["scored"])
    chosen = best["lambda"], best["gammas"]
    is_best = [(one["lambda"], one["gammas"]) == chosen for one in found["scored"]]
    rows = [
        {"name": name, "throughput_hz": solutions[key]["throughput_hz"], "accuracy_val": accuracy}
        for name, key, accuracy in (
            ("all_parallel", "all_parallel", found["accuracy_ref_val"]),
            ("all_fused", "all_fused", found["accuracy_ref_val"]),
            ("fastest", "any_branches", joint.deployed["accuracy_fastest_val"]),
        )
    ]
    shown = scored[columns].assign(is_best=is_best)
    epsilon = found["epsilon"]
    return joint_front(front, shown, pd.DataFrame(rows), found["accuracy_ref_val"], epsilon, joint.described_fully)
