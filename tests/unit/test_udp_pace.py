"""Pace on a simulated line, by its own clock: it finds the rate, keeps the queue short and is not fooled by loss."""

import random
from collections import deque

import pytest

from splitsem.remote.udp.pace import Pace
from splitsem.remote.udp.packets import Report

PACKET_BYTES, RTT_S = 1482, 0.02


class SimulatedLine:
    """A line with a queue, and a far end that reports as ``Session`` does."""

    def __init__(self, rate_bps: float, loss: float = 0.0, queue_s: float = 0.05) -> None:
        self.rate_bps, self.loss, self.queue_s = rate_bps, loss, queue_s
        self.random = random.Random(1)
        self.free_s = 0.0
        self.arrivals: deque[tuple[float, int]] = deque()
        self.reports: deque[tuple[float, Report]] = deque()
        self.num_sent = self.num_dropped = self.num_came = self.num_reported = 0
        self.reported_s = 0.0
        self.waits_s: list[float] = []

    def send(self, number: int, now_s: float) -> None:
        self.num_sent = number + 1
        start_s = max(self.free_s, now_s)
        if start_s - now_s > self.queue_s:
            self.num_dropped += 1
            return
        self.waits_s.append(start_s - now_s)
        self.free_s = start_s + 8 * PACKET_BYTES / self.rate_bps
        if self.random.random() >= self.loss:
            self.arrivals.append((self.free_s + RTT_S / 2, number))

    def run(self, now_s: float, pace: Pace) -> None:
        while self.arrivals and self.arrivals[0][0] <= now_s:
            at_s, number = self.arrivals.popleft()
            self.num_came += 1
            if self.num_came - self.num_reported >= 16 or at_s - self.reported_s >= 0.01:
                self.num_reported, self.reported_s = self.num_came, at_s
                report = Report(number, self.num_came * PACKET_BYTES, self.num_came, 0.0)
                self.reports.append((at_s + RTT_S / 2, report))
        while self.reports and self.reports[0][0] <= now_s:
            at_s, report = self.reports.popleft()
            pace.report(report, at_s)


def sent_bps(line: SimulatedLine, pace: Pace, seconds: float, after_s: float = 2.0) -> float:
    """What arrives of a sender that always has something to send, once it has settled."""
    now_s, number, settled = 100.0, 0, None
    end_s = now_s + seconds
    line.free_s = line.reported_s = now_s
    while now_s < end_s:
        line.run(now_s, pace)
        if settled is None and now_s > 100.0 + after_s:
            settled, line.num_dropped, line.waits_s = line.num_came, 0, []
        wait_s = pace.wait_s(now_s)
        if wait_s <= 0:
            pace.sent(number, PACKET_BYTES, now_s)
            line.send(number, now_s)
            number += 1
        else:
            now_s += min(wait_s, 0.0005)
    return (line.num_came - (settled or 0)) * PACKET_BYTES * 8 / (seconds - after_s)


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("rate_bps", [1e6, 20e6, 100e6])
def test_the_rate_of_a_line_is_found_in_spite_of_losses(rate_bps, loss):
    line, pace = SimulatedLine(rate_bps, loss), Pace(None, PACKET_BYTES)
    got_bps = sent_bps(line, pace, 4.0)
    assert got_bps > 0.85 * (1 - loss) * rate_bps
    if rate_bps > 1e6:
        assert line.num_dropped == 0
        assert sum(line.waits_s) / len(line.waits_s) < 0.025


def test_a_line_that_becomes_slower_is_followed():
    line, pace = SimulatedLine(50e6), Pace(None, PACKET_BYTES)
    sent_bps(line, pace, 2.0, 1.0)
    assert pace.rate_bps > 40e6
    line.rate_bps = 5e6
    now_s = 102.0
    for number in range(line.num_sent, line.num_sent + 4000):
        while (wait_s := pace.wait_s(now_s)) > 0:
            line.run(now_s, pace)
            now_s += min(wait_s, 0.0005)
        pace.sent(number, PACKET_BYTES, now_s)
        line.send(number, now_s)
    assert pace.rate_bps < 8e6


def test_a_known_rate_is_kept_whatever_is_lost():
    line, pace = SimulatedLine(20e6, loss=0.3), Pace(5e6, PACKET_BYTES)
    assert sent_bps(line, pace, 3.0, 1.0) == pytest.approx(0.7 * 5e6, rel=0.1)
    assert max(line.waits_s) < 0.005


def test_nothing_is_sent_for_long_into_a_line_that_reports_nothing():
    pace, now_s, num = Pace(None, PACKET_BYTES), 50.0, 0
    while now_s < 52.0:
        if pace.wait_s(now_s) <= 0:
            pace.sent(num, PACKET_BYTES, now_s)
            num += 1
        else:
            now_s += 0.001
    assert num < 100


def test_a_pause_does_not_look_like_a_slow_line():
    line, pace = SimulatedLine(20e6), Pace(None, PACKET_BYTES)
    sent_bps(line, pace, 1.0, 0.5)
    before_bps, now_s = pace.rate_bps, 101.0
    for number in range(line.num_sent, line.num_sent + 200):  # a datagram every 50 ms
        now_s += 0.05
        line.run(now_s, pace)
        assert pace.wait_s(now_s) == 0
        pace.sent(number, PACKET_BYTES, now_s)
        line.send(number, now_s)
    assert pace.rate_bps > 0.9 * before_bps


def test_reports_that_come_late_or_twice_or_of_nothing_change_nothing():
    pace = Pace(None, PACKET_BYTES)
    for number in range(10):
        pace.sent(number, PACKET_BYTES, 1.0)
    pace.report(Report(9, 14_820, 10, 0.0), 1.02)
    before = pace.rate_bps, pace.srtt_s, pace.num_under_way
    for report in (Report(9, 14_820, 10, 0.0), Report(3, 5000, 4, 0.0), Report(-1, 0, 0, 0.0)):
        pace.report(report, 1.5)
    assert (pace.rate_bps, pace.srtt_s, pace.num_under_way) == before == (before[0], pytest.approx(0.02), 0)
