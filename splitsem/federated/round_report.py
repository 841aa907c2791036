"""What a federated round cost and which clients were left out (RoundReport), and the means over a run."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, float]
VOID = "round/is_void"  # 1 in the row of a round that changed nothing
_REFUSED = "round/refused_client_"
_OF_STEPS = ("head_uplink_bytes", "head_downlink_bytes", "label_bytes", "steps_raw_bytes")


@dataclass
class RoundReport:
    """Filled while a round runs.

    Attributes:
        server_round: its number, from 1.
        uplink_bytes: size of each usable reply's content.
        downlink_bytes: size of each message's content.
        bit_widths: bit width of each usable reply, where its codec has one.
        failed: why a client's reply was left out, by node id.
        refused: node ids of those that were left out for what they sent.
        losses: each usable reply's mean training loss and how many samples it stands for.
        train_s: seconds of training behind each usable reply.
        codec_s: seconds of the client's encoding and decoding and the server's decoding, of each usable reply.
        encode_s: seconds that the server takes to encode the network, once a round.
        link_s: seconds on each client's link, where there is a model of it.
        steps: what each usable client exchanged with the server of its tail (split-federated training only).
    """

    server_round: int
    uplink_bytes: list[int] = field(default_factory=list)
    downlink_bytes: list[int] = field(default_factory=list)
    bit_widths: list[float] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)
    train_s: list[float] = field(default_factory=list)
    codec_s: list[float] = field(default_factory=list)
    encode_s: float = 0.0
    link_s: list[float] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)

    def row(self, num_weights: int) -> Row:
        """The round as a row of the history: means over its clients; ``link_s`` is the slowest client's.

        A round in which no client counts has a loss of NaN, and zeros.

        Args:
            num_weights: elements of the network that travel.
        """
        up, total = _mean(self.uplink_bytes), sum(weight for _, weight in self.losses)
        row = {
            "round/train_loss": sum(loss * weight for loss, weight in self.losses) / total if total else math.nan,
            "round/uplink_bytes": up,
            "round/downlink_bytes": _mean(self.downlink_bytes),
            "round/total_uplink_bytes": float(sum(self.uplink_bytes)),
            "round/bits_per_weight": 8 * up / num_weights,
            "round/train_s": _mean(self.train_s),
            "round/codec_s": _mean(self.codec_s) + self.encode_s / max(1, len(self.codec_s)),
            "round/num_clients": float(len(self.uplink_bytes)),
            "round/failed_clients": float(len(self.failed)),
            "round/refused_clients": float(len(self.refused)),
            **{f"{_REFUSED}{node}": 1.0 for node in self.refused},
        }
        if self.bit_widths:
            row["round/bit_width"] = statistics.fmean(self.bit_widths)
        if self.link_s:
            row["round/link_s"] = max(self.link_s)
        return row | self._with_steps(row) if self.steps else row

    def _with_steps(self, row: Row) -> Row:
        """The columns that training steps change or add: bytes up and down with the steps', and the parts of both."""
        part = {name: statistics.fmean(steps[name] for steps in self.steps) for name in self.steps[0]}
        changed = {
            "head_uplink_bytes": row["round/uplink_bytes"],
            "head_downlink_bytes": row["round/downlink_bytes"],
            "label_bytes": part["steps-label-bytes"],
            "steps_raw_bytes": part["steps-raw-bytes"],
            "uplink_bytes": row["round/uplink_bytes"] + part["steps-uplink-bytes"],
            "downlink_bytes": row["round/downlink_bytes"] + part["steps-downlink-bytes"],
            "total_uplink_bytes": row["round/total_uplink_bytes"] + sum(s["steps-uplink-bytes"] for s in self.steps),
        }
        return {f"round/{name}": value for name, value in changed.items()}


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def run_metrics(rows: Sequence[Row], raw_bytes: int) -> dict[str, Any]:
    """Means over all clients and rounds, under the names of metrics.json.

    Args:
        rows: one row a round, with ``round/s``.
        raw_bytes: size of an update without a codec; features and labels of training steps are added.
    """
    weights = [row["round/num_clients"] for row in rows]

    refused = Counter(name for row in rows for name in row if name.startswith(_REFUSED))

    def mean(name: str) -> float:
        return statistics.fmean([row.get(f"round/{name}", 0.0) for row in rows], weights)  # absent in void rounds

    uplink_bytes = mean("uplink_bytes")
    parts = {name: mean(name) for name in _OF_STEPS if any(f"round/{name}" in row for row in rows)}
    raw_bytes += round(parts.pop("steps_raw_bytes", 0))
    in_rounds_s = sum(row["round/s"] for row in rows)
    return {
        "rounds": len(rows),
        "uplink_bytes": uplink_bytes,
        "downlink_bytes": mean("downlink_bytes"),
        "uplink_raw_bytes": raw_bytes,
        "uplink_compression_ratio": raw_bytes / uplink_bytes,
        "round_s": statistics.median(row["round/s"] for row in rows),
        "train_s": mean("train_s"),
        "codec_s": mean("codec_s"),
        "codec_share": sum(row["round/num_clients"] * row["round/codec_s"] for row in rows) / in_rounds_s,
        "failed_clients": int(sum(row["round/failed_clients"] for row in rows)),
        "clients_refused": refused.total(),
        "void_rounds": sum(row.get(VOID, 0) == 1 for row in rows),
        **{name.removeprefix("round/"): count for name, count in sorted(refused.items())},
        **parts,
    }
