"""Split training without a network: equal to unsplit training, exactly once, bounded, clear when it cannot go on."""

import copy

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import BusyError, ConfigError, PayloadError, SessionError, SplitPointError
from splitsem.remote.training_engine import TrainingLimits
from splitsem.remote.training_messages import Kind, Request, StepReply
from splitsem.remote.training_plan import TrainingPlan
from splitsem.remote.training_tail import LocalTrainingTail
from splitsem.tasks.digits import Digits
from splitsem.training.optimiser import HalfOptimiser, adamw_one_cycle
from splitsem.workflows.serve import training_transport
from tests.conftest import ROOT
from tests.training import SHAPE, Side, batches


@pytest.fixture(scope="module")
def server():
    return Side()


@pytest.fixture(scope="module")
def own_device():
    return Side()


@pytest.fixture
def device(own_device):
    return own_device.reset()


@pytest.fixture(scope="module")
def data():
    return batches(8)


def unsplit_losses(side: Side, data, plan: TrainingPlan) -> tuple[list[float], torch.nn.Module]:
    """The same training of the whole network, in plain torch."""
    model = copy.deepcopy(side.model).train()
    optimizer, schedule = adamw_one_cycle(model.parameters(), plan.learning_rate, plan.weight_decay, plan.total_steps)
    losses = []
    for x, y in data:
        optimizer.zero_grad()
        loss = Digits().loss(model(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.gradient_clip_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses, model.eval()


@pytest.mark.parametrize("point", ["input", "stem", "stage1", "stage2", "output"])
def test_the_loss_curve_and_the_weights_are_those_of_unsplit_training(server, device, data, point):
    expected, whole = unsplit_losses(device, data, device.plan())
    trainer = device.trainer(LocalTrainingTail(server.engine()), point)
    losses = [trainer.step(x, y) for x, y in data]
    assert losses == pytest.approx(expected, rel=1e-5)
    x = torch.rand(16, *SHAPE)
    torch.testing.assert_close(trainer.evaluate(x), whole(x).detach(), rtol=1e-4, atol=1e-5)
    trainer.finish()
    torch.testing.assert_close(device.model.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-5)


def test_clipping_uses_the_norm_of_both_halves_together(device, data):
    whole, (x, y) = copy.deepcopy(device.model), data[0]
    Digits().loss(whole(x), y).backward()
    settings_ = device.plan(gradient_clip_norm=0.01).optimiser()
    parameters = list(whole.parameters())
    halves = [HalfOptimiser(parameters[:5], settings_), HalfOptimiser(parameters[5:], settings_)]
    total = torch.nn.utils.get_total_norm([p.grad for p in parameters]).item()
    norms = [half.norm() for half in halves]
    assert (norms[0] ** 2 + norms[1] ** 2) ** 0.5 == pytest.approx(total, rel=1e-6)
    assert total > 0.01
    assert max(norms) < total


def test_what_is_served_does_not_change_while_somebody_trains(server, device, data):
    engine = server.engine()
    before = copy.deepcopy(server.model.state_dict())
    trainer = device.trainer(LocalTrainingTail(engine))
    for x, y in data[:3]:
        trainer.step(x, y)
    assert all(map(torch.equal, before.values(), server.model.state_dict().values()))


def test_quantised_features_and_gradients_learn_and_are_smaller(server, device, data):
    back = {"gradient_codec": "Quantise", "gradient_settings": '{"bit_width": 8}'}
    trainer = device.trainer(LocalTrainingTail(server.engine()), codec=Quantise(8), **back)
    losses = [trainer.step(x, y) for x, y in data]
    assert losses[-1] < 0.9 * losses[0]
    exact = device.reset().trainer(LocalTrainingTail(server.engine()))
    expected = [exact.step(x, y) for x, y in data]
    assert losses == pytest.approx(expected, rel=0.05)
    assert trainer.tail.traffic.uplink_bytes < 0.3 * exact.tail.traffic.uplink_bytes
    assert trainer.tail.traffic.downlink_bytes < 0.3 * exact.tail.traffic.downlink_bytes


def test_dropout_is_the_same_in_every_run_whatever_else_draws(data):
    side = Side(dropout=0.5)

    def losses(**changes) -> list[float]:
        tail = LocalTrainingTail(side.reset().engine())
        trainer = side.trainer(tail, **changes)
        torch.rand(torch.randint(1, 50, ()).item())
        return [trainer.step(x, y) for x, y in data[:3]]

    state = torch.get_rng_state()
    first = losses()
    assert not torch.equal(state, torch.get_rng_state())
    assert losses() == first
    assert losses(seed=1) != first


class Resending(LocalTrainingTail):
    """A link that delivers every request twice."""

    def _exchange(self, number, message):
        first = super()._exchange(number, message)
        if message[0] != Kind.CLOSE:
            again = super()._exchange(number, message)
            assert bytes(again.payload) == bytes(first.payload)
        return first


def test_a_request_that_comes_twice_is_carried_out_once(server, device, data):
    once = device.trainer(LocalTrainingTail(server.engine()))
    expected = [once.step(x, y) for x, y in data]
    engine = server.engine()
    registry = engine.engine.metrics.registry
    before = registry.get_sample_value("splitsem_training_requests_total", {"outcome": "answered"})
    twice = device.reset().trainer(Resending(engine))
    assert [twice.step(x, y) for x, y in data] == expected
    counted = registry.get_sample_value("splitsem_training_requests_total", {"outcome": "answered"})
    assert counted - before == len(data)
    assert registry.get_sample_value("splitsem_trainers") == 1
    twice.keep()
    twice.finish()
    twice.tail.close()
    assert registry.get_sample_value("splitsem_trainers") == 0


def test_the_weights_kept_are_the_ones_given_back(server, device, data):
    trainer = device.trainer(LocalTrainingTail(server.engine()))
    for x, y in data[:2]:
        trainer.step(x, y)
    x = torch.rand(8, *SHAPE)
    best = trainer.evaluate(x)
    trainer.keep()
    for batch in data[2:5]:
        trainer.step(*batch)
    assert not torch.allclose(trainer.evaluate(x), best)
    trainer.finish()
    assert torch.allclose(device.model(x), best, atol=1e-6)


def test_requests_out_of_turn_are_refused_and_change_nothing(server, device, data):
    engine = server.engine()
    key = engine.open(device.plan(), "me")
    keep = Request(Kind.KEEP).to_bytes()
    with pytest.raises(PayloadError, match="expected request 0"):
        engine.answer(key, 1, keep)
    engine.answer(key, 0, keep)
    with pytest.raises(PayloadError, match="expected request 1"):
        engine.answer(key, 2, keep)


class Mystery(Identity):
    """A codec that the server does not have."""


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"weights": "other"}, "weights: the server has"),
        ({"training_fingerprint": "other"}, "training_fingerprint: the server has"),
        ({"task": "my.Task"}, "give both ends the same model= and task="),
        ({"codec": Mystery()}, "codec: the server reads"),
        ({"gradient_codec": "os.system"}, "gradients travel by one of Identity"),
        ({"gradient_codec": "Quantise", "gradient_settings": '{"bit_width": 99}'}, "bit_width must be 1…16, got 99"),
        ({"gradient_codec": "Quantise", "gradient_settings": '{"width": 8}'}, "width"),
    ],
)
def test_ends_that_do_not_agree_say_so_in_one_line(server, device, changes, line):
    with pytest.raises(ConfigError, match=line) as caught:
        server.engine().open(device.plan(**changes), "me")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("changes", [{"learning_rate": float("nan")}, {"total_steps": 0}, {"weight_decay": -1.0}])
def test_a_plan_that_makes_no_sense_is_a_config_error(device, changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        device.plan(**changes)


def test_a_plan_survives_its_json(device):
    plan = device.plan(gradient_codec="Quantise", gradient_settings='{"bit_width": 4}')
    assert TrainingPlan.from_json(plan.to_json()) == plan


def test_an_unknown_point_is_named(server, device):
    with pytest.raises(SplitPointError, match="no split point 'stage9'"):
        server.engine().open(device.plan(point="stage9"), "me")


def test_a_loss_that_is_no_number_is_one_clear_line(server, device, data):
    trainer = device.trainer(LocalTrainingTail(server.engine()))
    (x, y), *_ = data
    with pytest.raises(ConfigError, match=r"the loss is nan at step 0: lower trainer\.learning_rate \(now 0\.01\)"):
        trainer.step(x * float("nan"), y)


def test_features_that_are_no_numbers_are_one_clear_line(server, device, data):
    trainer = device.trainer(LocalTrainingTail(server.engine()), codec=Quantise(8))
    with pytest.raises(ConfigError, match="features cannot be sent after 0 steps"):
        trainer.step(data[0][0] * float("nan"), data[0][1])


@pytest.mark.parametrize("y", [torch.full((64,), 99), torch.rand(64, 3), torch.zeros(63, dtype=torch.int64)])
def test_labels_that_do_not_fit_are_refused_and_hurt_nobody_else(server, device, data, y):
    engine = server.engine()
    with pytest.raises(PayloadError, match="labels"):
        device.trainer(LocalTrainingTail(engine)).step(data[0][0], y)
    other = device.reset().trainer(LocalTrainingTail(engine))
    assert other.step(*data[0]) > 0


def test_one_step_more_than_planned_is_refused(server, device, data):
    trainer = device.trainer(LocalTrainingTail(server.engine()), total_steps=1)
    trainer.step(*data[0])
    with pytest.raises(ConfigError, match="expected 1 steps"):
        trainer.step(*data[1])


def test_trainers_are_bounded_in_number_memory_and_time(server, device):
    clock = [0.0]
    engine = server.engine(TrainingLimits(max_trainers=2, idle_s=10.0), clock=lambda: clock[0])
    first = engine.open(device.plan(), "first")
    assert engine.open(device.plan(), "first") == first  # the answer was lost; no second tail
    engine.open(device.plan(), "second")
    with pytest.raises(BusyError, match="for 2 edges already"):
        engine.open(device.plan(), "third")
    clock[0] = 9.0
    engine.answer(first, 0, Request(Kind.KEEP).to_bytes())
    clock[0] = 11.0
    engine.open(device.plan(), "third")  # the second was idle
    assert engine.num_sessions() == 2
    engine.answer(first, 1, Request(Kind.CLOSE).to_bytes())
    assert engine.num_sessions() == 1
    with pytest.raises(SessionError, match="start the training again"):
        engine.answer(first, 2, Request(Kind.KEEP).to_bytes())
    with pytest.raises(ConfigError, match="the server grants 100"):
        server.engine(TrainingLimits(max_trainer_bytes=100)).open(device.plan(), "me")


def test_too_large_a_batch_is_refused(server, device, data):
    trainer = device.trainer(LocalTrainingTail(server.engine(TrainingLimits(max_batch=63))))
    with pytest.raises(PayloadError, match="at most 63 samples"):
        trainer.step(*data[0])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_messages_are_payload_errors(draw):
    whole = Request(Kind.STEP, 0.5, b"features", b"labels", 7).to_bytes()
    assert Request.from_bytes(whole) == Request(Kind.STEP, 0.5, b"features", b"labels", 7)
    message = bytearray(whole)
    for _ in range(draw.draw(st.integers(1, 4))):
        message[draw.draw(st.integers(0, len(message) - 1))] = draw.draw(st.integers(0, 255))
    message = message[: draw.draw(st.integers(0, len(message)))]
    for kind in (Request, StepReply):
        try:
            kind.from_bytes(bytes(message))
        except PayloadError:
            continue


def test_over_datagrams_training_is_refused_in_one_line():
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", ["transport=udp"])
    with pytest.raises(ConfigError, match="split training needs transport=grpc"):
        training_transport(cfg)
