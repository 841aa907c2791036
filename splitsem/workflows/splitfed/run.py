"""A split-federated run: its training, its score, its figures; beside FedAvg's in a sweep's table."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from splitsem.federated.report import run_metrics
from splitsem.lightning import weights
from splitsem.pipeline import score
from splitsem.plots.federated import score_by_round, score_by_uplink
from splitsem.workflows import assemble
from splitsem.workflows.federated.run import run_rounds, shown
from splitsem.workflows.job import Metrics, Result
from splitsem.workflows.splitfed.ends import SplitEnds, open_ends
from splitsem.workflows.who_has_what import who_has_what


def run(cfg: DictConfig, folder: Path) -> Result:
    """See workflows/splitfed/workflow.py."""
    num_clients = cfg.federated.num_clients
    with open_ends(cfg) as ends, shown(ends.server):
        train_s = run_rounds(ends.server, ends.client_app, num_clients)
    rows, site = ends.server.rows, ends.site
    path = folder / "weights.safetensors"
    weights.save(ends.network.model, path, rows, train_s)
    metrics = _scores(cfg, ends) | run_metrics(rows, site.layout.raw_bytes)
    metrics |= {"num_clients": num_clients, "train_total_s": train_s} | _labels(cfg)
    metrics |= {"split_point": site.cut.point.name, "split_index": site.cut.evaluation.point.index}
    headline = (
        f"{metrics['strategy']}, {metrics['split_point']}, {metrics['codec']}: score {metrics['score']:.4f} after "
        f"{metrics['rounds']} rounds of {num_clients} clients; {metrics['uplink_bytes']:,.0f} bytes up a client and "
        f"round ({metrics['head_uplink_bytes']:,.0f} of them the head), {metrics['downlink_bytes']:,.0f} down; "
        f"weights: {path}"
    )
    figures = {"score_by_round": score_by_round(rows, metrics), "score_by_uplink": score_by_uplink(rows, metrics)}
    figures |= who_has_what(ends.network.task, ends.labels, site.parts, f"{metrics['partition']} · train")
    return Result(metrics, figures, rows, headline)


def _scores(cfg: DictConfig, ends: SplitEnds) -> Metrics:
    """On the test split: with the codec's bytes between the halves, and without."""
    task, num_samples = ends.network.task, cfg.workflow.num_samples
    whole = assemble.test_batches(task, ends.network.device, cfg.trainer.batch_size, num_samples)
    unsplit = score(ends.network.model, task, whole)["score"]
    return ends.score(task.splits().test, num_samples) | {"score_unsplit": unsplit}


def _labels(cfg: DictConfig) -> Metrics:
    choices = HydraConfig.get().runtime.choices
    strategy = choices["federated/strategy"]
    names = {group: choices[group] for group in ("task", "model", "codec")}
    names["strategy"] = f"splitfed {cfg.federated.tail}" + (f" {strategy}" if strategy != "fedavg" else "")
    names["partition"] = choices["partition@federated.partition"]
    names["downlink_codec"] = choices["codec@workflow.gradient_codec"]
    names["head_codec"] = choices["codec@federated.head_codec"]
    return names | {"transport": choices["transport"] or "none"}
