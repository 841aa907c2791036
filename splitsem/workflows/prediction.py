"""Predicts what an offload run takes, from the head and the link measured here and the tail measured on the server.

All is measured before the run's frames, whose times play no part. The head runs and the link is probed as frames are
sent: one after the other, in the threads of frames, with the pauses of frames. The server computes no probe.
"""

import logging
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from itertools import cycle, islice
from typing import NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from splitsem.cost.end_to_end import Cost, StageTimes
from splitsem.cost.lut import parse_lut
from splitsem.cost.machines import Machine
from splitsem.cost.profiled import Profiled
from splitsem.errors import ConfigError, LinkError
from splitsem.links.probed import ProbedLink
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.link_probe import answered, measure_work, probe_down, probe_pace, probe_sizes
from splitsem.workflows import assemble_codec, evaluation
from splitsem.workflows.assemble import Network
from splitsem.workflows.early_exit import EarlyExit
from splitsem.workflows.evaluation import Evaluation
from splitsem_device.answers import Counters, Profile, RemoteTail, ToMeasure
from splitsem_device.plan import Plan
from splitsem_device.this_machine import host_id

log = logging.getLogger(__name__)
NO_LINK = ProbedLink([(0, 0.0)])
ASKED = "measured on the server"
_NUM_WARM_UP = 10
_NUM_PACED, _PACKET_BYTES = 100, 1400
_PAUSES_S = 0.0002, 0.005


class Known(NamedTuple):
    """The measurements before the run.

    Attributes:
        edge: median seconds of the edge's stages, by name; none when nothing was measured.
        server_s: seconds of decoding, tail and answer encoding, as the server says; None when it does not say.
        link: the measured link; None when nothing travels.
        stages_s: of a chain, seconds of each machine behind the edge with the hop (both ways) before the next one
            between them; none of two machines, or where the first server does not say.
        hops_busy_s: how long a payload keeps each of these hops from the next one; fewer where a server does not say.
        hosts: which computer each server's process runs on, see ``Profile``.
        server_words: the first server in words; None where it does not say.
    """

    edge: dict[str, float]
    server_s: float | None
    link: ProbedLink | None
    stages_s: tuple[float, ...] = ()
    hops_busy_s: tuple[float, ...] = ()
    hosts: tuple[str, ...] = ()
    server_words: Mapping[str, str] | None = None


def measure(remote: RemoteTail, plan: Plan, end: EdgeEnd, samples: list[Tensor], energy_j_per_bit: float) -> Known:
    """Measure what a prediction needs; the plan is open before and afterwards. Raises ConfigError, LinkError."""
    _check_any(samples)
    before = replace(remote.counters)
    answer_bytes, about_s, answer_decode_s = _warm_up(remote, end.fresh(), samples)
    num_finished = remote.counters.fallback_frames
    if remote.is_gone:
        _set_back(remote, before)
        return Known({}, None, None)
    remote.open(plan.probe(answer_bytes))
    edge, probes = _probe_with_head(remote, end.fresh(), samples, about_s)
    idle_s = sum(edge.values()) + statistics.median(took_s for _, took_s in probes)
    paced = probe_pace(remote, statistics.median_low(num_bytes for num_bytes, _ in probes))
    works = measure_work(
        remote,
        (0, max(num_bytes for num_bytes, _ in probes)),
        _NUM_PACED,
        min(max(sum(edge.values()), _PAUSES_S[0]), _PAUSES_S[1]),
        answer_bytes,
    )
    probes += probe_sizes(remote, max(num_bytes for num_bytes, _ in probes))
    down_bps = probe_down(remote, plan, answer_bytes) if answer_bytes > _PACKET_BYTES else None
    remote.open(plan)
    told = _ask_server(remote, plan, end.fresh().payload(samples[0]), idle_s)
    is_measured = not remote.is_gone and remote.counters.fallback_frames == num_finished
    _set_back(remote, before)
    link = ProbedLink(probes, energy_j_per_bit, down_bps, paced, *works) if is_measured else None
    edge["answer_decode_s"] = answer_decode_s
    if told is None:
        return Known(edge, None, link)
    lut = parse_lut(told.lut_json, "what the server measured")
    words = {**lut.machine, "torch": lut.torch_version}
    return Known(edge, told.answer_s, link, told.stages_s, told.hops_busy_s, told.hosts, words)


def _set_back(remote: RemoteTail, before: Counters) -> None:
    """Count no probe and no frame of the warm-up among the frames of the run; what the link cost stays counted."""
    for name in vars(before).keys() - {"retries", "reconnects"}:
        setattr(remote.counters, name, getattr(before, name))


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
    if known.server_words and isinstance(server, Profiled):
        server.say_foreign(known.server_words, f"the server {cfg.transport.target}")
    hosts = host_id(), *known.hosts
    if all(hosts) and len(hosts) == 2 + len(cfg.workflow.onward):
        metrics["num_hosts"] = len(set(hosts))
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
    """Each machine and each hop of a chain is a stage of its own: the slowest one bounds the pace.

    ``server_s`` is the work of all machines behind the edge, and the further hops count to ``answer_s``, as what was
    measured of frames does.
    """
    machines_s, hops_s = known.stages_s[::2], known.stages_s[1::2]
    metrics, link = found.metrics, known.link or NO_LINK
    busy_s = max(times.link_busy_s, *known.hops_busy_s) if known.hops_busy_s else times.link_busy_s
    paced_s = replace(_with_server(times, max(machines_s)), link_busy_s=busy_s, answer_s=0.0)
    slowest = Cost.of(edge, paced_s, metrics["link_j"])
    whole = replace(_with_server(times, sum(machines_s)), answer_s=times.answer_s + sum(hops_s))
    paced = ("cycle_s", "throughput_hz", "energy_j", "idle_j")
    metrics |= Cost.of(edge, whole, metrics["link_j"]).to_metrics()
    metrics |= {name: value for name, value in slowest.to_metrics().items() if name in paced}
    metrics |= {f"machine_{n}_s": took_s for n, took_s in enumerate((times.edge_s, *machines_s))}
    metrics |= {f"hop_{h}_s": took_s for h, took_s in enumerate(hops_s, 1)}
    metrics |= {f"hop_{h}_busy_s": busy_s for h, busy_s in enumerate(known.hops_busy_s, 1)}
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

    probes = answered(remote, payloads(), sent)
    return _edge(end, len(samples)), probes[min(_NUM_WARM_UP, len(probes) - 1) :]
