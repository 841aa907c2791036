"""Workflow offload: the head runs here, the tail on a server (workflow=serve); predicted and measured side by side."""

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.cost.end_to_end import Cost
from splitsem.errors import LinkError
from splitsem.pipeline import score
from splitsem.plots.run_breakdown import run_breakdown
from splitsem.split.partition import Cut
from splitsem.transport.fallback import LocalFallback
from splitsem.transport.plan import Plan, codec_label, weights_digest
from splitsem.transport.remote import RemoteTail, RemoteTransport
from splitsem.workflows import assemble, codecs, split, ssh_start
from splitsem.workflows.assemble import Network
from splitsem.workflows.job import Metrics, Result
from splitsem.workflows.serve import engine_for, remote_transport

log = logging.getLogger(__name__)
_NUM_WARM_UP = 5
_LONG_ENOUGH_S = 0.05
_MAX_PROBE_BYTES = 4 << 20


class LinkRate(NamedTuple):
    """A link as measured with empty frames: ``rtt_s`` for no bytes at all, then ``8 · bytes / bandwidth_bps``."""

    rtt_s: float
    bandwidth_bps: float


class Device:
    """The edge's side of a run: makes payloads and keeps their times."""

    def __init__(self, cut: Cut, codec: Codec) -> None:
        self.cut, self.codec = cut, codec
        self.began: deque[float] = deque()
        self.edge_s: list[float] = []

    def payload(self, x: Tensor) -> bytes:
        """Head and codec for one sample ``(1, *input_shape)``."""
        began = time.perf_counter()
        with torch.inference_mode():
            payload = self.codec.encode(self.cut.head(x))
        self.began.append(began)
        self.edge_s.append(time.perf_counter() - began)
        return payload


def run(cfg: DictConfig, folder: Path) -> Result:
    """Score the test split through the server, time it, and put the prediction beside it."""
    assemble.check_settings(cfg)
    transport = remote_transport(cfg)
    host = ssh_start.chosen_host(cfg, transport)  # first, so that a wrong name is told before anything is trained
    network = assemble.network(cfg)
    with ssh_start.server_for(cfg, transport, host, network) as started:
        result = _offload(cfg, network, transport)
    return result._replace(metrics=result.metrics | started)


def _offload(cfg: DictConfig, network: Network, transport: RemoteTransport) -> Result:
    cut = network.graph.cut(assemble.chosen_point(cfg, network.graph))
    codec = codecs.codec(cfg, network, cut.point)
    remote: RemoteTail = transport.device_end()
    if cfg.workflow.fallback == "local":
        remote = LocalFallback(remote, engine_for(cfg, network))
    try:
        remote.open(_plan(cfg, network, cut, codec))
        _warm_up(cfg, network, Device(cut, codec), remote)
        predicted = _predict(cfg, network, cut, measure_link(remote))
        scores, measured = _measure(cfg, network, Device(cut, codec), remote)
    finally:
        remote.close()
    error = abs(predicted["latency_s"] - measured["measured_latency_s"]) / measured["measured_latency_s"]
    metrics = {
        **predicted,
        **scores,
        **measured,
        "prediction_error": error,
        **vars(remote.counters),
        **split.labels(cfg),
    }
    headline = (
        f"{cut.point.name}: score {metrics['score']:.4f}, {metrics['frames_answered']} frames answered, "
        f"{metrics['fallback_frames']} on the device\n{_side_by_side(metrics)}"
    )
    return Result(metrics, {"breakdown": run_breakdown(metrics)}, [], headline)


def measure_link(remote: RemoteTail) -> LinkRate:
    """Round trip and rate of the link, from empty frames of growing size; infinitely fast where there is none."""
    try:
        rtt_s = statistics.median(remote.echo_s(0) for _ in range(10))
        num_bytes = 64 << 10
        while True:
            echo_s = statistics.median(remote.echo_s(num_bytes) for _ in range(5))
            if echo_s > _LONG_ENOUGH_S or num_bytes >= _MAX_PROBE_BYTES:
                break
            num_bytes *= 4
    except LinkError:
        return LinkRate(0.0, 1e15)
    return LinkRate(rtt_s, 8 * num_bytes / max(echo_s - rtt_s, 1e-9))


def _plan(cfg: DictConfig, network: Network, cut: Cut, codec: Codec) -> Plan:
    weights = weights_digest(network.model)
    label = codec_label(codec)
    return Plan(cut.fingerprint, weights, cut.point.name, cfg.split.granularity, network.device.precision, label)


def _predict(cfg: DictConfig, network: Network, cut: Cut, rate: LinkRate) -> Metrics:
    """The simulated run over a link with the measured one's parameters.

    Other than in workflow=split, encoding counts as the edge's time, decoding as the server's and the answer's way
    back as the link's, because that is what a stopwatch at the device sees.
    """
    simulated = cfg.copy()
    with open_dict(simulated):
        simulated.transport = {
            "_target_": "splitsem.transport.simulated.SimulatedLink",
            "energy_j_per_bit": cfg.workflow.energy_j_per_bit,
            **rate._asdict(),
        }
    encoder, decoder = (codecs.codec(cfg, network, cut.point) for _ in range(2))
    metrics = split.evaluate(simulated, network, cut, encoder, decoder)
    answer_bytes = 4 * torch.Size(network.task.output_shape).numel()
    cost = Cost.of(
        instantiate(cfg.hardware.edge),
        edge_s=metrics["edge_s"] + metrics["encode_s"],
        link_s=rate.rtt_s + 8 * (metrics["payload_bytes"] + answer_bytes) / rate.bandwidth_bps,
        server_s=metrics["server_s"] + metrics["decode_s"],
        link_j=metrics["link_j"],
    )
    return metrics | cost.to_metrics() | {"link_rtt_s": rate.rtt_s, "link_bandwidth_bps": rate.bandwidth_bps}


def _measure(cfg: DictConfig, network: Network, device: Device, remote: RemoteTail) -> tuple[Metrics, Metrics]:
    """The score through the link with all stages at work, then the times of frames that have the link to themselves."""
    arrivals: list[float] = []
    answers = remote.stream(device.payload(x) for x, _ in _samples(cfg, network, cfg.workflow.num_samples))

    def answer(x: Tensor) -> Tensor:
        output = next(answers).output()
        arrivals.append(time.perf_counter())
        return output

    scores = score(answer, network.task, _samples(cfg, network, cfg.workflow.num_samples))
    answers.close()  # type: ignore[attr-defined]
    stages = _alone(cfg, network, Device(device.cut, device.codec), remote)
    began, steady = device.began[0], len(arrivals) > 2 * _NUM_WARM_UP
    first = arrivals[_NUM_WARM_UP] if steady else began
    num = len(arrivals) - 1 - _NUM_WARM_UP if steady else len(arrivals)
    measured = {
        **{f"measured_{stage}_s": statistics.median(times_s) for stage, times_s in stages.items()},
        **percentiles(stages),
        "measured_throughput_hz": num / (arrivals[-1] - first),
    }
    return scores, measured


def percentiles(stages: dict[str, list[float]]) -> Metrics:
    """``measured_<stage>_p50_s``, ``_p95_s`` and ``_p99_s`` of each stage's times."""
    return {
        f"measured_{stage}_p{percent}_s": torch.tensor(times_s, dtype=torch.float64).quantile(percent / 100).item()
        for stage, times_s in stages.items()
        for percent in (50, 95, 99)
    }


def _alone(cfg: DictConfig, network: Network, device: Device, remote: RemoteTail) -> dict[str, list[float]]:
    """Seconds of each stage of some frames, every one sent when the one before is answered.

    ``link`` is what edge and server leave of the latency, so ``queue``, the wait on the server, is a part of it.
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


def _warm_up(cfg: DictConfig, network: Network, device: Device, remote: RemoteTail) -> None:
    for answer in remote.stream(device.payload(x) for x, _ in _samples(cfg, network, _NUM_WARM_UP)):
        answer.output()


def _samples(cfg: DictConfig, network: Network, num_samples: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    return assemble.test_batches(network.task, network.device, 1, num_samples)


def _side_by_side(metrics: Metrics) -> str:
    rows = [f"{'':14}{'predicted':>12}{'measured':>12}"]
    form: Callable[[float], str]
    for name in ("edge_s", "link_s", "server_s", "latency_s", "throughput_hz"):
        form = (lambda v: f"{v:.1f} /s") if name.endswith("_hz") else (lambda v: f"{1e3 * v:.3f} ms")
        rows.append(f"{name:14}{form(metrics[name]):>12}{form(metrics[f'measured_{name}']):>12}")
    return "\n".join([*rows, f"prediction error of the latency: {metrics['prediction_error']:.1%}"])
