"""Adaptive chooses the setting of each frame from tables and from what earlier frames saw; it does nothing else.

It has no clock, no thread and no random number: the same observations give the same choices, on a real line and in a
simulation.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Literal

import numpy as np

from splitsem.cost.frame_costs import Seen
from splitsem.cost.setting_table import Conditions, Predicted, SettingTable, Values
from splitsem.errors import ConfigError
from splitsem.search.adaptive.estimates import Lateness, Level, LinkEstimate

_REFRESH_S = 30.0
_LEAST_SHARE = 40  # a probe's seconds on the link beside frames, times this, pass until the next one
_HOPE = 4.0
_MARGIN = 0.25  # share of its expected seconds away after which a frame is overdue
Policy = Literal["latency", "throughput", "energy"]


@dataclass
class _Probing:
    """When the next probe goes out, and of which setting; longer waits while probes change nothing."""

    left: int
    next_s: float = -inf
    wait_s: float = 0.0
    is_of_left: bool = False
    refresh_s: float = -inf


class Adaptive:
    """The best setting for what the link and both ends seem to be now, by one of three policies.

    At each frame all settings are priced from the table (``SettingTable.predicted``), and the best one is taken if it
    gains more than ``hysteresis`` of what the last setting costs, and more within ``horizon`` frames than a switch
    costs. A frame without an answer in time means that the link is dead: the edge works alone until a late answer or a
    probe comes back. How long is in time, ``Lateness`` learns.

    Args:
        table: the settings.
        policy: ``latency``: the least. ``throughput``: the most results per second. ``energy``: the least of the edge.
        least_score: the score below which no setting is taken; None: any score will do.
        most_latency_s: the latency above which no setting is taken, if one is below it; None: any latency.
        window: frames under way at a time.
        hysteresis: share of the present cost that a switch must gain.
        switch_cost_s: seconds that a switch costs.
        horizon: frames in which a switch must gain what it costs.
        smoothing: weight of the newest frame in the averages of loads.
        wander: see ``LinkEstimate``.
        patience: share of a frame's expected seconds away and of those that finishing it here takes, by which the first
            overdue frame is taken to be late; from then on ``Lateness`` knows better.
        probe_s: seconds between probes while the edge works alone; longer while they change nothing.

    Raises:
        ConfigError: no setting reaches ``least_score``, or the edge alone does not; the nearest is named.
        ValueError: a number that cannot be.
    """

    def __init__(
        self,
        table: SettingTable,
        policy: Policy = "latency",
        least_score: float | None = None,
        most_latency_s: float | None = None,
        window: int = 1,
        hysteresis: float = 0.03,
        switch_cost_s: float = 0.0,
        horizon: int = 10,
        smoothing: float = 0.15,
        wander: float = 0.15,
        patience: float = 0.5,
        probe_s: float = 0.25,
    ) -> None:
        for name, value in {"window": window, "horizon": horizon}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, amount in {"wander": wander, "patience": patience, "probe_s": probe_s}.items():
            if not amount > 0:
                raise ValueError(f"{name} must be above 0, got {amount}")
        if not (0 <= hysteresis < 1 and switch_cost_s >= 0):
            raise ValueError(
                f"hysteresis must be 0…1 and switch_cost_s not negative, got {hysteresis} and {switch_cost_s}"
            )
        if most_latency_s is not None and not most_latency_s > 0:
            raise ValueError(f"most_latency_s must be above 0, or null, got {most_latency_s}")
        self.table, self.policy, self.window = table, policy, window
        self.most_latency_s = most_latency_s
        self.hysteresis, self.switch_cost_s, self.horizon = hysteresis, switch_cost_s, horizon
        self.patience, self.probe_s = patience, probe_s
        self.is_allowed = allowed(table, least_score)
        self.link = LinkEstimate(wander=wander)
        self.edge, self.server = Level(smoothing=smoothing), Level(smoothing=smoothing)
        self.queue_s = 0.0
        self.smoothing = smoothing
        self.setting = table.home
        self.num_changes = 0
        self.is_away = False
        self._arrived_s = -inf
        self._away_s: dict[int, float] = {}  # expected of the newest frame of each setting
        self._lateness = Lateness()
        self._sizes = _two_sizes(table)
        self._unknown = set(self._sizes)
        self._probing = _Probing(self._sizes[-1], wait_s=probe_s)

    @property
    def conditions(self) -> Conditions:
        """What link and ends seem to be."""
        link = self.link
        queue_s = self.queue_s if self.window == 1 else 0.0  # else frames wait for their own predecessors
        return Conditions(link.bandwidth_bps, link.rtt_s, self.edge.value, self.server.value, queue_s)

    def choose(self, now_s: float) -> int:
        """See Decides."""
        if self.is_away or self._unknown:
            self.setting = self.table.home
            return self.setting
        cost = self._cost(self._predicted())
        best, old = int(np.argmin(cost)), self.setting
        if best != old and self._pays(float(cost[old]), float(cost[best])):
            self._leave(old, best, now_s)
        return self.setting

    def deadline_s(self, setting: int) -> float:
        """See Decides."""
        away_s = float(self.table.predicted(self.conditions, self.window).away_s[setting])
        rest_s = self.table.rest_here_s(setting)
        self._away_s[setting] = away_s
        return (1 + _MARGIN) * away_s + self._lateness.wait_s(self.patience * (away_s + rest_s), rest_s)

    def seen(self, frame: Seen) -> None:
        """See Decides."""
        table = self.table
        if frame.edge_s > 0 and table.edge_s[frame.setting] > 0.05 * table.edge_s[table.home]:
            self.num_changes += self.edge.add(frame.edge_s / float(table.edge_s[frame.setting]))
        if not table.is_remote[frame.setting]:
            return
        if frame.answered_s is None:
            if not frame.is_probe:
                self._lateness.given_up()
                self._probing.next_s, self._probing.wait_s, self._probing.left = (
                    frame.sent_s,
                    self.probe_s,
                    frame.setting,
                )
            self.is_away = True
            return
        if not frame.is_probe and frame.setting in self._away_s:
            late_s = frame.answered_s - frame.sent_s - (1 + _MARGIN) * self._away_s[frame.setting]
            self._lateness.add(late_s, frame.is_late)
        self._answered(frame, frame.answered_s)

    def probe(self, now_s: float) -> int | None:
        """See Decides.

        First, and now and then, a probe of another size tells the round trip from the bandwidth. While the edge works
        alone, probes are by turns of the setting that was left and of the one that would be next; while frames
        too short to tell of the bandwidth go on, of the one that a faster link would have, less and less often.
        """
        probing, at_home = self._probing, self.setting == self.table.home
        if self._unknown:
            return min(self._unknown, key=lambda each: float(self.table.wire_bytes[each]))
        if now_s < probing.next_s:
            return None
        if now_s >= probing.refresh_s:
            probing.refresh_s = now_s + _REFRESH_S
            return next((size for size in self._sizes if size != self.setting), None)
        probing.is_of_left = not probing.is_of_left or not at_home
        chosen = probing.left
        if not probing.is_of_left:
            cost = np.where(self.table.is_remote, self._cost(self._predicted()), inf)
            chosen = int(np.argmin(cost))
        elif not at_home:
            chosen = self._if_faster() if self._is_in_the_dark() else self.setting
        if chosen == self.setting:
            return None
        most_s = (1 if self.is_away else 2 if at_home else 32) * self.probe_s
        probing.wait_s = min(1.5 * probing.wait_s, most_s)
        busy_s = 8 * float(self.table.wire_bytes[chosen]) / self.link.bandwidth_bps
        probing.next_s = now_s + max(probing.wait_s, 0.0 if at_home else _LEAST_SHARE * busy_s)
        return chosen if self.is_allowed[chosen] else None

    def _if_faster(self) -> int:
        """The setting that would be best over a link of several times the rate."""
        hoped = replace(self.conditions, bandwidth_bps=_HOPE * self.link.bandwidth_bps)
        cost = self._cost(self.table.predicted(hoped, self.window))
        return int(np.argmin(np.where(self.table.is_remote, cost, inf)))

    def _is_in_the_dark(self) -> bool:
        """Whether the frames are so short that they tell little of the bandwidth."""
        bytes_s = 8 * float(self.table.wire_bytes[self.setting]) / self.link.bandwidth_bps
        return bytes_s < self.link.rtt_s / 2 + float(self.table.edge_s[self.setting]) / 10

    def _leave(self, old: int, new: int, now_s: float) -> None:
        """Take another setting, and look after the old one."""
        self.setting = new
        if old != self.table.home:
            is_smaller = self.table.wire_bytes[new] < self.table.wire_bytes[old]
            self._probing.left = old if is_smaller else new
        self._probing.next_s, self._probing.wait_s = now_s + self.probe_s, self.probe_s

    def _answered(self, frame: Seen, answered_s: float) -> None:
        arrived_s = answered_s - frame.server_s - frame.queue_s
        is_alone = frame.sent_s >= self._arrived_s - self.link.rtt_s
        seconds = arrived_s - (frame.sent_s if is_alone else self._arrived_s)
        self._arrived_s = max(arrived_s, self._arrived_s)
        num_bytes = frame.payload_bytes + frame.answer_bytes
        is_news = frame.is_late or frame.is_probe  # a probe is alone for long, so that no second one can confirm it
        if is_alone and frame.setting == self._sizes[0]:
            self.link.add_short(num_bytes, seconds)
        self.num_changes += self.link.add(num_bytes, max(seconds, 0.0), answered_s, is_alone, is_news, frame.is_late)
        if frame.server_s > 0 and self.table.server_s[frame.setting] > 0:
            self.num_changes += self.server.add(frame.server_s / float(self.table.server_s[frame.setting]), is_news)
        self.queue_s += 2 * self.smoothing * (frame.queue_s - self.queue_s)
        self.is_away = False
        self._unknown.discard(frame.setting)

    def _predicted(self) -> Predicted:
        return self.table.predicted(self.conditions, self.window)

    def _cost(self, found: Predicted) -> Values:
        """What the policy minimises, infinite where a setting is not allowed."""
        cost: Values = {"latency": found.latency_s, "throughput": found.period_s, "energy": found.energy_j}[self.policy]
        is_allowed = self.is_allowed
        if self.most_latency_s is not None:
            in_time = is_allowed & (found.latency_s <= self.most_latency_s)
            if not in_time.any():
                return np.where(is_allowed, found.latency_s, inf)
            is_allowed = in_time
        return np.where(is_allowed, cost, inf)

    def _pays(self, old: float, new: float) -> bool:
        """Whether a switch gains enough, in the unit of the policy."""
        if old == inf:
            return True
        price = self.switch_cost_s * (self.table.powers.active_w if self.policy == "energy" else 1.0)
        return old - new > self.hysteresis * old and (old - new) * self.horizon > price


def _two_sizes(table: SettingTable) -> list[int]:
    """The setting that sends least, and one that sends eight times as much, or else the most."""
    order = [int(each) for each in np.argsort(table.wire_bytes) if table.is_remote[each]]
    if not order:
        raise ConfigError(
            "all on the edge takes less time than head and codec of each cut that is named, so there is nothing to "
            "switch to: name other cuts and codecs, or leave out controller=adaptive"
        )
    large = next((each for each in order if table.wire_bytes[each] >= 8 * table.wire_bytes[order[0]]), order[-1])
    return [order[0], large] if large != order[0] else order[:1]


def allowed(table: SettingTable, least_score: float | None) -> np.ndarray:
    """Which settings reach the score. Raises ConfigError where none does, or the edge alone does not."""
    if least_score is None:
        return np.ones(len(table), dtype=bool)
    reaches: np.ndarray = table.score >= least_score
    best = int(np.argmax(table.score))
    if not reaches.any():
        raise ConfigError(
            f"least_score={least_score:g} is reached by no setting; nearest is {table.names[best]} with "
            f"{table.score[best]:.4f} on the validation split"
        )
    if not reaches[table.home]:
        raise ConfigError(
            f"least_score={least_score:g} is not reached by {table.names[table.home]} "
            f"({table.score[table.home]:.4f} on the validation split), which answers while the link is dead: give that "
            "score at most"
        )
    return reaches
