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
from splitsem.cost.machines import Machine
from splitsem.errors import ConfigError, LinkError
from splitsem.links.probed import ProbedLink
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.link_probe import measure_work
from splitsem.workflows import assemble_codec, evaluation
from splitsem.workflows.assemble import Network
from splitsem.workflows.early_exit import EarlyExit
from splitsem.workflows.evaluation import Evaluation
from splitsem_device.answers import Profile, RemoteTail, ToMeasure
from splitsem_device.plan import Plan

log = logging.getLogger(__name__)
NO_LINK = ProbedLink([(0, 0.0)])
ASKED = "measured on the server"
_NUM_WARM_UP = 10
_NUM_OF_A_SIZE = 5
_LONG_ENOUGH_S, _NUM_RTTS = 0.03, 10
_PACKET_BYTES = 1400
_NUM_PACED, _PACED_S = 100, 2.0
_PAUSES_S = 0.0002, 0.005
_FIRST_BYTES, _MOST_BYTES = 64 << 10, 4 << 20


class Known(NamedTuple):
    """The measurements before the run.

    Attributes:
        edge: median seconds of the edge's stages, by name; none when nothing was measured.
        server_s: seconds of decoding, tail and answer encoding, as the server says; None when it does not say.
        link: the measured link; None when nothing travels.
        stages_s: of a chain, seconds of each machine behind the edge with the hop (both ways) before the next one
            between them; none of two machines, or where the first server does not say.
    """

    edge: dict[str, float]
    server_s: float | None
    link: ProbedLink | None
    stages_s: tuple[float, ...] = ()


def measure(remote: RemoteTail, plan: Plan, end: EdgeEnd, samples: list[Tensor], energy_j_per_bit: float) -> Known:
    """Measure what a prediction needs; the plan is open before and afterwards. Raises ConfigError, LinkError."""
    _check_any(samples)
    answer_bytes, about_s, answer_decode_s = _warm_up(remote, end.fresh(), samples)
    if remote.is_gone:
        return Known({}, None, None)
    before = replace(remote.counters)
    remote.open(plan.probe(answer_bytes))
    edge, probes = _probe_with_head(remote, end.fresh(), samples, about_s)
    idle_s = sum(edge.values()) + statistics.median(took_s for _, took_s in probes)
    paced = _probe_pace(remote, statistics.median_low(num_bytes for num_bytes, _ in probes))
    works = measure_work(
        remote,
        (0, max(num_bytes for num_bytes, _ in probes)),
        _NUM_PACED,
        min(max(sum(edge.values()), _PAUSES_S[0]), _PAUSES_S[1]),
        answer_bytes,
    )
    probes += _probe_sizes(remote, max(num_bytes for num_bytes, _ in probes))
    down_bps = _probe_down(remote, plan, answer_bytes)
    remote.open(plan)
    told = _ask_server(remote, plan, end.fresh().payload(samples[0]), idle_s)
    server_s, stages_s = (None, ()) if told is None else (told.answer_s, told.stages_s)
    is_measured = not remote.is_gone and remote.counters.fallback_frames == before.fallback_frames
    for name in vars(before).keys() - {"retries", "reconnects"}:  # probes are no frames
        setattr(remote.counters, name, getattr(before, name))
    link = ProbedLink(probes, energy_j_per_bit, down_bps, paced, *works) if is_measured else None
    return Known(edge | {"answer_decode_s": answer_decode_s}, server_s, link, stages_s)


def measure_here(end: EdgeEnd, samples: list[Tensor]) -> Known:
    """As ``measure``, where the edge computes everything and no frame travels."""
    _check_any(samples)
    made = end.fresh()
    for x in samples:
        made.payload(x)
    return Known(_edge(made, len(samples)), None, None)


def predict(
    cfg: DictConfig, network: Network, end: EdgeEnd, known: Known, early: EarlyExit | None = None
) -> Evaluation:
    """The simulated run over the measured link, with measured times for machines whose timing is ``measured``.

    A probe's time holds the answer's way back, so ``link_s`` does, too, and what a frame waits for the transport.
    An ``early`` exit gets its threshold; the measured head held the exit's decision, and only those that go on take the
    rest.
    """
    encoder, decoder = (assemble_codec.codec(cfg, network, end.cut.point) for _ in range(2))
    link = known.link or NO_LINK
    found = evaluation.evaluate(cfg, network, end.cut, encoder, decoder, measured=link, early=early)
    metrics = found.metrics
    share = 1 - metrics.get("exit_share", 0.0)  # of the samples, that goes on
    times = StageTimes(**{field.name: metrics[field.name] for field in fields(StageTimes)})
    edge, server = instantiate(cfg.hardware.edge), instantiate(cfg.hardware.server)
    if edge.timing == "measured":
        measured = {name: took_s if name == "head_s" else share * took_s for name, took_s in known.edge.items()}
        times = replace(times, **measured)
    if server.timing == "measured" and known.server_s is not None:
        times = _with_server(times, share * known.server_s)
        metrics["server_timing"] = ASKED
    if known.link is None:
        metrics["link_timing"] = "no link"
    if known.stages_s and metrics.get("server_timing") == ASKED:
        return _of_chain(found, edge, times, known)
    cost = Cost.of(edge, times, metrics["link_j"])
    metrics |= cost.to_metrics() | {"link_rtt_s": link.rtt_s, "link_bandwidth_bps": link.bandwidth_bps}
    return found


def _of_chain(found: Evaluation, edge: Machine, times: StageTimes, known: Known) -> Evaluation:
    """Each machine of a chain is a stage of its own: the slowest one bounds the pace, hops delay.

    ``server_s`` is the work of all machines behind the edge, and the further hops count to ``answer_s``, as what was
    measured of frames does.
    """
    machines_s, hops_s = known.stages_s[::2], known.stages_s[1::2]
    metrics, link = found.metrics, known.link or NO_LINK
    slowest = Cost.of(edge, replace(_with_server(times, max(machines_s)), answer_s=0.0), metrics["link_j"])
    whole = replace(_with_server(times, sum(machines_s)), answer_s=times.answer_s + sum(hops_s))
    paced = ("cycle_s", "throughput_hz", "energy_j", "idle_j")
    metrics |= Cost.of(edge, whole, metrics["link_j"]).to_metrics()
    metrics |= {name: value for name, value in slowest.to_metrics().items() if name in paced}
    metrics |= {f"machine_{n}_s": took_s for n, took_s in enumerate((times.edge_s, *machines_s))}
    metrics |= {f"hop_{h}_s": took_s for h, took_s in enumerate(hops_s, 1)}
    metrics |= {"link_rtt_s": link.rtt_s, "link_bandwidth_bps": link.bandwidth_bps}
    return found


def _with_server(times: StageTimes, server_s: float) -> StageTimes:
    """The times with ``server_s`` for the server: what coding took here, and the tail for the rest."""
    coding_s = times.decode_s + times.answer_encode_s
    share = min(1.0, server_s / coding_s) if coding_s else 1.0
    decode_s, answer_encode_s = share * times.decode_s, share * times.answer_encode_s
    tail_s = max(0.0, server_s - decode_s - answer_encode_s)
    return replace(times, decode_s=decode_s, answer_encode_s=answer_encode_s, tail_s=tail_s)


def _check_any(samples: list[Tensor]) -> None:
    if not samples:
        raise ConfigError("workflow.num_probes must be at least 1, got 0: the prediction needs probes")


def _edge(end: EdgeEnd, num_samples: int) -> dict[str, float]:
    """Median seconds of head and encoding, once they are warm."""
    drop = min(_NUM_WARM_UP, num_samples - 1)
    return {name: statistics.median(getattr(end.times, name)[drop:]) for name in ("head_s", "encode_s")}


def _warm_up(remote: RemoteTail, end: EdgeEnd, samples: list[Tensor]) -> tuple[int, float, float]:
    """Send some frames so that both ends settle.

    Returns an answer's size, the server's least seconds for a frame, and the edge's median seconds for an answer.
    """
    answers = []
    for answer in remote.stream(map(end.payload, islice(cycle(samples), _NUM_WARM_UP))):
        end.result(answer)
        if not answer.is_lost:
            answers.append(answer)
    if not answers:
        raise LinkError(f"none of {_NUM_WARM_UP} frames arrived: the link is too bad to be measured")
    least_s = min(answer.server_s for answer in answers)
    return len(answers[0].payload), least_s, statistics.median(end.times.answer_decode_s)


def _ask_server(remote: RemoteTail, plan: Plan, payload: bytes, idle_s: float) -> Profile | None:
    """What the server measures for ``payload`` after ``idle_s`` idle seconds; None if it does not say."""
    try:
        return remote.profile(ToMeasure([plan.point], payload, pause_s=idle_s))
    except (LinkError, ConfigError) as exc:
        log.warning("The server does not say what it takes, so its part is measured on this machine: %s", exc)
        return None


def _probe_with_head(
    remote: RemoteTail, end: EdgeEnd, samples: list[Tensor], pause_s: float
) -> tuple[dict[str, float], list[tuple[int, float]]]:
    """Times of head and encoding, and probes as large as the payloads, at the pace of computed frames."""
    sent: deque[tuple[int, float]] = deque()

    def payloads() -> Iterator[bytes]:
        for x in samples:
            time.sleep(pause_s)
            payload = end.payload(x)
            sent.append((len(payload), time.perf_counter()))
            yield payload

    probes = _answered(remote, payloads(), sent)
    return _edge(end, len(samples)), probes[min(_NUM_WARM_UP, len(probes) - 1) :]


def _probe_sizes(remote: RemoteTail, payload_bytes: int) -> list[tuple[int, float]]:
    """Probes of no bytes, and of growing sizes until they take long enough to tell the rate from noise and delay."""
    probes = _probe(remote, 0)
    long_enough_s = _long_enough_s(probes)
    num_bytes = max(2 * payload_bytes, _FIRST_BYTES)
    while True:
        probes += _probe(remote, num_bytes)
        num_bytes *= 4
        if probes[-1][1] > long_enough_s or num_bytes > _MOST_BYTES:
            return probes


def _probe_down(remote: RemoteTail, plan: Plan, answer_bytes: int) -> float | None:
    """Bits per second of the way back, from probes with growing answers; None for answers of a packet at most."""
    if answer_bytes <= _PACKET_BYTES:
        return None
    medians: list[tuple[int, float]] = []
    num_bytes = 0
    while not medians or (medians[-1][1] <= _long_enough_s(medians[:1]) and num_bytes <= _MOST_BYTES):
        remote.open(plan.probe(num_bytes))
        medians.append((num_bytes, statistics.median(took_s for _, took_s in _probe(remote, 0))))
        num_bytes = max(2 * answer_bytes, _FIRST_BYTES, 4 * num_bytes)
    return ProbedLink(medians).bandwidth_bps


def _long_enough_s(probes: list[tuple[int, float]]) -> float:
    """Seconds of a transfer that a link with these empty probes hardly delays beyond its rate."""
    return max(_LONG_ENOUGH_S, _NUM_RTTS * statistics.median(took_s for _, took_s in probes))


def _probe_pace(remote: RemoteTail, num_bytes: int) -> tuple[int, float]:
    """Bytes of each probe of a stream, and the seconds from one answer to the next, as many unanswered as may be."""
    arrivals_s = []
    began = time.perf_counter()
    for _ in remote.stream(bytes(num_bytes) for _ in range(_NUM_PACED)):
        arrivals_s.append(time.perf_counter())
        if arrivals_s[-1] - began > _PACED_S and len(arrivals_s) > _NUM_WARM_UP + 1:
            break
    steady_s = arrivals_s[_NUM_WARM_UP:]
    return num_bytes, (steady_s[-1] - steady_s[0]) / (len(steady_s) - 1)


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
    for answer in remote.stream(payloads, window=1):
        num_bytes, began = sent.popleft()
        if not answer.is_lost:
            probes.append((num_bytes, time.perf_counter() - began))
    if not probes:
        raise LinkError("no probe arrived: the link is too bad to be measured")
    return probes
