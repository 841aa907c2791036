"""Informed: what a rule that learns from answers alone could reach, for the controller to be compared with."""

import numpy as np

from splitsem.cost.frame_costs import Seen
from splitsem.cost.setting_table import Conditions, SettingTable
from splitsem.search.adaptive.variations import STEP_S, Variation


class Informed:
    """Knows the link and the server exactly as the newest answer saw them, and takes what suits that state.

    No measurement is wrong and none is averaged, the shortest probe goes with each frame that stays on the edge, and a
    frame that is overdue is given up just when waiting for it would take longer. What changed since the newest answer
    it does not know, as no rule can that learns from answers and does not foresee.

    Args:
        table: the settings.
        variation: what link and server do.
    """

    def __init__(self, table: SettingTable, variation: Variation) -> None:
        self.table, self.variation = table, variation
        self._state_s = self._now_s = 0.0
        self._probe = min(np.flatnonzero(table.is_remote), key=lambda each: float(table.wire_bytes[each]))

    def choose(self, now_s: float) -> int:
        """See Decides."""
        self._now_s = now_s
        self._conditions = self._at(self._state_s)
        return int(np.argmin(self.table.predicted(self._conditions).latency_s))

    def deadline_s(self, setting: int) -> float:
        """See Decides."""
        table, variation = self.table, self.variation
        sent_s = self._now_s + float(table.edge_s[setting])
        overdue_s = 1.1 * float(table.predicted(self._conditions).away_s[setting])
        arrives_s = variation.through_s(sent_s, 8 * float(table.wire_bytes[setting])) + variation.rtt_s / 2
        answered_s = arrives_s + variation.server_at(arrives_s) * float(table.server_s[setting]) + variation.rtt_s / 2
        rest_s = table.rest_here_s(setting)
        return overdue_s if answered_s > sent_s + overdue_s + rest_s else overdue_s + rest_s

    def seen(self, frame: Seen) -> None:
        """See Decides."""
        if frame.answered_s is not None and self.table.is_remote[frame.setting]:
            arrived_s = frame.answered_s - frame.server_s - self.variation.rtt_s / 2
            self._state_s = max(self._state_s, arrived_s)
        elif frame.answered_s is None:  # that it is overdue tells the state, too
            self._state_s = frame.sent_s

    def probe(self, now_s: float) -> int | None:
        """See Decides."""
        return int(self._probe)

    def _at(self, now_s: float) -> Conditions:
        variation = self.variation
        rate_bps = float(variation.rate_bps[min(int(now_s / STEP_S), len(variation.rate_bps) - 1)])
        return Conditions(max(rate_bps, 1.0), variation.rtt_s, server_factor=variation.server_at(now_s))
