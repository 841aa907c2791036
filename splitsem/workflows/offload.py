"""Workflow offload: the head runs here, the tail on a server (workflow=serve); predicted and measured side by side."""

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
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
from splitsem.pipeline import Answering
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.journal import Journal
from splitsem.remote.labels import weights_digest
from splitsem.remote.transports import RemoteTransport
from splitsem.scoring import Scored, score_samples
from splitsem.splitting.cut import Cut
from splitsem.tasks.answer import AnswerCoder, raw_coder
from splitsem.workflows import assemble, assemble_codec, evaluation, offload_adaptive, prediction, split, ssh_start
from splitsem.workflows.assemble import Network
from splitsem.workflows.evaluation import Evaluation
from splitsem.workflows.optional_figures import breakdown, gallery_of
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.serve import answer_coders, engine_for, remote_transport
from splitsem_device.answers import Counters, RemoteTail
from splitsem_device.fallback import LocalFallback
from splitsem_device.grpc.connection import host_port, is_loopback
from splitsem_device.plan import Hop, Plan

if TYPE_CHECKING:
    from splitsem.workflows.gallery import Gallery

log = logging.getLogger(__name__)
_NUM_WARM_UP = 5
_CHAIN_STAGES = ("machine", ""), ("hop", "_busy")


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
    ends = _ends(cut, codec, answering, raw_coder(network.graph.sample))
    with ssh_start.server_for(cfg, transport, host, network) as started:
        result = _offload(cfg, network, transport, ends)
    lines = [result.headline]
    if cfg.workflow.onward:
        lines.append(_stages_told(result.metrics))
    is_here = host is None and is_loopback(host_port(cfg.transport.target)[0])
    lines += _shared(result.metrics, 2 + len(cfg.workflow.onward), is_here)
    return result._replace(headline="\n".join(lines), metrics=result.metrics | started)


def _shared(metrics: Metrics, num_ends: int, is_here: bool) -> list[str]:
    """A line where processes share cores, so that the prediction of the pace is not what it presumes.

    Args:
        metrics: with ``num_hosts`` where every server says which computer it runs on.
        num_ends: the edge and all servers.
        is_here: whether the first server's address is of this machine.
    """
    num_hosts = metrics.get("num_hosts", num_ends - is_here)
    if num_hosts == num_ends:
        return []
    most = "" if "num_hosts" in metrics else "at most "
    here = "both share one" if num_ends == 2 else f"{num_ends} processes share {most}{num_hosts}"
    return [f"The predicted throughput presumes a machine for each end; here {here}."]


def _stages_told(metrics: Metrics) -> str:
    """The predicted seconds of each machine of a chain, in a line."""
    if "machine_1_s" not in metrics:
        return (
            "The first server does not tell its chain's stages, so the prediction takes all machines behind the first "
            "hop for one."
        )
    seconds = [metrics[name] for name in sorted(metrics) if name.startswith("machine_") and name.endswith("_s")]
    each = ", ".join(f"{1e3 * took_s:.3f}" for took_s in seconds)
    hops = range(1, len(seconds) - 1)
    hops_s = sum(metrics[f"hop_{h}_s"] for h in hops)
    busy = [metrics[name] for h in hops if (name := f"hop_{h}_busy_s") in metrics]
    told = f"and are busy for {', '.join(f'{1e3 * busy_s:.3f}' for busy_s in busy)} ms with a frame"
    if len(busy) < len(hops):
        told = "and what they are busy with bounds the pace no less, but a server is too old to tell it"
    return (
        f"server_s is the work of all machines behind the first hop. Predicted of each machine: {each} ms, the slowest "
        f"of which bounds the pace; hops between servers add {1e3 * hops_s:.3f} ms to link_s, {told}."
    )


def check_chain(cfg: DictConfig) -> None:
    """Raise ConfigError for what a chain of more than two machines does not go with."""
    others = {
        "workflow.fallback=local, which knows no further cuts": cfg.workflow.fallback is not None,
        "controller=adaptive, which knows two machines": cfg.controller is not None,
        "answer.at=server, since its answers come back": cfg.answer.at != "edge",
        "transport.start=ssh, since a middle machine needs workflow.forward": cfg.transport.get("start") is not None,
    }
    if cfg.workflow.onward and (wrong := [words for words, is_so in others.items() if is_so]):
        raise ConfigError(f"workflow.onward names a chain of machines: not with {wrong[0]}")


def _ends(cut: Cut, codec: Codec, answering: Answering, raw: AnswerCoder) -> _Ends:
    """What runs on the edge. Raises ConfigError where the server would need a result that only the edge has."""
    is_combined = type(codec).local_output is not Codec.local_output
    if answering.at == "server":
        if is_combined:
            raise ConfigError(f"with {codec.name} only the edge has the results, out of two outputs: answer.at=edge")
        own = answering.coder if cut.point.name == "output" else None
        return _Ends(EdgeEnd(cut, codec, None, own), EdgeEnd(cut, codec, raw, own))
    end = EdgeEnd(cut, codec, raw if is_combined else answering.coder)
    return _Ends(end, end.fresh())


def _offload(cfg: DictConfig, network: Network, transport: RemoteTransport, ends: _Ends) -> Result:
    gallery = gallery_of(cfg, network)
    remote: RemoteTail = transport.edge_end()
    if cfg.workflow.fallback == "local":
        remote = LocalFallback(remote, engine_for(cfg, network, coders=answer_coders(cfg, network.task)))
    plans = [_plan(cfg, network, end) for end in ends]
    try:
        remote.open(plans[0])
        known = prediction.measure(remote, plans[0], ends.timed, _probes(cfg, network), cfg.workflow.energy_j_per_bit)
        predicted = prediction.predict(cfg, network, ends.timed, known)
        _check_window(cfg.transport.window, predicted.metrics)
        measured = _measure(cfg, network, ends, plans, remote, gallery)
    finally:
        remote.close()
    result = _result(cfg, network, predicted, measured, remote.counters)
    return result._replace(figures={**result.figures, **gallery.figures(result.metrics)}) if gallery else result


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
        f"{_cuts(cfg, metrics)}: {metrics['score_name']} {metrics['score']:.4f}{interval} "
        f"on {metrics['num_samples']} samples, "
        f"{counters.frames_answered} frames answered, {counters.fallback_frames} on the edge{_losses(counters)}\n"
        f"{_side_by_side(metrics)}"
    )
    draws = dict(predicted.draws)
    draws.pop("test", None)
    if measured.scored.draws is not None:
        draws["test"] = measured.scored.draws
    return Result(metrics, breakdown(metrics), [], headline, draws)


def _cuts(cfg: DictConfig, metrics: Metrics) -> str:
    """The cut, with those of further machines in a chain."""
    first = str(metrics["split_point"])
    if not cfg.workflow.onward:
        return first
    hops = [f"{first} {metrics['codec']}", *(f"{point} {codec or 'unread'}" for point, codec in cfg.workflow.onward)]
    return f"chain of {len(hops) + 1} machines, cut at {', '.join(hops)}"


def _losses(counters: Counters) -> str:
    """What a transport that tolerates loss tolerated; empty where nothing was lost."""
    if not counters.missing_share:
        return ""
    return (
        f", {counters.frames_lost} lost, {counters.frames_late} late, {counters.frames_filled} with gaps filled "
        f"({counters.missing_share:.2%} of the bytes missing)"
    )


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
    answers = remote.stream(end.payload(x) for x in frames)
    arrivals, outputs, server_s = [], [], []
    for answer in islice(answers, len(ready)):
        outputs.append(end.result(answer))
        server_s.append(answer.server_s)
        arrivals.append(time.perf_counter())
    paced = {"edge": end.times.edge_s[: len(ready)], "server": server_s}
    steady = len(arrivals) > 2 * _NUM_WARM_UP
    first = arrivals[_NUM_WARM_UP] if steady else end.began[0]
    num = len(arrivals) - 1 - _NUM_WARM_UP if steady else len(arrivals)
    here = chain(outputs, (end.result(answer) for answer in answers))
    rest = here if asks else _asked(cfg, network, ends.scored, plans[1], remote)
    score = gallery.score if gallery else score_samples
    scored = score(lambda _: _there(next(rest)), network.task, _samples(cfg, network, cfg.workflow.num_samples))
    answers.close()  # type: ignore[attr-defined]
    if not asks:
        remote.open(plans[0])
    times = {
        **_medians(_alone(cfg, network, ends.timed.fresh(), remote)),
        "measured_throughput_hz": num / (arrivals[-1] - first),
        **{f"paced_{stage}_s": statistics.median(times_s) for stage, times_s in paced.items()},
    }
    return _Measured(scored, times)


def _asked(cfg: DictConfig, network: Network, end: EdgeEnd, plan: Plan, remote: RemoteTail) -> Iterator[Tensor | None]:
    """The results of frames whose plan asks for them; where answers are kept, from those and the rest of the frames."""
    remote.open(plan)
    payloads = (end.payload(x) for x, _ in _samples(cfg, network, cfg.workflow.num_samples))
    path = cfg.workflow.answers
    yield from map(
        end.result, remote.stream(payloads) if path is None else Journal(path, plan).stream(remote, payloads)
    )


def _there(result: Any) -> Any:
    assert result is not None  # the plan asks for results
    return result


def _medians(stages: Mapping[str, list[float]]) -> Metrics:
    """``measured_<stage>_s``, the median, and ``measured_<stage>_p50_s``, ``_p95_s``, ``_p99_s`` of each stage.

    ``_low_s`` and ``_high_s`` are the ends of the 95 % interval of the median of edge and latency.
    """
    medians = {f"measured_{stage}_s": statistics.median(times_s) for stage, times_s in stages.items()}
    for stage in ("edge", "latency"):
        timing = Timing.of(stages[stage])
        assert timing.low_s is not None
        assert timing.high_s is not None
        medians |= {f"measured_{stage}_low_s": timing.low_s, f"measured_{stage}_high_s": timing.high_s}
    return medians | {
        f"measured_{stage}_p{percent}_s": torch.tensor(times_s, dtype=torch.float64).quantile(percent / 100).item()
        for stage, times_s in stages.items()
        for percent in (50, 95, 99)
    }


def _alone(cfg: DictConfig, network: Network, end: EdgeEnd, remote: RemoteTail) -> dict[str, list[float]]:
    """Seconds of each stage of some frames; a frame is sent when the previous frame is answered.

    ``link`` is what edge and server leave of the latency: both ways, and ``queue``, the wait on the server.
    """
    link_s, server_s, queue_s, latency_s = [], [], [], []
    payloads = (end.payload(x) for x, _ in _samples(cfg, network, cfg.workflow.num_timed))
    for answer in remote.stream(payloads, window=1):
        end.result(answer)
        latency = time.perf_counter() - end.began.popleft()
        latency_s.append(latency)
        server_s.append(answer.server_s)
        queue_s.append(answer.queue_s)
        link_s.append(max(0.0, latency - end.times.edge_s[answer.request_id] - answer.server_s))
    edge = {name.removesuffix("_s"): times_s for name, times_s in vars(end.times).items()}
    waits = {"link": link_s, "server": server_s, "queue": queue_s, "latency": latency_s}
    return {**edge, "edge": end.times.edge_s, **waits}


def _probes(cfg: DictConfig, network: Network) -> list[Tensor]:
    return [x for x, _ in _samples(cfg, network, cfg.workflow.num_probes)]


def _samples(cfg: DictConfig, network: Network, num_samples: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    return assemble.test_batches(network.task, network.placement, 1, num_samples)


def _side_by_side(metrics: Metrics) -> str:
    """Predicted and measured in a row each; the link's row holds the answer's way back."""
    rows = [f"{'':14}{'predicted':>12}{'measured':>12}"]
    form: Callable[[float], str]
    for name in ("head_s", "encode_s", "edge_s", "link_s", "server_s", "latency_s", "throughput_hz"):
        if f"measured_{name}" not in metrics:
            continue
        form = (lambda v: f"{v:.1f} /s") if name.endswith("_hz") else (lambda v: f"{1e3 * v:.3f} ms")
        predicted = metrics[name] + (metrics["answer_s"] if name == "link_s" else 0.0)
        rows.append(f"{name:14}{form(predicted):>12}{form(metrics[f'measured_{name}']):>12}")
    names = ["edge_s", "link_busy_s", "server_s", "answer_busy_s"]
    if "machine_1_s" in metrics:  # of a chain, whose servers are stages of their own
        chain_names = (f"{kind}_{n}{of}_s" for n in range(1, len(metrics)) for kind, of in _CHAIN_STAGES)
        names[2:3] = [name for name in chain_names if name in metrics]
    parts = {name: metrics[name] for name in names}
    for end in ("edge", "server"):
        transport_s = metrics[f"{end}_transport_s"]
        rows.append(f"{end}: {1e3 * transport_s:.3f} ms a frame of the transport's work beside this")
        if f"{end}_s" in parts:
            parts[f"{end}_s"] += transport_s
    rows.append(f"throughput bound by {max(parts, key=parts.__getitem__)}")
    rows.append(
        f"prediction error: latency {metrics['prediction_error']:.1%}, "
        f"throughput {metrics['throughput_prediction_error']:.1%}"
    )
    return "\n".join(rows)
