"""Split training with a real server process: equal to unsplit training, through cut connections, side by side."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from splitsem.codecs.quantise import Quantise
from splitsem.errors import ConfigError, LinkError, SessionError, SplitPointError
from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.grpc.transport import GrpcTrainingTail
from splitsem.remote.split_module import train_split
from splitsem.remote.training_tail import LocalTrainingTail
from splitsem.tasks.digits import Digits
from splitsem_device.grpc.connection import Security
from splitsem_device.retry import Backoff
from tests.integration.conftest import start_server as starting
from tests.integration.tcp_relay import TcpRelay
from tests.training import FIT, Side, batches

CPU = torch.device("cpu")
PATIENT = Backoff(retries=20, first_s=0.01, most_s=0.1, deadline_s=20.0)


@pytest.fixture(scope="module")
def sides():
    """Two devices, with a network each."""
    return Side(), Side()


@pytest.fixture
def device(sides):
    return sides[0].reset()


@pytest.fixture(scope="module")
def trainers_server(tmp_path_factory):
    """One server that trains, shared by the tests that do it no harm."""
    generator = starting.__wrapped__(tmp_path_factory.mktemp("training"))
    yield next(generator)(training=True)
    next(generator, None)


@pytest.fixture
def reach():
    """Ends of devices that train, closed after the test."""
    made = []

    def make(address, retry=PATIENT):
        made.append(GrpcTrainingTail(address, 8, retry, Security()))
        return made[-1]

    yield make
    for tail in made:
        tail.close()


@pytest.fixture(scope="module")
def data():
    return batches(6)


@pytest.fixture(scope="module")
def undisturbed(sides, data):
    """Losses of a training at stage1 with the engine in this process."""
    trainer = sides[0].reset().trainer(LocalTrainingTail(sides[1].reset().engine()))
    return [trainer.step(x, y) for x, y in data]


def test_the_projects_own_training_gives_the_same_curve_with_and_without_the_link(trainers_server, device, reach):
    whole = copy.deepcopy(device.model)
    expected = FIT.run(whole, Digits(), CPU, seed=3)
    trainer = device.trainer(reach(trainers_server.address), total_steps=FIT.total_steps(Digits()))
    history = train_split(FIT, trainer, Digits(), seed=3)
    assert len(history) == FIT.max_epochs
    for epoch, unsplit in zip(history, expected, strict=True):
        assert epoch == pytest.approx(unsplit, rel=1e-5)
    assert trainer.tail.traffic.num_steps == 8
    torch.testing.assert_close(device.model.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-5)


def test_a_reply_that_was_lost_is_asked_for_again_and_the_step_is_taken_once(
    trainers_server, device, reach, data, undisturbed
):
    relay = TcpRelay(trainers_server.address)
    tail = reach(relay.address)
    trainer = device.trainer(tail)
    losses = []
    for number, (x, y) in enumerate(data):
        if number in (1, 3):
            relay.cut_at_next_reply(10_000)  # gradients: the server has taken the step
        losses.append(trainer.step(x, y))
    assert losses == undisturbed
    assert relay.num_cuts == tail.counters.reconnects == 2
    trainer.finish()
    relay.close()


def test_two_devices_train_at_once_as_if_alone(trainers_server, sides, reach, data, undisturbed):
    trainers = [side.reset().trainer(reach(trainers_server.address)) for side in sides]
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda trainer: [trainer.step(x, y) for x, y in data], trainers)
        assert list(both) == [undisturbed, undisturbed]


def test_one_devices_failure_does_not_reach_another(trainers_server, sides, reach, data, undisturbed):
    good, bad = (side.reset().trainer(reach(trainers_server.address)) for side in sides)
    losses = [good.step(*data[0])]
    with pytest.raises(ConfigError, match="the loss is nan at step 0"):
        bad.step(data[0][0] * float("nan"), data[0][1])
    losses += [good.step(x, y) for x, y in data[1:]]
    assert losses == undisturbed


def test_quantised_training_crosses_in_a_fraction_of_the_bytes(trainers_server, device, reach, data, undisturbed):
    back = {"gradient_codec": "Quantise", "gradient_settings": '{"bit_width": 8}'}
    trainer = device.trainer(reach(trainers_server.address), codec=Quantise(8), **back)
    assert [trainer.step(x, y) for x, y in data] == pytest.approx(undisturbed, rel=0.05)
    traffic = trainer.tail.traffic
    raw_bytes = traffic.num_steps * 64 * trainer.cut.point.raw_bytes
    assert traffic.label_bytes > traffic.num_steps * 64 * 8
    assert max(traffic.uplink_bytes - traffic.label_bytes, traffic.downlink_bytes) < 0.3 * raw_bytes


def test_a_wrong_plan_is_refused_with_its_line(trainers_server, device, reach):
    with pytest.raises(ConfigError, match="weights: the server has"):
        reach(trainers_server.address).open(device.plan(weights="other"))
    with pytest.raises(SplitPointError, match="stage9"):
        reach(trainers_server.address).open(device.plan(point="stage9"))


@pytest.fixture
def serve_here(sides):
    """Start a server in this process, to be stopped and started again quickly; all are stopped after the test."""
    started = []

    def start(bind="127.0.0.1:0", trains=True):
        training = sides[1].reset().engine()
        started.append(GrpcServer(training.engine, bind, Security(), Limits(), training=training if trains else None))
        return started[-1], started[-1].start()

    yield start
    for server in started:
        server.stop(0)


def test_a_server_that_only_answers_says_how_to_make_it_train(serve_here, device, reach):
    _, address = serve_here(trains=False)
    with pytest.raises(ConfigError, match=r"start one that does .*workflow\.training=true"):
        device.trainer(reach(address))


def test_a_server_that_was_restarted_has_lost_the_tail_and_says_so(serve_here, device, reach, data):
    server, address = serve_here()
    trainer = device.trainer(reach(address))
    trainer.step(*data[0])
    server.stop(0)
    serve_here(bind=address)
    with pytest.raises(SessionError, match="the trained tail is lost: start the training again"):
        trainer.step(*data[1])


def test_a_server_that_is_gone_is_a_link_error(serve_here, device, reach, data):
    server, address = serve_here()
    trainer = device.trainer(reach(address, Backoff(retries=2, first_s=0.01)))
    server.stop(0)
    with pytest.raises(LinkError, match=r"refuses connections.*\(after 3 tries\)"):
        trainer.step(*data[0])
