"""The table that a controller chooses from: each cut with each codec, scored and timed before the run's frames."""

import logging
import statistics
import time
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from splitsem.cost.lut import parse_lut
from splitsem.cost.measure import measure
from splitsem.cost.setting_table import Powers, SettingTable
from splitsem.errors import ConfigError, LinkError, SettingError
from splitsem.links.link import FrameWork
from splitsem.pipeline import in_memory
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.link_probe import measure_work
from splitsem.remote.switching import Offer
from splitsem.remote.tail_engine import TailEngine
from splitsem.scoring import score_samples
from splitsem.tasks.answer import AnswerCoder
from splitsem.workflows import assemble, evaluation
from splitsem.workflows.assemble import Network
from splitsem.workflows.codec_offers import offers
from splitsem_device.answers import Answer, ToMeasure
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.plan import Plan

log = logging.getLogger(__name__)
HOME = "all on the edge"
_MOST_SETTINGS = 48  # the server keeps 64 tails
_PROFILE_S = 0.1
_NUM_PACED = 100


class Settings(NamedTuple):
    """The settings of a run.

    Attributes:
        table: of all of them.
        offers: the same, for the line; None: all on the edge, the last one.
    """

    table: SettingTable
    offers: list[Offer | None]


class _Row(NamedTuple):
    name: str
    end: EdgeEnd
    edge_s: float
    payload: bytes
    payload_bytes: float
    server_s: float
    coding_s: float
    answer_bytes: int
    score: float


def measured(cfg: DictConfig, network: Network, coder: AnswerCoder, engine: TailEngine, remote: GrpcTail) -> Settings:
    """Score and time every setting, and keep those that no other one beats in everything.

    The edge's times are measured here, the tails' on the server where it can be asked, else here; payloads are real
    ones, and the score is that of the validation split.

    Raises:
        SettingError: no codec suits any cut, or too many settings are left.
    """
    samples = [x for x, _ in assemble.test_batches(network.task, network.placement, 1, cfg.workflow.num_probes)]
    if not samples:
        raise SettingError("workflow.num_probes must be at least 1: the tables need samples")
    rows = _rows(cfg, network, coder, samples, engine)
    edge = instantiate(cfg.hardware.edge)
    sent_bytes = [*(row.payload_bytes + row.answer_bytes for row in rows), 0.0]
    servers_s, works = _server_s(rows, remote), _transports(remote, sent_bytes)
    whole = SettingTable(
        [*(row.name for row in rows), HOME],
        [*(row.edge_s for row in rows), _home_s(network, samples)],
        [*(row.payload_bytes for row in rows), 0.0],
        [*servers_s, 0.0],
        [*(row.answer_bytes for row in rows), 0.0],
        [*(row.score for row in rows), evaluation.score_unsplit(cfg, network, "val").metrics["score"]],
        Powers(edge.active_w, edge.idle_w, cfg.workflow.energy_j_per_bit),
        *([work.frame_s(num_bytes) for num_bytes in sent_bytes] for work in works),
    )
    kept = useful(whole, cfg.controller.least_score)
    if len(kept) > _MOST_SETTINGS:
        raise SettingError(
            f"{len(kept)} settings are left, and a run changes between {_MOST_SETTINGS} at most: name fewer cuts "
            "(workflow.points) or codecs (workflow.codecs)"
        )
    facts = engine.offer.weights, engine.offer.granularity, engine.offer.precision
    line = [Offer(rows[each].end.fresh(), rows[each].end.plan(*facts), rows[each].payload) for each in kept[:-1]]
    return Settings(whole.only(kept), [*line, None])


def _home_s(network: Network, samples: list[Any]) -> float:
    """Median seconds of the whole network here."""
    times_s = []
    with torch.inference_mode():
        for x in samples:
            began = time.perf_counter()
            network.run(x)
            times_s.append(time.perf_counter() - began)
    return statistics.median(times_s)


def useful(table: SettingTable, least_score: float | None) -> list[int]:
    """The settings, ``home`` last, that reach the score and that no other such beats in all times and bytes.

    Of settings that are equal in everything, the one of the best score is kept. Where none reaches the score, all are
    kept, so that whoever chooses can name the nearest.
    """
    reaches = np.ones(len(table), bool) if least_score is None else table.score >= least_score
    if not reaches.any():
        return [*(each for each in range(len(table)) if each != table.home), table.home]
    costs = np.column_stack([table.edge_s, table.wire_bytes, table.server_s])
    kept = []
    for each in np.flatnonzero(reaches & table.is_remote):
        others = costs[reaches & (np.arange(len(table)) != each)]
        scores = table.score[reaches & (np.arange(len(table)) != each)]
        beats = (others <= costs[each]).all(axis=1) & (
            (others < costs[each]).any(axis=1) | (scores > table.score[each])
        )
        if not beats.any():
            kept.append(int(each))
    return [*kept, table.home]


def _rows(cfg: DictConfig, network: Network, coder: AnswerCoder, samples: list[Any], engine: TailEngine) -> list[_Row]:
    """Each cut with each codec that can carry what crosses there. Raises SettingError where none can."""
    graph, names = network.graph, cfg.workflow.points
    points = graph.points if names is None else [graph.point(name) for name in names]
    codecs = [offer for offer in offers(cfg.workflow.codecs) if offer.is_offered]
    rows = []
    for point, offer in product((point for point in points if point.name != "output"), codecs):
        end = EdgeEnd(graph.cut(point), offer.make(), coder)
        try:
            rows.append(_row(cfg, network, f"{point.name} {offer.label}", end, samples, engine))
        except (ConfigError, ValueError) as exc:  # what codecs raise for tensors that they cannot represent
            log.info("%s carries nothing at %s: %s", offer.label, point.name, exc)
    if not rows:
        raise SettingError("workflow.codecs: none of them can carry what crosses at any of the cuts")
    return rows


def _row(cfg: DictConfig, network: Network, name: str, end: EdgeEnd, samples: list[Any], engine: TailEngine) -> _Row:
    timed = end.fresh()
    payloads = [timed.payload(x) for x in samples]
    session = engine.open(end.plan(engine.offer.weights, engine.offer.granularity, engine.offer.precision))
    answers = [engine.answer(session, payload) for payload in payloads]
    for output, server_s in answers:
        timed.result(Answer(0, output, server_s, 0.0))
    scored = score_samples(
        lambda x: in_memory(end.cut, end.codec, x), network.task, evaluation.batches(cfg, network, "val")
    )
    tail = end.cut.halves()[1]
    server_s = statistics.median(server_s for _, server_s in answers)
    tail_s = measure(tail, repeats=20, warmup=3, budget_s=_PROFILE_S).median_s if tail.ops else 0.0
    return _Row(
        name,
        end,
        statistics.median(timed.times.edge_s),
        sorted(payloads, key=len)[len(payloads) // 2],
        statistics.fmean(map(len, payloads)),
        server_s,
        max(0.0, server_s - tail_s),
        len(answers[0][0]),
        scored.metrics["score"],
    )


def _transports(remote: GrpcTail, sent_bytes: list[float]) -> tuple[FrameWork, FrameWork]:
    """The transport's work at both ends; the remote's plan is one of probes afterwards."""
    remote.open(Plan.of_probes(0))
    return measure_work(remote, (0, int(max(sent_bytes))), _NUM_PACED)


def _server_s(rows: list[_Row], remote: GrpcTail) -> list[float]:
    """The server's seconds for each row: its own times of the tails where it tells them, and coding as it took here."""
    points = list(dict.fromkeys(row.end.cut.point.name for row in rows))
    try:
        lut = parse_lut(remote.profile(ToMeasure(points, budget_s=_PROFILE_S)).lut_json, "the server's table")
    except (LinkError, ConfigError) as exc:
        log.warning("The server does not say what it takes, so its part is measured on this machine: %s", exc)
        return [row.server_s for row in rows]
    tails_s = {point: lut.times[point]["tail"].median_s for point in points}
    return [row.coding_s + tails_s[row.end.cut.point.name] for row in rows]
