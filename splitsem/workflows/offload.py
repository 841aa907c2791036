"""Workflow offload: the head runs here, the tail on a server (workflow=serve); predicted and measured side by side."""

import logging
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.cost.measure import Timing
from splitsem.errors import ConfigError
from splitsem.models.exit_head import ExitHead
from splitsem.pipeline import Answering
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.journal import Journal
from splitsem.remote.labels import weights_digest
from splitsem.remote.transports import RemoteTransport
from splitsem.scoring import Scored, score_samples
from splitsem.splitting.cut import Cut
from splitsem.tasks.answer import AnswerCoder, raw_coder
from splitsem.workflows import (
    assemble,
    assemble_codec,
    early_exit,
    evaluation,
    offload_adaptive,
    offload_headline,
    prediction,
    split,
    ssh_start,
)
from splitsem.workflows.assemble import Network
from splitsem.workflows.early_exit import EarlyExit
from splitsem.workflows.evaluation import Evaluation
from splitsem.workflows.optional_figures import breakdown, gallery_of
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.serve import answer_coders, engine_for, remote_transport
from splitsem_device.answers import Answer, Counters, RemoteTail
from splitsem_device.fallback import LocalFallback
from splitsem_device.grpc.connection import host_port, is_loopback
from splitsem_device.plan import Hop, Plan

if TYPE_CHECKING:
    from splitsem.workflows.gallery import Gallery

log = logging.getLogger(__name__)
_NUM_WARM_UP = 5


class _Ends(NamedTuple):
    """The edge as it works, and as it is scored: where results stay on the server, the scored one asks for them."""

    timed: EdgeEnd
    scored: EdgeEnd


class _Measured(NamedTuple):
    """Scores and times of real frames."""

    scored: Scored
    times: Metrics


def run(cfg: DictConfig, folder: Path) -> Result:
    """Score the test split through the server, time it, and put the prediction beside it."""
    assemble.check_settings(cfg)
    transport = remote_transport(cfg)
    if transport.start.how is None:
        transport.check_edge()
    check_chain(cfg)
    early_exit.check(cfg)
    if early_exit.is_on(cfg) and cfg.answer.at == "server":
        raise ConfigError("exit=confidence has the results on the edge, so give workflow=offload answer.at=edge")
    if early_exit.is_on(cfg) and cfg.controller is not None:
        raise ConfigError("exit=confidence is for one cut and codec, not with controller=adaptive")
    switching = None if cfg.controller is None else offload_adaptive.check(cfg, transport)
    host = ssh_start.chosen_host(cfg, transport)  # before training, so that a wrong name is told first
    if switching is not None:
        return offload_adaptive.run(cfg, folder, switching, host)
    network = assemble.network(cfg, assemble_codec.suits(cfg))
    answering = assemble.answering(cfg, network.task, network.graph)
    cut = network.graph.cut(assemble.chosen_point(cfg, network.graph))
    codec = assemble_codec.codec(cfg, network, cut.point)
    if cut.point.name == "output" and answering.at == "edge":
        return _stay(cfg, network, EdgeEnd(cut, codec, None))
    early = early_exit.early_exit(cfg, network, cut)
    ends = _ends(cut, codec, answering, raw_coder(network.graph.sample), None if early is None else early.head)
    with ssh_start.server_for(cfg, transport, host, network) as started:
        result = _offload(cfg, network, transport, ends, early)
    lines = [result.headline]
    if cfg.workflow.onward:
        lines.append(offload_headline.chain_stages(result.metrics))
    is_here = host is None and is_loopback(host_port(cfg.transport.target)[0])
    lines += offload_headline.shared_machines(result.metrics, 2 + len(cfg.workflow.onward), is_here)
    return result._replace(headline="\n".join(lines), metrics=result.metrics | started)


def check_chain(cfg: DictConfig) -> None:
    """Raise ConfigError for what a chain of more than two machines does not go with."""
    others = {
        "workflow.fallback=local, which knows no further cuts": cfg.workflow.fallback is not None,
        "controller=adaptive, which knows two machines": cfg.controller is not None,
        "answer.at=server, since its answers come back": cfg.answer.at != "edge",
        "exit=confidence, which knows two machines": early_exit.is_on(cfg),
        "transport.start=ssh, since a middle machine needs workflow.forward": cfg.transport.get("start") is not None,
    }
    if cfg.workflow.onward and (wrong := [words for words, is_so in others.items() if is_so]):
        raise ConfigError(f"workflow.onward names a chain of machines: not with {wrong[0]}")


def _ends(cut: Cut, codec: Codec, answering: Answering, raw: AnswerCoder, exit_head: ExitHead | None = None) -> _Ends:
    """What runs on the edge. Raises ConfigError where the server would need a result that only the edge has."""
    is_combined = type(codec).local_output is not Codec.local_output
    if answering.at == "server":
        if is_combined:
            raise ConfigError(f"with {codec.name} only the edge has the results, out of two outputs: answer.at=edge")
        own = answering.coder if cut.point.name == "output" else None
        return _Ends(EdgeEnd(cut, codec, None, own), EdgeEnd(cut, codec, raw, own))
    end = EdgeEnd(cut, codec, raw if is_combined else answering.coder, exit_head=exit_head)
    return _Ends(end, end.fresh())


def _offload(
    cfg: DictConfig, network: Network, transport: RemoteTransport, ends: _Ends, early: EarlyExit | None
) -> Result:
    gallery = gallery_of(cfg, network)
    remote: RemoteTail = transport.edge_end()
    if cfg.workflow.fallback == "local":
        remote = LocalFallback(remote, engine_for(cfg, network, coders=answer_coders(cfg, network.task)))
    plans = [_plan(cfg, network, end) for end in ends]
    try:
        remote.open(plans[0])
        known = prediction.measure(remote, plans[0], ends.timed, _probes(cfg, network), cfg.workflow.energy_j_per_bit)
        predicted = prediction.predict(cfg, network, ends.timed, known, early)  # which chooses the threshold
        _check_window(cfg.transport.window, predicted.metrics)
        measured = _measure(cfg, network, ends, plans, remote, gallery)
    finally:
        remote.close()
    result = _result(cfg, network, predicted, measured, remote.counters)
    figures = {**result.figures, **early_exit.figures(early, result.metrics)}
    return result._replace(figures=figures | (gallery.figures(result.metrics) if gallery else {}))


def _stay(cfg: DictConfig, network: Network, end: EdgeEnd) -> Result:
    """The whole network on the edge, which needs the result: no frame is sent, and no server is asked."""
    predicted = prediction.predict(cfg, network, end, prediction.measure_here(end, _probes(cfg, network)))
    scored = score_samples(network.run, network.task, _samples(cfg, network, cfg.workflow.num_samples))
    end = end.fresh()
    for x, _ in _samples(cfg, network, cfg.workflow.num_timed):
        end.payload(x)
    edge_s = [sum(times_s) for times_s in zip(end.times.head_s, end.times.encode_s, strict=True)]
    stages = {"edge": edge_s, "latency": edge_s, **dict.fromkeys(("link", "server", "queue"), [0.0] * len(edge_s))}
    times = _medians(stages) | {"measured_throughput_hz": 1 / statistics.median(edge_s)}
    times |= {"paced_edge_s": times["measured_edge_s"], "paced_server_s": 0.0}
    result = _result(cfg, network, predicted, _Measured(scored, times), Counters())
    return result._replace(headline=f"The whole network runs on the edge: no frame is sent.\n{result.headline}")


def _result(
    cfg: DictConfig, network: Network, predicted: Evaluation, measured: _Measured, counters: Counters
) -> Result:
    metrics = {
        **predicted.metrics,
        **measured.scored.metrics,
        **evaluation.compared(measured.scored, evaluation.score_unsplit(cfg, network, "test")),
        **measured.times,
        "num_samples": measured.scored.num_samples,
        **vars(counters),
        **split.labels(cfg),
    }
    errors = {"prediction_error": "latency_s", "throughput_prediction_error": "throughput_hz"}
    metrics |= {name: abs(metrics[of] / metrics[f"measured_{of}"] - 1) for name, of in errors.items()}
    interval = f" ± {metrics['score_ci95']:.4f}" if "score_ci95" in metrics else ""
    headline = (
        f"{offload_headline.cuts(cfg, metrics)}: {metrics['score_name']} {metrics['score']:.4f}{interval} "
        f"on {metrics['num_samples']} samples, {early_exit.told(metrics)}"
        f"{counters.frames_answered} frames answered, {counters.fallback_frames} on the edge"
        f"{offload_headline.losses(counters)}\n"
        f"{offload_headline.side_by_side(metrics)}"
    )
    draws = dict(predicted.draws)
    draws.pop("test", None)
    if measured.scored.draws is not None:
        draws["test"] = measured.scored.draws
    return Result(metrics, breakdown(cfg, metrics), [], headline, draws)


def _plan(cfg: DictConfig, network: Network, end: EdgeEnd) -> Plan:
    plan = end.plan(weights_digest(network.model), cfg.split.granularity, network.placement.precision)
    return replace(plan, onward=tuple(Hop(*hop) for hop in cfg.workflow.onward))


def _check_window(window: int, metrics: Mapping[str, float]) -> None:
    """Say so where fewer frames may be unanswered than are on their way at the predicted pace."""
    needed = ceil(metrics["latency_s"] * metrics["throughput_hz"]) + 1
    if needed > window:
        log.warning(
            "transport.window=%d bounds the pace: at %.0f frames/s, %d frames are unanswered: transport.window=%d",
            *(window, metrics["throughput_hz"], needed, needed),
        )


def _measure(
    cfg: DictConfig, network: Network, ends: _Ends, plans: list[Plan], remote: RemoteTail, gallery: "Gallery | None"
) -> _Measured:
    """The pace with all stages at work, the score through the link, then the times of frames that travel alone."""
    asks = ends.timed.coder is ends.scored.coder  # else the paced frames' results stay on the server
    asks = asks and cfg.workflow.answers is None  # which keeps the scored frames' answers, and not the paced frames'
    end, samples = ends.timed.fresh(), _samples(cfg, network, cfg.workflow.num_samples)
    ready = [x for x, _ in islice(samples, cfg.workflow.num_paced)]  # loading and scoring take no part in the pace
    frames = chain(ready, (x for x, _ in samples)) if asks else iter(ready)
    server_s: list[float] = []
    answers = remote.stream(end.payloads(frames))
    results = end.results(_noting(answers, server_s))
    outputs = [*islice(results, len(ready))]
    arrivals = sorted(end.ended)[: len(ready)]
    share = len(end.exited_s) / max(1, len(end.exited_s) + len(end.times.head_s))
    paced = {"edge": (end.times.edge_s[: len(server_s)], end.exited_s[:]), "server": (server_s[:], [0.0])}
    steady = len(arrivals) > 2 * _NUM_WARM_UP
    first = arrivals[_NUM_WARM_UP] if steady else end.first_s
    num = len(arrivals) - 1 - _NUM_WARM_UP if steady else len(arrivals)
    scored_end = end if asks else ends.scored
    rest = chain(outputs, results) if asks else _asked(cfg, network, scored_end, plans[1], remote)
    score = gallery.score if gallery else score_samples
    scored = score(lambda _: _there(next(rest)), network.task, _samples(cfg, network, cfg.workflow.num_samples))
    num_exits = len(scored_end.exited_s)
    answers.close()  # type: ignore[attr-defined]
    if not asks:
        remote.open(plans[0])
    alone, exited_s = _alone(cfg, network, ends.timed.fresh(), remote)
    times = {
        **_medians(alone, exited_s, num_exits / scored.num_samples),
        "measured_throughput_hz": num / (arrivals[-1] - first),
        **{f"paced_{stage}_s": _mixed(*both, share) for stage, both in paced.items()},
    }
    if end.exit_head is not None:
        times["num_exits"] = num_exits
    return _Measured(scored, times)


def _mixed(gone_s: Sequence[float], exited_s: Sequence[float], exit_share: float) -> float:
    """The median of samples that went on and that of samples that exited, each by its share."""
    kinds = [(1 - exit_share, gone_s), (exit_share, exited_s)]
    return sum(share * statistics.median(times_s) for share, times_s in kinds if share and times_s)


def _noting(answers: Iterable[Answer], server_s: list[float]) -> Iterator[Answer]:
    """The answers; their seconds on the server go into ``server_s``."""
    for answer in answers:
        server_s.append(answer.server_s)
        yield answer


def _asked(cfg: DictConfig, network: Network, end: EdgeEnd, plan: Plan, remote: RemoteTail) -> Iterator[Tensor | None]:
    """The results of frames whose plan asks for them; where answers are kept, from those and the rest of the frames."""
    remote.open(plan)
    payloads = end.payloads(x for x, _ in _samples(cfg, network, cfg.workflow.num_samples))
    path = cfg.workflow.answers
    yield from end.results(remote.stream(payloads) if path is None else Journal(path, plan).stream(remote, payloads))


def _there(result: Any) -> Any:
    assert result is not None  # the plan asks for results
    return result


def _medians(stages: Mapping[str, list[float]], exited_s: Sequence[float] = (), exit_share: float = 0.0) -> Metrics:
    """``measured_<stage>_s``, the median, and ``measured_<stage>_p50_s``, ``_p95_s``, ``_p99_s`` of each stage.

    ``_low_s`` and ``_high_s`` are the ends of the 95 % interval of the median of edge and latency. Where samples exit,
    the medians of those and of the others count by their share of the scored samples; percentiles are over both.
    """
    metrics: Metrics = {}
    for stage, times_s in stages.items():
        own = [*exited_s] if stage in ("head", "edge", "latency") else [0.0] * len(exited_s)
        kinds = [(weight, Timing.of(kind)) for weight, kind in ((1 - exit_share, times_s), (exit_share, own)) if kind]
        whole = sum(weight for weight, _ in kinds)
        ends = ("median", "low", "high") if stage in ("edge", "latency") else ("median",)
        for end in ends:
            name = f"measured_{stage}_s" if end == "median" else f"measured_{stage}_{end}_s"
            metrics[name] = sum(weight * getattr(timing, f"{end}_s") for weight, timing in kinds) / whole
        both = torch.tensor([*times_s, *own], dtype=torch.float64)
        metrics |= {f"measured_{stage}_p{percent}_s": both.quantile(percent / 100).item() for percent in (50, 95, 99)}
    return metrics


def _alone(
    cfg: DictConfig, network: Network, end: EdgeEnd, remote: RemoteTail
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of each stage of some frames, each sent when the previous one is answered; and of samples that exit.

    ``link`` is what edge and server leave of the latency: both ways, and ``queue``, the wait on the server.
    """
    link_s, server_s, queue_s, latency_s = [], [], [], []
    payloads = end.payloads(x for x, _ in _samples(cfg, network, cfg.workflow.num_timed))
    for answer in remote.stream(payloads, window=1):
        end.result(answer)
        latency = time.perf_counter() - end.began.popleft()
        latency_s.append(latency)
        server_s.append(answer.server_s)
        queue_s.append(answer.queue_s)
        link_s.append(max(0.0, latency - end.times.edge_s[answer.request_id] - answer.server_s))
    edge = {name.removesuffix("_s"): times_s for name, times_s in vars(end.times).items()}
    waits = {"link": link_s, "server": server_s, "queue": queue_s, "latency": latency_s}
    return {**edge, "edge": end.times.edge_s, **waits}, end.exited_s


def _probes(cfg: DictConfig, network: Network) -> list[Tensor]:
    return [x for x, _ in _samples(cfg, network, cfg.workflow.num_probes)]


def _samples(cfg: DictConfig, network: Network, num_samples: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    return assemble.test_batches(network.task, network.placement, 1, num_samples)
