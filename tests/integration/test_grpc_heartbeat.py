"""The heartbeat over gRPC: whoever falls silent is found out in the promised time, and taken up again when back."""

import queue
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest
import torch

from splitsem.errors import LinkError
from splitsem_device.grpc.connection import heartbeat_options
from splitsem_device.retry import Backoff
from tests.conftest import ROOT
from tests.integration.conftest import start_server
from tests.integration.network import output_of

HEARTBEAT_S = 1.0
NOTICED_S = 2 * HEARTBEAT_S + 1.0  # a second for a busy machine
PATIENT = Backoff(retries=400, first_s=0.05, most_s=0.2, deadline_s=60.0)
SILENT_CLIENT = """
import itertools, sys, threading, grpc
from splitsem_device.grpc.frames import Frame
channel = grpc.insecure_channel(sys.argv[1])
while True:  # until it is refused no more: another client may be in
    frames = itertools.chain([Frame("@probe/0", "silent", 0, b"").to_bytes()], iter(threading.Event().wait, None))
    channel.stream_stream("/splitsem.v1.Tail/Stream")(frames).code()
"""


@pytest.fixture(scope="module")
def beating(tmp_path_factory):
    """A server with a short heartbeat that takes one client only."""
    generator = start_server.__wrapped__(tmp_path_factory.mktemp("beating"))
    yield next(generator)(heartbeat_s=HEARTBEAT_S, limits={"max_clients": 1})
    next(generator, None)


def test_a_frozen_server_is_noticed_idle_or_waiting_and_goes_on_when_it_thaws(beating, connect, plan, frames):
    idle, busy = (connect(beating.address, retry=PATIENT, heartbeat_s=HEARTBEAT_S) for _ in range(2))
    idle.open(plan)
    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    idle._connected().subscribe(states.put)
    while states.get(timeout=5) is not grpc.ChannelConnectivity.READY:
        pass
    busy.open(plan)
    answers = busy.stream(frames[0][:300])
    outputs = [output_of(next(answers)) for _ in range(50)]
    beating.process.send_signal(signal.SIGSTOP)
    frozen_at = time.monotonic()
    rest: list[torch.Tensor] = []
    waiting = threading.Thread(target=lambda: rest.extend(output_of(answer) for answer in answers))
    waiting.start()
    try:
        assert states.get(timeout=NOTICED_S) is not grpc.ChannelConnectivity.READY
        while not busy.counters.retries and time.monotonic() - frozen_at < NOTICED_S:
            waiting.join(0.02)
        assert busy.counters.retries
    finally:
        beating.process.send_signal(signal.SIGCONT)
        waiting.join(30)
    outputs += rest
    assert len(outputs) == 300
    assert all(map(torch.equal, outputs, frames[1]))


def test_a_client_that_fell_silent_makes_room_for_another(beating, connect, plan, frames):
    command = [sys.executable, "-c", SILENT_CLIENT, beating.address]
    with subprocess.Popen(command, cwd=ROOT) as silent:
        try:
            tail = connect(beating.address, retry=PATIENT, heartbeat_s=HEARTBEAT_S)
            tail.open(plan)
            give_up = time.monotonic() + 30
            while gets_in(connect, beating, plan, frames):
                assert silent.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.05)
            silent.send_signal(signal.SIGSTOP)
            frozen_at = time.monotonic()
            (answer,) = tail.stream(frames[0][:1])
            assert torch.equal(output_of(answer), frames[1][0])
            assert tail.counters.retries
            assert time.monotonic() - frozen_at < NOTICED_S + 1.0
        finally:
            silent.kill()


def gets_in(connect, server, plan, frames):
    """Whether another client still gets in."""
    tail = connect(server.address, retry=Backoff(retries=0))
    tail.open(plan)
    try:
        return len(list(tail.stream(frames[0][:1]))) == 1
    except LinkError:  # the server has its one client
        return False
    finally:
        tail.close()


@pytest.mark.parametrize("heartbeat_s", [0.5, 0.0, float("inf"), float("nan")])
def test_a_heartbeat_that_grpc_cannot_keep_is_refused(heartbeat_s):
    with pytest.raises(ValueError, match="heartbeat_s must be at least 1"):
        heartbeat_options(heartbeat_s)
