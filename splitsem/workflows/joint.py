"""Workflow joint: train, measure, then choose cut λ and branches γ together under an accuracy constraint."""

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from splitsem.cost.branch_frame import branch_frame
from splitsem.cost.hardware_lut import write_hardware_lut
from splitsem.cost.lut_file import write_text
from splitsem.errors import ConfigError
from splitsem.plots.units import format_hz
from splitsem.workflows import joint_figures
from splitsem.workflows.job import Metrics, Result
from splitsem.workflows.joint_run import JointRun
from splitsem.workflows.joint_store import as_text, t_eff_s

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> Result:
    """Run ``workflow.steps``; each leaves its files in the run's folder, and takes from the cache what was done before.

    Raises ConfigError for a step that there is not, and what a step finds wrong.
    """
    unknown = [name for name in cfg.workflow.steps if name not in STEPS]
    if unknown or not cfg.workflow.steps:
        raise ConfigError(f"workflow.steps must be some of {', '.join(STEPS)}, got {', '.join(unknown) or 'none'}")
    joint = JointRun(cfg, folder)
    metrics: Metrics = dict.fromkeys(cfg.workflow.objective)
    for name, step in STEPS.items():
        if name in cfg.workflow.steps:
            metrics |= step(joint, folder)
    figures = joint_figures.draw(joint, cfg.workflow.steps, folder) if "plots" in cfg.workflow.steps else {}
    history = joint.trained.trained.history if "train" in cfg.workflow.steps else []
    choices = HydraConfig.get().runtime.choices
    labels = {group: choices[group] for group in ("task", "model", "transport", "optimise")}
    return Result(metrics | labels, figures, history, _headline(metrics, joint, folder))


def _train(joint: JointRun, folder: Path) -> Metrics:
    return {"train_s": joint.trained.trained.train_s}


def _importance(joint: JointRun, folder: Path) -> Metrics:
    """``importance.csv``: α and |α| per GFLOP of every branch."""
    joint.branches.to_csv(folder / "importance.csv", index=False)
    return {"num_branches": len(joint.branches)}


def _lut(joint: JointRun, folder: Path) -> Metrics:
    """``hardware_lut_complete.json``, and both tables as CSV."""
    hardware = joint.hardware
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


def _throughput(joint: JointRun, folder: Path) -> Metrics:
    """``initial_throughput_config.json``: the fastest whatever the accuracy, and both baselines at their best cuts."""
    found = joint.throughput
    write_text(as_text(found), folder / "initial_throughput_config.json")
    solutions = found["solutions"]
    fastest = solutions["any_branches"]
    return {
        "throughput_hz": fastest["throughput_hz"],  # of the joint optimum where that is sought, too
        "fastest_throughput_hz": fastest["throughput_hz"],
        "fastest_t_eff_s": t_eff_s(fastest),
        "equivalent_throughput_hz": solutions["function_equivalent"]["throughput_hz"],
        "equivalent_t_eff_s": t_eff_s(solutions["function_equivalent"]),
        **_baselines(joint),
        "solver_s": found["solver_s"],
    }


def _joint(joint: JointRun, folder: Path) -> Metrics:
    """``domain_X_joint.json`` and the front and all scored networks as CSV."""
    found, best = joint.joint, joint.joint["best"]
    write_text(as_text(found), folder / joint.file_name)
    for name in ("front", "scored"):
        pd.DataFrame(found[name]).drop(columns="labels").to_csv(folder / f"{name}.csv", index=False)
    if not found["feasible_val"]:
        log.warning(
            "No network that was scored keeps ε = %g (margin %g) on the validation split; the best one needs ξ = %.4f",
            found["epsilon"],
            found["margin"],
            best["slack_val"],
        )
    fused_hz, baseline_hz = (_baselines(joint)[name] for name in ("fused_throughput_hz", "baseline_throughput_hz"))
    names = ("lambda", "split_point", "edge_s", "link_s", "server_s", "latency_s", "cycle_s", "throughput_hz")
    return {
        **{name: best[name] for name in names},
        **_baselines(joint),
        "epsilon": found["epsilon"],
        "margin": found["margin"],
        "predicted_t_eff_s": t_eff_s(best),
        "gain_over_baseline": best["throughput_hz"] / baseline_hz - 1,
        "gain_over_fused": best["throughput_hz"] / fused_hz - 1,
        "accuracy_val": best["accuracy_val"],
        "accuracy_ref_val": found["accuracy_ref_val"],
        "slack_val": best["slack_val"],
        "predicted_damage": best["damage"],
        "num_scored": found["num_scored"],
        "solver_s": found["solver_s"],
        "ablation_s": found["ablation_s"],
        "optimality_gap": found["optimality_gap"],
        "gammas": " ".join(map(str, best["gammas"])),
        "domain": joint.domain,
    }


def _deploy(joint: JointRun, folder: Path) -> Metrics:
    """The test scores; ``domain_X_joint.json`` has them too."""
    deployed, measured = joint.deployed, joint.measured
    write_text(as_text(joint.joint | {"deployed": deployed, "measured": measured}), folder / joint.file_name)
    if not deployed["feasible"]:
        log.warning(
            "On the test split the chosen network misses ε by ξ = %.4f; on the validation split, which chose it, "
            "it is %.4f below A_ref: a larger workflow.margin (now %.4f) keeps more distance",
            deployed["slack"],
            deployed["accuracy_ref_val"] - deployed["accuracy_val"],
            joint.joint["margin"],
        )
    return deployed | measured | {"epsilon": joint.joint["epsilon"]}


def _baselines(joint: JointRun) -> Metrics:
    solutions = joint.throughput["solutions"]
    pairs = (("baseline", solutions["all_parallel"]), ("fused", solutions["all_fused"]))
    return {
        name: value
        for label, found in pairs
        for name, value in (
            (f"{label}_throughput_hz", found["throughput_hz"]),
            (f"{label}_t_eff_s", t_eff_s(found)),
            (f"{label}_lambda", found["lambda"]),
        )
    }


def _headline(metrics: Metrics, joint: JointRun, folder: Path) -> str:
    parts = []
    if "lambda" in metrics:
        parts.append(
            f"cut {metrics['split_point']} (λ = {metrics['lambda']}), {format_hz(metrics['throughput_hz'])}: "
            f"{metrics['gain_over_baseline']:+.1%} over all branches in parallel, "
            f"{metrics['gain_over_fused']:+.1%} over all fused"
        )
    elif "fastest_throughput_hz" in metrics:
        parts.append(f"fastest {format_hz(metrics['throughput_hz'])}, whatever the accuracy")
    if metrics.get("accuracy_ref") is not None:
        parts.append(
            f"test accuracy {metrics['accuracy']:.4f}, all branches {metrics['accuracy_ref']:.4f}, "
            f"ε = {metrics['epsilon']:g} {'kept' if metrics['feasible'] else 'missed'}"
        )
        gammas = ",".join(map(str, joint.joint["best"]["gammas"]))
        parts.append(
            f"this network in other workflows: model.gamma=[{gammas}] split.index={joint.joint['best']['lambda']}"
        )
    if "measured_throughput_hz" in metrics:
        predicted_s = t_eff_s(joint.joint["best"])
        parts.append(
            f"on the wire {format_hz(metrics['measured_throughput_hz'])}: "
            f"{metrics['measured_gain_over_baseline']:+.1%} over all branches in parallel, "
            f"{metrics['measured_gain_over_fused']:+.1%} over all fused; T_eff predicted "
            f"{1e3 * predicted_s:.2f} ms, measured {1e3 * metrics['measured_t_eff_s']:.2f} ms"
        )
    return "\n".join([*parts, str(folder)])


STEPS: dict[str, Callable[[JointRun, Path], Metrics]] = {
    "train": _train,
    "importance": _importance,
    "lut": _lut,
    "throughput": _throughput,
    "joint": _joint,
    "deploy": _deploy,
    "plots": lambda joint, folder: {},
}
"""In the order in which they run; a step makes what it needs of the ones before, whether they are asked for or not."""
