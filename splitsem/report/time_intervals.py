"""How exact the times are that this machine's clock took part in: intervals of latency, throughput and energy.

Coding is measured, and its times spread in two ways. Within a job, the samples' times spread, which
``encode_s_ci95`` and ``decode_s_ci95`` tell. And the machine's pace drifts, since other programs come and go: one
quarter of a job's samples takes longer than the next (``coding_drift``), and so does one job.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splitsem.intervals import NUM_PARTS, of_one
from splitsem.report import results as rs
from splitsem.report.best import GOALS
from splitsem.report.fronts import TOLERANCE
from splitsem.report.scaled_costs import NEEDED, Costs, powers

_MOST = 0.95  # a time may be off by its own size, but no time is negative
_CODING = ("encode_s", "decode_s", "answer_encode_s", "answer_decode_s")


def with_intervals(results: pd.DataFrame) -> pd.DataFrame:
    """The results with half the 95 % interval of each row's latency, throughput and energy.

    A row's coding may be off by the share ``√((e² + d²) / coding_s² + drift²)``: its ``encode_s_ci95`` and
    ``decode_s_ci95`` against all its coding, and ``drift``. Halves that are measured in the run may be off by the
    drift. The algebra of ``scaled_costs`` at either end of these times gives the interval. It is at most what these
    times are of the value, for nothing takes less than no time. It is at least ``TOLERANCE / √2`` of the value, so that
    two values differ by more than the tolerance where they are told apart: estimates are no better.

    Args:
        results: one row a job and a reference, as in results.csv.

    Returns:
        The same rows with the columns ``latency_s_ci95``, ``throughput_hz_ci95`` and ``energy_j_ci95``; NaN where
        the columns do not give a value back from its parts, and where a row that was coded has no interval of its
        coding. Where no drift is known, the results as they are.
    """
    off = drift(results)
    if np.isnan(off):
        return results
    frame = rs.with_series(results)
    columns = {goal.column: np.full(len(frame), np.nan) for goal in GOALS}
    coded = frame[list(_CODING)].fillna(0.0).sum(axis=1) > 0
    known = frame["is_ok"] & frame[list(NEEDED)].notna().all(axis=1) & (frame["encode_s_ci95"].notna() | ~coded)
    for _, rows in frame[known].groupby("edge", dropna=False):
        active_w, idle_w = powers(rows)
        costs = Costs.of(rows, active_w, float(np.nan_to_num(idle_w)))  # not known where no row's edge ever waits
        factors, ends = np.ones((6, len(rows), 1)), _ends(rows, off)
        for goal in GOALS:
            given = rows[goal.column].to_numpy(float)
            value, low, high, best = (_value(costs.minimised(goal, at), goal.maximise) for at in (factors, *ends))
            half = np.minimum(np.abs(high - low) / 2, np.abs(best - value))
            half = np.maximum(half, TOLERANCE / 2**0.5 * given)
            columns[goal.column][rows.index] = np.where(np.isclose(value, given, rtol=1e-3), half, np.nan)
    return results.assign(**{f"{name}_ci95": values for name, values in columns.items()})


def drift(results: pd.DataFrame) -> float:
    """By which share a job's coding may be off, 95 %, as the machine's pace wanders: of all rows' ``coding_drift``.

    NaN where no row has one.
    """
    if "coding_drift" not in results:
        return float("nan")
    found = pd.to_numeric(results["coding_drift"], errors="coerce").dropna()
    return of_one(found.tolist(), NUM_PARTS - 1) if len(found) else float("nan")


def _ends(rows: pd.DataFrame, off: float) -> tuple[NDArray[np.float64], ...]:
    """Factors of the rates, ``(6, n, 1)``: measured times as short as they may be, as long, and next to none."""
    coding_s = rows[list(_CODING)].fillna(0.0).sum(axis=1).to_numpy()
    spread_s = np.hypot(*rows[["encode_s_ci95", "decode_s_ci95"]].fillna(0.0).to_numpy().T)
    spread = np.divide(spread_s, coding_s, out=np.zeros_like(coding_s), where=coding_s > 0)
    shares = np.zeros((6, len(rows), 1))
    for knob, share in (
        (2, off * _is_measured(rows, "edge")),
        (3, off * _is_measured(rows, "server")),
        (4, np.hypot(spread, off)),
    ):
        shares[knob, :, 0] = share
    return 1 / (1 - shares.clip(max=_MOST)), 1 / (1 + shares), 1 / (1 - np.where(shares > 0, _MOST, 0.0))


def _is_measured(rows: pd.DataFrame, side: str) -> NDArray[np.bool_]:
    return rows.get(f"{side}_timing", pd.Series("", rows.index)).eq("measured").to_numpy()


def _value(small: NDArray[np.float64], maximise: bool) -> NDArray[np.float64]:
    """A goal's quantity from what the goal wants small, ``(n, 1)`` to ``(n,)``."""
    return 1 / small[:, 0] if maximise else small[:, 0]
