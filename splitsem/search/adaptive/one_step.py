"""OneStep: the rule that the Adaptive controller is compared with."""

from math import inf

import numpy as np

from splitsem.cost.frame_costs import Seen
from splitsem.cost.setting_table import Conditions, SettingTable


class OneStep:
    """The setting of least latency at the bandwidth that the last frame got, chosen anew at each frame.

    The rule of Neurosurgeon (Kang et al., ASPLOS 2017) and DADS (Hu et al., INFOCOM 2019), over this project's tables:
    no average, no hysteresis, no change detection. The bandwidth is the last frame's bytes over its seconds on the way,
    the link's known round trip aside. As Neurosurgeon does, it takes the server's load from the last answer. Its frames
    wait for their answers; while it works on the edge alone, it sends a probe each ``probe_s``.

    Args:
        table: the settings.
        rtt_s: of the link.
        probe_s: seconds between probes.
        bandwidth_bps: before anything is seen.
    """

    def __init__(self, table: SettingTable, rtt_s: float, probe_s: float = 0.25, bandwidth_bps: float = 20e6) -> None:
        self.table, self.probe_s = table, probe_s
        self.now = Conditions(bandwidth_bps, rtt_s)
        self.setting = table.home
        self._next_s = -inf

    def choose(self, now_s: float) -> int:
        """See Decides."""
        self.setting = int(np.argmin(self.table.predicted(self.now).latency_s))
        return self.setting

    def deadline_s(self, setting: int) -> float:
        """See Decides."""
        return inf

    def seen(self, frame: Seen) -> None:
        """See Decides."""
        if frame.answered_s is None or not self.table.is_remote[frame.setting]:
            return
        on_the_way_s = frame.answered_s - frame.sent_s - frame.server_s - frame.queue_s - self.now.rtt_s
        bandwidth_bps = 8 * (frame.payload_bytes + frame.answer_bytes) / max(on_the_way_s, 1e-6)
        expected_s = float(self.table.server_s[frame.setting])
        factor = frame.server_s / expected_s if expected_s else 1.0
        self.now = Conditions(bandwidth_bps, self.now.rtt_s, server_factor=factor)

    def probe(self, now_s: float) -> int | None:
        """See Decides."""
        if self.setting != self.table.home or now_s < self._next_s:
            return None
        self._next_s = now_s + self.probe_s
        latency_s = np.where(self.table.is_remote, self.table.predicted(self.now).latency_s, inf)
        return int(np.argmin(latency_s))
