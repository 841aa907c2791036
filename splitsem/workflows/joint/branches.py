"""JointBranches: chooses cut λ and branches γ together, for a network whose blocks have branches."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.cost.hardware_lut import HardwareLut, hardware_lut_json
from splitsem.errors import ConfigError
from splitsem.files import write_csv
from splitsem.models.repvgg import HyperRepVgg
from splitsem.models.repvgg_units import most_important
from splitsem.scoring import score_samples
from splitsem.search.deployed import DeployedSplit
from splitsem.search.problem import Mask, Problem, fused_gammas, measured_problem, offered_by
from splitsem.workflows import assemble, own_model, pasted
from splitsem.workflows.assemble import Whole
from splitsem.workflows.joint import real, real_frames, search, tiers
from splitsem.workflows.joint.base import Baseline, Document, JointBase, solution_of
from splitsem.workflows.joint.real import RealPair
from splitsem.workflows.joint.real_frames import RealRun
from splitsem.workflows.result import Metrics


class JointBranches(JointBase):
    """The artefacts of one run that chooses cut and branches.

    Args:
        cfg: the configuration.
        folder: folder of the run.

    Raises:
        ConfigError: a setting makes no sense.
    """

    reference = "all branches"
    steps = ("train", "importance", "lut", "throughput", "joint", "deploy", "plots")
    fastest = "any_branches"
    baselines: ClassVar[dict[str, Baseline]] = {
        "baseline": Baseline("all_parallel", "all branches in parallel"),
        "fused": Baseline("all_fused", "all fused"),
        "edge_only": Baseline("edge_only", "all fused, all on the edge"),
        "server_only": Baseline("server_only", "all fused, all on the server"),
    }

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        super().__init__(cfg, folder)
        if cfg.model.gamma is not None:
            raise ConfigError("workflow=joint chooses γ itself: leave model.gamma=null")
        if self.settings.times != "measured":
            raise ConfigError("workflow.times=hardware is for networks without branches; give workflow.edge_lut= here")
        try:
            search.validation(self.settings, self.solver)
        except ValueError as exc:
            raise ConfigError(f"workflow: {exc}") from exc
        self.pair = RealPair(cfg, folder) if self.settings.mode == "real" else None
        if self.settings.trains_split is not None and self.pair is None:
            raise ConfigError("workflow.trains_split needs workflow.mode=real: two processes")
        self._scores: dict[tuple[str, tuple[int, ...]], float] = {}

    @cached_property
    def trained(self) -> Whole:
        """The trained network with all branches in parallel; trained split between two processes if so configured."""
        if self.pair is None or self.settings.trains_split is None:
            return assemble.whole(self.cfg)
        cfg = self.cfg.copy()
        cfg.trainer.weights = real.split_weights(cfg, self.untrained, self.pair, str(self.settings.trains_split))
        return assemble.whole(cfg)

    @cached_property
    def hyper(self) -> HyperRepVgg:
        """The trained model, with no branch pruned."""
        assert isinstance(self.trained.model, HyperRepVgg)
        return self.trained.model

    @cached_property
    def kept(self) -> HyperRepVgg:
        """The trained model with the branches that ``model.alpha_keep`` leaves."""
        hyper = self.hyper
        if hyper.alpha_keep == 1:
            return hyper
        return hyper.with_branches(most_important(hyper.importance(), hyper.alpha_keep)).eval()

    @cached_property
    def hardware(self) -> HardwareLut:
        """Both machines and the link. Pseudo mode trains nothing for them, since times do not depend on weights."""
        if self.pair is not None:
            return real_frames.hardware(self._real_run(self.pair), lambda: self.trained)
        network = self.untrained
        link, way = tiers.link_fit(self.cfg, network), assemble.simulated_link(self.cfg)
        answer = tiers.answer_way(self.cfg, instantiate(self.cfg.task), way)
        factor, server = self.settings.edge_slowdown, self.settings.server_lut
        both = tiers.hardware_of_both(self.cfg, self.model, network, self.placement, server, factor)
        return replace(both, link=link, answer=answer)

    @cached_property
    def untrained(self) -> HyperRepVgg:
        """The network as its constructor leaves it."""
        model = own_model.make(self.cfg.model, instantiate(self.cfg.task))
        assert isinstance(model, HyperRepVgg)
        return model.eval()

    @cached_property
    def problem(self) -> Problem:
        """What the solver sees."""
        try:
            return measured_problem(self.hardware, self.settings.calibrated, self.settings.undisturbed)
        except ValueError as exc:
            raise ConfigError(f"workflow: {exc}") from exc

    @cached_property
    def measured_times(self) -> search.MeasuredTimes:
        """The problem, and the same by medians and by 10th percentiles of the tables, for the spread of a value."""
        medians, least = (measured_problem(self.hardware, False, is_least) for is_least in (False, True))
        return search.MeasuredTimes(self.problem, medians, least)

    @cached_property
    def throughput(self) -> Document:
        """The fastest configurations at any accuracy, and the two baselines at their best cuts."""
        facts = self._speed_facts()
        return self.store.get(
            "throughput", facts, lambda: search.fastest(self.measured_times, self.solver, self.model), self._code()
        )

    @cached_property
    def joint(self) -> Document:
        """The best configuration whose accuracy on the validation split keeps ε, the front and all that was scored."""
        names = ("epsilon", "margin", "confidence", "num_best", "max_rounds", "num_samples")
        facts = self._speed_facts() | self.network_facts() | {name: self.settings[name] for name in names}
        rival = self.settings.get("rival") and OmegaConf.to_container(self.settings.rival, resolve=True)
        facts |= {"rival": rival}
        return self.store.get(
            "joint",
            facts,
            lambda: search.fastest_within_epsilon(self._candidates(), self.solver, self.settings),
            self._code(),
        )

    @cached_property
    def deployed(self) -> Document:
        """Test scores of the chosen network, the reference and the fastest network, and the choice's times here."""
        facts = {"joint": self.joint["best"], "throughput": self.throughput["solutions"]}
        names = ("epsilon", "num_samples")
        facts |= self.network_facts() | {name: self.settings[name] for name in names}
        return self.store.get("deployed", facts, self._deploy)

    def allowed(self) -> Mask:
        """The γ that the network offers without its pruned branches."""
        return offered_by([fact.gammas for fact in self.kept.facts()])

    def score(
        self, gammas: tuple[int, ...], split: Literal["val", "test"], network: HyperRepVgg | None = None
    ) -> float:
        """The score of the deployed network with these γ on ``val`` or ``test``."""
        chosen = self.kept if network is None else network
        key = (f"{split} {id(chosen)}", gammas)
        if key not in self._scores:
            made = DeployedSplit(chosen, gammas, 0, self.trained.placement)
            self._scores[key] = made.score(self.trained.task, self.batches(split))
        return self._scores[key]

    def _real_run(self, pair: RealPair) -> RealRun:
        return RealRun(self.cfg, self.model, self.untrained, self.placement, self.store, pair)

    def _candidates(self) -> search.Candidates:
        device, val = self.trained.placement, self.batches("val")
        return search.Candidates(
            self.measured_times,
            self.hyper,
            self.kept,
            self.allowed(),
            score=lambda gammas, network: self.score(gammas, "val", network),
            right=lambda gammas, network: DeployedSplit(network, gammas, 0, device).right(val),
            model=self.model,
            domain=self.domain,
        )

    def _deploy(self) -> Document:
        best = solution_of(self.joint["best"])
        fastest = solution_of(self.throughput["solutions"]["any_branches"])
        chosen = DeployedSplit(self.kept, best.gammas, best.split_index, self.trained.placement)
        task = self.trained.task
        reference = fused_gammas(self.problem)
        whole = DeployedSplit(self.hyper, reference, 0, self.trained.placement)
        scored, scored_ref = (score_samples(one, task, self.batches("test")) for one in (chosen, whole))
        head, tail = chosen.time(self.batches("test")[0][0][:1])
        return {
            **self.verdict(scored, scored_ref),
            "accuracy_val": chosen.score(task, self.batches("val")),
            "accuracy_ref_val": self.score(reference, "val", self.hyper),
            "accuracy_fastest": self.score(fastest.gammas, "test", self.hyper),
            "accuracy_fastest_val": self.score(fastest.gammas, "val", self.hyper),
            "local_head_s": head.median_s,
            "local_tail_s": tail.median_s,
        }

    @cached_property
    def measured(self) -> Document:
        """What the chosen network and both baselines took on the wire; empty in pseudo mode."""
        if self.pair is None:
            return {}
        best, solutions, frames = self.joint["best"], self.throughput["solutions"], self.hardware.frames
        run = self._real_run(self.pair)
        return real_frames.measured(run, best, solutions, self.problem, self.network_facts(), frames)

    @cached_property
    def branches(self) -> pd.DataFrame:
        """One row for every branch: ``unit``, ``branch``, ``alpha`` and ``importance``."""
        rows = [
            {"unit": name, "branch": branch.value, "alpha": block.alpha[branch].item(), "importance": importance}
            for name, block, row in zip(self.hyper.block_names, self.hyper.blocks, self.hyper.importance(), strict=True)
            for branch, importance in row.items()
        ]
        return pd.DataFrame(rows)

    def compared(self) -> dict[str, Document]:
        """See JointBase; all branches have the accuracy A_ref."""
        accuracy_val = self.joint["accuracy_ref_val"]
        return {words: one | {"accuracy_val": accuracy_val} for words, one in super().compared().items()}

    def write_importance(self) -> Metrics:
        """Write ``importance.csv``: α and |α| per GFLOP of every branch."""
        write_csv(self.branches, self.folder / "importance.csv")
        return {"num_branches": len(self.branches)}

    def write_lut(self) -> Metrics:
        """Write ``hardware_lut_complete.json``, and both tables as CSV."""
        return tiers.write(self.hardware, self.folder)

    @property
    def found_metrics(self) -> Metrics:
        """The chosen γ, and how the solver found them."""
        found = self.joint
        return {
            "ablation_s": found["ablation_s"],
            "optimality_gap": found["optimality_gap"],
            "gammas": " ".join(map(str, found["best"]["gammas"])),
        }

    @property
    def recipe(self) -> str:
        """See JointBase."""
        best = self.joint["best"]
        return pasted.words([pasted.setting("model.gamma", best["gammas"]), f"split.index={best['lambda']}"])

    @property
    def timings(self) -> tuple[str, str]:
        """See JointBase."""
        return self.hardware.edge.units[0].origin, self.hardware.server.units[0].origin

    def _code(self) -> list[object]:
        """The code that searches."""
        rival = instantiate(self.settings.rival) if self.settings.get("rival") else None
        return [self.solver, rival, search]

    def _speed_facts(self) -> Document:
        facts = {name: self.settings[name] for name in ("calibrated", "undisturbed")}
        optimise = OmegaConf.to_container(self.cfg.optimise, resolve=True)
        return facts | {"hardware": tiers.digest(hardware_lut_json(self.hardware)), "optimise": optimise}

    def network_facts(self) -> Document:
        """The facts that determine the deployed network."""
        return {"trained": self.trained.key, "alpha_keep": self.hyper.alpha_keep, "domain": self.domain}
