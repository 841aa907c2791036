"""Clients that take places and give nothing: half-open calls, endless payloads, floods; health answers meanwhile."""

import dataclasses
import itertools
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from splitsem.errors import ConfigError, LinkError, PayloadError
from splitsem.remote.grpc.server import SERVICE, GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.tail_engine import TailEngine
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import Security
from splitsem_device.grpc.frames import Frame, Reply
from splitsem_device.retry import Backoff
from tests.integration.network import output_of

ONCE = Backoff(retries=0, deadline_s=10.0)
METHODS = [f"/{SERVICE}/Stream", f"/{SERVICE}/Open", f"/{SERVICE}/Info", "/grpc.health.v1.Health/Check"]
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def is_healthy(address):
    with grpc.insecure_channel(address, OWN_CONNECTION) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
    return reply.status == health_pb2.HealthCheckResponse.SERVING


def never():
    return iter(threading.Event().wait, None)


@pytest.mark.parametrize("num_calls", [48, 200])
def test_half_open_calls_of_every_kind_keep_nobody_out(server, connect, plan, frames, num_calls):
    with grpc.insecure_channel(server.address, OWN_CONNECTION) as channel:
        calls = [
            channel.stream_stream(method)(never()) for _, method in zip(range(num_calls), itertools.cycle(METHODS))
        ]
        time.sleep(0.3)
        assert is_healthy(server.address)
        tail = connect(server.address, retry=ONCE)
        assert tail.info().points
        tail.open(plan)
        assert all(map(torch.equal, map(output_of, tail.stream(frames[0][:20])), frames[1]))
        for call in calls:
            call.cancel()


def test_a_call_must_send_its_first_message_in_time(start_server):
    server = start_server(limits={"first_s": 0.3})
    with grpc.insecure_channel(server.address) as channel:
        for method in METHODS:
            call = channel.stream_stream(method)(never())
            began = time.monotonic()
            assert call.code() is grpc.StatusCode.CANCELLED
            assert time.monotonic() - began < 3


def test_connections_that_never_speak_http_keep_nobody_out(server, connect, plan, frames):
    host, port = server.address.split(":")
    open_ = [socket.create_connection((host, int(port))) for _ in range(300)]
    try:
        for each in open_[::2]:
            each.send(b"PRI * HT")
        assert is_healthy(server.address)
        tail = connect(server.address, retry=ONCE)
        tail.open(plan)
        assert len(list(tail.stream(frames[0][:5]))) == 5
    finally:
        for each in open_:
            each.close()


@pytest.mark.parametrize("part", [bytes(1 << 20), b"x", b""])
def test_a_frame_of_endless_parts_ends_at_the_plans_limit_as_it_arrives(server, connect, plan, part):
    tail = connect(server.address)
    tail.open(plan)
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/Stream", Frame.to_bytes, Reply.from_bytes)
        drawn = []

        def parts():
            for _ in range(1_000_000):
                drawn.append(1)
                yield Frame(tail._session, "endless", 0, part, more=True)

        call = stream(parts())
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "payload of at most 196608 bytes" in call.details() or "an empty part" in call.details()
        assert len(drawn) < 20_000
    assert process.memory_info().rss - before < 30e6


def test_the_memory_of_large_payloads_is_given_back(start_server, connect, plan):
    server = start_server(is_forked=False)
    process = psutil.Process(server.process.pid)
    tail = connect(server.address)
    tail.open(plan.probe(0))
    assert len(list(tail.stream([bytes(1000)]))) == 1
    before = process.memory_info().rss
    assert len(list(tail.stream(bytes(30 << 20) for _ in range(8)))) == 8
    give_up = time.monotonic() + 10
    while process.memory_info().rss - before > 20e6:
        assert time.monotonic() < give_up, process.memory_info().rss - before
        time.sleep(0.1)


def test_memory_is_given_back_again_for_a_last_payload_that_a_thread_still_held(network, plan, connect, monkeypatch):
    times = []
    monkeypatch.setattr("splitsem.remote.grpc.server.give_memory_back", lambda: times.append(time.monotonic()))
    server = GrpcServer(TailEngine(network[1], plan.weights), "127.0.0.1:0", Security(), Limits(first_s=0.4))
    tail = connect(server.start())
    tail.open(plan.probe(0))
    assert len(list(tail.stream([bytes(9 << 20)]))) == 1
    give_up = time.monotonic() + 30
    while len(times) < 3:
        assert time.monotonic() < give_up, times
        time.sleep(0.05)
    server.stop(0.0)


def test_one_address_takes_three_quarters_of_the_places_and_is_told_so(start_server, connect, plan, frames):
    server = start_server(limits={"max_clients": 4})
    streams = []
    for _ in range(3):
        tail = connect(server.address, retry=ONCE)
        tail.open(plan)
        streams.append(tail.stream(frames[0]))
        next(streams[-1])
    fourth = connect(server.address, retry=ONCE)
    fourth.open(plan)
    with pytest.raises(LinkError, match=r"your address 127.0.0.1 has its 3 of the server's 4 clients.*max_per_address"):
        list(fourth.stream(frames[0][:1]))


def test_a_stream_that_pauses_longer_than_allowed_goes_on_with_its_next_frame(start_server, connect, plan, frames):
    server = start_server(limits={"idle_s": 0.2})
    tail = connect(server.address, retry=ONCE)
    tail.open(plan)

    def paused():
        for number, payload in enumerate(frames[0][:6]):
            if number in (2, 5):
                time.sleep(1.2)
            yield payload

    assert all(map(torch.equal, map(output_of, tail.stream(paused())), frames[1]))
    assert tail.counters.frames_answered == 6
    assert tail.counters.reconnects >= 2
    assert tail.counters.retries == 0  # nothing was lost, so nothing was tried again


def test_a_flood_of_plans_drives_out_nobody_who_has_answers(server, connect, plan, frames, network):
    tail = connect(server.address, retry=ONCE)
    tail.open(plan)
    answers = tail.stream(frames[0][:4], window=1)
    next(answers)
    flood = connect(server.address, retry=ONCE)
    for point in network[1].points:
        for codec in flood.info().codecs[:8]:
            flood.open(dataclasses.replace(plan, point=point.name, codec=codec))
    for num_bytes in range(200):
        flood.open(plan.probe(num_bytes))
    assert len(list(answers)) == 3
    assert tail.counters.reconnects == 0


@pytest.mark.parametrize("field", ["point", "codec", "answer", "weights", "precision"])
def test_no_error_repeats_more_than_a_little_of_what_a_plan_says(server, field, plan):
    with grpc.insecure_channel(server.address) as channel:
        open_ = channel.unary_unary(f"/{SERVICE}/Open", tail_pb2.OpenRequest.SerializeToString, None)
        for text in ("x" * 3_000_000, "x" * 1000, "a\nERROR root: pwned\x1b[2J"):
            changed = dataclasses.replace(plan, **{field: text})
            with pytest.raises(grpc.RpcError) as refused:
                open_(tail_pb2.OpenRequest(plan_json=changed.to_json()), timeout=10)
            said = refused.value.details()
            assert said.count("x") < 260
            assert "\x1b" not in said
            assert "\nERROR" not in said


@pytest.fixture
def hostile():
    """A server that answers every frame by endless parts, and refuses every plan in its own way."""
    pool = ThreadPoolExecutor(4)
    server = grpc.server(pool)
    sent = []

    def parts(frames, _):
        request_id = next(iter(frames)).request_id
        for _ in range(100_000):
            sent.append(1)
            yield Reply(request_id, 0.0, 0.0, bytes(1 << 16), more=True)

    def open_(request, context):
        if "stage1" not in request.plan_json:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no\x1b[2J\r" + "x" * 5000)
        return tail_pb2.OpenReply(session="s", max_window=8)

    handlers = {
        "Open": grpc.unary_unary_rpc_method_handler(
            open_, tail_pb2.OpenRequest.FromString, tail_pb2.OpenReply.SerializeToString
        ),
        "Stream": grpc.stream_stream_rpc_method_handler(parts, Frame.from_bytes, Reply.to_bytes),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", sent
    server.stop(None).wait()
    pool.shutdown(wait=False)


def test_a_hostile_servers_answer_ends_at_the_edges_limit_and_its_words_are_few(hostile, plan):
    address, sent = hostile
    tail = GrpcTail(address, 8, ONCE, Security(), max_answer_bytes=1 << 20)
    tail.open(plan)
    with pytest.raises(PayloadError, match="at most 1048576 bytes"):
        list(tail.stream([b"frame"]))
    assert len(sent) < 1000
    with pytest.raises(ConfigError) as refused:
        tail.open(dataclasses.replace(plan, point="stem"))
    assert len(str(refused.value)) < 1100
    assert str(refused.value).isprintable()
    tail.close()
