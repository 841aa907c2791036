"""Mutated messages against the real server: each gets a status, memory stays flat, honest clients notice nothing."""

import random

import grpc
import psutil
import pytest
import torch

from splitsem.remote.grpc.server import SERVICE
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.frames import Frame
from tests.integration.network import output_of

EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,  # not a protobuf message, or not a payload
    grpc.StatusCode.ABORTED,  # the session's name was hit
}


def mutated(message: bytes, source: random.Random) -> bytes:
    """One message with some bytes changed, cut out or put in."""
    data = bytearray(message)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(data))
        match source.randrange(4):
            case 0:
                data[at] = source.randrange(256)
            case 1:
                del data[at : at + source.randint(1, 30)]
            case 2:
                data[at:at] = source.randbytes(source.randint(1, 30))
            case _:
                del data[max(at, 1) :]
        data = data or bytearray(b"\0")
    return bytes(data)


def send_all(server, plan, payload, num_messages):
    source = random.Random(num_messages)
    seen = set()
    with grpc.insecure_channel(server.address) as channel:
        open_ = channel.unary_unary(
            f"/{SERVICE}/Open", tail_pb2.OpenRequest.SerializeToString, tail_pb2.OpenReply.FromString
        )
        session = open_(tail_pb2.OpenRequest(plan_json=plan.to_json())).session
        call = channel.unary_unary(f"/{SERVICE}/Call")
        for number in range(num_messages):
            message = Frame(session, "fuzz", number % 1000, payload, num_answered=number % 1000).to_bytes()
            _, ended = call_with_status(call, mutated(message, source))
            seen.add(ended)
    return seen


def call_with_status(call, message):
    try:
        return call.with_call(message, timeout=10)[0], grpc.StatusCode.OK
    except grpc.RpcError as exc:
        return None, exc.code()


@pytest.mark.parametrize("num_messages", [2_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_mutated_messages_get_a_status_each_and_leave_no_trace(start_server, connect, plan, frames, num_messages):
    server = start_server()
    process = psutil.Process(server.process.pid)
    send_all(server, plan, frames[0][0], 1_000)  # reply cache and pools reach their size
    before = process.memory_info().rss
    seen = send_all(server, plan, frames[0][0], num_messages)
    assert seen <= EXPECTED
    assert grpc.StatusCode.INVALID_ARGUMENT in seen
    assert process.memory_info().rss - before < 15e6
    tail = connect(server.address)
    tail.open(plan)
    outputs = [output_of(answer) for answer in tail.stream(frames[0][:50])]
    assert len(outputs) == 50
    assert all(map(torch.equal, outputs, frames[1]))


METHODS = {
    f"/{SERVICE}/Open": "unary_unary",
    f"/{SERVICE}/Call": "unary_unary",
    f"/{SERVICE}/Stream": "stream_stream",
    "/grpc.health.v1.Health/Check": "unary_unary",
}


@pytest.mark.parametrize("path", METHODS)
def test_what_is_no_protobuf_is_said_to_be_none_and_leaves_nothing_behind(server, path):
    """gRPC's own reading would keep some 15 KB of each."""
    process = psutil.Process(server.process.pid)
    with grpc.insecure_channel(server.address) as channel:
        method = getattr(channel, METHODS[path])(path)

        def send():
            if METHODS[path] == "unary_unary":
                method(b"\xff\xff", timeout=10)
            else:
                list(method(iter([b"\xff\xff"]), timeout=10))

        for num_messages in (200, 800):
            before = process.memory_info().rss
            for _ in range(num_messages):
                with pytest.raises(grpc.RpcError) as refused:
                    send()
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "expected a protobuf message" in refused.value.details()
        assert process.memory_info().rss - before < 5e6


def test_2000_requests_leave_the_servers_memory_as_it_was(server, connect, plan, frames):
    process = psutil.Process(server.process.pid)
    tail = connect(server.address)
    tail.open(plan)
    before = 0
    for answer in tail.stream(frames[0]):
        if answer.request_id == 500:  # pools and allocators have their size
            before = process.memory_info().rss
    assert answer.request_id == 1999
    assert process.memory_info().rss - before < 4e6
