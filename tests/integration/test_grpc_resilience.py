"""What the gRPC link survives: killed and stopping servers, absent ones, clients that do not read."""

import logging
import signal
import socket
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import torch

from splitsem.codecs.tensorwise import Identity
from splitsem.errors import LinkError
from splitsem.remote.grpc.server import SERVICE, GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.journal import Journal
from splitsem.remote.tail_engine import TailEngine
from splitsem_device.fallback import LocalFallback
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.connection import Security
from splitsem_device.grpc.frames import Frame, Reply
from splitsem_device.retry import Backoff, NoRetry
from tests.hatchery import Hatched
from tests.integration import tail_device
from tests.integration.network import output_of
from tests.integration.tcp_relay import TcpRelay

PATIENT = Backoff(retries=400, first_s=0.05, most_s=0.2, deadline_s=20.0)


@pytest.fixture
def engine(network, plan):
    return TailEngine(network[1], plan.weights)


@pytest.fixture
def free_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    return address


def test_every_frame_is_answered_once_and_right_while_the_server_is_killed_again_and_again(
    start_server, connect, plan, frames, free_address
):
    payloads, expected = frames
    server = start_server(bind=free_address)
    tail = connect(free_address, retry=Backoff())  # the defaults
    tail.open(plan)
    outputs = []
    for answer in tail.stream(payloads):
        assert answer.request_id == len(outputs)
        outputs.append(output_of(answer))
        if len(outputs) in (300, 301, 900, 1500):
            server.process.kill()
            server.process.wait()
            server = start_server(bind=free_address)
    assert len(outputs) == 2000
    assert all(map(torch.equal, outputs, expected))
    assert tail.counters.frames_answered == 2000
    assert tail.counters.reconnects >= 3


@pytest.mark.parametrize("window", [1, 4])
def test_the_log_tells_a_normal_end_of_a_client_from_a_broken_one(window, engine, connect, plan, frames, caplog):
    caplog.set_level(logging.INFO, "splitsem.remote.visits")
    server = GrpcServer(engine, "127.0.0.1:0", Security(), Limits())
    relay = TcpRelay(server.start())
    once = NoRetry(deadline_s=20.0)

    def told(use):
        (tail := connect(relay.address, window, once)).open(plan)
        use(tail.stream(frames[0][:5], window))
        tail.close()
        server.streams.wait(20.0)
        server.streams.visits.settle(0.0)
        return caplog.records[-1].getMessage().partition(" is gone after ")[2].partition(": ")[2]

    def leave_midway(answers):
        next(answers)
        answers.close()

    def lose_the_link(answers):
        relay.cut_at_next_reply(50)
        with pytest.raises(LinkError):
            list(answers)

    assert told(list) == "it closed its stream"
    broken = "it left midway, or the connection broke"
    for use in (leave_midway, lose_the_link):  # gRPC may tell the end of the frames before it tells why they end
        assert broken in (told(use) for _ in range(10))
    relay.close()
    server.stop(0.0)


def test_a_stopping_server_answers_what_it_has_and_ends_well(start_server, connect, plan, frames):
    server = start_server()
    tail = connect(server.address, retry=Backoff(retries=0))
    tail.open(plan)
    outputs = []

    def stop_at_50(answer):
        outputs.append(output_of(answer))
        if len(outputs) == 50:
            server.process.send_signal(signal.SIGTERM)

    with pytest.raises(LinkError):
        deque(map(stop_at_50, tail.stream(frames[0])), maxlen=0)
    assert server.process.wait(10) == 0
    assert all(map(torch.equal, outputs, frames[1]))
    assert len(outputs) >= 50


@pytest.mark.parametrize(
    ("num_frames", "server_dies", "device_dies", "away_s"),
    [
        (200, [60], [120], 0.0),
        pytest.param(2000, [300, 700, 1100, 1600], [500, 1400], 8.0, marks=pytest.mark.slow),  # as long as a restart
    ],
)
def test_frames_are_answered_once_and_in_order_while_both_ends_are_killed(
    start_server, plan, frames, free_address, tmp_path, num_frames, server_dies, device_dies, away_s
):
    """At default settings, over one port; the device keeps its answers in a file."""
    path, journal = tmp_path / "answers", Journal(tmp_path / "answers", plan)
    server = start_server(bind=free_address)

    def start_device():
        arguments = free_address, str(path), plan.to_json(), num_frames
        return Hatched(tmp_path / "device.log", tail_device.main, *arguments)

    device = start_device()
    deaths = sorted([(n, "server") for n in server_dies] + [(n, "device") for n in device_dies])
    give_up = time.monotonic() + 120
    for number, who in deaths:
        while Journal(path, plan).num_kept < number:
            assert device.poll() is None, device.log.read_text()
            assert time.monotonic() < give_up
            time.sleep(0.01)
        if who == "device":
            device.kill()
            device.wait()
            device = start_device()
        else:
            server.process.kill()
            server.process.wait()
            time.sleep(away_s)
            server = start_server(bind=free_address)
    assert device.wait(120) == 0, device.log.read_text()
    kept = list(journal.stream(None, frames[0][:num_frames]))
    assert [answer.request_id for answer in kept] == list(range(num_frames))
    assert all(map(torch.equal, map(output_of, kept), frames[1]))


def test_the_device_goes_on_alone_while_the_server_is_away_and_with_it_when_it_is_back(
    start_server, connect, plan, frames, engine, free_address
):
    server = start_server(bind=free_address)
    remote = connect(free_address, retry=Backoff(first_s=0.01, most_s=0.05))
    tail = LocalFallback(remote, engine)
    tail.open(plan)
    outputs, alone = [], []
    for answer in tail.stream(frames[0]):
        assert answer.request_id == len(outputs)
        outputs.append(output_of(answer))
        if len(outputs) == 100:
            server.process.kill()
            server.process.wait()
        if tail.is_gone:
            alone.append(answer.request_id)
            if len(alone) == 50:
                server = start_server(bind=free_address)
            if len(alone) > 50:
                time.sleep(0.005)
        elif alone and len(outputs) - alone[-1] > 20:
            break
    assert all(map(torch.equal, outputs, frames[1]))
    assert not tail.is_gone
    assert tail.counters.fallback_frames >= 50
    tail.close()


def test_the_device_finishes_alone_when_the_server_is_gone_for_good(start_server, connect, plan, frames, engine):
    server = start_server()
    tail = LocalFallback(connect(server.address), engine)
    tail.open(plan)
    outputs = []
    for answer in tail.stream(frames[0][:300]):
        assert answer.request_id == len(outputs)
        outputs.append(output_of(answer))
        if len(outputs) == 100:
            server.process.kill()
            server.process.wait()
    assert len(outputs) == 300
    assert all(map(torch.equal, outputs, frames[1]))
    assert tail.counters.fallback_frames == 300 - tail.counters.frames_answered > 0


def test_a_server_that_was_never_there_leaves_all_to_the_device(connect, plan, frames, engine, free_address):
    tail = LocalFallback(connect(free_address), engine)
    tail.open(plan)
    outputs = [output_of(answer) for answer in tail.stream(frames[0][:10])]
    assert all(map(torch.equal, outputs, frames[1]))
    assert tail.counters.fallback_frames == 10


@pytest.mark.parametrize("retries", [0, 3])
def test_n_retries_are_n_retries(connect, plan, free_address, retries):
    tail = connect(free_address, retry=Backoff(retries=retries, first_s=0.001, most_s=0.01))
    told = rf"refuses connections.*\(after {retries + 1} tries\)$" if retries else r"refuses connections(?!.*tries)"
    with pytest.raises(LinkError, match=told):
        tail.open(plan)
    assert tail.counters.retries == retries


def test_a_name_that_does_not_resolve_is_said(connect, plan):
    with pytest.raises(LinkError, match=r"the name no-such-host\.invalid cannot be resolved"):
        connect("no-such-host.invalid:50051", insecure=True).open(plan)


def test_a_peer_that_never_speaks_runs_into_the_deadline(connect, plan):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        tail = connect(address, retry=Backoff(retries=0, deadline_s=0.5))
        with pytest.raises(LinkError, match="did not answer in time"):
            tail.open(plan)


def test_a_service_of_another_version_is_named(connect, plan):
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(LinkError, match="not this version of splitsem's service"):
            connect(f"127.0.0.1:{port}").open(plan)
    finally:
        server.stop(None).wait()


def test_a_client_that_never_reads_is_cut_and_hurts_no_other(start_server, connect, plan, network):
    server = start_server(limits={"max_clients": 1, "max_send_s": 0.5})
    x = torch.rand(256, 1, 8, 8)
    with torch.inference_mode():
        payload = Identity().encode(network[1].cut("stage1").head(x))
    with grpc.insecure_channel(server.address) as channel:
        open_ = channel.unary_unary(
            f"/{SERVICE}/Open", tail_pb2.OpenRequest.SerializeToString, tail_pb2.OpenReply.FromString
        )
        session = open_(tail_pb2.OpenRequest(plan_json=plan.to_json())).session
        stream = channel.stream_stream(f"/{SERVICE}/Stream", Frame.to_bytes, Reply.from_bytes)
        deaf = stream(Frame(session, "deaf", number, payload) for number in range(2000))
        tail = connect(server.address, retry=PATIENT)
        tail.open(plan)
        (answer,) = tail.stream([payload])  # there is room for one client only
        assert output_of(answer).shape == (256, 10)
        assert tail.counters.retries > 0
        deaf.cancel()
