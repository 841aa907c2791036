"""The figures of a joint run, for the steps that the run was asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from splitsem.cost.branch_lut import branch_frame, choice_frame
from splitsem.report.joint_figures import branch_importance, cut_front, gamma_map, hyper_weights, joint_front
from splitsem.report.roofline_figure import roofline
from splitsem.report.sweep_figures import rate_accuracy
from splitsem.workflows.joint.base import JointBase
from splitsem.workflows.joint.branches import JointBranches
from splitsem.workflows.joint.cuts import JointCuts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(joint: JointBase, steps: Sequence[str]) -> dict[str, "Figure"]:
    """The figures of ``steps``, by file name."""
    if isinstance(joint, JointBranches):
        return _draw_branches(joint, steps)
    assert isinstance(joint, JointCuts)
    return _draw_cuts(joint, steps)


def _draw_branches(joint: JointBranches, steps: Sequence[str]) -> dict[str, "Figure"]:
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
    return figures


def _rooflines(joint: JointBranches) -> dict[str, "Figure"]:
    """One figure for each machine with a known roofline, without an edge that is merely the server slowed."""
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


def _branch_front(joint: JointBranches) -> "Figure":
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


def _draw_cuts(joint: JointCuts, steps: Sequence[str]) -> dict[str, "Figure"]:
    figures: dict[str, Figure] = {}
    if "rates" in steps:
        figures["rate_accuracy"] = rate = rate_accuracy(_jobs(joint))
        rate.data = None  # the step of this name leaves the table that it is drawn from
    if "joint" in steps:
        figures["accuracy_throughput"] = _cut_front(joint)
    return figures


def _jobs(joint: JointCuts) -> pd.DataFrame:
    """The rate–accuracy table with the columns of a sweep's results."""
    rows = joint.rows[joint.rows["left_out"].isna()]
    names = [offer for offer in joint.offers if offer.label in set(rows["codec"])]
    settings = pd.DataFrame(
        [{"label": o.label, "name": o.name, **{f"codec.{k}": v for k, v in o.given.items()}} for o in names]
    )
    rows = rows.merge(settings, left_on="codec", right_on="label").rename(columns={"lambda": "split_index"})
    return rows.assign(
        codec=rows["name"],
        status="ok",
        score_unsplit=joint.rates["accuracy_ref_val"],
        input_bytes=joint.trained.task.input_bytes,
        model=joint.model,
        task=joint.described.split(" · ")[0],
    )


def _cut_front(joint: JointCuts) -> "Figure":
    found, solutions = joint.joint, joint.throughput["solutions"]
    rows = joint.choosable
    on_front = {(one["lambda"], one["codec"]) for one in found["front"]}
    best = found["best"]
    where = list(zip(rows["lambda"], rows["codec"], strict=True))
    rates = rows.rename(columns={"score": "accuracy_val"}).assign(
        is_front=[pair in on_front for pair in where],
        is_best=[pair == (best["lambda"], best["codec"]) for pair in where],
    )
    names = {label: solutions[baseline.name] for label, baseline in joint.baselines.items()}
    baselines = pd.DataFrame(
        [{"name": n, "throughput_hz": s["throughput_hz"], "accuracy_val": s["accuracy_val"]} for n, s in names.items()]
    )
    return cut_front(rates, baselines, found["accuracy_ref_val"], found["epsilon"], joint.described_fully)
