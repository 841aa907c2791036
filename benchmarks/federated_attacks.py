"""What false updates do to federated training, with and without the bound of their length: a table for docs/decisions.

usage: python benchmarks/federated_attacks.py [ROUNDS]

Eight clients, digits, Dirichlet(0.3), identity; some of the clients send their honest update times a factor, every
round. A row is an attack; a cell is the validation score of the last round and how many updates were refused.
"""

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir

from splitsem.errors import LinkError
from splitsem.federated.client_app import UpdateMod, make_client_app
from splitsem.federated.flower import Context, Message, Mod
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.round_report import run_metrics
from splitsem.federated.state import from_record, to_record
from splitsem.workflows.federated.assembly import build
from splitsem.workflows.federated.rounds import run_rounds

SETTINGS = (
    "workflow=federated",
    "task=digits",
    "device=cpu",
    "codec=identity",
    "partition@federated.partition=dirichlet",
    "federated.partition.beta=0.3",
    "federated.local_epochs=1",
    "trainer.learning_rate=0.01",
)


class Attack:
    """A client mod: the first ``num_false`` clients send ``factor`` times what they learnt."""

    def __init__(self, num_false: int, factor: float) -> None:
        self.num_false, self.factor = num_false, factor

    def __call__(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        """The reply of a client, false or not."""
        old = from_record(message.content.array_records["arrays"])
        reply = call_next(message, context)
        if int(context.node_config["partition-id"]) < self.num_false:
            new = from_record(reply.content.array_records["arrays"])
            changed = {n: old[n] + self.factor * (t - old[n]) if t.is_floating_point() else t for n, t in new.items()}
            reply.content["arrays"] = to_record(changed)
        return reply


def cell(num_false: int, factor: float, *settings: str) -> str:
    """Score and refused updates of one run."""
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[*SETTINGS, *settings])
    ends = build(cfg)
    mods: list[Mod] = [UpdateMod(ends.layout, ends.server.make_codec), Attack(num_false, factor)]
    try:
        run_rounds(ends.server, InProcessGrid(make_client_app(ends.site, mods), cfg.federated.num_clients))
    except LinkError:
        return "ended"
    refused = run_metrics(ends.server.rows, ends.layout.raw_bytes)["clients_refused"]
    return f"{ends.server.rows[-1]['round/val_score']:.3f} ({refused})"


def main() -> None:
    """Print the table."""
    rounds = f"federated.rounds={sys.argv[1] if len(sys.argv) > 1 else 6}"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    bounds = {"bound 5": "federated.max_norm_ratio=5", "no bound": "federated.max_norm_ratio=null"}
    strategies: dict[str, tuple[str, ...]] = {"fedavg": ()}
    print("| update times | false of 8 | " + " | ".join(f"{s}, {b}" for s in strategies for b in bounds) + " |")
    print("|---|---|" + "---|" * len(strategies) * len(bounds))
    for num_false, factor in ((0, 1), (1, -1), (1, -10), (1, 10), (1, 100), (1, 1e30), (3, -1), (3, -10), (3, 1e30)):
        cells = [cell(num_false, factor, rounds, *s, b) for s in strategies.values() for b in bounds.values()]
        print(f"| {factor:g} | {num_false} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
