"""JointCuts: chooses cut λ, codec and the codec's settings together, for any network, by a measured table."""

import logging
import time
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import ClassVar

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.errors import ConfigError
from splitsem.files import write_csv
from splitsem.pipeline import Pipeline
from splitsem.placement import describe_machine
from splitsem.scoring import score_samples
from splitsem.search.deployed import DeployedCodec
from splitsem.search.exact import Exact
from splitsem.search.objective import Objective, quantile
from splitsem.search.rate_table import RateTable
from splitsem.splitting.cut_graph import CutGraph
from splitsem.splitting.graph import SplitGraph
from splitsem.trees import num_samples
from splitsem.workflows import assemble
from splitsem.workflows.assemble import Network, answering, simulated_link
from splitsem.workflows.codec_offers import REFERENCE, offers
from splitsem.workflows.joint import cut_rows, tiers
from splitsem.workflows.joint.anywhere_cut import BestSet, OneMoreCut, best_set
from splitsem.workflows.joint.base import Baseline, Document, JointBase
from splitsem.workflows.joint.goal import has_budgets, least_rows, within
from splitsem.workflows.joint.kept_sweep import KeptSweep
from splitsem.workflows.joint.rates import SIZES, Coded, measure_rates
from splitsem.workflows.joint.screening import survivors
from splitsem.workflows.joint.tiers import Tier
from splitsem.workflows.result import Metrics

log = logging.getLogger(__name__)


class JointCuts(JointBase):
    """The artefacts of one run that chooses cut and codec.

    Args:
        cfg: the configuration.
        folder: folder of the run.

    Raises:
        ConfigError: a setting makes no sense, is for networks with branches only, or fixes what is chosen here.
    """

    reference = "unsplit"
    steps = ("train", "lut", "rates", "throughput", "joint", "deploy", "plots")
    fastest = "any_codec"
    baselines: ClassVar[dict[str, Baseline]] = {
        "baseline": Baseline("float32", "float32 at its best cut"),
        "edge_only": Baseline("edge_only", "all on the edge"),
        "server_only": Baseline("server_only", "all on the server"),
    }

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        super().__init__(cfg, folder)
        if self.settings.mode == "real":
            raise ConfigError(
                f"workflow.mode=real is for networks with branches, not for model={self.model}: choose by tables of "
                "workflow=profile (workflow.edge_lut=, workflow.server_lut=), then run what was chosen by "
                "workflow=serve and workflow=offload"
            )
        if not isinstance(self.solver, Exact):
            raise ConfigError(f"optimise=exact is all there is for model={self.model}: each row of its table is tried")
        for entry in (given.lstrip("+~") for given in HydraConfig.get().overrides.task):
            if entry.startswith(("codec=", "codec.", "split.point=", "split.index=")):
                raise ConfigError(
                    f"workflow=joint chooses cut and codec itself, from workflow.codecs: leave out {entry}"
                )
        self.offers = offers(self.settings.codecs)
        margin = self.settings.margin
        if margin is not None and not (isfinite(margin) and margin >= 0):
            raise ConfigError(f"workflow.margin must be finite and not negative, or null, got {margin}")
        tiers.check_settings(self.settings)
        simulated_link(cfg)
        self.kept_sweep = None if self.settings.against is None else KeptSweep(self.settings.against, self.offers)

    @cached_property
    def trained(self) -> Network:
        """The trained network."""
        return assemble.network(self.cfg)

    @cached_property
    def graph(self) -> CutGraph:
        """The graph of the trained network if this run trains, else of an untrained one: times ignore weights."""
        if "trained" in vars(self):
            return self.trained.graph
        return assemble.untrained_graph(self.cfg)

    @cached_property
    def tiers(self) -> tuple[Tier, Tier]:
        """The times of heads on the edge and of tails on the server, all of them measured together."""
        if "trained" not in vars(self) or self.best_set is None or self.best_set.cut is None:
            return self._tiers_of_points
        with_it = OneMoreCut(self.graph, self.best_set.cut)
        return tiers.tiers_of_both(self.cfg, self.model, with_it, self.placement)

    @cached_property
    def _tiers_of_points(self) -> tuple[Tier, Tier]:
        return tiers.tiers_of_both(self.cfg, self.model, self.graph, self.placement)

    @cached_property
    def best_set(self) -> BestSet | None:
        """``workflow.cuts=anywhere``: see BestSet; None: it is not sought."""
        if self.settings.cuts == "points":
            return None
        graph = self.trained.graph
        if not isinstance(graph, SplitGraph):
            raise ConfigError("workflow.cuts=anywhere needs a network of torch: an ONNX file has split points only")
        rows = pd.DataFrame(self._first["rows"])
        rows = rows[rows["left_out"].isna() & rows["offered"]]
        kept = rows[self._first["accuracy_ref_val"] - rows["score"] <= self.settings.epsilon]
        rows = kept if (kept["split_point"] != "output").any() else rows
        ends = [self.cfg.hardware[end] for end in ("edge", "server")] if self.settings.times == "hardware" else []
        link, objective = simulated_link(self.cfg), self.solver.objective
        return BestSet.of(
            graph, best_set(graph, rows, self._tiers_of_points, [*map(instantiate, ends)], link, objective)
        )

    @cached_property
    def rates(self) -> Document:
        """The rate–accuracy table: each split point with each codec, on the validation split.

        First, all rows are scored in memory, and a few samples coded. Then the rows that may be chosen by that
        (``screening.survivors``) are scored by the bytes of all samples. The first step serves any objective and
        machines.
        """
        first = self._first
        rows = pd.DataFrame(first["rows"]).assign(screened_out=False)
        if self._step > 1:
            carried = rows[rows["left_out"].isna()]
            rows.loc[carried.index, "screened_out"] = ~survivors(carried, self._valued)
            again = rows[rows["left_out"].isna() & ~rows["screened_out"]]
            asked = sorted(zip(again["split_point"], again["codec"], strict=True))
            second = self._measured(Coded(rows=asked))
            by_name = {(row["split_point"], row["codec"]): row for row in second["rows"]}
            merged = [by_name.get((row["split_point"], row["codec"]), row) for row in first["rows"]]
            first = first | {"rows": merged, "table_s": first["table_s"] + second["table_s"]}
            told = (
                "Coded %d of %d pairs of cut and codec on all validation samples; a few show that no other can be best"
            )
            log.info(told, len(asked), len(rows))
        said = zip(first["rows"], rows["screened_out"], strict=True)
        found = [row | {"screened_out": bool(is_out)} for row, is_out in said]
        if self.best_set is not None and self.best_set.cut is not None:
            more = self._measured(Coded(), OneMoreCut(self.trained.graph, self.best_set.cut, alone=True))
            found += [row | {"screened_out": False} for row in more["rows"]]
        return first | {"rows": found}

    @cached_property
    def _first(self) -> Document:
        return self._measured(Coded(self._step))

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The table with times, values and damages; NaN where a codec cannot carry the crossing tensors."""
        return self._timed(pd.DataFrame(self.rates["rows"]))

    def _timed(self, rows: pd.DataFrame) -> pd.DataFrame:
        edge, server = self.tiers
        rows = cut_rows.with_one_answer(rows)
        coded = {name: rows[name].astype(float) for name in rows if str(name).endswith("code_s")}
        edge_code_s = edge.coding * (coded["encode_s"] + coded["answer_decode_s"])
        server_code_s = server.coding * (coded["decode_s"] + coded["answer_encode_s"])
        rows["edge_s"] = rows["split_point"].map(edge.time_s) + edge_code_s
        rows["server_s"] = rows["split_point"].map(server.time_s) + server_code_s
        link, sent_bytes = simulated_link(self.cfg), rows["payload_bytes"] + rows["answer_bytes"].fillna(0.0)
        rows["edge_transport_s"] = edge.coding * sent_bytes.map(link.edge_work.frame_s)
        rows["server_transport_s"] = server.coding * sent_bytes.map(link.server_work.frame_s)
        rows["link_delay_s"] = rows["link_s"] - rows["link_busy_s"]
        carried = rows["left_out"].isna()
        table = self._table(rows[carried])
        slower = rows[carried].copy()
        slower["edge_s"] += slower["split_point"].map(edge.spread_s)
        slower["server_s"] += slower["split_point"].map(server.spread_s)
        times = [{name: getattr(rate, name) for name in cut_rows.DERIVED} for rate in table.rates]
        more = pd.DataFrame(times, rows.index[carried]).assign(value=table.value, damage=table.damage)
        return rows.join(more.assign(value_spread=self._table(slower).value - table.value))

    @cached_property
    def choosable(self) -> pd.DataFrame:
        """The rows that may be chosen. Raises ConfigError when no row may be chosen."""
        rows = self.rows[self.rows["left_out"].isna() & self.rows["offered"] & ~self.rows["screened_out"]]
        if rows.empty:
            raise ConfigError("workflow.codecs: none of them can carry what crosses at any split point of the network")
        return rows

    @cached_property
    def throughput(self) -> Document:
        """The fastest row at any accuracy, and float32 at its best cut, at the last cut and at the first cut."""
        rows = self.rows[self.rows["left_out"].isna()]
        plain = rows[(rows["codec"] == REFERENCE) & (rows["split_point"] != self._set_name)]
        last = len(self.trained.graph.points) - 1
        alone = {"edge_only": plain[plain["lambda"] == last], "server_only": plain[plain["lambda"] == 0]}
        among = {self.fastest: self.choosable, "float32": plain} | alone
        began = time.perf_counter()
        solutions = {name: cut_rows.row_object(some.iloc[self._table(some).fastest()]) for name, some in among.items()}
        return {"solver_s": time.perf_counter() - began, "solutions": solutions} | self._said()

    @cached_property
    def joint(self) -> Document:
        """The best row whose accuracy on the validation split keeps ε, and the front of value and damage."""
        rows = within(self.choosable, self.settings)
        accuracy_ref, epsilon = self.rates["accuracy_ref_val"], self.settings.epsilon
        began = time.perf_counter()
        table = self._table(rows)
        chosen = cut_rows.choose(table, epsilon, self.settings.least)
        solver_s = time.perf_counter() - began
        return self._said() | {
            "domain": self.domain,
            "epsilon": epsilon,
            "margin": table.rates[chosen.best].margin,
            "accuracy_ref_val": accuracy_ref,
            "best": cut_rows.row_object(rows.iloc[chosen.best]) | {"slack_val": chosen.slack},
            "feasible_val": chosen.slack == 0.0,
            "num_scored": len(rows),
            "num_left_out": int(self.rows["left_out"].notna().sum()),
            "screened_out": cut_rows.screened_out(self.rows),
            "solver_s": solver_s,
            "table_s": self.rates["table_s"],
            "front": [cut_rows.row_object(rows.iloc[place]) for place in chosen.front],
        }

    @cached_property
    def deployed(self) -> Document:
        """Scores on the test split of the timed pipeline and of the unsplit network."""
        facts = self._facts() | {"best": self.joint["best"], "epsilon": self.settings.epsilon}
        return self.store.get("deployed", facts, self._deploy, self._code())

    def check_budgets(self) -> None:
        """See JointBase; by the times of both machines, which no weights change, and an empty payload."""
        if has_budgets(self.settings) and self.settings.cuts == "points":
            edge, server = self._tiers_of_points
            least = least_rows(edge.time_s, server.time_s, simulated_link(self.cfg), self.cfg.answer.at)
            within(least, self.settings)

    def write_lut(self) -> Metrics:
        """Write ``cut_times.csv``, and a LUT file for each machine that has a table."""
        return tiers.write_cut_times(*self.tiers, self.folder)

    def write_rates(self) -> Metrics:
        """Write ``rate_accuracy.csv``: a row for each split point and codec."""
        write_csv(self.rows.drop(columns=SIZES), self.folder / "rate_accuracy.csv")
        if self.best_set is not None:
            self.best_set.write(self.folder)
        left_out = self.rows[self.rows["left_out"].notna()]
        for codec, rows in left_out.groupby("codec", sort=False):
            log.info("%s is left out at %s: %s", codec, ", ".join(rows["split_point"]), rows["left_out"].iloc[0])
        return {"table_s": self.rates["table_s"], "num_rates": len(self.rows), "num_left_out": len(left_out)}

    @property
    def found_metrics(self) -> Metrics:
        """The choice beside the cut, and the choice's gain over one machine alone."""
        best = self.joint["best"]
        alone = [self.throughput["solutions"][name] for name in ("edge_only", "server_only")]
        names = ("codec", "payload_bytes", "raw_bytes", "encode_s", "decode_s")
        return {
            **{name: best[name] for name in names},
            "compression_ratio": best["raw_bytes"] / best["payload_bytes"] if best["payload_bytes"] else None,
            **self._regret[1],
            "gain_over_unsplit": best["throughput_hz"] / max(one["throughput_hz"] for one in alone) - 1,
        }

    def compared(self) -> dict[str, Document]:
        """See JointBase; where there is a cut anywhere, its best row that keeps the constraint, else its best."""
        found = super().compared() | {"fastest, any accuracy": self.throughput["solutions"][self.fastest]}
        rows = self.choosable[self.choosable["split_point"] == self._set_name]
        if rows.empty:
            return found
        best = self._table(rows).choose(self.settings.epsilon).best
        return found | {"best cut anywhere": cut_rows.row_object(rows.iloc[best])}

    @property
    def _set_name(self) -> str | None:
        return None if self.best_set is None else self.best_set.name

    def said(self) -> list[str]:
        """See JointBase."""
        lines = [] if self.best_set is None else [self.best_set.words(self.solver.objective)]
        return lines + self._regret[0]

    @cached_property
    def _regret(self) -> tuple[list[str], Metrics]:
        """Against the sweeps of ``workflow.against``: lines and metrics."""
        if self.kept_sweep is None:
            return [], {}
        rows = within(self.choosable, self.settings)
        rows = cut_rows.keeping(rows, self._table(rows), self.joint, self.settings.least)
        words = {name: (one["split_point"], one["codec"]) for name, one in self.compared().items()}
        allowed = list(zip(rows["split_point"], rows["codec"], strict=True))
        return self.kept_sweep.regret(self.joint["best"], allowed, words, self.solver.objective)

    @property
    def recipe(self) -> str:
        """See JointBase."""
        best = self.joint["best"]
        if best["split_point"] == self._set_name:
            return "none, they cut at split points; from Python: graph.cut_anywhere(head), anywhere.json has the head"
        overrides: str = best["overrides"]
        return overrides

    @property
    def timings(self) -> tuple[str, str]:
        """See JointBase."""
        edge, server = self.tiers
        return edge.timing, server.timing

    def _facts(self) -> Document:
        """The facts that determine the scores of any cut and codec, and their times here."""
        cfg = self.cfg
        return {
            "network": self.trained.key,
            "granularity": cfg.split.granularity,
            "transport": OmegaConf.to_container(cfg.transport, resolve=True),
            "answer": [cfg.answer.at, cfg.answer.raw],
            "batches": [cfg.trainer.batch_size, self.settings.num_samples],
            "machine": describe_machine() | {"num_threads": str(cfg.device.num_threads)},
        }

    def _code(self) -> list[object]:
        """The code that makes the table; the network's key already stands for the network's code."""
        return [simulated_link(self.cfg), *(offer.make() for offer in self.offers), "splitsem.workflows.joint.rates"]

    @cached_property
    def _step(self) -> int:
        """Each ``step``-th sample is coded to screen; 1 where all are: they are few, or the link loses some."""
        num, wanted = sum(num_samples(y) for _, y in self.batches("val")), self.settings.screening_samples
        if wanted is None or num < 2 * wanted or simulated_link(self.cfg).is_lossy or has_budgets(self.settings):
            return 1
        return int(num // wanted)

    def _measured(self, coded: Coded, graph: CutGraph | None = None) -> Document:
        facts = self._facts() | {"codecs": [list(offer) for offer in self.offers], "coded": list(coded)}
        if graph is not None:
            facts["points"] = [point.name for point in graph.points]
        return self.store.get("rates", facts, lambda: self._rates(coded, graph), self._code())

    def _valued(self, rows: pd.DataFrame) -> pd.DataFrame:
        rows = self._timed(rows)
        return rows.assign(margin=[rate.margin for rate in self._table(rows).rates])

    def _rates(self, coded: Coded, graph: CutGraph | None) -> Document:
        val, began = self.batches("val"), time.perf_counter()
        accuracy_ref, rows = measure_rates(
            self.trained if graph is None else self.trained._replace(graph=graph),
            self.offers,
            lambda: simulated_link(self.cfg),
            val,
            answering(self.cfg, self.trained.task),
            coded,
        )
        return {
            "schema": "splitsem.rates/1",
            "unit": "s",
            "accuracy_ref_val": accuracy_ref,
            "num_samples": sum(num_samples(y) for _, y in val),
            "table_s": time.perf_counter() - began,
            "rows": rows,
        }

    def _table(self, rows: pd.DataFrame) -> RateTable:
        objective: Objective = self.solver.objective
        margin, z = self.settings.margin, quantile(self.settings.confidence)
        return cut_rows.rate_table(rows, objective, self._first["accuracy_ref_val"], margin, z)

    def _deploy(self) -> Document:
        best, network = self.joint["best"], self.trained
        offer = next(offer for offer in self.offers if offer.label == best["codec"])
        extra = None if self.best_set is None else self.best_set.cut
        is_set = extra is not None and best["split_point"] == extra.point.name
        cut = extra if extra is not None and is_set else network.graph.cut(best["split_point"])
        link, answer = simulated_link(self.cfg), answering(self.cfg, network.task)
        pipeline = Pipeline(cut, offer.make(), offer.make(), link, answer)
        chosen = DeployedCodec(pipeline, network.placement)
        scored = score_samples(chosen, network.task, self.batches("test"))
        reference = score_samples(network.run, network.task, self.batches("test"))
        payload_bytes = chosen.frames.payload_bytes
        edge, server = chosen.time(next(x for x, _ in assemble.test_batches(network.task, network.placement, 1, 1)))
        return {
            **self.verdict(scored, reference),
            "accuracy_val": best["accuracy_val"],
            "accuracy_ref_val": self.rates["accuracy_ref_val"],
            "test_payload_bytes": sum(payload_bytes) / len(payload_bytes),
            "local_head_s": edge.median_s,
            "local_tail_s": server.median_s,
        }

    def _said(self) -> Document:
        """The entries that every document begins with."""
        points = [{"name": point.name, "raw_bytes": point.raw_bytes} for point in self.trained.graph.points]
        return {"schema": "splitsem.joint_cut/1", "unit": "s", "model": self.model, "points": points}
