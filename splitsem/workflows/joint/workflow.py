"""Workflow joint: train, measure, and choose cut λ with branches γ, or with a codec, under an accuracy constraint."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.json_files import write_text
from splitsem.models.repvgg import HyperRepVgg
from splitsem.report.units import format_hz
from splitsem.workflows.joint import figures
from splitsem.workflows.joint.base import Document, JointBase, as_text, t_eff_s
from splitsem.workflows.joint.branches import JointBranches
from splitsem.workflows.joint.cuts import JointCuts
from splitsem.workflows.result import Metrics, Result

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> Result:
    """Run ``workflow.steps``; each step leaves files in the run's folder, and takes finished work from the cache.

    For a network whose blocks have branches, the workflow chooses cut and branches; for any other network, it chooses
    cut and codec. A step that this kind of network does not have is left out.

    Raises ConfigError for an unknown step, and for what a step finds wrong.
    """
    wanted = cfg.workflow.steps
    unknown = [name for name in wanted if name not in STEPS]
    if unknown or not wanted:
        raise ConfigError(f"workflow.steps must be some of {', '.join(STEPS)}, got {', '.join(unknown) or 'none'}")
    joint = _kind(cfg)(cfg, folder)
    steps = [name for name in STEPS if name in wanted and name in joint.steps]
    if not steps:
        raise ConfigError(
            f"workflow.steps={','.join(wanted)} is for other networks; "
            f"for model={joint.model}: {', '.join(joint.steps)}"
        )
    metrics: Metrics = dict.fromkeys(cfg.workflow.objective)
    for name in steps:
        metrics |= STEPS[name](joint, folder)
    drawn = figures.draw(joint, steps) if "plots" in steps else {}
    history = joint.trained.trained.history if "train" in steps else []
    choices = HydraConfig.get().runtime.choices
    labels = {group: choices[group] for group in ("task", "model", "transport", "optimise")}
    return Result(metrics | labels, drawn, history, _headline(metrics, joint, folder))


def _kind(cfg: DictConfig) -> type[JointBranches] | type[JointCuts]:
    target = get_object(cfg.model["_target_"])
    return JointBranches if isinstance(target, type) and issubclass(target, HyperRepVgg) else JointCuts


def _throughput(joint: JointBase, folder: Path) -> Metrics:
    """Write ``initial_throughput_config.json``: the fastest at any accuracy, and the baselines at their best cuts."""
    found = joint.throughput
    write_text(as_text(found), folder / "initial_throughput_config.json")
    solutions = found["solutions"]
    return {
        "throughput_hz": solutions[joint.fastest]["throughput_hz"],  # the step joint overwrites this
        **_rate("fastest", solutions[joint.fastest]),
        **(_rate("equivalent", solutions["function_equivalent"]) if "function_equivalent" in solutions else {}),
        **_baselines(joint),
        "solver_s": found["solver_s"],
    }


def _joint(joint: JointBase, folder: Path) -> Metrics:
    """Write ``domain_X_joint.json`` or ``<task>_joint.json``, and the front and all scored networks as CSV."""
    found, best = joint.joint, joint.joint["best"]
    write_text(as_text(found), folder / joint.file_name)
    for name in ("front", "scored"):
        if name in found:
            pd.DataFrame(found[name]).drop(columns="labels", errors="ignore").to_csv(
                folder / f"{name}.csv", index=False
            )
    if not found["feasible_val"]:
        log.warning(
            "Nothing that was scored keeps ε = %g (margin %g) on the validation split; the best one needs ξ = %.4f",
            found["epsilon"],
            found["margin"],
            best["slack_val"],
        )
    baselines = _baselines(joint)
    names = ("lambda", "split_point", "edge_s", "link_s", "server_s", "latency_s", "cycle_s", "throughput_hz")
    return {
        **{name: best[name] for name in names},
        **baselines,
        "epsilon": found["epsilon"],
        "margin": found["margin"],
        "predicted_t_eff_s": t_eff_s(best),
        **{
            f"gain_over_{label}": best["throughput_hz"] / baselines[f"{label}_throughput_hz"] - 1
            for label in joint.baselines
        },
        "accuracy_val": best["accuracy_val"],
        "accuracy_ref_val": found["accuracy_ref_val"],
        "slack_val": best["slack_val"],
        "predicted_damage": best["damage"],
        "num_scored": found["num_scored"],
        "solver_s": found["solver_s"],
        "domain": joint.domain,
        **joint.found_metrics,
    }


def _deploy(joint: JointBase, folder: Path) -> Metrics:
    """The test scores, which are added to the joint optimum's file too."""
    deployed, measured = joint.deployed, joint.measured
    write_text(as_text(joint.joint | {"deployed": deployed, "measured": measured}), folder / joint.file_name)
    if not deployed["feasible"]:
        log.warning(
            "On the test split what was chosen misses ε by ξ = %.4f; on the validation split, which chose it, "
            "it is %.4f below A_ref: a larger workflow.margin (now %.4f) keeps more distance",
            deployed["slack"],
            deployed["accuracy_ref_val"] - deployed["accuracy_val"],
            joint.joint["margin"],
        )
    return deployed | measured | {"epsilon": joint.joint["epsilon"]}


def _baselines(joint: JointBase) -> Metrics:
    solutions = joint.throughput["solutions"]
    found: Metrics = {}
    for label, baseline in joint.baselines.items():
        solution = solutions[baseline.name]
        found |= _rate(label, solution) | {f"{label}_lambda": solution["lambda"]}
    return found


def _rate(label: str, solution: Document) -> Metrics:
    return {f"{label}_throughput_hz": solution["throughput_hz"], f"{label}_t_eff_s": t_eff_s(solution)}


def _headline(metrics: Metrics, joint: JointBase, folder: Path) -> str:
    parts = []
    if "lambda" in metrics:
        codec = f", {metrics['codec']}" if "codec" in metrics else ""
        gains = (f"{metrics[f'gain_over_{label}']:+.1%} over {words}" for label, (_, words) in joint.baselines.items())
        parts.append(
            f"cut {metrics['split_point']} (λ = {metrics['lambda']}){codec}, {format_hz(metrics['throughput_hz'])}: "
            f"{', '.join(gains)}"
        )
        parts += joint.side_by_side()
    elif "fastest_throughput_hz" in metrics:
        parts.append(f"fastest {format_hz(metrics['throughput_hz'])}, whatever the accuracy")
    if metrics.get("accuracy_ref") is not None:
        parts.append(
            f"test accuracy {metrics['accuracy']:.4f}, {joint.reference} {metrics['accuracy_ref']:.4f}, "
            f"ε = {metrics['epsilon']:g} {'kept' if metrics['feasible'] else 'missed'}"
        )
        parts.append(f"this choice in other workflows: {joint.recipe}")
    if "measured_throughput_hz" in metrics:
        predicted_s = t_eff_s(joint.joint["best"])
        parts.append(
            f"on the wire {format_hz(metrics['measured_throughput_hz'])}: "
            f"{metrics['measured_gain_over_baseline']:+.1%} over all branches in parallel, "
            f"{metrics['measured_gain_over_fused']:+.1%} over all fused; T_eff predicted "
            f"{1e3 * predicted_s:.2f} ms, measured {1e3 * metrics['measured_t_eff_s']:.2f} ms"
        )
    return "\n".join([*parts, str(folder)])


STEPS: dict[str, Callable[[Any, Path], Metrics]] = {
    "train": lambda joint, folder: {"train_s": joint.trained.trained.train_s},
    "importance": lambda joint, folder: joint.write_importance(),
    "lut": lambda joint, folder: joint.write_lut(),
    "rates": lambda joint, folder: joint.write_rates(),
    "throughput": _throughput,
    "joint": _joint,
    "deploy": _deploy,
    "plots": lambda joint, folder: {},
}
"""The steps in running order; a step makes what it needs of earlier steps, whether these are asked for or not."""
