"""Federated training in one process: equal to plain Flower, repeatable, coded both ways, and it bears faults."""

import random
from dataclasses import replace

import pytest
import torch

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.codecs.topk import TopK
from splitsem.errors import ConfigError, LinkError, PayloadError
from splitsem.federated import checkpoint
from splitsem.federated.flower import Array, ArrayRecord, ClientApp, Message, MetricRecord, RecordDict
from splitsem.federated.in_process import ClientLinks, InProcessGrid
from splitsem.federated.rate_controller import Rate, RateController, WarmUp
from splitsem.federated.site import falling_share
from splitsem.federated.state import Layout, from_record, to_record
from splitsem.links.simulated import SimulatedLink
from splitsem.models.cnn import StagedCnn
from tests.unit.federated import NUM_CLIENTS, Federation, distance, small_site

strategies = pytest.importorskip("flwr.serverapp.strategy", reason="the extra federated is not installed")
EVERYBODY = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}


def fedavg(**settings):
    return strategies.FedAvg(**EVERYBODY, **settings)


def _who(message, context):
    return context.node_config["partition-id"], message.content["config"]["server-round"]


def test_fedavg_with_identity_is_a_plain_flower_fedavg():
    site, plain = small_site(), ClientApp()

    @plain.train()
    def train(message, context):
        state = message.content["arrays"].to_torch_state_dict()
        state |= {name: state[name].round().long() for name in site.layout.counters}
        done = site.train(
            state, {}, context.node_config["partition-id"], message.content["config"]["server-round"], 0.0
        )
        metrics = MetricRecord({"num-examples": done.num_examples})
        return Message(RecordDict({"arrays": to_record(done.state), "metrics": metrics}), reply_to=message)

    result = fedavg().start(InProcessGrid(plain, NUM_CLIENTS), to_record(site.layout.of(site.model)), num_rounds=5)
    expected = result.arrays.to_torch_state_dict()
    got = Federation(fedavg(), num_rounds=5).run()
    assert expected.keys() == got.keys()
    assert distance(got, dict(expected)) < 1e-4
    assert distance(got, small_site().layout.of(small_site().model)) > 1e-2


def test_the_same_seed_gives_the_same_network_whatever_was_drawn_before():
    first = Federation(fedavg(fraction_train=0.7), Quantise(4)).run()
    random.seed(99)
    torch.manual_seed(99)
    assert distance(first, Federation(fedavg(fraction_train=0.7), Quantise(4)).run()) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: fedavg(),
        lambda: strategies.FedProx(**EVERYBODY, proximal_mu=0.1),
        lambda: strategies.FedAdam(**EVERYBODY, eta=0.01),
        lambda: strategies.FedAvgM(**EVERYBODY, server_momentum=0.9),
        lambda: strategies.FedTrimmedAvg(**EVERYBODY, beta=0.34),
        lambda: strategies.Krum(**EVERYBODY, num_malicious_nodes=0),
    ],
    ids=["fedavg", "fedprox", "fedadam", "fedavgm", "fedtrimmedavg", "krum"],
)
def test_a_strategy_sees_the_networks_that_the_clients_have(make):
    exact, coded = Federation(make()), Federation(make(), Quantise(16))
    exact_net, coded_net = exact.run(), coded.run()
    assert distance(exact_net, coded_net) < 2e-2
    assert distance(exact_net, exact.server.initial) > 1e-3
    assert all(net["stem.bn.running_var"].min() > 0 for net in (exact_net, coded_net))
    assert exact_net["stem.bn.num_batches_tracked"] == 2 * 2  # two rounds of two batches, a whole number
    assert coded.server.rows[0]["round/uplink_bytes"] < exact.server.rows[0]["round/uplink_bytes"]


def test_what_one_update_drops_is_in_the_next():
    with_feedback = Federation(fedavg(), TopK(keep_ratio=0.05), num_rounds=3)
    without = Federation(fedavg(), TopK(keep_ratio=0.05), num_rounds=3, error_feedback=False)
    with_feedback.run(), without.run()
    residuals = [from_record(c.state["residual"]) for c in with_feedback.grid.contexts.values()]
    assert all(max(float(t.abs().max()) for t in residual.values()) > 0 for residual in residuals)
    assert all(t.is_floating_point() for residual in residuals for t in residual.values())
    assert all("residual" not in c.state for c in without.grid.contexts.values())
    assert distance(with_feedback.server.final, without.server.final) > 0


def test_over_a_coded_downlink_both_ends_have_the_same_network():
    full, coded = Federation(fedavg(), num_rounds=3), Federation(fedavg(), num_rounds=3, downlink=Quantise(8))
    full.run(), coded.run()
    held = [from_record(c.state["reference-arrays"]) for c in coded.grid.contexts.values()]
    assert all(distance(held[0], other) == 0 for other in held)
    assert distance(held[0], coded.server.grid.downlink.reference) == 0
    assert 0 < distance(full.server.final, coded.server.final) < 0.2
    down = [row["round/downlink_bytes"] for row in coded.server.rows]
    assert down[0] == pytest.approx(full.server.rows[0]["round/downlink_bytes"], rel=0.01)
    assert max(down[1:]) < down[0] / 2


def test_a_client_that_missed_a_round_gets_the_whole_network():
    fails_in_second = Faulty(1, 2, lambda message: 1 / 0)
    run = Federation(fedavg(), num_rounds=4, downlink=Quantise(8), mods=[fails_in_second])
    run.run()
    down = [row["round/downlink_bytes"] for row in run.server.rows]
    assert down[1] < down[2] < down[0]
    assert down[3] == pytest.approx(down[1], rel=0.1)
    held = [from_record(c.state["reference-arrays"]) for c in run.grid.contexts.values()]
    assert all(distance(held[0], other) == 0 for other in held)


class Faulty:
    """A mod that spoils the reply of one client in one round (None: in all)."""

    def __init__(self, client, server_round, spoil):
        self.client, self.round, self.spoil = client, server_round, spoil

    def __call__(self, message, context, call_next):
        server_round = message.content["config"]["server-round"]
        reply = call_next(message, context)
        if context.node_config["partition-id"] == self.client and self.round in (None, server_round):
            self.spoil(reply)
        return reply


def damage(reply):
    array = reply.content["arrays"]["update"]
    data = bytes(array.data[:40]) + bytes([array.data[40] ^ 1]) + bytes(array.data[41:])
    reply.content["arrays"] = ArrayRecord({"update": Array(array.dtype, array.shape, array.stype, data)})


def foreign_codec(reply):
    update = reply.content["arrays"]["update"]
    reply.content["arrays"] = ArrayRecord(
        {"update": Array(update.dtype, update.shape, update.stype, b"sS\x01\x01" + bytes(30))}
    )


def other_model(reply):
    reply.content["config"]["fingerprint"] = "0123456789abcdef"


def without_metrics(reply):
    del reply.content["metrics"]["num-examples"]


def plain_arrays(reply):
    reply.content["arrays"] = to_record({"w": torch.ones(2)})


def not_a_number(reply):
    arrays = from_record(reply.content["arrays"])
    arrays["stem.conv.weight"][0] = float("nan")
    reply.content["arrays"] = to_record(arrays)


@pytest.mark.parametrize(
    ("spoil", "where", "reason"),
    [
        (damage, "outer", "checksum"),
        (foreign_codec, "outer", "expected"),
        (other_model, "outer", "expected an update of network"),
        (without_metrics, "outer", "num-examples"),
        (plain_arrays, "outer", "expected one array"),
        (not_a_number, "mods", "NaN"),
        (lambda reply: 1 / 0, "mods", "ZeroDivisionError"),
    ],
    ids=["damaged", "foreign", "other model", "no metrics", "plain", "NaN", "raises"],
)
def test_a_bad_reply_is_left_out_with_a_warning(caplog, spoil, where, reason):
    run = Federation(fedavg(), Quantise(8), 1, **{where: [Faulty(1, None, spoil)]}, min_clients=2)
    run.run()
    (row,) = run.server.rows
    assert row["round/failed_clients"] == 1
    assert row["round/num_clients"] == NUM_CLIENTS - 1
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "client 2 is left out" in warnings[0]
    assert reason in warnings[0]


def test_a_reply_that_comes_too_late_is_left_out():
    def take_a_minute(reply):
        run.now_s += 60

    late = Faulty(1, 1, take_a_minute)
    run = Federation(fedavg(), num_rounds=2, outer=[late], timeout_s=59.0)
    run.run()
    assert [row["round/failed_clients"] for row in run.server.rows] == [1, 0]


def test_too_few_usable_updates_end_the_run_with_one_line():
    run = Federation(fedavg(), num_rounds=1, mods=[Faulty(1, None, lambda reply: 1 / 0)], min_clients=3)
    with pytest.raises(LinkError, match=r"round 1: 2 of 3 .*federated.min_clients=3.*client 2: ZeroDivisionError"):
        run.run()


@pytest.mark.parametrize(
    "make",
    [fedavg, lambda: strategies.FedAvgM(**EVERYBODY, server_momentum=0.9), lambda: strategies.FedAdam(**EVERYBODY)],
    ids=["fedavg", "fedavgm", "fedadam"],
)
def test_a_run_that_is_resumed_is_the_run_that_was_not_interrupted(tmp_path, make):
    settings = {"codec": TopK(keep_ratio=0.1), "downlink": Quantise(8)}
    whole = Federation(make(), num_rounds=4, **settings)
    whole.run()
    Federation(make(), num_rounds=2, folder=tmp_path, **settings).run()
    again = Federation(make(), num_rounds=4, resume=tmp_path, **settings)
    assert distance(whole.server.final, again.run()) == 0
    counted = [[row["round/uplink_bytes"] for row in run.server.rows] for run in (whole, again)]
    assert counted[0] == counted[1]


def test_a_checkpoint_of_another_network_or_a_damaged_one_is_refused(tmp_path):
    Federation(fedavg(), num_rounds=1, folder=tmp_path).run()
    with pytest.raises(ConfigError, match="is of network"):
        Federation(fedavg(), resume=tmp_path, statistics="local").run()
    with pytest.raises(ConfigError, match="there is no"):
        Federation(fedavg(), resume=tmp_path / "nowhere").run()
    path = tmp_path / checkpoint.FILE
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match="damaged"):
        Federation(fedavg(), resume=tmp_path).run()


def test_statistics_keep_up_with_the_weights_whatever_the_codec():
    exact, sparse = Federation(fedavg()), Federation(fedavg(), TopK(keep_ratio=0.01))
    exact.run(), sparse.run()
    of_first_round = "stem.bn.running_mean"
    moved = (exact.server.final[of_first_round] - exact.server.initial[of_first_round]).abs()
    apart = (exact.server.final[of_first_round] - sparse.server.final[of_first_round]).abs()
    assert (moved > 0).all()
    assert apart.max() < 0.2 * moved.max()


def test_local_statistics_stay_on_their_client():
    run = Federation(fedavg(), statistics="local")
    final = run.run()
    assert not [name for name in final if "running" in name or "tracked" in name]
    own = [from_record(c.state["own"]) for c in run.grid.contexts.values()]
    assert distance(own[0], own[1]) > 0
    assert all(state["stem.bn.num_batches_tracked"] == 4 for state in own)


def test_a_fingerprint_tells_networks_apart_and_forgets_their_weights():
    layouts = [Layout(StagedCnn((1, 8, 8), (10,), widths=(4,), stem_width=width)) for width in (4, 4, 5)]
    assert layouts[0].fingerprint == layouts[1].fingerprint != layouts[2].fingerprint


def test_a_payload_of_another_network_does_not_decode():
    mine, other = (StagedCnn((1, 8, 8), (10,), widths=(4,), stem_width=width) for width in (4, 5))
    payload = Layout(other).encode(Identity(), Layout(other).join(Layout(other).of(other)))
    with pytest.raises(PayloadError, match=r"expected float32\[\d+, \d+\], got float32"):
        Layout(mine).decode(Identity(), payload)


def test_a_controller_sets_the_rate_of_each_update_and_hears_of_it():
    links = ClientLinks(lambda node: SimulatedLink(1e3 if node == 2 else 1e6, rtt_s=0.01, energy_j_per_bit=0.0))
    controller = RateController(deadline_s=2.0, patience=1)

    def make_codec(rate):
        return Quantise(rate.bit_width if rate else 8)

    run = Federation(fedavg(), None, 4, make_codec=make_codec, rates=controller, links=links)
    run.run()
    weights = run.server.layout.num_weights
    rates = {node: controller.choose(node, weights) for node in run.grid.contexts}
    assert rates[1] == rates[3] == Rate(8)
    assert rates[2].bit_width < 8
    widths = [row["round/bit_width"] for row in run.server.rows]
    assert widths[0] < widths[-1] < 8
    assert all(row["round/link_s"] > 0 for row in run.server.rows)


def test_a_warm_up_falls_from_a_quarter_to_the_kept_share_and_goes_on_after_a_resume(tmp_path):
    def federation(num_rounds, **settings):
        def make_codec(rate):
            return TopK(rate.keep_ratio if rate else 0.05, "quantised")

        rates = WarmUp(keep_ratio=0.05, bit_width=8, num_rounds=2)
        return Federation(fedavg(), None, num_rounds, make_codec=make_codec, rates=rates, **settings)

    whole = federation(4)
    whole.run()
    sent = [row["round/uplink_bytes"] for row in whole.server.rows]
    assert sent[0] > sent[1] > sent[2] == pytest.approx(sent[3], rel=0.05)
    federation(1, folder=tmp_path).run()
    again = federation(4, resume=tmp_path)
    again.run()
    assert [row["round/uplink_bytes"] for row in again.server.rows] == sent


def test_however_many_tensors_a_network_has_its_codec_gets_one_of_each_dtype():
    layout = small_site().layout
    state = layout.of(small_site().model)
    values = layout.join(state)
    assert [part.dtype for part in values] == [torch.float32, torch.float32, torch.int64]
    assert len(values[0]) == sum(t.numel() for t in state.values() if t.dim() > 1)
    assert distance(layout.split(values), state) == 0
    assert distance(layout.split(layout.decode(Identity(), layout.encode(Identity(), values))), state) == 0


def test_each_block_of_weights_has_a_range_of_its_own_and_the_rest_is_fine():
    model = StagedCnn((1, 8, 8), (10,), stem_width=4, widths=(4,), inner_widths=(4,))
    state = Layout(model).of(model)
    state["stem.conv.weight"] *= 1000  # the first of the weights

    def worst(block_values):
        layout = Layout(model, block_values=block_values)
        got = layout.split(layout.decode(Quantise(4), layout.encode(Quantise(4), layout.join(state))))
        assert max(float((got[n] - t).abs().max()) for n, t in state.items() if t.dim() < 2) < 1e-3
        return float((got["classifier.weight"] - state["classifier.weight"]).abs().max())

    assert worst(block_values=36) < 0.1 < worst(block_values=10_000)


def test_the_learning_rate_of_the_clients_falls_to_its_last_share():
    run = Federation(fedavg(), num_rounds=3)
    run.site.learning_rate_share = lambda server_round: falling_share(server_round, 3, last=0.0)
    networks = []
    run.server = replace(run.server, score=lambda state: networks.append(dict(state)) or {"val_score": 0.0})
    run.run()
    weights = [net["classifier.weight"] for net in networks]
    assert (weights[0] - weights[1]).abs().max() > 1e-4
    assert (weights[1] - weights[2]).abs().max() < 1e-6
