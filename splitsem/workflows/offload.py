"""Workflow offload: the head runs here, the tail on a server (workflow=serve); predicted and measured side by side."""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.remote.ends import EdgeEnd, RemoteTail, RemoteTransport
from splitsem.remote.fallback import LocalFallback
from splitsem.remote.grpc.connection import host_port, is_loopback
from splitsem.remote.plan import Plan, codec_label, weights_digest
from splitsem.report.run_figures import run_breakdown
from splitsem.scoring import score
from splitsem.split.cut import Cut
from splitsem.workflows import assemble, assemble_codec, prediction, split, ssh_start
from splitsem.workflows.assemble import Network
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.serve import engine_for, remote_transport

_NUM_WARM_UP = 5


def run(cfg: DictConfig, folder: Path) -> Result:
    """Score the test split through the server, time it, and put the prediction beside it."""
    assemble.check_settings(cfg)
    transport = remote_transport(cfg)
    host = ssh_start.chosen_host(cfg, transport)  # before training, so that a wrong name is told first
    network = assemble.network(cfg)
    with ssh_start.server_for(cfg, transport, host, network) as started:
        result = _offload(cfg, network, transport)
    if host is None and is_loopback(host_port(cfg.transport.target)[0]):
        note = "\nThe predicted throughput presumes a machine for each end; here both share one."
        result = result._replace(headline=result.headline + note)
    return result._replace(metrics=result.metrics | started)


def _offload(cfg: DictConfig, network: Network, transport: RemoteTransport) -> Result:
    cut = network.graph.cut(assemble.chosen_point(cfg, network.graph))
    codec = assemble_codec.codec(cfg, network, cut.point)
    remote: RemoteTail = transport.edge_end()
    if cfg.workflow.fallback == "local":
        remote = LocalFallback(remote, engine_for(cfg, network))
    try:
        plan, device = _plan(cfg, network, cut, codec), EdgeEnd(cut, codec)
        remote.open(plan)
        samples = [x for x, _ in _samples(cfg, network, cfg.workflow.num_probes)]
        known = prediction.measure(remote, plan, device, samples, cfg.workflow.energy_j_per_bit)
        predicted = prediction.predict(cfg, network, device, known)
        scores, measured = _measure(cfg, network, EdgeEnd(cut, codec), remote)
    finally:
        remote.close()
    metrics = {
        **predicted,
        **scores,
        **measured,
        "prediction_error": _error(predicted, measured, "latency_s"),
        "throughput_prediction_error": _error(predicted, measured, "throughput_hz"),
        **vars(remote.counters),
        **split.labels(cfg),
    }
    headline = (
        f"{cut.point.name}: score {metrics['score']:.4f}, {metrics['frames_answered']} frames answered, "
        f"{metrics['fallback_frames']} on the device\n{_side_by_side(metrics)}"
    )
    return Result(metrics, {"breakdown": run_breakdown(metrics)}, [], headline)


def _plan(cfg: DictConfig, network: Network, cut: Cut, codec: Codec) -> Plan:
    weights = weights_digest(network.model)
    label = codec_label(codec)
    return Plan(cut.fingerprint, weights, cut.point.name, cfg.split.granularity, network.placement.precision, label)


def _measure(cfg: DictConfig, network: Network, device: EdgeEnd, remote: RemoteTail) -> tuple[Metrics, Metrics]:
    """The score through the link with all stages at work, then the times of frames that travel alone."""
    samples = _samples(cfg, network, cfg.workflow.num_samples)
    ready = [x for x, _ in islice(samples, cfg.workflow.num_paced)]  # loading and scoring take no part in the pace
    answers = remote.stream(device.payload(x) for x in chain(ready, (x for x, _ in samples)))
    arrivals, outputs, server_s = [], [], []
    for answer in islice(answers, len(ready)):
        outputs.append(device.result(answer))
        server_s.append(answer.server_s)
        arrivals.append(time.perf_counter())
    paced = {"edge": device.edge_s[: len(ready)], "server": server_s}
    rest = chain(outputs, (device.result(answer) for answer in answers))
    scores = score(lambda _: next(rest), network.task, _samples(cfg, network, cfg.workflow.num_samples))
    answers.close()  # type: ignore[attr-defined]
    stages = _alone(cfg, network, EdgeEnd(device.cut, device.codec), remote)
    steady = len(arrivals) > 2 * _NUM_WARM_UP
    first = arrivals[_NUM_WARM_UP] if steady else device.began[0]
    num = len(arrivals) - 1 - _NUM_WARM_UP if steady else len(arrivals)
    measured = {
        **{f"measured_{stage}_s": statistics.median(times_s) for stage, times_s in stages.items()},
        **percentiles(stages),
        "measured_throughput_hz": num / (arrivals[-1] - first),
        **{f"paced_{end}_s": statistics.median(times_s) for end, times_s in paced.items()},
    }
    return scores, measured


def percentiles(stages: dict[str, list[float]]) -> Metrics:
    """``measured_<stage>_p50_s``, ``_p95_s`` and ``_p99_s`` of each stage's times."""
    return {
        f"measured_{stage}_p{percent}_s": torch.tensor(times_s, dtype=torch.float64).quantile(percent / 100).item()
        for stage, times_s in stages.items()
        for percent in (50, 95, 99)
    }


def _alone(cfg: DictConfig, network: Network, device: EdgeEnd, remote: RemoteTail) -> dict[str, list[float]]:
    """Seconds of each stage of some frames; a frame is sent when the previous frame is answered.

    ``link`` is what edge and server leave of the latency, so ``link`` includes ``queue``, the wait on the server.
    """
    link_s, server_s, queue_s, latency_s = [], [], [], []
    payloads = (device.payload(x) for x, _ in _samples(cfg, network, cfg.workflow.num_timed))
    for answer in remote.stream(payloads, window=1):
        latency = time.perf_counter() - device.began.popleft()
        latency_s.append(latency)
        server_s.append(answer.server_s)
        queue_s.append(answer.queue_s)
        link_s.append(max(0.0, latency - device.edge_s[answer.request_id] - answer.server_s))
    return {"edge": device.edge_s, "link": link_s, "server": server_s, "queue": queue_s, "latency": latency_s}


def _samples(cfg: DictConfig, network: Network, num_samples: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    return assemble.test_batches(network.task, network.placement, 1, num_samples)


def _error(predicted: Metrics, measured: Metrics, name: str) -> float:
    """The prediction's error, relative to the measured value."""
    return abs(predicted[name] - measured[f"measured_{name}"]) / measured[f"measured_{name}"]


def _side_by_side(metrics: Metrics) -> str:
    rows = [f"{'':14}{'predicted':>12}{'measured':>12}"]
    form: Callable[[float], str]
    for name in ("edge_s", "link_s", "server_s", "latency_s", "throughput_hz"):
        form = (lambda v: f"{v:.1f} /s") if name.endswith("_hz") else (lambda v: f"{1e3 * v:.3f} ms")
        rows.append(f"{name:14}{form(metrics[name]):>12}{form(metrics[f'measured_{name}']):>12}")
    rows.append(f"prediction error of the latency: {metrics['prediction_error']:.1%}")
    return "\n".join(rows)
