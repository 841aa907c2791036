"""Predicts what an offload run takes, from the head and the link measured here and the tail measured on the server.

All is measured before the run's frames, whose times play no part. The head runs and the link is probed as frames are
sent: one after the other, in the threads of frames, with the pauses of frames. The server computes no probe.
"""

import logging
import statistics
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import cycle, islice
from typing import NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from splitsem.cost.end_to_end import Cost, StageTimes
from splitsem.errors import ConfigError, LinkError
from splitsem.links.probed import ProbedLink
from splitsem.remote.ends import EdgeEnd, RemoteTail
from splitsem.remote.plan import Plan
from splitsem.workflows import assemble_codec, evaluation
from splitsem.workflows.assemble import Network
from splitsem.workflows.result import Metrics

log = logging.getLogger(__name__)
NO_LINK = ProbedLink([(0, 0.0)])
ASKED = "measured on the server"
_NUM_WARM_UP = 10
_NUM_OF_A_SIZE = 5
_LONG_ENOUGH_S = 0.03
_FIRST_BYTES, _MOST_BYTES = 64 << 10, 4 << 20


class Known(NamedTuple):
    """The measurements before the run.

    Attributes:
        edge_s: seconds of head and encoding here; None when nothing was measured.
        server_s: seconds of decoding, tail and encoding, as the server says; None when the server does not say.
        link: the measured link; None when the server is gone and nothing travels.
    """

    edge_s: float | None
    server_s: float | None
    link: ProbedLink | None


def measure(remote: RemoteTail, plan: Plan, device: EdgeEnd, samples: list[Tensor], energy_j_per_bit: float) -> Known:
    """Measure what a prediction needs; the plan is open before and afterwards. Raises ConfigError, LinkError."""
    if not samples:
        raise ConfigError("workflow.num_probes must be at least 1, got 0: the prediction needs probes")
    answer_bytes, about_s = _warm_up(remote, device, samples)
    if remote.is_gone:
        return Known(None, None, None)
    before = replace(remote.counters)
    remote.open(plan.probe(answer_bytes))
    edge_s, probes = _probe_with_head(remote, device, samples, about_s)
    idle_s = edge_s + statistics.median(took_s for _, took_s in probes)
    probes += _probe_sizes(remote, max(num_bytes for num_bytes, _ in probes))
    remote.open(plan)
    server_s = _ask_server(remote, plan, device.payload(samples[0]), idle_s)
    for name in ("frames_sent", "frames_answered", "fallback_frames"):  # probes are no frames
        setattr(remote.counters, name, getattr(before, name))
    return Known(edge_s, server_s, None if remote.is_gone else ProbedLink(probes, energy_j_per_bit))


def predict(cfg: DictConfig, network: Network, device: EdgeEnd, known: Known) -> Metrics:
    """The simulated run over the measured link, with measured times for machines whose timing is ``measured``.

    A probe's time holds the answer's way back.
    """
    encoder, decoder = (assemble_codec.codec(cfg, network, device.cut.point) for _ in range(2))
    link = known.link or NO_LINK
    metrics = evaluation.evaluate(cfg, network, device.cut, encoder, decoder, measured=link).metrics
    times = StageTimes(**{field.name: metrics[field.name] for field in fields(StageTimes)})
    edge, server = instantiate(cfg.hardware.edge), instantiate(cfg.hardware.server)
    if edge.timing == "measured" and known.edge_s is not None:
        times = replace(times, head_s=max(0.0, known.edge_s - times.encode_s))
    if server.timing == "measured" and known.server_s is not None:
        times = replace(times, tail_s=max(0.0, known.server_s - times.decode_s - times.answer_encode_s))
        metrics["server_timing"] = ASKED
    if known.link is None:
        metrics["link_timing"] = "no link"
    cost = Cost.of(edge, times, metrics["link_j"])
    return metrics | cost.to_metrics() | {"link_rtt_s": link.rtt_s, "link_bandwidth_bps": link.bandwidth_bps}


def _warm_up(remote: RemoteTail, device: EdgeEnd, samples: list[Tensor]) -> tuple[int, float]:
    """Send some frames so that both ends settle; returns an answer's size and the server's least seconds for one."""
    answers = list(remote.stream(map(device.payload, islice(cycle(samples), _NUM_WARM_UP))))
    return len(answers[0].payload), min(answer.server_s for answer in answers)


def _ask_server(remote: RemoteTail, plan: Plan, payload: bytes, idle_s: float) -> float | None:
    """Seconds that the server measures for ``payload`` after ``idle_s`` idle seconds; None if it does not say."""
    try:
        return remote.profile([plan.point], payload, pause_s=idle_s).answer_s
    except (LinkError, ConfigError) as exc:
        log.warning("The server does not say what it takes, so its part is measured on this machine: %s", exc)
        return None


def _probe_with_head(
    remote: RemoteTail, device: EdgeEnd, samples: list[Tensor], pause_s: float
) -> tuple[float, list[tuple[int, float]]]:
    """Median time of the head, and probes as large as the payloads, at the pace of computed frames."""
    sent: deque[tuple[int, float]] = deque()
    made = EdgeEnd(device.cut, device.codec)

    def payloads() -> Iterator[bytes]:
        for x in samples:
            time.sleep(pause_s)
            payload = made.payload(x)
            sent.append((len(payload), time.perf_counter()))
            yield payload

    probes = _answered(remote, payloads(), sent)
    drop = min(_NUM_WARM_UP, len(samples) - 1)
    return statistics.median(made.edge_s[drop:]), probes[drop:]


def _probe_sizes(remote: RemoteTail, payload_bytes: int) -> list[tuple[int, float]]:
    """Probes of no bytes, and of growing sizes until they take long enough to tell the rate from the noise."""
    probes = _probe(remote, 0)
    num_bytes = max(2 * payload_bytes, _FIRST_BYTES)
    while True:
        probes += _probe(remote, num_bytes)
        num_bytes *= 4
        if probes[-1][1] > _LONG_ENOUGH_S or num_bytes > _MOST_BYTES:
            return probes


def _probe(remote: RemoteTail, num_bytes: int) -> list[tuple[int, float]]:
    sent: deque[tuple[int, float]] = deque()

    def payloads() -> Iterator[bytes]:
        payload = bytes(num_bytes)
        for _ in range(_NUM_OF_A_SIZE):
            sent.append((num_bytes, time.perf_counter()))
            yield payload

    return _answered(remote, payloads(), sent)[1:]  # the first probe waits for its stream


def _answered(remote: RemoteTail, payloads: Iterator[bytes], sent: deque[tuple[int, float]]) -> list[tuple[int, float]]:
    """Size and seconds of each probe."""
    probes = []
    for _ in remote.stream(payloads, window=1):
        num_bytes, began = sent.popleft()
        probes.append((num_bytes, time.perf_counter() - began))
    return probes
