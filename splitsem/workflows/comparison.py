"""A sweep's page of comparison in MLflow: its jobs in one table, best first, and in charts.

MLflow's pages read it where "share view" leaves its own: in a tag of the experiment. What a version does not know in
it, that version leaves out; MLflow 3.17 shows all of it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

TAG = "mlflow.sharedViewState."
_SCORES = ("score", "accuracy")
_COSTS = ("throughput_hz", "latency_s", "payload_bytes", "energy_j", "uplink_bytes", "round_s", "predicted_t_eff_s")
_RISING = ("throughput_hz", *_SCORES)


def state(run_id: str, metrics: Sequence[Mapping[str, Any]], varied: Sequence[str]) -> str:
    """What the page shows, as MLflow keeps it.

    Args:
        run_id: MLflow's id of the sweep.
        metrics: of each job that ended well.
        varied: names of the parameters in which the jobs differ.
    """
    known = {name for one in metrics for name, value in one.items() if isinstance(value, int | float)}
    scores, costs = ([name for name in names if name in known] for names in (_SCORES, _COSTS))
    shown = [*scores[:1], *costs]
    order = next((name for name in ("throughput_hz", *shown) if name in known), None)
    ended = f" and metrics.`{scores[0]}` > -1e9" if scores else ""  # not the trainings that stand beside the jobs
    charts = [_chart("SCATTER", f"{x}", xaxis=_metric(x), yaxis=_metric(scores[0])) for x in costs[:3] if scores]
    charts.append(
        _chart("PARALLEL", "all", selectedParams=list(varied)[:3], selectedMetrics=shown[:4], showAllRuns=True)
    )
    return json.dumps(
        {
            "searchFilter": f"tags.mlflow.parentRunId = '{run_id}'{ended}",
            # another order than by date also has MLflow show the jobs themselves, not below the sweep
            **({"orderByKey": f"metrics.`{order}`", "orderByAsc": order not in _RISING} if order else {}),
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "selectedColumns": [*(f"params.`{name}`" for name in varied), *(f"metrics.`{name}`" for name in shown)],
            "compareRunCharts": charts,
            "compareRunSections": [{"uuid": TAG, "name": "Which is best", "display": True, "isReordered": False}],
            "runsHiddenMode": "SHOW_ALL",
        }
    )


def _metric(name: str) -> dict[str, str]:
    return {"key": name, "type": "METRIC"}


def _chart(kind: str, uuid: str, **more: Any) -> dict[str, Any]:
    common = {"metricSectionId": TAG, "isGenerated": False, "deleted": False, "runsCountToCompare": 100}
    return {"type": kind, "uuid": uuid, **common, **more}
