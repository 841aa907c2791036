"""Split-federated training beside FedAvg on digits: score on the test split, and a client's bytes in a round.

``python benchmarks/splitfed.py [rounds [case …]]``: 10 clients, Dirichlet(0.3), all in this process; one seed, so
scores are only a first look.
"""

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from splitsem.federated.flower import ClientApp, Context, RecordDict
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.round_report import run_metrics
from splitsem.federated.server_app import Server
from splitsem.scoring import score
from splitsem.workflows import assemble
from splitsem.workflows.federated.assembly import build
from splitsem.workflows.federated.splitfed import open_ends

CONF = Path(__file__).parents[1] / "conf"
BASE = (
    "task=digits",
    "device=cpu",
    "federated.num_clients=10",
    "federated.local_epochs=2",
    "partition@federated.partition=dirichlet",
    "federated.partition.beta=0.3",
    "federated.partition.min_samples=2",
)
EIGHT_BITS = ("codec=quant8", "codec@workflow.gradient_codec=quant8", "codec@federated.head_codec=quant8")
CASES: dict[str, tuple[str, ...]] = {
    "FedAvg": ("workflow=federated", "codec=identity"),
    "FedAvg quant8": ("workflow=federated", "codec=quant8", "codec@federated.downlink_codec=quant8"),
    "SplitFedV1 stage2": ("workflow=splitfed", "codec=identity", "split.point=stage2"),
    "SplitFedV1 stage2 quant8": ("workflow=splitfed", *EIGHT_BITS, "split.point=stage2"),
    "SplitFedV2 stage2 quant8": ("workflow=splitfed", *EIGHT_BITS, "split.point=stage2", "federated.tail=in_turn"),
    "SplitFedV1 stem quant8": ("workflow=splitfed", *EIGHT_BITS, "split.point=stem"),
}


def run(cfg: DictConfig) -> dict[str, float]:
    """Run all rounds of one configuration; returns the metrics of the run."""
    if "splitfed" in cfg.workflow["_target_"]:
        with open_ends(cfg) as ends:
            _rounds(ends.server, ends.client_app, cfg)
            reached = score(
                ends.run, ends.network.task, assemble.test_batches(ends.network.task, ends.network.placement, 256, None)
            )
        return reached | run_metrics(ends.server.rows, ends.site.layout.raw_bytes)
    whole = build(cfg)
    _rounds(whole.server, whole.client_app, cfg)
    whole.install(whole.server.final)
    reached = score(whole.model, whole.task, assemble.test_batches(whole.task, whole.placement, 256, None))
    return reached | run_metrics(whole.server.rows, whole.layout.raw_bytes)


def _rounds(server: Server, client_app: ClientApp, cfg: DictConfig) -> None:
    server.app()(InProcessGrid(client_app, cfg.federated.num_clients), Context(1, 0, {}, RecordDict(), {}))


def main() -> None:
    """Print the figures."""
    rounds = f"federated.rounds={sys.argv[1] if len(sys.argv) > 1 else 25}"
    print(f"{'':28}{'score':>8}{'bytes up':>10}{'head':>9}{'bytes down':>12}{'round s':>9}")
    for name in sys.argv[2:] or CASES:
        overrides = CASES[name]
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            cfg = compose("config", [*overrides, *BASE, rounds])
        got = run(cfg)
        print(
            f"{name:28}{got['score']:8.4f}{got['uplink_bytes']:10,.0f}{got.get('head_uplink_bytes', 0):9,.0f}"
            f"{got['downlink_bytes']:12,.0f}{got['round_s']:9.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
