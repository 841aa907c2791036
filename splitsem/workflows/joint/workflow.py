"""Workflow joint: train, measure, and choose cut λ with branches γ, or with a codec, under an accuracy constraint."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.files import write_csv
from splitsem.json_files import write_text
from splitsem.models.repvgg import HyperRepVgg
from splitsem.report.units import format_hz, format_seconds
from splitsem.tasks.task import Task
from splitsem.workflows.joint import chain_choice, figures
from splitsem.workflows.joint.base import Document, JointBase, as_text, t_eff_s
from splitsem.workflows.joint.branches import JointBranches
from splitsem.workflows.joint.cuts import JointCuts
from splitsem.workflows.joint.goal import goal_words, least_words, machine_words
from splitsem.workflows.joint.ranking import CHOSEN, are_tied, format_value, ranking
from splitsem.workflows.result import Metrics, Result

log = logging.getLogger(__name__)
_BUDGETS = ("most_latency_s", "least_rate_hz", "against")
_IDENTITY = ("lambda", "codec", "gammas")  # solutions that agree in these are one


def run(cfg: DictConfig, folder: Path) -> Result:
    """Run ``workflow.steps``; each step leaves files in the run's folder, and takes finished work from the cache.

    For a network whose blocks have branches, the workflow chooses cut and branches; for any other network, it chooses
    cut and codec, with ``hardware.chain`` those of every hop. A step that this kind of network does not have is left
    out.

    Raises ConfigError for an unknown step, and for what a step finds wrong.
    """
    wanted = cfg.workflow.steps
    unknown = [name for name in wanted if name not in STEPS]
    if unknown or not wanted:
        raise ConfigError(f"workflow.steps must be some of {', '.join(STEPS)}, got {', '.join(unknown) or 'none'}")
    if _kind(cfg) is JointBranches and any(cfg.workflow[name] is not None for name in _BUDGETS):
        raise ConfigError(f"workflow.{', workflow.'.join(_BUDGETS)} are for networks without branches: give model=")
    if cfg.hardware.chain is not None and cfg.workflow.against is not None:
        raise ConfigError("workflow.against is a sweep of two machines: not with hardware.chain")
    if cfg.workflow.cuts == "anywhere" and (cfg.hardware.chain is not None or _kind(cfg) is JointBranches):
        raise ConfigError(
            "workflow.cuts=anywhere is for two machines and networks without branches: workflow.cuts=points"
        )
    if cfg.hardware.chain is not None:
        if _kind(cfg) is JointBranches:
            raise ConfigError("hardware.chain is for networks without branches: give model=, e.g. model=cnn")
        return chain_choice.run(cfg, folder)
    joint = _kind(cfg)(cfg, folder)
    steps = [name for name in STEPS if name in wanted and name in joint.steps]
    if not steps:
        raise ConfigError(
            f"workflow.steps={','.join(wanted)} is for other networks; "
            f"for model={joint.model}: {', '.join(joint.steps)}"
        )
    metrics: Metrics = dict.fromkeys(("accuracy", *cfg.workflow.objective))
    if {"throughput", "joint"} & set(steps):  # those that choose
        joint.check_budgets()
    for name in steps:
        metrics |= STEPS[name](joint, folder)
    drawn = figures.draw(joint, steps) if "plots" in steps else {}
    history = joint.trained.trained.history if "train" in steps else []
    choices = HydraConfig.get().runtime.choices
    labels = {group: choices[group] for group in ("task", "model", "transport", "optimise")}
    labels["score_word"] = _word(joint)
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
            table = pd.DataFrame(found[name]).drop(columns="labels", errors="ignore")
            write_csv(table, folder / f"{name}.csv")
    if not found["feasible_val"]:
        log.warning(
            "Nothing that was scored keeps ε = %g (margin %g) on the validation split; the best one needs ξ = %.4f",
            found["epsilon"],
            found["margin"],
            best["slack_val"],
        )
    baselines = _baselines(joint)
    stages = ("edge_s", "link_s", "link_busy_s", "link_delay_s", "server_s", "answer_s", "answer_busy_s")
    names = ("lambda", "split_point", *stages, "latency_s", "cycle_s", "throughput_hz")
    return {
        **{name: best[name] for name in names},
        **baselines,
        "epsilon": found["epsilon"],
        "margin": found["margin"],
        "predicted_t_eff_s": t_eff_s(best),
        **{
            f"gain_over_{label}": best["throughput_hz"] / baselines[f"{label}_throughput_hz"] - 1
            for label, baseline in joint.baselines.items()
            if baseline.name in joint.throughput["solutions"]
        },
        "objective": least_words(joint.settings, joint.solver.objective),
        "objective_value": best["value"],
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
        if baseline.name not in solutions:  # a machine cannot run the whole network
            continue
        solution = solutions[baseline.name]
        found |= _rate(label, solution) | {f"{label}_lambda": solution["lambda"]}
    return found


def _rate(label: str, solution: Document) -> Metrics:
    return {f"{label}_throughput_hz": solution["throughput_hz"], f"{label}_t_eff_s": t_eff_s(solution)}


def _headline(metrics: Metrics, joint: JointBase, folder: Path) -> str:
    parts = []
    if "lambda" in metrics:
        parts += _chosen(joint)
        parts += joint.said()
    elif "fastest_throughput_hz" in metrics:
        parts.append(f"fastest {format_hz(metrics['throughput_hz'])}, whatever the {_word(joint)}")
    if metrics.get("accuracy_ref") is not None:
        parts.append(_judged(metrics, joint.reference, _word(joint)))
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


def _chosen(joint: JointBase) -> list[str]:
    """What was minimised, what was chosen by it, against what; then all of them by rank."""
    best, compared, objective = joint.joint["best"], joint.compared(), joint.solver.objective
    edge, server = joint.timings
    name = objective.words.partition(" = ")[0]
    codec = f", {best['codec']}" if "codec" in best else ""
    same = [words for words, one in compared.items() if all(best.get(key) == one.get(key) for key in _IDENTITY)]
    others = {words: one for words, one in compared.items() if words not in same}
    tied = [words for words, one in others.items() if are_tied(best, one)]
    changes = [f"{best['value'] / one['value'] - 1:+.1%} against {words}" for words, one in others.items()]
    lines = [
        f"machines: {machine_words(joint.cfg, edge, server)}",
        f"sought: {goal_words(joint.settings, objective, _word(joint))}",
        f"{CHOSEN}: cut {best['split_point']} (λ = {best['lambda']}){codec}, "
        f"{name} {format_value(best['value'], objective)} "
        f"(predicted: latency {format_seconds(best['latency_s'])}, throughput {format_hz(best['throughput_hz'])})",
    ]
    if changes:
        lines.append(f"its {name}: {', '.join(changes)}")
    if same:
        lines.append(f"the same as: {'; '.join(same)}")
    if tied:
        lines.append(f"within the spread of the measured times it cannot be told apart from: {', '.join(tied)} (=)")
    return lines + ranking({CHOSEN: best} | compared, objective)


def _word(joint: JointBase) -> str:
    """What the score is called; of labels, it is the accuracy that the constraint is about."""
    task: Task = instantiate(joint.cfg.task)  # that of joint.trained would be trained for
    return "agreement" if task.is_agreement else "accuracy"


def _judged(metrics: Metrics, reference: str, word: str) -> str:
    """The test accuracy with its 95 % interval, and whether it can be told apart from the reference's."""
    verdict = f"ε = {metrics['epsilon']:g} {'kept' if metrics['feasible'] else 'missed'}"
    whole = f"{reference} {metrics['accuracy_ref']:.4f}"
    if metrics["accuracy_ci95"] is None:
        return f"test {word} {metrics['accuracy']:.4f} (no interval), {whole}, {verdict}"
    delta, half = metrics["accuracy_delta"], metrics["accuracy_delta_ci95"]
    apart = "cannot be told apart" if abs(delta) <= half else "can be told apart"
    return (
        f"test {word} {metrics['accuracy']:.4f} ± {metrics['accuracy_ci95']:.4f}, {whole}, "
        f"difference {delta:+.4f} ± {half:.4f} (95 % over {metrics['num_samples']} samples: {apart}), {verdict}"
    )


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
