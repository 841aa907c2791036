"""Differential privacy over coded updates: norms, noise, what is refused, and that nothing changes without it."""

import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.codecs.topk import TopK
from splitsem.errors import ConfigError, LinkError, PayloadError
from splitsem.federated.flower import Array, ArrayRecord
from splitsem.federated.privacy import Privacy
from splitsem.federated.state import Layout, from_record
from tests.conftest import ROOT
from tests.unit.federated import NUM_CLIENTS, Federation, distance, small_site

strategies = pytest.importorskip("flwr.serverapp.strategy", reason="the extra federated is not installed")
CENTRAL = ["client_fixed", "server_fixed", "client_adaptive", "server_adaptive"]
LOCAL = Layout(small_site().model, "local")


def fedavg(**settings):
    everybody = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_evaluate_nodes": 0, "min_available_nodes": 1}
    return strategies.FedAvg(**(everybody | settings))


def mechanism(name, seed=0, **settings):
    """As ``conf/federated/privacy`` has it, for three clients."""
    config = OmegaConf.load(ROOT / "conf" / "federated" / "privacy" / f"{name}.yaml")
    if "wrapper" in config:
        config.wrapper.num_sampled_clients = NUM_CLIENTS
    (config.wrapper if "wrapper" in config else config.mod).update(settings)
    return instantiate(config, seed=seed)


def private(privacy, codec=None, **settings):
    return Federation(
        fedavg(), codec, privacy=privacy, statistics="local", error_feedback=False, **({"num_rounds": 1} | settings)
    )


def flat(state):
    return torch.cat([state[name].double().flatten() for name in LOCAL.names])


class Tap:
    """A mod that keeps the change that a client's reply brings."""

    def __init__(self):
        self.changes = {}

    def __call__(self, message, context, call_next):
        before = flat(from_record(message.content["arrays"]))
        reply = call_next(message, context)
        key = message.content["config"]["server-round"], context.node_config["partition-id"]
        self.changes[key] = flat(from_record(reply.content["arrays"])) - before
        return reply


@pytest.mark.parametrize(
    "codec", [Identity(), Quantise(8), Quantise(1), TopK(keep_ratio=0.1)], ids=["identity", "quant8", "quant1", "topk"]
)
def test_updates_are_clipped_before_they_are_encoded_and_within_the_norm_after_they_are_decoded(codec):
    tap = Tap()
    run = private(mechanism("client_fixed", clipping_norm=0.05, noise_multiplier=0.0), codec, mods=[tap])
    run.run()
    lengths = [float(change.norm()) for change in tap.changes.values()]
    assert lengths == pytest.approx([0.05] * NUM_CLIENTS, rel=1e-4)
    moved = flat(run.server.final) - flat(run.server.initial)
    assert 0 < float(moved.norm()) <= 0.05 * (1 + 1e-5)


def test_an_update_that_arrives_longer_than_its_norm_is_clipped_again():
    privacy, update = mechanism("client_fixed"), LOCAL.of(small_site().model)
    length = float(flat(update).norm())
    assert privacy.admit(update, {"clipping_norm": 2 * length}) is update
    clipped = privacy.admit(update, {"clipping_norm": length / 3})
    assert float(flat(clipped).norm()) == pytest.approx(length / 3)
    assert mechanism("local").admit(update, {}) is update


@pytest.mark.parametrize("name", CENTRAL)
def test_the_servers_noise_has_the_stated_deviation(name):
    norm = {"clipping_norm" if "fixed" in name else "initial_clipping_norm": 0.5}
    if "adaptive" in name:
        norm |= {"clip_norm_lr": 3.0, "clipped_count_stddev": 100.0}  # the next round's norm is another by far
    nets = [private(mechanism(name, noise_multiplier=z, **norm)).run() for z in (0.0, 2.0)]
    drawn = flat(nets[1]) - flat(nets[0])
    expected = 2.0 * 0.5 / NUM_CLIENTS
    assert float(drawn.std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * len(drawn)) + 1e-3)
    assert abs(float(drawn.mean())) < 4 * expected / math.sqrt(len(drawn))


def test_a_clients_own_noise_has_the_stated_deviation_and_is_another_each_time():
    quiet, loud = Tap(), Tap()
    settings = {"clipping_norm": 0.5, "sensitivity": 1.0, "delta": 1e-5}
    private(mechanism("local", epsilon=1e12, **settings), mods=[quiet]).run()
    private(mechanism("local", epsilon=8.0, **settings), mods=[loud]).run()
    noise = [loud.changes[key] - quiet.changes[key] for key in quiet.changes]
    drawn, expected = torch.cat(noise), math.sqrt(2 * math.log(1.25e5)) / 8.0
    assert float(drawn.std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * len(drawn)))
    assert max(float(change.norm()) for change in quiet.changes.values()) <= 0.5 * (1 + 1e-5)
    alike = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in ((noise[0], noise[1]), (noise[1], noise[2]))]
    assert max(map(abs, alike)) < 4 / math.sqrt(len(noise[0]))


@pytest.mark.parametrize("name", ["server_fixed", "local"])
def test_noise_repeats_with_a_seed_and_never_without(name):
    nets = [private(mechanism(name, seed)).run() for seed in (5, 5, 6, None, None)]
    assert distance(nets[0], nets[1]) == 0
    assert all(distance(nets[i], nets[j]) > 0.01 for i, j in ((0, 2), (3, 4), (0, 3)))


@pytest.mark.parametrize("name", CENTRAL)
def test_a_norm_that_nobody_reaches_and_no_noise_change_nothing(name):
    norm = {"clipping_norm" if "fixed" in name else "initial_clipping_norm": 1e6}
    with_privacy = private(mechanism(name, noise_multiplier=0.0, **norm), Quantise(16), num_rounds=2)
    without = private(None, Quantise(16), num_rounds=2)
    assert distance(with_privacy.run(), without.run()) < 1e-5


@pytest.mark.parametrize("name", ["client_adaptive", "server_adaptive"])
def test_an_adaptive_norm_goes_to_the_quantile_where_flowers_own_runs_away(name):
    settings = {"noise_multiplier": 0.0, "clipped_count_stddev": 0.0, "clip_norm_lr": 0.5}
    ends = {}
    for first in (1e-3, 1e3):
        run = private(mechanism(name, initial_clipping_norm=first, **settings), num_rounds=2)
        run.run()
        ends[first] = run.server.strategy.clipping_norm
    assert ends[1e-3] == pytest.approx(1e-3 * math.exp(0.5))  # all were clipped, half of them should be
    assert ends[1e3] == pytest.approx(1e3 * math.exp(-0.5))
    flowers = strategies.DifferentialPrivacyServerSideAdaptiveClipping(fedavg(), 0.0, NUM_CLIENTS)
    flowers._geometric_update(clipped_fraction=1.0)
    assert flowers.clipping_norm < 0.1  # when this fails, Flower's own can be used


def test_a_resumed_run_goes_on_with_the_same_norm_and_noise(tmp_path):
    whole = private(mechanism("client_adaptive"), num_rounds=4).run()
    private(mechanism("client_adaptive"), num_rounds=2, folder=tmp_path).run()
    again = private(mechanism("client_adaptive"), num_rounds=4, resume=tmp_path)
    assert distance(whole, again.run()) == 0


def test_clients_count_alike_where_the_noise_is_for_a_plain_mean():
    counts = {"num-examples": 16.0, "train-loss": 2.0, "norm_bit": 1.0}
    assert mechanism("client_adaptive").metrics(counts) == {"num-examples": 1.0, "norm_bit": 1.0}
    assert mechanism("local").metrics(counts) == counts


def test_an_evaluation_by_clients_is_left_alone():
    run = Federation(fedavg(fraction_evaluate=1.0), None, 1, privacy=mechanism("client_fixed"), statistics="local")
    run.run()
    assert run.server.rows[0]["round/client_loss"] > 0


def test_an_update_that_the_wrapper_cannot_take_is_left_out(caplog):
    def no_bit(message, context, call_next):
        reply = call_next(message, context)
        if context.node_config["partition-id"] == 1:
            del reply.content["metrics"]["norm_bit"]
        return reply

    run = private(mechanism("client_adaptive", num_sampled_clients=2), outer=[no_bit], min_clients=2)
    run.run()
    assert run.server.rows[0]["round/failed_clients"] == 1
    assert "expected norm_bit" in caplog.text
    with pytest.raises(PayloadError, match="got zeros"):
        mechanism("server_fixed").admit({"w": torch.zeros(3)}, {})


def test_a_round_that_too_few_updates_reach_ends_rather_than_with_too_little_noise():
    def fail(message, context, call_next):
        raise OSError("no more power")

    with pytest.raises(LinkError, match=r"federated\.min_clients=3"):
        private(mechanism("server_fixed"), outer=[fail]).run()


@pytest.mark.parametrize(
    ("name", "strategy", "layout", "settings", "reason"),
    [
        ("local", "FedAvg", Layout(small_site().model), {}, "add federated.statistics=local"),
        ("server_fixed", "FedAdam", LOCAL, {}, "mean of clipped updates, which FedAdam does not take"),
        ("server_fixed", "Krum", LOCAL, {}, "which Krum does not take"),
        ("client_fixed", "FedAvg", LOCAL, {"has_feedback": True}, "add federated.error_feedback=false"),
        ("client_fixed", "FedAvg", LOCAL, {"min_clients": 2}, "federated.min_clients=2: make that as large"),
    ],
    ids=["statistics", "fedadam", "krum", "feedback", "clients"],
)
def test_what_breaks_the_guarantee_is_refused(name, strategy, layout, settings, reason):
    settings = {"min_clients": NUM_CLIENTS, "has_feedback": False} | settings
    make = getattr(strategies, strategy)
    with pytest.raises(ConfigError, match=reason):
        mechanism(name).around(make(), layout, **settings)


def test_what_keeps_the_guarantee_is_taken():
    """Error feedback is fine where clipping or noise does not come before it."""
    prox = strategies.FedProx(proximal_mu=0.1)
    wrapper = mechanism("server_fixed").around(prox, LOCAL, NUM_CLIENTS, has_feedback=True)
    assert wrapper is not prox
    assert wrapper.strategy is prox
    adam = strategies.FedAdam()
    assert mechanism("local").around(adam, LOCAL, NUM_CLIENTS, has_feedback=True) is adam
    plain = strategies.FedAvg()
    layout = Layout(torch.nn.PReLU().double())
    assert mechanism("local").around(plain, layout, NUM_CLIENTS, has_feedback=False) is plain


class Odd(torch.nn.Module):
    def __init__(self, name, value):
        super().__init__()
        self.register_buffer(name, value)


@pytest.mark.parametrize("tensor", [torch.arange(3), torch.tensor(0.5)], ids=["integers", "scalar"])
def test_tensors_that_flower_would_send_as_they_are_are_refused(tensor):
    with pytest.raises(ConfigError, match="Flower neither clips nor noises temperature"):
        mechanism("local").around(fedavg(), Layout(Odd("temperature", tensor)), NUM_CLIENTS, has_feedback=False)


def test_flower_leaves_a_tensor_without_dimensions_as_it_is():
    """Why those are refused: when this fails, they need not be."""
    from flwr.supercore.differential_privacy import add_gaussian_noise_inplace, compute_clip_model_update

    new = [Array(torch.tensor(5.0).numpy()).numpy()]
    compute_clip_model_update(new, [Array(torch.tensor(0.0).numpy()).numpy()], clipping_norm=0.1)
    assert new[0] == 5.0
    add_gaussian_noise_inplace(new, 1.0)
    assert new[0] == 5.0


@pytest.mark.parametrize("settings", [{"epsilon": 0.0}, {"delta": 0.0}, {"delta": 1.0}])
def test_a_budget_that_gives_no_deviation_is_refused(settings):
    with pytest.raises(Exception, match="epsilon must be above 0 and delta in 0…1"):
        mechanism("local", **settings)
    with pytest.raises(ValueError, match="a mod, a wrapper or both"):
        Privacy()


def test_the_records_of_a_network_keep_their_types_through_clipping():
    tap = []

    def types(message, context, call_next):
        reply = call_next(message, context)
        record = reply.content["arrays"]
        assert isinstance(record, ArrayRecord)
        tap.extend(array.dtype for array in record.values())
        return reply

    private(mechanism("local"), mods=[types]).run()
    assert set(tap) == {"float32"}
