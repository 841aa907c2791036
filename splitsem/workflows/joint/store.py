"""What the steps of a joint run found, as JSON documents kept under names of what determines them."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from splitsem.cost.lut_file import write_text
from splitsem.errors import ConfigError
from splitsem.lightning.fingerprint import fingerprint
from splitsem.optimise.problem import Problem
from splitsem.optimise.solution import Solution

log = logging.getLogger(__name__)
Document = dict[str, Any]
_LEFT_OUT = ("splitsem.workflows", "splitsem.plots")  # they put parts together and draw; a step names what it needs


@dataclass(frozen=True)
class Store:
    """Steps that are done already are read, not done again; several processes do each once.

    Attributes:
        folder: of the documents.
    """

    folder: Path

    def get(
        self,
        step: str,
        facts: Mapping[str, Any],
        make: Callable[[], Document],
        objects: Sequence[object] = (),
    ) -> Document:
        """The document of ``step`` for these facts (settings, and keys of what it started from), made if need be.

        The code of ``objects`` and of the module of ``make`` counts too, see ``fingerprint``; other workflows' code
        only where ``objects`` name it.
        """
        key = fingerprint(dict(facts), (*objects, make.__module__), without=_LEFT_OUT)
        path = self.folder / f"{step}-{key}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if path.exists():
                try:
                    document: Document = json.loads(path.read_text(encoding="utf-8"))
                except ValueError as exc:
                    raise ConfigError(f"{path} is damaged ({exc}); delete it") from exc
                log.info("Step %s is done already: %s", step, path)
                return document
            document = make()
            write_text(as_text(document), path)
        return document


def as_text(document: Document) -> str:
    """A document as the text of its file."""
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def solution_object(solution: Solution, units: Sequence[str]) -> Document:
    """A solution as JSON; ``units`` are the names."""
    return {
        "lambda": solution.split_index,
        "split_point": (("input", *units[:-1], "output"))[solution.split_index],
        "gammas": list(solution.gammas),
        "labels": list(solution.labels),
        "edge_s": solution.edge_s,
        "link_s": solution.link_s,
        "server_s": solution.server_s,
        "latency_s": solution.latency_s,
        "cycle_s": solution.cycle_s,
        "throughput_hz": solution.throughput_hz,
        "value": solution.value,
        "damage": solution.damage,
        "delay_s": solution.delay_s,
    }


def solution_of(document: Document) -> Solution:
    """The other way round."""
    names = ("edge_s", "link_s", "server_s", "value", "damage", "delay_s")
    return Solution(document["lambda"], tuple(document["gammas"]), **{name: document[name] for name in names})


def t_eff_s(solution: Document, omega: float = 0.5) -> float:
    """``ω·T_lat + (1 − ω)·T_cyc`` of a solution's document, whatever was minimised."""
    return omega * float(solution["latency_s"]) + (1 - omega) * float(solution["cycle_s"])


def unit_objects(problem: Problem) -> list[Document]:
    """Names and crossing bytes, for readers of a file."""
    sizes = problem.link_bytes[1:]
    return [{"name": name, "output_bytes": int(size)} for name, size in zip(problem.units, sizes, strict=True)]
