"""A camera's frames through a controller over a Variation, computed and not waited for; and an oracle over the same."""

import heapq
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem.cost.frame_costs import FIRST_PROBES, Decides, Seen
from splitsem.cost.setting_table import SettingTable
from splitsem.search.adaptive.variations import Variation

_NOISE = 0.05
_HICCUPS, _HICCUP_S = 0.01, 0.05
"""Relative spread of the ends' seconds; share of frames that something delays once, and for how long on average."""


class Replayed(NamedTuple):
    """What became of the frames, a value a frame.

    Attributes:
        taken_s: when the camera took it.
        latency_s: from then until its result was here.
        setting: its setting.
        is_lost: whether the edge finished it, since its answer did not come in time.
        believed_bps: the bandwidth that the controller believed in as the frame began; nan where it has no belief.
        believed_low_bps, believed_high_bps: the 95 % interval of the belief.
    """

    taken_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    setting: NDArray[np.int64]
    is_lost: NDArray[np.bool_]
    believed_bps: NDArray[np.float64]
    believed_low_bps: NDArray[np.float64]
    believed_high_bps: NDArray[np.float64]

    @property
    def mean_s(self) -> float:
        """Mean latency."""
        return float(self.latency_s.mean())

    @property
    def num_switches(self) -> int:
        """Frames whose setting is not their predecessor's."""
        return int((np.diff(self.setting) != 0).sum())


class _Line:
    """The link, then the server, one frame after the other; and what each frame takes, drawn by a seed."""

    def __init__(self, table: SettingTable, variation: Variation, seed: int, num_frames: int) -> None:
        self.table, self.variation = table, variation
        draw = np.random.default_rng([seed, 9])
        self.edge_noise = np.exp(_NOISE * draw.normal(size=num_frames))
        self.server_noise = np.exp(_NOISE * draw.normal(size=num_frames))
        self.hiccup_s = (draw.random(num_frames) < _HICCUPS) * draw.exponential(_HICCUP_S, num_frames)
        self._link_free_s = self._server_free_s = 0.0

    def edge_s(self, number: int, setting: int) -> float:
        """Seconds on the edge."""
        return float(self.table.edge_s[setting] * self.edge_noise[number])

    def send(self, number: int, setting: int, sent_s: float, is_kept: bool = True) -> tuple[float, float, float]:
        """When the answer is here, the server's seconds, and the wait there; the line is then taken, if ``is_kept``."""
        table, rtt_s = self.table, self.variation.rtt_s
        through_s = self.variation.through_s(max(sent_s, self._link_free_s), 8 * float(table.wire_bytes[setting]))
        arrived_s = through_s + rtt_s / 2 + float(self.hiccup_s[number])
        factor = self.variation.server_at(arrived_s)
        server_s = float(table.server_s[setting] * self.server_noise[number]) * factor
        begin_s = max(arrived_s, self._server_free_s)
        if is_kept:
            self._link_free_s, self._server_free_s = through_s, begin_s + server_s
        return begin_s + server_s + rtt_s / 2, server_s, begin_s - arrived_s


def replay(table: SettingTable, variation: Variation, controller: Decides, period_s: float, seed: int = 0) -> Replayed:
    """The frames of a camera that takes one each ``period_s``, for as long as the variation lasts.

    A frame begins when its predecessor has its result (a window of 1); those that come meanwhile wait, and their
    latency holds the wait. A frame that is given up is finished on the edge; its payload stays on the line, and its
    answer comes late. A probe takes the line, too: one at a time, beside a frame that stays on the edge, or while the
    edge waits for the camera; beside other frames only if it never waits.
    """
    taken_s = np.arange(0.0, variation.seconds, period_s)
    line = _Line(table, variation, seed, len(taken_s))
    found = Replayed(taken_s, *(np.empty(len(taken_s), dtype) for dtype in (float, int, bool, float, float, float)))
    coming: list[tuple[float, int, Seen]] = []  # answers that nobody waits for
    for number in range(FIRST_PROBES):  # as the line does, before the first frame
        if (probed := controller.probe(0.0)) is not None:
            controller.seen(_probe(line, number, probed, 0.0, is_kept=False))
    free_s, was_idle = 0.0, False
    for number in range(len(taken_s)):
        began_s = max(free_s, float(taken_s[number]))
        _tell(controller, coming, began_s)
        setting = controller.choose(began_s)
        found.setting[number] = setting
        link = getattr(controller, "link", None)
        found.believed_bps[number] = link.bandwidth_bps if link else np.nan
        interval = link.bandwidth_interval if link else (np.nan, np.nan)
        found.believed_low_bps[number], found.believed_high_bps[number] = interval
        if not (was_idle and table.is_remote[setting]):
            _probe_if_asked(controller, line, coming, number, began_s)
        edge_s = line.edge_s(number, setting)
        sent_s = began_s + edge_s
        found.is_lost[number] = False
        if not table.is_remote[setting]:
            free_s = sent_s
            controller.seen(Seen(setting, sent_s, sent_s, edge_s=edge_s))
        else:
            deadline_s = controller.deadline_s(setting)
            answered_s, server_s, queue_s = line.send(number, setting, sent_s)
            sizes = int(table.payload_bytes[setting]), int(table.answer_bytes[setting])
            seen = Seen(setting, sent_s, answered_s, *sizes, server_s, queue_s, edge_s)
            if answered_s - sent_s <= deadline_s:
                free_s = answered_s
                _tell(controller, coming, free_s)
                controller.seen(seen)
            else:
                found.is_lost[number] = True
                free_s = sent_s + deadline_s + table.rest_here_s(setting)
                _tell(controller, coming, sent_s + deadline_s)
                controller.seen(seen._replace(answered_s=None))
                _keep(coming, number, seen._replace(is_late=True, edge_s=0.0))
        found.latency_s[number] = free_s - taken_s[number]
        was_idle = number + 1 < len(taken_s) and free_s < taken_s[number + 1]
        if was_idle:
            _probe_if_asked(controller, line, coming, number, free_s)
    return found


def _probe_if_asked(
    controller: Decides, line: _Line, coming: list[tuple[float, int, Seen]], number: int, now_s: float
) -> None:
    """Send a probe, one at a time."""
    if any(seen.is_probe for _, _, seen in coming) or (probed := controller.probe(now_s)) is None:
        return
    _keep(coming, number, _probe(line, number, probed, now_s))


def _probe(line: _Line, number: int, setting: int, now_s: float, is_kept: bool = True) -> Seen:
    table = line.table
    answered_s, server_s, queue_s = line.send(number, setting, now_s, is_kept)
    sizes = int(table.payload_bytes[setting]), int(table.answer_bytes[setting])
    return Seen(setting, now_s, answered_s, *sizes, server_s, queue_s, is_probe=True)


def _tell(controller: Decides, coming: list[tuple[float, int, Seen]], now_s: float) -> None:
    """What has come until now, in the order in which it came."""
    while coming and coming[0][0] <= now_s:
        controller.seen(heapq.heappop(coming)[2])


def _keep(coming: list[tuple[float, int, Seen]], number: int, seen: Seen) -> None:
    assert seen.answered_s is not None
    heapq.heappush(coming, (seen.answered_s, 2 * number + seen.is_probe, seen))


def oracle(table: SettingTable, variation: Variation, period_s: float, seed: int = 0) -> Replayed:
    """The same frames by one who knows what each setting will take: the one whose result is here first.

    With one frame under way and nothing given up, an earlier result is better for all later frames, too, so that no
    sequence of settings has less mean latency.
    """
    taken_s = np.arange(0.0, variation.seconds, period_s)
    line = _Line(table, variation, seed, len(taken_s))
    settings, latency_s, free_s = np.empty(len(taken_s), int), np.empty(len(taken_s)), 0.0
    for number in range(len(taken_s)):
        began_s = max(free_s, float(taken_s[number]))
        done_s = [began_s + line.edge_s(number, setting) for setting in range(len(table))]
        done_s = [
            line.send(number, setting, sent_s, is_kept=False)[0] if table.is_remote[setting] else sent_s
            for setting, sent_s in enumerate(done_s)
        ]
        best = int(np.argmin(done_s))
        settings[number], free_s = best, done_s[best]
        if table.is_remote[best]:
            line.send(number, best, began_s + line.edge_s(number, best))
        latency_s[number] = free_s - taken_s[number]
    unknown = np.full(len(taken_s), np.nan)
    return Replayed(taken_s, latency_s, settings, np.zeros(len(taken_s), bool), unknown, unknown, unknown)


class Fixed:
    """One setting for all frames; its frames wait for their answers, however long.

    Args:
        setting: of all frames.
    """

    def __init__(self, setting: int) -> None:
        self.setting = setting

    def choose(self, now_s: float) -> int:
        """See Decides."""
        return self.setting

    def deadline_s(self, setting: int) -> float:
        """See Decides."""
        return inf

    def seen(self, frame: Seen) -> None:
        """See Decides; nothing is learned."""

    def probe(self, now_s: float) -> int | None:
        """See Decides; never."""
        return None


def best_fixed(table: SettingTable, variation: Variation, period_s: float, seed: int = 0) -> tuple[int, Replayed]:
    """The setting with the least mean latency over the whole variation, and its frames: known only afterwards."""
    runs = [replay(table, variation, Fixed(setting), period_s, seed) for setting in range(len(table))]
    best = int(np.argmin([run.mean_s for run in runs]))
    return best, runs[best]
