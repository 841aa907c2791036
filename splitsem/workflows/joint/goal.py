"""What a joint run was asked for: machines, goal and budgets in words; and budgets that no choice can keep, refused."""

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from splitsem.cost.end_to_end import cycle_s, latency_s
from splitsem.errors import ConfigError
from splitsem.links.link import Link
from splitsem.links.simulated import SimulatedLink
from splitsem.report.units import format_hz, format_seconds
from splitsem.search.chain import Budget, ChainProblem, solve_chain
from splitsem.search.objective import Objective
from splitsem.search.problem import Floats

_EMPTY = "an empty payload"
_KINDS = {"lut": "measured before", "assumed": "estimated"}


def machine_words(cfg: DictConfig, edge_timing: str, server_timing: str) -> str:
    """The edge, the server and the link, each with where its times come from, in a line.

    Args:
        cfg: the configuration.
        edge_timing: ``timing`` of the edge's times, see ``tiers.Tier``.
        server_timing: of the server's.
    """
    settings, choices = cfg.workflow, HydraConfig.get().runtime.choices
    parts = []
    for end, timing in (("edge", edge_timing), ("server", server_timing)):
        if settings.times == "hardware":
            name = choices[f"hardware/machine@hardware.{end}"]
        elif settings[f"{end}_lut"] is not None:
            name = f"the table {settings[f'{end}_lut']}"
        elif timing == "assumed":
            name = f"this machine × {settings.edge_slowdown:g}"
        else:
            name = "this machine"
        parts.append(f"{end} {name} ({_KINDS.get(timing, timing)})")
    return ", ".join(
        [*parts, f"link {choices['transport']} ({'measured' if settings.mode == 'real' else 'simulated'})"]
    )


def chain_words(machines: Sequence[tuple[str, str]], links: Sequence[str]) -> str:
    """The machines of a chain, each with where its times come from, and the links between them, in a line."""
    named = " → ".join(f"{name} ({_KINDS.get(timing, timing)})" for name, timing in machines)
    return f"{named}, links {' → '.join(links)} (simulated)"


def least_words(settings: DictConfig, objective: Objective) -> str:
    """What the choice is the least of: the objective, or the loss and then the objective."""
    return f"loss, then {objective.words}" if settings.least == "damage" else objective.words


def goal_words(settings: DictConfig, objective: Objective, word: str) -> str:
    """What was sought, budgets included, in a line; ``word`` is what the score is called."""
    budgets = []
    if settings.most_latency_s is not None:
        budgets.append(f"latency at most {format_seconds(settings.most_latency_s)}")
    if settings.least_rate_hz is not None:
        budgets.append(f"throughput at least {format_hz(settings.least_rate_hz)}")
    kept = f" with {' and '.join(budgets)}" if budgets else ""
    if settings.least == "damage":
        return f"the best validation {word}{kept}; of equal ones the least {objective.words}"
    return f"the least {objective.words}{kept} that loses at most ε = {settings.epsilon:g} of validation {word}"


def has_budgets(settings: DictConfig) -> bool:
    """Whether latency or pace are bounded, which another cut and codec may keep than the best without bounds."""
    return settings.most_latency_s is not None or settings.least_rate_hz is not None


def within(rows: pd.DataFrame, settings: DictConfig) -> pd.DataFrame:
    """The rows that keep both budgets. Raises ConfigError where none does; it names the nearest.

    Args:
        rows: with ``split_point``, ``codec``, ``latency_s`` and ``cycle_s``.
        settings: of the workflow.
    """
    num, most_latency_s, least_rate_hz = len(rows), settings.most_latency_s, settings.least_rate_hz
    budgets = (
        ("latency_s", most_latency_s, f"workflow.most_latency_s={most_latency_s} (the least is"),
        ("cycle_s", least_rate_hz and 1 / least_rate_hz, f"workflow.least_rate_hz={least_rate_hz} (the highest is"),
    )
    for name, most, told in budgets:
        if most is None:
            continue
        kept = rows[rows[name] <= most]
        if kept.empty:
            nearest = rows.sort_values(name).iloc[0].to_dict()
            takes = nearest[name]
            found = f"{takes:.4g} s" if name == "latency_s" else f"{1 / takes if takes else inf:.4g} Hz"
            where = f"{nearest['split_point']} with {nearest['codec']}"
            first = "no cut and codec keeps" if len(rows) == num else "no cut and codec that keeps the latency keeps"
            raise ConfigError(f"{first} {told} {found}, {where}): allow more")
        rows = kept
    return rows


def least_rows(edge_s: Mapping[str, float], server_s: Mapping[str, float], link: Link, answer_at: str) -> pd.DataFrame:
    """The least that each cut takes with any codec: both halves, and an empty payload on its way and back.

    Args:
        edge_s: seconds of the edge, by cut; the last one is the network's output.
        server_s: seconds of the server, likewise.
        link: the link. One that is not computed from sizes alone is taken to need no time.
        answer_at: the end that needs the answer, ``edge`` or ``server``.
    """
    points, head_s, tail_s = list(edge_s), np.array([*edge_s.values()]), np.array([*server_s.values()])
    there = np.array([_empty_s(link)] * len(points))
    back = np.array([_empty_s(link, is_answer=True)] * len(points)) * (answer_at == "edge")
    if answer_at == "edge":  # nothing travels where the edge has the output
        there[-1] = back[-1] = 0.0
    (busy_s, delay_s), (back_busy_s, back_delay_s) = there.T, back.T
    return pd.DataFrame(
        {
            "split_point": points,
            "codec": [_EMPTY] * (len(points) - 1) + ["any codec" if answer_at == "edge" else _EMPTY],
            "latency_s": latency_s(head_s, busy_s + delay_s, tail_s, back_busy_s + back_delay_s),
            "cycle_s": cycle_s(head_s, busy_s, tail_s, back_busy_s),
        }
    )


def check_chain_budgets(settings: DictConfig, objective: Objective, machine_s: Floats, links: Sequence[Link]) -> None:
    """Raise ConfigError where no plan of a chain keeps the budgets, even with empty payloads and no coding.

    Args:
        settings: of the workflow.
        objective: what is minimised.
        machine_s: seconds of each machine for all that lies before each cut, ``(N, K)``.
        links: between the machines.
    """
    if not has_budgets(settings):
        return
    num_machines, num_cuts = machine_s.shape
    free = np.zeros((num_machines, num_cuts, 1))
    busy_s, delay_s = np.zeros((2, len(links), num_cuts, 1))
    for hop, link in enumerate(links):
        busy_s[hop, :-1], delay_s[hop, :-1] = _empty_s(link)
    back = np.array([_empty_s(link, is_answer=True) for link in links])
    problem = ChainProblem(
        machine_s=machine_s,
        encode_s=free,
        decode_s=free,
        link_busy_s=busy_s,
        link_delay_s=delay_s,
        payload_bytes=np.zeros((num_cuts, 1)),
        damage=np.zeros((num_cuts, 1)),
        answer_s=back.sum(axis=1),
        answer_busy_s=back[:, 0],
    )
    solve_chain(problem, objective, chain_budget(settings))


def chain_budget(settings: DictConfig) -> Budget:
    """The budgets of latency and pace, as a chain solver takes them."""
    return Budget(
        latency_s=inf if settings.most_latency_s is None else settings.most_latency_s,
        cycle_s=inf if settings.least_rate_hz is None else 1 / settings.least_rate_hz,
    )


def _empty_s(link: Link, is_answer: bool = False) -> tuple[float, float]:
    """The seconds that an empty payload, or answer, keeps the link busy and is on its way beyond that."""
    if type(link) is not SimulatedLink:  # another one may draw its times
        return 0.0, 0.0
    report = link.send_back(b"") if is_answer else link.send(b"")
    return report.link_busy_s - report.pause_s, report.link_delay_s
