"""Probes a link to a running server: times empty round trips and transfers of zeros, and counts lost datagrams."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from splitsem.cost.fits import fit_link
from splitsem.errors import LinkError
from splitsem.links.link import FrameWork
from splitsem.links.probed import ProbedLink
from splitsem_device.answers import RemoteTail
from splitsem_device.plan import MAX_PROBE_BYTES, Plan

if TYPE_CHECKING:  # a server that probes its next machine needs no UDP
    from splitsem.remote.udp.transport import UdpTransport

_FIRST_BYTES = 64 << 10
_GROWTH = 4
_WARM_UP = 3
_LONGEST_PACKETS_S = 10.0
_WORK_BYTES = (16 << 10, 512 << 10)
_WORK_S, _PACE_S, _LEAST_FRAMES = 3.0, 0.001, 10
_NUM_OF_A_SIZE, _MOST_BYTES = 5, 4 << 20
_LONG_ENOUGH_S, _NUM_RTTS = 0.03, 10
_NUM_PACED, _PACED_S, _NUM_UNSTEADY = 100, 2.0, 10


@dataclass(frozen=True)
class ProbeSettings:
    """How thoroughly to measure.

    Attributes:
        num_rtts: round trips of an empty message.
        pause_s: seconds of idleness before each round trip.
        enough_s: a transfer that takes so many seconds need not be longer.
        most_bytes: longest transfer.
        num_transfers: transfers of the longest size; the median counts.
        num_frames: frames of each size in a stream, whose processor time is taken at both ends.
        num_loss_packets: datagrams to send for counting losses.
        loss_rate_share: rate of these datagrams as a share of the goodput up, so that haste causes no losses.
    """

    num_rtts: int = 100
    pause_s: float = 0.01
    enough_s: float = 0.5
    most_bytes: int = 16 << 20
    num_transfers: int = 3
    num_frames: int = 500
    num_loss_packets: int = 1000
    loss_rate_share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("num_rtts", "num_transfers", "num_frames", "num_loss_packets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not _FIRST_BYTES <= self.most_bytes <= MAX_PROBE_BYTES:
            raise ValueError(f"most_bytes must be {_FIRST_BYTES}…{MAX_PROBE_BYTES}, got {self.most_bytes}")
        if not (isfinite(self.pause_s) and self.pause_s >= 0):
            raise ValueError(f"pause_s must be finite and not negative, got {self.pause_s}")
        if not (isfinite(self.enough_s) and self.enough_s > 0):
            raise ValueError(f"enough_s must be positive and finite, got {self.enough_s}")
        if not 0 < self.loss_rate_share <= 1:
            raise ValueError(f"loss_rate_share must be above 0 and at most 1, got {self.loss_rate_share}")


def measure_rtt(remote: RemoteTail, settings: ProbeSettings) -> tuple[float, float]:
    """Median and 95th percentile of the round trip of an empty message, in seconds. Raises LinkError."""
    times_s = []
    for _ in range(_WARM_UP + settings.num_rtts):
        time.sleep(settings.pause_s)
        times_s.append(remote.echo_s(0))
    median_s, p95_s = np.percentile(times_s[_WARM_UP:], [50, 95])
    return float(median_s), float(p95_s)


def measure_up(remote: RemoteTail, settings: ProbeSettings, rtt_s: float) -> float:
    """Goodput to the server in bits per second: the longest transfer's bytes over its time beyond the round trip."""
    return _goodput(remote.echo_s, settings, rtt_s)


def measure_down(remote: RemoteTail, settings: ProbeSettings, rtt_s: float) -> float:
    """Goodput from the server, as ``measure_up`` for the way up; opens plans of probes on ``remote``."""
    opened = 0

    def fetch_s(num_bytes: int) -> float:
        nonlocal opened
        if num_bytes != opened:
            remote.open(Plan.of_probes(num_bytes))
            opened = num_bytes
        arrivals_s = []
        for answer in remote.stream([b"", b""], window=1):
            if len(answer.payload) != num_bytes:
                raise LinkError(f"expected an answer of {num_bytes} bytes, got {len(answer.payload)}")
            arrivals_s.append(time.perf_counter())
        first_s, second_s = arrivals_s  # the second comes without waiting for a connection
        return second_s - first_s

    return _goodput(fetch_s, settings, rtt_s)


def measure_work(
    remote: RemoteTail, sizes: Iterable[int], num_frames: int, pause_s: float = _PACE_S, answer_bytes: int = 0
) -> tuple[FrameWork, FrameWork]:
    """What a frame keeps the processors of the edge and of the server busy with beyond codec and network.

    A plan of probes with answers of ``answer_bytes`` is open. Frames leave ``pause_s`` apart, as those of an edge that
    works on each: frames without a pause are done in batches, and take up to half as much. Each process tells the
    processor time of all its threads, so a server that answers other clients meanwhile says too much. A server that
    tells no time is taken to work as much as the edge, since it runs the same software the other way round.
    """
    edge, server = [], []
    for size in sizes:
        edge_s, server_s = _frame_s(remote, size, num_frames, pause_s)
        edge.append((size + answer_bytes, edge_s))
        server.append((size + answer_bytes, server_s or edge_s))
    fits = fit_link(edge), fit_link(server)
    return FrameWork(fits[0].delay_s, fits[0].s_per_byte), FrameWork(fits[1].delay_s, fits[1].s_per_byte)


def work_sizes(up_bps: float) -> tuple[int, int]:
    """Sizes of frames that tell the work of a byte, and that a link of this goodput carries in 50 ms."""
    least, most = _WORK_BYTES
    return 0, int(min(max(0.05 * up_bps / 8, least), most))


def _frame_s(remote: RemoteTail, size: int, num_frames: int, pause_s: float) -> tuple[float, float]:
    """Processor seconds of a frame on the edge and on the server; of the server 0 where it does not tell."""

    def payloads() -> Iterator[bytes]:
        payload = bytes(size)
        for _ in range(_WARM_UP + num_frames):
            time.sleep(pause_s)
            yield payload

    began_s = time.perf_counter()
    seen: list[tuple[int, float, float]] = []
    for answer in remote.stream(payloads()):
        if answer.request_id >= _WARM_UP and not answer.is_lost:
            seen.append((answer.request_id, time.process_time(), answer.server_s))
        if len(seen) > _LEAST_FRAMES and time.perf_counter() - began_s > _WORK_S:
            break
    if len(seen) < 2:
        raise LinkError("hardly any probe arrived: the link is too bad to be measured")
    (first, *before), (last, *after) = seen[0], seen[-1]
    edge_s, server_s = ((late - early) / (last - first) for early, late in zip(before, after, strict=True))
    return edge_s, max(0.0, server_s)


def measure_loss(transport: "UdpTransport", settings: ProbeSettings, up_bps: float) -> tuple[float, int]:
    """Share of datagrams lost on the way up, and the number sent, on a connection paced below the goodput.

    A datagram counts as lost when it is not there a little after the last one.
    """
    rate_bps = settings.loss_rate_share * up_bps
    datagram_bytes = transport.settings.fragment_bytes
    affordable = int(rate_bps * _LONGEST_PACKETS_S / 8 / datagram_bytes)
    num = max(1, min(settings.num_loss_packets, affordable, settings.most_bytes // datagram_bytes))
    tail = transport.edge_end(replace(transport.settings, rate_bps=rate_bps, deadline_s=3 * _LONGEST_PACKETS_S))
    try:
        tail.open(Plan.of_probes(0))
        return tail.echo(num * datagram_bytes)[1], num
    finally:
        tail.close()


def busy_s(remote: RemoteTail, payload_bytes: int) -> float:
    """How long a payload of this size keeps the link to ``remote`` from the next one, as ``ProbedLink`` has it.

    A plan of probes is open, whose answers are as long as the payload's answer, so that the way back bounds it, too.
    Raises LinkError.
    """
    paced = probe_pace(remote, payload_bytes)
    link = ProbedLink(probe_sizes(remote, payload_bytes), paced=paced)
    return link.send(bytes(payload_bytes)).link_busy_s


def probe_pace(remote: RemoteTail, num_bytes: int) -> tuple[int, float]:
    """Bytes of each probe of a stream, and the seconds from one answer to the next, as many unanswered as may be."""
    arrivals_s = []
    began = time.perf_counter()
    for _ in remote.stream(bytes(num_bytes) for _ in range(_NUM_PACED)):
        arrivals_s.append(time.perf_counter())
        if arrivals_s[-1] - began > _PACED_S and len(arrivals_s) > _NUM_UNSTEADY + 1:
            break
    steady_s = arrivals_s[_NUM_UNSTEADY:]
    return num_bytes, (steady_s[-1] - steady_s[0]) / (len(steady_s) - 1)


def probe_sizes(remote: RemoteTail, payload_bytes: int) -> list[tuple[int, float]]:
    """Probes of no bytes, and of growing sizes until they take long enough to tell the rate from noise and delay."""
    probes = probe(remote, 0)
    enough_s = long_enough_s(probes)
    num_bytes = max(2 * payload_bytes, _FIRST_BYTES)
    while True:
        probes += probe(remote, num_bytes)
        num_bytes *= _GROWTH
        if probes[-1][1] > enough_s or num_bytes > _MOST_BYTES:
            return probes


def probe_down(remote: RemoteTail, plan: Plan, answer_bytes: int) -> float | None:
    """Bits per second of the way back, from probes with growing answers; opens plans of probes like ``plan``."""
    medians: list[tuple[int, float]] = []
    num_bytes = 0
    while not medians or (medians[-1][1] <= long_enough_s(medians[:1]) and num_bytes <= _MOST_BYTES):
        remote.open(plan.probe(num_bytes))
        medians.append((num_bytes, statistics.median(took_s for _, took_s in probe(remote, 0))))
        num_bytes = max(2 * answer_bytes, _FIRST_BYTES, _GROWTH * num_bytes)
    return ProbedLink(medians).bandwidth_bps


def long_enough_s(probes: list[tuple[int, float]]) -> float:
    """Seconds of a transfer that a link with these empty probes hardly delays beyond its rate."""
    return max(_LONG_ENOUGH_S, _NUM_RTTS * statistics.median(took_s for _, took_s in probes))


def probe(remote: RemoteTail, num_bytes: int) -> list[tuple[int, float]]:
    """Size and seconds of some probes, one after the other."""
    sent: deque[tuple[int, float]] = deque()

    def payloads() -> Iterator[bytes]:
        payload = bytes(num_bytes)
        for _ in range(_NUM_OF_A_SIZE):
            sent.append((num_bytes, time.perf_counter()))
            yield payload

    return answered(remote, payloads(), sent)[1:]  # the first probe waits for its stream


def answered(remote: RemoteTail, payloads: Iterator[bytes], sent: deque[tuple[int, float]]) -> list[tuple[int, float]]:
    """Size and seconds of each probe; ``payloads`` puts size and moment of each into ``sent``. Raises LinkError."""
    probes = []
    for answer in remote.stream(payloads, window=1):
        num_bytes, began = sent.popleft()
        if not answer.is_lost:
            probes.append((num_bytes, time.perf_counter() - began))
    if not probes:
        raise LinkError("no probe arrived: the link is too bad to be measured")
    return probes


def _goodput(transfer_s: Callable[[int], float], settings: ProbeSettings, rtt_s: float) -> float:
    """Grow the transfer until it takes long enough, then repeat it; at least 1 % of its time counts as transfer."""
    num_bytes = _FIRST_BYTES
    took_s = transfer_s(num_bytes)
    while took_s < settings.enough_s and num_bytes < settings.most_bytes:
        num_bytes = min(_GROWTH * num_bytes, settings.most_bytes)
        took_s = transfer_s(num_bytes)
    times_s = [took_s, *(transfer_s(num_bytes) for _ in range(settings.num_transfers - 1))]
    median_s = statistics.median(times_s)
    return 8 * num_bytes / max(median_s - rtt_s, 0.01 * median_s)
