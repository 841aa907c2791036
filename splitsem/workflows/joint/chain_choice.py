"""Which machine of a chain computes what, and what travels on each hop: workflow=joint with hardware.chain."""

import logging
import time
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from splitsem import extras
from splitsem.errors import ConfigError
from splitsem.files import write_csv
from splitsem.json_files import write_text
from splitsem.report.units import format_bytes, format_hz, format_score, format_seconds
from splitsem.scoring import Scored, score_samples
from splitsem.search.chain import ChainPlan, ChainProblem, evaluated, solve_chain
from splitsem.search.chain_pipeline import ChainHop, ChainPipeline
from splitsem.search.objective import quantile
from splitsem.search.solution import ROUNDING
from splitsem.workflows.assemble import answering
from splitsem.workflows.joint.base import as_text
from splitsem.workflows.joint.chain_commands import commands
from splitsem.workflows.joint.cuts import JointCuts
from splitsem.workflows.joint.goal import chain_budget, chain_words, check_chain_budgets, goal_words, least_words
from splitsem.workflows.joint.machine_chain import MachineChain, PricedChain, priced
from splitsem.workflows.result import Metrics, Result

log = logging.getLogger(__name__)
CHOSEN = "chosen"
_LESS = 1e-6  # of damage, so that the next plan is another one


class _Named(NamedTuple):
    """A plan in the table.

    Attributes:
        name: of the plan.
        plan: itself.
        estimated_loss: of score, the sum of what each hop's codec loses by itself: an estimate where several hops lose.
        score_val: of the validation split, through all hops.
    """

    name: str
    plan: ChainPlan
    estimated_loss: float
    score_val: float


def run(cfg: DictConfig, folder: Path) -> Result:
    """Choose exactly among all cuts and codecs of every hop, on validation samples; score the choice on the test split.

    Damages of several hops are taken to add up. So the plan is scored on the validation split as a whole, through all
    its hops, and where it misses ε after all, the next one is taken.

    Raises:
        ConfigError: a setting makes no sense, or no plan keeps the budgets.
    """
    _check(cfg)
    chain, joint = MachineChain.of(cfg), JointCuts(cfg, folder)
    settings, objective = cfg.workflow, joint.solver.objective
    machine_s = chain.machine_s(joint.graph)
    check_chain_budgets(settings, objective, machine_s, chain.links_once)
    network = joint.trained
    rows, accuracy_ref = pd.DataFrame(joint.rates["rows"]), joint.rates["accuracy_ref_val"]
    rows["margin"] = (
        quantile(settings.confidence) * rows["damage_error"] if settings.margin is None else settings.margin
    )
    table = priced(chain, rows, machine_s, accuracy_ref)
    scorer = _Scorer(cfg, joint, chain, table)
    plan, solver_s = _choose(cfg, joint, table, scorer)
    plans = [scorer.named(CHOSEN, plan), *_rivals(joint, chain, table, scorer)]
    score_val = plans[0].score_val
    hops = scorer.hops(plan)
    scored = scorer.score(hops, "test")
    reference = score_samples(network.run, network.task, joint.batches("test"))
    verdict = joint.verdict(scored, reference)
    stages = _stages(chain, table, plans)
    choices = HydraConfig.get().runtime.choices
    metrics: Metrics = {
        **{group: choices[group] for group in ("task", "model", "optimise")},
        "chain": " → ".join(chain.names),
        "links": ", ".join(chain.link_names),
        "split_point": " → ".join(point for point, _ in table.hops(plan)) or "output",
        "codec": " → ".join(codec or "unread" for _, codec in table.hops(plan)) or None,
        **{f"machine_{n}_s": took_s for n, took_s in enumerate(plan.machine_s)},
        **{f"hop_{h}_bytes": fmean(hop.frames.payload_bytes) for h, hop in enumerate(hops)},
        "latency_s": plan.latency_s,
        "cycle_s": plan.cycle_s,
        "throughput_hz": 1 / plan.cycle_s if plan.cycle_s else inf,
        "energy_j": _energy_j(chain, table.problem, plan, hops),
        "energy_source": "estimated",
        "payload_bytes": plan.payload_bytes,
        "objective": least_words(settings, objective),
        "objective_value": plan.value,
        "epsilon": settings.epsilon,
        "predicted_damage": plan.damage,
        "estimated_loss_val": plans[0].estimated_loss,
        "accuracy_val": score_val,
        "accuracy_ref_val": accuracy_ref,
        **verdict,
        "gain_over_one_machine": min(one.plan.value for one in plans if one.name.startswith("all on")) / plan.value - 1,
        "num_scored": scorer.num_scored,
        "solver_s": solver_s,
    }
    document = {
        "schema": "splitsem.chain/1",
        "machines": list(chain.names),
        "links": list(chain.link_names),
        "hops": [list(hop) for hop in table.hops(plan)],
        "plans": [
            {"name": name, "estimated_loss_val": loss, "score_val": score, **one._asdict()}
            for name, one, loss, score in plans
        ],
        "metrics": metrics,
    }
    write_text(as_text(document), folder / "chain.json")
    write_csv(stages, folder / "chain_stages.csv")
    timings = [(name, machine.timing) for name, machine in zip(chain.names, chain.machines, strict=True)]
    lines = [
        f"machines: {chain_words(timings, chain.link_names)}",
        f"sought: {goal_words(settings, objective, 'agreement' if network.task.is_agreement else 'score')}",
        *_table(table, plans, accuracy_ref),
        f"{CHOSEN}: {metrics['split_point']} with {metrics['codec'] or 'no codec'}, predicted latency "
        f"{format_seconds(plan.latency_s)}, predicted throughput {format_hz(metrics['throughput_hz'])}",
        _loss_told(table, plans[0], accuracy_ref, settings.epsilon),
        _judged(metrics),
        *commands(chain.names, table.hops(plan), {offer.label: offer for offer in joint.offers}),
        str(folder),
    ]
    figures = {}
    if extras.has("plots") and "plots" in settings.steps:
        from splitsem.report.chain_figure import chain_stages

        figures["chain_stages"] = chain_stages(stages, f"{joint.described} · {', '.join(chain.link_names)}")
    return Result(metrics, figures, [], "\n".join(lines))


def _check(cfg: DictConfig) -> None:
    """Raise ConfigError for what does not go with a chain."""
    if left_out := sorted({"train", "rates", "joint", "deploy"} - set(cfg.workflow.steps)):
        raise ConfigError(f"hardware.chain takes all steps but plots: workflow.steps lacks {', '.join(left_out)}")
    if cfg.workflow.edge_lut is not None or cfg.workflow.server_lut is not None:
        raise ConfigError(
            "hardware.chain names its machines: keep a table by workflow=profile hardware.save=NAME and name that, in "
            "place of workflow.edge_lut and server_lut"
        )
    if cfg.answer.at != "edge":
        raise ConfigError("hardware.chain has its answers on the first machine: answer.at=edge")
    if cfg.workflow.mode != "pseudo":
        raise ConfigError("hardware.chain is chosen from tables: workflow.mode=pseudo; the result says how to run it")


class _Scorer:
    """Scores plans through all their hops, with real payloads; each plan once on the validation split."""

    def __init__(self, cfg: DictConfig, joint: JointCuts, chain: MachineChain, table: PricedChain) -> None:
        self.joint, self.chain, self.table = joint, chain, table
        self.coder = answering(cfg, joint.trained.task, joint.trained.graph).coder
        self._offers = {offer.label: offer for offer in joint.offers}
        self._known: dict[tuple[tuple[str, str], ...], float] = {}

    def hops(self, plan: ChainPlan) -> list[ChainHop]:
        """Fresh hops over fresh links."""
        links = self.chain.links()
        made = []
        for link, (point, codec) in zip(links, self.table.hops(plan), strict=False):
            offer = self._offers[codec] if codec else None
            made.append(ChainHop(point, link, None if offer is None else (offer.make(), offer.make())))
        return made

    def score(self, hops: list[ChainHop], split: Any) -> Scored:
        """Over one split."""
        network = self.joint.trained
        pipeline = ChainPipeline(network.graph, hops, self.coder)
        return score_samples(pipeline.run, network.task, self.joint.batches(split))

    def val(self, plan: ChainPlan) -> float:
        """The validation score; what is passed on unread changes nothing."""
        key = tuple(hop for hop in self.table.hops(plan) if hop[1])
        if key not in self._known:
            self._known[key] = float(self.score(self.hops(plan), "val").metrics["score"])
        return self._known[key]

    def named(self, name: str, plan: ChainPlan) -> _Named:
        """The plan as the table has it."""
        return _Named(name, plan, plan.damage - self.table.margin_of(plan), self.val(plan))

    @property
    def num_scored(self) -> int:
        """Plans scored on the validation split."""
        return len(self._known)


def _choose(cfg: DictConfig, joint: JointCuts, table: PricedChain, scorer: _Scorer) -> tuple[ChainPlan, float]:
    """The plan, and the seconds of solving."""
    settings, objective = cfg.workflow, joint.solver.objective
    budget = replace(chain_budget(settings), damage=settings.epsilon if settings.least == "value" else inf)
    solver_s, accuracy_ref = 0.0, joint.rates["accuracy_ref_val"]
    if settings.least == "damage":  # the least value among those of the least loss
        least = solve_chain(table.problem, objective, budget, "damage")
        budget = replace(budget, damage=max(0.0, least.damage))
    while True:
        began = time.perf_counter()
        plan = solve_chain(table.problem, objective, budget)
        solver_s += time.perf_counter() - began
        lost = accuracy_ref - scorer.val(plan) + table.margin_of(plan)
        if settings.least == "damage" or lost <= settings.epsilon + ROUNDING or plan.damage <= _LESS:
            return plan, solver_s
        log.info("All hops together lose %.4f, and not %.4f as their sum: taking the next plan", lost, plan.damage)
        budget = replace(budget, damage=plan.damage - _LESS)


def _rivals(joint: JointCuts, chain: MachineChain, table: PricedChain, scorer: _Scorer) -> list[_Named]:
    """Everything on one machine, each by itself, and the best plan in which the machines in the middle only pass on."""
    problem, objective, epsilon = table.problem, joint.solver.objective, joint.settings.epsilon
    num_hops, end = len(chain.names) - 1, len(table.points) - 1
    states = [
        (cut, codec)
        for cut in range(end)
        for codec in range(len(table.codecs))
        if problem.damage[cut, codec] <= epsilon
    ]

    def best(plans: list[ChainPlan]) -> ChainPlan:
        return min(plans, key=lambda plan: plan.value)

    found = [(f"all on {chain.names[0]}", evaluated(problem, objective, [end] * num_hops, [0] * num_hops))]
    at_input = [codec for cut, codec in states if cut == 0]
    for m in range(1, num_hops + 1):
        cuts = [0] * m + [end] * (num_hops - m)
        some = [evaluated(problem, objective, cuts, [codec] * m + [0] * (num_hops - m)) for codec in at_input]
        if some:
            found.append((f"all on {chain.names[m]}", best(some)))
    if num_hops > 1 and states:
        some = [evaluated(problem, objective, [cut] * num_hops, [codec] * num_hops) for cut, codec in states]
        found.append(("first and last only", best(some)))
    by_hops = {tuple(table.hops(plan)): (name, plan) for name, plan in reversed(found)}  # of equal ones the first name
    return [scorer.named(name, plan) for name, plan in reversed(by_hops.values())]


def _stages(chain: MachineChain, table: PricedChain, plans: list[_Named]) -> pd.DataFrame:
    """Seconds of each machine and hop, in order, a row each: ``plan``, ``stage``, ``kind``, ``seconds``."""
    problem, rows = table.problem, []
    for name, plan, *_ in plans:
        used = len(table.hops(plan))
        for m, machine in enumerate(chain.names):
            rows.append((name, f"{m + 1}. {machine}", "machine", plan.machine_s[m]))
            if m < used:
                at = m, plan.cuts[m], plan.codecs[m]
                link_s = problem.link_busy_s[at] + problem.link_delay_s[at]
                rows.append((name, f"{m + 1}. {chain.link_names[m]}", "link", float(link_s)))
        rows.append((name, "answers back", "link", float(problem.answer_s[:used].sum())))
    return pd.DataFrame(rows, columns=["plan", "stage", "kind", "seconds"])


def _energy_j(chain: MachineChain, problem: ChainProblem, plan: ChainPlan, hops: list[ChainHop]) -> float:
    """Joules of the first machine for one sample, estimated from its powers, as in ``cost.end_to_end.Cost``."""
    first = chain.machines[0]
    link_j = fmean(hops[0].frames.link_j) if hops else 0.0
    busy_s = plan.machine_s[0] + problem.transports_of(plan)[0]
    return float(busy_s * first.active_w + link_j + max(0.0, plan.cycle_s - busy_s) * first.idle_w)


def _table(table: PricedChain, plans: list[_Named], accuracy_ref: float) -> list[str]:
    """The plans by rising value, within a hundred columns."""
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for header in ("", "cuts", "codecs"):
        grid.add_column(header, overflow="fold")
    for header in ("latency", "rate", "sent", "loss", "val"):
        grid.add_column(header, justify="right", no_wrap=True)
    for name, plan, loss, score_val in sorted(plans, key=lambda one: (one.plan.value, one.name != CHOSEN)):
        hops = table.hops(plan)
        cuts, codecs = " → ".join(point for point, _ in hops), " → ".join(codec or "unread" for _, codec in hops)
        rate = format_hz(1 / plan.cycle_s) if plan.cycle_s else "–"
        numbers = format_seconds(plan.latency_s), rate, format_bytes(plan.payload_bytes), format_score(loss)
        grid.add_row(name, cuts or "output", codecs or "–", *numbers, format_score(score_val))
    console = Console(width=100, color_system=None)
    with console.capture() as printed:
        console.print(grid)
    told = f"loss: estimated, the sum of each hop's own; val: scored through all hops, unsplit {accuracy_ref:.4f}"
    return [*(line.rstrip() for line in printed.get().splitlines()), told]


def _loss_told(table: PricedChain, chosen: _Named, accuracy_ref: float, epsilon: float) -> str:
    """The chosen plan's loss on the validation split, as it was estimated and as it was scored, in a line."""
    lost = accuracy_ref - chosen.score_val
    margin = table.margin_of(chosen.plan)
    missed = (
        f", which with its margin {margin:.4f} misses ε = {epsilon:g}" if lost + margin > epsilon + ROUNDING else ""
    )
    return f"its loss {chosen.estimated_loss:.4f} estimated, {lost:.4f} scored on val through all hops{missed}"


def _judged(metrics: Metrics) -> str:
    half = "" if metrics["accuracy_ci95"] is None else f" ± {metrics['accuracy_ci95']:.4f}"
    verdict = "kept" if metrics["feasible"] else "missed"
    return (
        f"test {metrics['accuracy']:.4f}{half} through all hops, unsplit {metrics['accuracy_ref']:.4f} "
        f"({metrics['num_samples']} samples): ε = {metrics['epsilon']:g} {verdict}"
    )
