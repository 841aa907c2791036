"""False updates: refused by length, integers, number and weight, with the offender named; the network stays sound."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.topk import TopK
from splitsem.errors import ConfigError, LinkError, PayloadError
from splitsem.federated import checkpoint
from splitsem.federated.coded_grid import MEASURES, _measures
from splitsem.federated.flower import MetricRecord
from splitsem.federated.privacy import Privacy
from splitsem.federated.round_report import run_metrics
from splitsem.federated.state import Layout, from_record, to_record
from splitsem.federated.update_guard import UpdateGuard
from tests.unit.federated import NUM_CLIENTS, Federation, distance, small_site

strategies = pytest.importorskip("flwr.serverapp.strategy", reason="the extra federated is not installed")
EVERYBODY = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}


def fedavg(**settings):
    return strategies.FedAvg(**EVERYBODY, **settings)


def scaled(factor, clients=(1,), rounds=range(100), only=None):
    """A mod: some clients' changes times a factor, in some rounds, of tensors with ``only`` in their names."""

    def mod(message, context, call_next):
        old = from_record(message.content["arrays"])
        reply = call_next(message, context)
        is_false = context.node_config["partition-id"] in clients
        if is_false and message.content["config"]["server-round"] in rounds:
            new = from_record(reply.content["arrays"])
            for name, tensor in new.items():
                if tensor.is_floating_point() and (only is None or only in name):
                    new[name] = old[name] + factor * (tensor - old[name])
            reply.content["arrays"] = to_record(new)
        return reply

    return mod


def metric(name, value, clients=(1,), rounds=range(100)):
    """A mod outside the codec: some clients report another number."""

    def mod(message, context, call_next):
        server_round = message.content["config"]["server-round"]
        reply = call_next(message, context)
        if context.node_config["partition-id"] in clients and server_round in rounds:
            reply.content["metrics"][name] = value
        return reply

    return mod


def refused(run):
    """Which clients were refused how often, by the run's metrics."""
    metrics = run_metrics(run.server.rows, 1)
    of_clients = {int(n.rpartition("_")[2]): count for n, count in metrics.items() if n.startswith("refused_client_")}
    assert sum(of_clients.values()) == metrics["clients_refused"]
    return of_clients


@pytest.mark.parametrize(
    ("factor", "codec"),
    [(1e30, None), (-100.0, Quantise(8)), (float("nan"), TopK(keep_ratio=0.1))],
    ids=["huge", "flipped", "NaN"],
)
def test_a_client_of_huge_values_is_named_and_the_round_goes_on_with_the_others(caplog, factor, codec):
    run = Federation(fedavg(), codec, 1, [scaled(factor)], error_feedback=False)
    honest = Federation(fedavg(), codec, 1, [scaled(1.0, clients=())], error_feedback=False)
    final, expected = run.run(), honest.run()
    assert all(bool(tensor.isfinite().all()) for tensor in final.values())
    assert distance(final, expected) < 0.3
    assert all(row["round/num_clients"] == NUM_CLIENTS - 1 and row["round/is_void"] == 0 for row in run.server.rows)
    assert "client 2 is left out" in caplog.text
    if factor == factor and abs(factor) < float("inf"):  # NaN and infinity are the client's own fault at encoding
        assert refused(run) == {2: 1}
        assert "its weights change by" in caplog.text
    assert refused(honest) == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: strategies.FedProx(**EVERYBODY, proximal_mu=0.1),
        lambda: strategies.FedAdam(**EVERYBODY),
        lambda: strategies.Krum(**EVERYBODY, num_malicious_nodes=0),
    ],
)
def test_it_holds_for_every_strategy_and_costs_the_honest_nothing(make):
    run = Federation(make(), None, 1, [scaled(1e20)])
    run.run()
    assert refused(run) == {2: 1}
    with_bound, without = Federation(make(), None, 1), Federation(make(), None, 1)
    without.server.guard = UpdateGuard(without.site.layout, max_norm_ratio=None)
    assert distance(with_bound.run(), without.run()) == 0
    assert refused(with_bound) == {}


def test_running_statistics_are_measured_apart_from_weights():
    run = Federation(fedavg(), None, 1, [scaled(1e4, only="running_var")])
    run.run()
    assert refused(run) == {2: 1}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num-examples", 1e300, "of 0 or more, up to"),
        ("num-examples", -1, "of 0 or more"),
        ("num-examples", 0, "above 0"),
        ("num-examples", float("nan"), "of 0 or more"),
        ("num-examples", [16, 16], "of 0 or more"),
        ("train-loss", 1e300, "of 0 or more"),
        ("train-s", float("inf"), "of 0 or more"),
    ],
)
def test_a_metric_that_is_no_number_or_too_large_is_refused(name, value, said):
    metrics = MetricRecord(dict.fromkeys(MEASURES, 1.0) | {name: value})
    with pytest.raises(PayloadError, match=f"expected {name} {said}"):
        _measures(metrics, MEASURES)


@pytest.mark.parametrize(
    ("client", "count", "said"),
    [(-1, 16, "a client's number"), (0, 3.5, "1…1000000"), (0, 10**9, "1…1000000 .federated.max_examples")],
)
def test_a_sender_that_cannot_be_is_refused(client, count, said):
    with pytest.raises(PayloadError, match=said):
        UpdateGuard(small_site().layout).check_sender(7, client, count, [7])
    with pytest.raises(PayloadError, match=r"a client's number of 0…2, got 3|of 16, the samples of its part"):
        UpdateGuard(small_site().layout, num_examples=[16] * 3).check_sender(7, 3 if client else 0, 17, [7])


def test_a_client_that_says_to_be_many_is_named():
    run = Federation(fedavg(), None, 1, outer=[metric("num-examples", 1e300)])
    run.run()
    assert refused(run) == {2: 1}


def test_a_client_counts_by_the_samples_of_its_part_or_by_what_it_declared_first():
    layout = small_site().layout
    known = Federation(fedavg(), None, 1, outer=[metric("num-examples", 17)])
    known.server.guard = UpdateGuard(layout, num_examples=[16] * NUM_CLIENTS)
    known.run()
    assert refused(known) == {2: 1}
    later = Federation(fedavg(), None, 2, outer=[metric("num-examples", 17, rounds=[2])])
    later.run()
    assert [row["round/refused_clients"] for row in later.server.rows] == [0, 1]
    assert refused(later) == {2: 1}


def test_a_node_keeps_its_client_and_a_client_may_come_back_on_another_node():
    guard = UpdateGuard(small_site().layout)
    guard.check_sender(7, 0, 16, [7, 8])
    with pytest.raises(PayloadError, match="another number than 0, which is client 7's"):
        guard.check_sender(8, 0, 16, [7, 8])
    with pytest.raises(PayloadError, match="the number that this client had before, got 1"):
        guard.check_sender(7, 1, 16, [7, 8])
    guard.check_sender(9, 0, 16, [8, 9])


class TestLengths:
    layout = Layout(torch.nn.Linear(4, 4))

    @property
    def target(self):
        return {"weight": torch.ones(4, 4), "bias": torch.ones(4)}

    def why(self, lengths, guard=None):
        unit = {name: t / 20**0.5 for name, t in self.target.items()}
        updates = {node: {name: t * length for name, t in unit.items()} for node, length in enumerate(lengths)}
        return sorted((guard or UpdateGuard(self.layout)).refused(self.target, updates))

    @pytest.mark.parametrize(
        ("lengths", "refused"),
        [
            ([1, 1, 1], []),
            ([1, 1, 4.9], []),
            ([1, 1, 5.1], [2]),
            ([0.5, 1e-9, 1, 1.5, 2, 1, 1, 1], []),
            ([0.1, 0.1, 0.1, 0.1, 0.1, 1e9, 1e9, 1e9], [5, 6, 7]),
            ([0.1, 1e30], [1]),  # of two, in a first round: at most the network's own length, 4.47
            ([0.1, 4], []),
            ([3], []),
            ([5], [0]),
            ([1e30], [0]),
            ([1e30, 1e30, 0.1], [0, 1]),  # most are false: still no more than five times the network
        ],
    )
    def test_the_first_round(self, lengths, refused):
        assert self.why(lengths) == refused

    def test_one_or_two_clients_are_held_to_the_last_round(self):
        guard = UpdateGuard(self.layout)
        assert self.why([0.1, 0.1, 0.1], guard) == []
        assert self.why([0.4], guard) == []
        assert self.why([0.4, 2.1], guard) == [1]
        again = UpdateGuard(self.layout)
        again.restore(json.loads(json.dumps({"lengths": {"weights": 0.1}, "declared": {"3": 5}})))
        assert self.why([0.6], again) == [0]
        assert again.declared == {3: 5}

    def test_a_client_that_sends_nothing_cannot_shut_the_others_out(self):
        assert self.why([0.0, 0.1]) == []
        guard = UpdateGuard(self.layout)
        self.why([0.1, 0.1, 0.1], guard)
        assert self.why([0.0, 0.0, 0.1], guard) == []

    @given(st.lists(st.floats(0.1, 0.45), min_size=1, max_size=9))
    def test_honest_clients_are_never_refused(self, lengths):
        assert self.why(lengths) == []

    @pytest.mark.parametrize("ratio", [0.5, float("nan"), float("inf"), -1])
    def test_a_bound_that_is_none_is_refused(self, ratio):
        with pytest.raises(ValueError, match="max_norm_ratio must be at least 1, or null"):
            UpdateGuard(self.layout, ratio)
        with pytest.raises(ValueError, match="max_examples must be at least 1"):
            UpdateGuard(self.layout, max_examples=0)


def test_counters_do_not_fall_and_an_index_stays_as_most_leave_it():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.register_buffer("index", torch.arange(3))
    model.register_buffer("count", torch.tensor(5))
    layout = Layout(model)
    target = layout.of(model)

    def why(**changes):
        honest = {name: torch.zeros_like(t) if t.is_floating_point() else t.clone() for name, t in target.items()}
        honest["count"] += 1
        return UpdateGuard(layout).refused(target, {1: honest, 2: dict(honest), 3: {**honest, **changes}})

    assert why() == {}
    assert "changes index, which the others leave" in why(index=torch.tensor([0, 1, 10**6]))[3]
    assert "counter count falls" in why(count=torch.tensor(4))[3]
    assert "counter count falls, or leaps" in why(count=torch.tensor(2**62))[3]


def test_a_round_of_refused_updates_changes_nothing_and_says_so(caplog):
    network = []
    run = Federation(
        strategies.FedAvgM(**EVERYBODY, server_momentum=0.9),
        None,
        3,
        [scaled(1e30, range(NUM_CLIENTS), rounds=[2])],
        score=lambda state: network.append({n: t.clone() for n, t in state.items()}) or {"val_score": 0.5},
    )
    run.run()
    assert [row["round/is_void"] for row in run.server.rows] == [0, 1, 0]
    assert distance(network[0], network[1]) == 0 < distance(network[1], network[2])
    assert "0 of 3 clients sent a usable update" in caplog.text
    assert "the round changes nothing" in caplog.text
    assert run_metrics(run.server.rows, 1)["void_rounds"] == 1


@pytest.mark.parametrize("num_rounds", [1, 9])
def test_a_run_that_nothing_changes_ends_with_one_line(tmp_path, num_rounds):
    run = Federation(fedavg(), None, num_rounds, [scaled(1e30, range(NUM_CLIENTS))], folder=tmp_path)
    with pytest.raises(LinkError, match=r"round \d: 0 of 3 .*its weights change by .*changed the network"):
        run.run()


def test_a_new_network_that_is_none_never_becomes_the_global_one(tmp_path, caplog):
    scores = iter([0.5, float("nan"), 0.5, 0.6])
    strategy = strategies.FedAvgM(**EVERYBODY, server_momentum=0.9)
    run = Federation(strategy, None, 3, folder=tmp_path, score=lambda state: {"val_score": next(scores)})
    run.run()
    assert [row["round/is_void"] for row in run.server.rows] == [0, 1, 0]
    assert "round 2: the new network's val_score is nan; the round changes nothing" in caplog.text

    class Broken(strategies.FedAvg):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            if server_round == 2:
                arrays = to_record({n: t * float("inf") for n, t in from_record(arrays).items()})
            return arrays, metrics

    run = Federation(Broken(**EVERYBODY), None, 3)
    assert all(bool(tensor.isfinite().all()) for tensor in run.run().values())
    assert "holds NaN or infinity; the round changes nothing" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_ruined_checkpoint_is_refused_with_a_line(tmp_path, value):
    Federation(fedavg(), None, 1, folder=tmp_path).run()
    path = tmp_path / checkpoint.FILE
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["global/classifier.weight"][0, 0] = value
    facts = json.loads(metadata["facts"])
    del facts["guard"]  # as versions wrote it that let every update in
    save_file(tensors, path, {"facts": json.dumps(facts)})
    with pytest.raises(ConfigError, match=r"federated\.resume=.* is ruined: .*begin anew"):
        Federation(fedavg(), None, 2, resume=tmp_path).run()


def test_a_resumed_run_holds_clients_to_what_they_were(tmp_path):
    Federation(fedavg(), None, 1, folder=tmp_path).run()
    run = Federation(fedavg(), None, 2, outer=[metric("num-examples", 17)], resume=tmp_path)
    run.run()
    assert refused(run) == {2: 1}


def test_privacy_clips_instead():
    def wrap(strategy):
        return strategies.DifferentialPrivacyServerSideFixedClipping(strategy, 0.0, 1.0, NUM_CLIENTS)

    run = Federation(fedavg(), None, 1, [scaled(1e30)], privacy=Privacy(wrapper=wrap, seed=0), statistics="local")
    final = run.run()
    assert refused(run) == {}
    moved = [float((final[n].double() - t.double()).norm()) for n, t in run.server.initial.items()]
    assert np.linalg.norm(moved) <= 1.01
