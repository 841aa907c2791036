"""JointBase: what the steps of every joint optimisation share, whatever there is to choose from."""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig
from torch import Tensor

from splitsem.errors import ConfigError
from splitsem.files import read_or_make
from splitsem.intervals import half_width
from splitsem.json_files import decode, write_text
from splitsem.placement import Placement
from splitsem.scoring import Scored
from splitsem.search.objective import Stages, quantile
from splitsem.search.problem import Problem
from splitsem.search.solution import Solution, Solver, check_epsilon, smallest_slack
from splitsem.tasks.domains import Domains
from splitsem.training.fingerprint import fingerprint
from splitsem.workflows import assemble
from splitsem.workflows.assemble import Network, Whole
from splitsem.workflows.result import Metrics

log = logging.getLogger(__name__)
Document = dict[str, Any]
_STAGES = tuple(field.name for field in fields(Stages))
_LEFT_OUT = ("splitsem.workflows", "splitsem.report")  # packages that assemble and draw; a step names what it needs


@dataclass(frozen=True)
class Store:
    """Documents of finished steps: a step is done once, even by several processes, and read from then on.

    Attributes:
        folder: folder of the documents.
    """

    folder: Path

    def get(
        self,
        step: str,
        facts: Mapping[str, Any],
        make: Callable[[], Document],
        objects: Sequence[object] = (),
    ) -> Document:
        """The document of ``step`` for ``facts`` (settings, and keys of what the step started from), made if missing.

        The code of ``objects`` and of the module of ``make`` counts too, see ``fingerprint``; the code of other
        workflows counts only where ``objects`` name it.
        """
        key = fingerprint(dict(facts), (*objects, make.__module__), without=_LEFT_OUT)

        def read(path: Path) -> Document:
            try:
                document = decode(path.read_bytes(), Document)
            except (ValueError, OSError) as exc:
                raise ConfigError(f"{path} is damaged ({exc})") from exc
            log.info("Step %s is done already: %s", step, path)
            return document

        def write(document: Document, path: Path) -> None:
            write_text(as_text(document), path)

        return read_or_make([self.folder / f"{step}-{key}.json"], read, make, write)[0]


def as_text(document: Document) -> str:
    """A document as the text of its file."""
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def solution_object(solution: Solution, units: Sequence[str]) -> Document:
    """A solution as JSON; ``units`` are the units' names."""
    return {
        "lambda": solution.split_index,
        "split_point": (("input", *units[:-1], "output"))[solution.split_index],
        "gammas": list(solution.gammas),
        "labels": list(solution.labels),
        **{name: getattr(solution, name) for name in (*_STAGES, "link_s")},
        "latency_s": solution.latency_s,
        "cycle_s": solution.cycle_s,
        "throughput_hz": solution.throughput_hz,
        "value": solution.value,
        "damage": solution.damage,
    }


def solution_of(document: Document) -> Solution:
    """Undo ``solution_object``."""
    numbers = {name: document[name] for name in (*_STAGES, "value", "damage")}
    return Solution(split_index=document["lambda"], gammas=tuple(document["gammas"]), **numbers)


def t_eff_s(solution: Document, omega: float = 0.5) -> float:
    """``ω·T_lat + (1 − ω)·T_cyc`` of a solution's document, whatever was minimised."""
    return omega * float(solution["latency_s"]) + (1 - omega) * float(solution["cycle_s"])


def unit_objects(problem: Problem) -> list[Document]:
    """Names and crossing bytes of a problem's units, for readers of a file."""
    sizes = problem.link_bytes[1:]
    return [{"name": name, "output_bytes": int(size)} for name, size in zip(problem.units, sizes, strict=True)]


Batches = list[tuple[Tensor, Tensor]]


class Baseline(NamedTuple):
    """A configuration that the choice is compared with.

    Attributes:
        name: name among the solutions of the step ``throughput``.
        words: name for people, as in "+12 % over …".
    """

    name: str
    words: str


class JointBase(ABC):
    """The artefacts of one joint run; each is made from other artefacts when first asked for.

    Args:
        cfg: the configuration.
        folder: folder of the run.

    Attributes:
        reference: the network whose accuracy is A_ref, in words.
        steps: the steps of ``workflow.steps`` that this kind of network has.
        fastest: name, among the solutions of the step ``throughput``, of the fastest at any accuracy.
        baselines: the baselines, by the prefix of their metrics.

    Raises:
        ConfigError: a setting makes no sense.
    """

    reference: ClassVar[str]
    steps: ClassVar[tuple[str, ...]]
    fastest: ClassVar[str]
    baselines: ClassVar[dict[str, Baseline]]

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self.cfg, self.settings, self.folder = cfg, cfg.workflow, folder
        self.model = HydraConfig.get().runtime.choices["model"]
        if self.settings.mode not in ("pseudo", "real"):
            raise ConfigError(f"workflow.mode must be pseudo or real, got {self.settings.mode}")
        try:
            check_epsilon(self.settings.epsilon)
            quantile(self.settings.confidence)
        except ValueError as exc:
            raise ConfigError(f"workflow: {exc}") from exc
        self.store = Store(Path(cfg.cache_dir) / "joint")
        self._batches: dict[str, Batches] = {}

    @property
    @abstractmethod
    def trained(self) -> Whole | Network:
        """The trained network, with its task and placement."""

    @property
    @abstractmethod
    def throughput(self) -> Document:
        """The fastest configuration whatever the accuracy, and the baselines: ``solutions`` and ``solver_s``."""

    @property
    @abstractmethod
    def joint(self) -> Document:
        """The best configuration whose accuracy on the validation split keeps ε, and the front."""

    @property
    @abstractmethod
    def deployed(self) -> Document:
        """Test scores of the chosen network and of the reference, and the chosen network's times here."""

    @property
    def measured(self) -> Document:
        """What was measured on the wire; empty in pseudo mode."""
        return {}

    def check_budgets(self) -> None:
        """Raise ConfigError where no choice can keep the budgets, as early as that is known: nothing is trained yet."""
        return

    @abstractmethod
    def write_lut(self) -> Metrics:
        """Leave what was measured of both machines in the run's folder."""

    @property
    @abstractmethod
    def found_metrics(self) -> Metrics:
        """Metrics of the step ``joint``, beyond those that every network has."""

    def compared(self) -> dict[str, Document]:
        """The baselines that can run, by their names for people."""
        solutions = self.throughput["solutions"]
        return {words: solutions[name] for name, words in self.baselines.values() if name in solutions}

    def said(self) -> list[str]:
        """Lines about the search, below the table of what was compared."""
        return []

    @property
    @abstractmethod
    def recipe(self) -> str:
        """Overrides that make other workflows run what was chosen."""

    @property
    @abstractmethod
    def timings(self) -> tuple[str, str]:
        """Where the times of the edge and of the server come from: ``measured``, ``assumed``, ``lut``, …"""

    @property
    def described_fully(self) -> str:
        """Task, model, link and machines, for a figure's header."""
        edge, server = self.timings
        link = HydraConfig.get().runtime.choices["transport"]
        return f"{self.described} · {link} · edge {edge}, server {server}"

    @cached_property
    def solver(self) -> Solver:
        """The configured solver."""
        solver: Solver = instantiate(self.cfg.optimise)
        return solver

    @cached_property
    def placement(self) -> Placement:
        """Where torch runs here."""
        placement: Placement = instantiate(self.cfg.device)
        return placement

    def batches(self, split: Literal["val", "test"]) -> Batches:
        """One split, moved to torch's device only once, for many scores. Nothing is chosen by ``test``."""
        if split not in self._batches:
            samples, num = getattr(self.trained.task.splits(), split), self.settings.num_samples
            batches = assemble.batches(samples, self.trained.placement, self.cfg.trainer.batch_size, num)
            self._batches[split] = list(batches)
        return self._batches[split]

    def verdict(self, chosen: Scored, reference: Scored) -> Document:
        """What the test split says of the choice: its true slack ξ, and half widths of 95 % intervals over samples.

        Without draws (a single sample, or a score that is no sum over samples) the half widths are None.
        """
        accuracy, accuracy_ref = chosen.metrics["score"], reference.metrics["score"]
        slack = smallest_slack(accuracy_ref - accuracy, self.settings.epsilon)
        found: Document = {"accuracy": accuracy, "accuracy_ref": accuracy_ref, "slack": slack, "feasible": slack == 0.0}
        found |= {"accuracy_delta": accuracy - accuracy_ref, "accuracy_ci95": None, "accuracy_delta_ci95": None}
        if chosen.draws is not None and reference.draws is not None:
            found["accuracy_ci95"] = half_width(chosen.draws)
            found["accuracy_delta_ci95"] = half_width(chosen.draws - reference.draws)
        return found | {"num_samples": chosen.num_samples}

    @property
    def described(self) -> str:
        """Task and model, for a figure's header."""
        domain = "" if self.domain is None else f" · domain {self.domain}"
        return f"{HydraConfig.get().runtime.choices['task']}{domain} · {self.model}"

    @property
    def file_name(self) -> str:
        """Name of the joint optimum's file."""
        task = HydraConfig.get().runtime.choices["task"]
        return f"{task if self.domain is None else f'domain_{self.domain}'}_joint.json"

    @property
    def domain(self) -> int | str | None:
        """The number of the domain, ``all``, or None for a task without domains."""
        if not issubclass(get_object(self.cfg.task["_target_"]), Domains):
            return None
        number: int | None = self.cfg.task.domain
        return "all" if number is None else number
