"""What configurations would cost if an assumption were off: the algebra of ``cost.end_to_end`` on columns.

No model runs. With factors ``b`` (bandwidth), ``r`` (round trip), ``e``, ``s`` (speeds of edge and server), ``c`` (rate
of coding, of both) and ``p`` (radio power):

* ``edge_s = head_s/e + (encode_s + answer_decode_s)/c``; ``server_s = tail_s/s + (decode_s + answer_encode_s)/c``
* ``edge_busy_s = edge_s + edge_transport_s/c``; the server likewise
* ``link_busy_s/b``; ``link_s = (link_s - link_delay_s)/b + r · link_delay_s``; the way back likewise
* ``energy_j = edge_busy_s · active_w + p · link_j + (cycle_s - edge_busy_s) · idle_w``
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splitsem.cost.end_to_end import cycle_s, latency_s
from splitsem.report.best import Goal

NEEDED = ("head_s", "tail_s", "link_busy_s", "link_delay_s", "edge_j", "link_j")
"""The columns without which a row's costs cannot be told from its parts."""


def powers(rows: pd.DataFrame) -> tuple[float, float]:
    """Active and idle power of the rows' edge in watts, from its energies and times; NaN where no row tells one."""
    busy_s = rows["edge_s"] + rows["edge_transport_s"].fillna(0.0)
    waiting_s = rows["cycle_s"] - busy_s
    active_w = (rows["edge_j"] / busy_s)[busy_s > 0]
    idle_w = (rows["idle_j"] / waiting_s)[waiting_s > 1e-6 * rows["cycle_s"]]
    return float(active_w.median()), float(idle_w.median())


class Costs(NamedTuple):
    """Seconds and joules of some rows, ``(n, 1)`` each, and their edge's watts."""

    head_s: NDArray[np.float64]
    edge_coding_s: NDArray[np.float64]
    tail_s: NDArray[np.float64]
    server_coding_s: NDArray[np.float64]
    edge_transport_s: NDArray[np.float64]
    server_transport_s: NDArray[np.float64]
    busy_s: NDArray[np.float64]
    sending_s: NDArray[np.float64]
    delay_s: NDArray[np.float64]
    answer_busy_s: NDArray[np.float64]
    answer_sending_s: NDArray[np.float64]
    answer_delay_s: NDArray[np.float64]
    link_j: NDArray[np.float64]
    active_w: float
    idle_w: float

    @classmethod
    def of(cls, rows: pd.DataFrame, active_w: float, idle_w: float) -> "Costs":
        """The columns of ``rows``; coding, link or answer that a row lacks takes no time."""
        known = {name: rows[name].fillna(0.0).to_numpy(float)[:, None] for name in rows.select_dtypes("number")}
        answer_delay_s = np.minimum(known["link_delay_s"], known["answer_s"])
        return cls(
            known["head_s"],
            known["encode_s"] + known["answer_decode_s"],
            known["tail_s"],
            known["decode_s"] + known["answer_encode_s"],
            known["edge_transport_s"],
            known["server_transport_s"],
            known["link_busy_s"],
            known["link_s"] - known["link_delay_s"],
            known["link_delay_s"],
            known["answer_busy_s"],
            known["answer_s"] - answer_delay_s,
            answer_delay_s,
            known["link_j"],
            active_w,
            idle_w,
        )

    def minimised(self, goal: Goal, factors: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the goal wants small, ``(n, k)``, at factors of the knobs ``(6, k)``: cycle, latency or energy."""
        bandwidth, round_trip, edge, server, coding, radio = factors
        edge_s = self.head_s / edge + self.edge_coding_s / coding
        server_s = self.tail_s / server + self.server_coding_s / coding
        if goal.column == "latency_s":
            link_s = self.sending_s / bandwidth + self.delay_s * round_trip
            return latency_s(
                edge_s, link_s, server_s, self.answer_sending_s / bandwidth + self.answer_delay_s * round_trip
            )
        edge_s, server_s = edge_s + self.edge_transport_s / coding, server_s + self.server_transport_s / coding
        pace_s = cycle_s(edge_s, self.busy_s / bandwidth, server_s, self.answer_busy_s / bandwidth)
        if goal.column == "throughput_hz":
            return pace_s
        return edge_s * self.active_w + self.link_j * radio + (pace_s - edge_s) * self.idle_w
