"""The figures of a joint run over cuts and codecs: of whatever steps were asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from splitsem.plots.cut_front import cut_front
from splitsem.plots.rate_accuracy import rate_accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from splitsem.workflows.joint.cuts import JointCuts


def draw_cuts(joint: "JointCuts", steps: Sequence[str]) -> dict[str, "Figure"]:
    """Figures by file name; that of the choice is left as PDF in the run's folder too."""
    figures: dict[str, Figure] = {}
    if "rates" in steps:
        figures["rate_accuracy"] = rate_accuracy(_jobs(joint))
    if "joint" in steps:
        figures["accuracy_throughput"] = _cut_front(joint)
        figures["accuracy_throughput"].savefig(joint.folder / "accuracy_throughput.pdf")
    return figures


def _jobs(joint: "JointCuts") -> pd.DataFrame:
    """The table as the results of a sweep are told."""
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


def _cut_front(joint: "JointCuts") -> "Figure":
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
