"""MachineChain is ``hardware.chain``: machines and links by name, priced for each cut and codec as a ChainProblem."""

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
import pandas as pd
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.cost.machines import Machine
from splitsem.errors import ConfigError
from splitsem.links.link import Link
from splitsem.search.chain import ChainPlan, ChainProblem
from splitsem.search.problem import Floats
from splitsem.splitting.cut_graph import CutGraph
from splitsem.workflows.codec_offers import REFERENCE
from splitsem.workflows.joint.rates import SIZES
from splitsem.workflows.mistakes import no_such, short


@dataclass(frozen=True)
class MachineChain:
    """The machines, the first of which has the sensor and needs the answer, and the links between them.

    Attributes:
        names: of the machines, as options.
        machines: the same, made.
        link_names: of the links, as options.
        link_settings: of each link.
    """

    names: tuple[str, ...]
    machines: tuple[Machine, ...]
    link_names: tuple[str, ...]
    link_settings: tuple[DictConfig, ...]

    @classmethod
    def of(cls, cfg: DictConfig) -> "MachineChain":
        """What ``hardware.chain`` and ``hardware.links`` name; without links, ``transport`` is each of them.

        Raises:
            ConfigError: fewer than two machines, another number of links, an option that does not exist, a link that
                is no simulated one or may lose payloads, or a machine without a coding rate.
        """
        names, links = list(cfg.hardware.chain), cfg.hardware.links
        if len(names) < 2:
            raise ConfigError(f"hardware.chain needs two machines or more, from the camera on, got {', '.join(names)}")
        if links is not None and len(links) != len(names) - 1:
            raise ConfigError(
                f"hardware.chain has {len(names)} machines, so hardware.links needs {len(names) - 1}, got {len(links)}"
            )
        machines = {name: instantiate(_option("hardware/machine", name, "hardware.chain")) for name in names}
        for machine in machines.values():
            machine.coding_factor()
        if links is None:
            links = [HydraConfig.get().runtime.choices["transport"]] * (len(names) - 1)
            settings = [cfg.transport] * len(links)
        else:
            settings = [_option("transport", name, "hardware.links") for name in links]
        made = cls(tuple(names), tuple(machines[name] for name in names), tuple(links), tuple(settings))
        made.links()
        return made

    def links(self) -> list[Link]:
        """Fresh links."""
        found = []
        for name, settings in zip(self.link_names, self.link_settings, strict=True):
            link = instantiate(settings)
            if not isinstance(link, Link) or link.is_lossy:
                raise ConfigError(f"a chain needs simulated links that lose nothing, e.g. wifi or ethernet, got {name}")
            found.append(link)
        return found

    @cached_property
    def links_once(self) -> list[Link]:
        """Links to ask for times."""
        return self.links()

    def machine_s(self, graph: CutGraph) -> Floats:
        """Seconds of each machine for all that lies before each cut, ``(N, K)``."""
        heads = [graph.cut(point).halves()[0] for point in graph.points]
        by_name = {
            name: np.maximum.accumulate([machine.time_s(head) for head in heads])
            for name, machine in zip(self.names, self.machines, strict=True)
        }
        return np.stack([by_name[name] for name in self.names])


def _option(group: str, name: str, where: str) -> DictConfig:
    """An option of a config group. Raises ConfigError where there is none of this name."""
    try:
        found = compose(f"{group}/{name}")
    except HydraException as exc:
        raise ConfigError(f"{where}: {short(name)} is no option of {group}; {no_such(group, name)}") from exc
    option: DictConfig = OmegaConf.select(found, group.replace("/", "."))
    return option


@dataclass(frozen=True, eq=False)
class PricedChain:
    """A chain problem with the names of what its plans consist of.

    Attributes:
        problem: see ``ChainProblem``; its damages hold margins.
        margin: kept from the constraint, by cut and codec, ``(K, C)``.
        points: names of the cuts.
        codecs: labels of the codecs.
    """

    problem: ChainProblem
    margin: Floats
    points: tuple[str, ...]
    codecs: tuple[str, ...]

    def hops(self, plan: ChainPlan) -> list[tuple[str, str]]:
        """Cut and codec of each hop over which a payload goes; an empty codec: passed on unread."""
        states = [*zip(plan.cuts, plan.codecs, strict=True)]
        used = [(cut, codec) for cut, codec in states if self.points[cut] != "output"]
        named = [(self.points[cut], self.codecs[codec]) for cut, codec in used]
        return [(point, "" if h and used[h] == used[h - 1] else codec) for h, (point, codec) in enumerate(named)]

    def margin_of(self, plan: ChainPlan) -> float:
        """What the plan keeps from the constraint: the margins of its lossy hops."""
        lossy = [codec for codec in self.hops(plan) if codec[1]]
        return float(sum(self.margin[self.points.index(point), self.codecs.index(codec)] for point, codec in lossy))


def priced(chain: MachineChain, rows: pd.DataFrame, head_s: Floats, accuracy_ref: float) -> PricedChain:
    """The chain with times, bytes and damages by cut and codec.

    Bytes, damages and coding come from the validation split, coding scaled to each machine. Each link carries every
    coded sample's bytes, and its times are means over these, as those of two machines are. A gain of score on one hop
    does not make up for a loss on another.

    Args:
        chain: machines and links.
        rows: the table of ``rates.measure_rates``, with the ``margin`` that is kept from the constraint.
        head_s: see ``MachineChain.machine_s``.
        accuracy_ref: of the unsplit network.
    """
    points = tuple(dict.fromkeys(rows["split_point"]))
    labels = tuple(dict.fromkeys([REFERENCE, *rows["codec"]]))
    n, k, c = len(chain.names), len(points), len(labels)
    tables = {name: np.zeros((k, c)) for name in ("payload_bytes", "encode_s", "decode_s", "margin")}
    damage = np.full((k, c), np.inf)
    carried = rows[rows["left_out"].isna() & (rows["split_point"] != "output")]
    for row in carried.to_dict("records"):
        at = points.index(row["split_point"]), labels.index(row["codec"])
        for name in ("payload_bytes", "encode_s", "decode_s"):
            tables[name][at] = row[name]
        lost = accuracy_ref - row["score"]
        tables["margin"][at] = row["margin"] if lost or row["damage_error"] else 0.0
        if row["offered"]:
            damage[at] = max(0.0, lost) + tables["margin"][at]
    damage[-1] = np.inf
    damage[-1, 0] = 0.0
    factor = np.array([machine.coding_factor() for machine in chain.machines])
    links = chain.links_once
    encode_s, decode_s = (factor[:, None, None] * tables[name] for name in ("encode_s", "decode_s"))
    answer = {name: float(carried[name].median()) for name in ("answer_encode_s", "answer_decode_s", "answer_bytes")}
    encode_s[0, :-1] += factor[0] * answer["answer_decode_s"]
    encode_s[1:, -1, 0] = factor[1:] * answer["answer_encode_s"]
    busy_s, delay_s = np.zeros((n - 1, k, c)), np.zeros((n - 1, k, c))
    send_s, receive_s = np.zeros((n, k, c)), np.zeros((n, k, c))
    back = [link.send_back(bytes(round(answer["answer_bytes"]))) for link in links]
    for row in carried[carried["offered"]].to_dict("records"):
        at = points.index(row["split_point"]), labels.index(row["codec"])
        for h, link in enumerate(chain.links()):
            reports = [link.send(bytes(num_bytes)) for num_bytes in row[SIZES]]
            busy_s[h][at] = fmean(report.link_busy_s for report in reports)
            delay_s[h][at] = fmean(report.link_s for report in reports) - busy_s[h][at]
            num_bytes = row["payload_bytes"] + answer["answer_bytes"]
            send_s[h][at] = factor[h] * link.edge_work.frame_s(num_bytes)
            receive_s[h + 1][at] = factor[h + 1] * link.server_work.frame_s(num_bytes)
    problem = ChainProblem(
        machine_s=head_s,
        encode_s=encode_s,
        decode_s=decode_s,
        link_busy_s=busy_s,
        link_delay_s=delay_s,
        payload_bytes=tables["payload_bytes"],
        damage=damage,
        answer_s=np.array([report.link_s for report in back]),
        answer_busy_s=np.array([report.link_busy_s for report in back]),
        send_s=send_s,
        receive_s=receive_s,
    )
    return PricedChain(problem, tables["margin"], points, labels)
