"""Clients in processes give the network of one process to the last bit, also where clients fail or processes die."""

import pytest
from hydra import compose, initialize_config_dir

from splitsem.errors import ConfigError, LinkError
from tests.conftest import ROOT

pytest.importorskip("flwr", reason="the extra federated is not installed")
from splitsem.federated.client_processes import ClientProcesses
from splitsem.federated.flower import Context, FedAvg, RecordDict, to_bytes
from splitsem.workflows.federated import rounds
from splitsem.workflows.federated.assembly import build
from tests.unit.federated import NUM_CLIENTS, QUANTISED, Federation
from tests.unit.federated_process import COMMAND, fault_of

pytestmark = pytest.mark.slow  # each starts processes that import torch, Flower and Lightning
STATEFUL = ("codec=topk_quant", "codec.keep_ratio=0.05", "codec@federated.downlink_codec=quant8")


def settings(*overrides):
    common = ("workflow=federated", "task=digits", "device=cpu", "tracking=none", "federated.statistics=local")
    small = ("federated.num_clients=3", "federated.rounds=2", "trainer.limit_train_batches=2")
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", [*common, *small, *overrides])


def trained(cfg):
    ends = build(cfg)
    with rounds.grid_of(cfg, ends.client_app) as grid:
        rounds.run_rounds(ends.server, grid)
        return ends.server.final, [to_bytes(context.state) for context in grid.contexts.values()], ends.server.rows


@pytest.mark.parametrize("chosen", [STATEFUL, ("codec=quant8", "federated/privacy=local")], ids=["stateful", "private"])
def test_two_processes_train_the_network_of_one(chosen):
    network, states, rows = trained(settings(*chosen))
    other, others, other_rows = trained(settings(*chosen, "federated.client_processes=2"))
    assert all((network[name] == other[name]).all() for name in network)
    assert states == others
    assert all(states)  # what does not travel, at least
    for name in ("round/train_loss", "round/val_score", "round/uplink_bytes", "round/num_clients"):
        assert [row[name] for row in rows] == [row[name] for row in other_rows]


def federation(**faults):
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    return Federation(strategy, QUANTISED, 3, downlink=QUANTISED, statistics="local", min_clients=2, **faults)


def in_processes(config):
    """The run with clients that fail as ``config`` says, and why the second one failed in round 2."""
    run, why = federation(), []
    run.server.on_round = lambda row: why.append(run.server.grid.report.failed.get(2, ""))
    with ClientProcesses(COMMAND, config, 2, NUM_CLIENTS) as grid:
        run.server.contexts = grid.contexts
        run.server.app()(grid, Context(1, 0, {}, RecordDict(), {}))
    assert [row["round/num_clients"] for row in run.server.rows] == [3, 2, 3]
    assert (why[0], why[2]) == ("", "")
    return run.server.final, why[1]


def test_a_client_that_raises_answers_with_its_error_and_keeps_what_it_has_changed():
    network, why = in_processes("raises")
    assert why == "ValueError: this client's disk is full"
    here = federation(mods=[fault_of("raises")]).run()
    assert all((network[name] == here[name]).all() for name in network)


def test_a_process_that_dies_costs_its_client_the_round_and_is_replaced():
    network, why = in_processes("dies")
    assert why == "the client's process ended (exit status -9); another takes its place"
    here = federation(outer=[fault_of("raises", at_once=True)]).run()  # before anything of its state has changed
    assert all((network[name] == here[name]).all() for name in network)


def test_a_process_that_cannot_build_the_clients_ends_the_run_with_one_line():
    with ClientProcesses(COMMAND, "refuses", 2, NUM_CLIENTS) as grid, pytest.raises(ConfigError, match="cannot build"):
        grid.wait_ready()
    gone = [COMMAND[0], "-c", "raise SystemExit(3)"]
    with ClientProcesses(gone, "", 2, NUM_CLIENTS) as grid, pytest.raises(LinkError, match="exit status 3"):
        grid.wait_ready()
