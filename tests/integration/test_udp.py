"""The datagram transport from end to end: real sockets, a real control channel, a really bad network."""

import contextlib
import json
import multiprocessing
import os
import random
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import hydra
import pytest
import torch
from hydra import compose, initialize_config_dir

from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError, LinkError, PayloadError
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.labels import codec_label, weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.udp import packets
from splitsem.remote.udp import server as udp_server
from splitsem.remote.udp.settings import Grant
from splitsem.remote.udp.transport import UdpTransport
from splitsem_device.answers import ToMeasure
from splitsem_device.fallback import LocalFallback
from splitsem_device.grpc.connection import Security
from splitsem_device.plan import Plan
from tests.conftest import ROOT
from tests.hatchery import Hatched
from tests.integration import udp_ends
from tests.integration.conftest import QUICK
from tests.integration.network import INPUT_SHAPE, RAW, output_of, small_plan
from tests.integration.udp_ends import bad_network, connected, serving


def check(answers, outputs) -> None:
    answers = list(answers)
    assert [a.request_id for a in answers] == list(range(len(outputs)))
    assert all(torch.equal(output_of(a), y) for a, y in zip(answers, outputs, strict=True))


@pytest.fixture(scope="module")
def running():
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def batches(network) -> tuple[list[torch.Tensor], list[bytes]]:
    """Inputs of 32 samples, and their payloads at the cut ``input``: 12 fragments of 700 bytes."""
    x = torch.rand(100, 32, *INPUT_SHAPE, generator=torch.Generator().manual_seed(2))
    return list(x), [Identity().encode((batch,)) for batch in x]


def test_answers_equal_the_whole_model_in_order(running, plan, frames):
    payloads, outputs = frames
    with connected(running[1], plan) as tail:
        check(tail.stream(payloads[:300]), outputs[:300])
        check(tail.stream(payloads[:20], window=1), outputs[:20])
        assert tail.counters.frames_sent == tail.counters.frames_answered == 320
        assert (tail.counters.frames_lost, tail.counters.missing_share, tail.counters.reconnects) == (0, 0.0, 0)


@pytest.mark.parametrize("size", [0, 1, 1399, 1400, 1401, 262_144, 3_000_000])
def test_any_size_arrives_whole_and_the_missing_share_is_known(running, plan, size):
    with connected(running[1], plan) as tail:
        assert tail.echo(size) == (pytest.approx(0.0, abs=5.0), 0.0)
    harm = {"loss": 0.05, "late": 0.05, "duplicate": 0.05, "damage": 0.02}
    with bad_network(running[0], 2, **harm) as relay, connected(running[1], plan, datagram_target=relay.address) as bad:
        took_s, missing = bad.echo(size)
        assert took_s > 0
        assert 0 <= missing < (0.3 if size > 100_000 else 1.01)


def test_loss_is_filled_or_reported_and_the_rest_is_right(running, network, batches):
    model, graph = network
    inputs, payloads = batches
    plan = small_plan(model, graph, "input")
    with (
        bad_network(running[0], 4, loss=0.05, late=0.02, duplicate=0.05) as relay,
        connected(running[1], plan, datagram_target=relay.address, fragment_bytes=700) as tail,
    ):
        answers = list(tail.stream(payloads))
        counters = tail.counters
    assert [a.request_id for a in answers] == list(range(100))
    with torch.inference_mode():
        expected = [model(batch) for batch in inputs]
    num_exact = sum(not a.is_lost and torch.equal(output_of(a), y) for a, y in zip(answers, expected, strict=True))
    num_lost = sum(a.is_lost for a in answers)
    assert counters.frames_lost == num_lost
    assert counters.frames_filled >= 100 - num_exact - num_lost > 20
    assert num_lost < 10  # a frame's beginning travels twice
    assert num_exact > 20
    assert 0.02 < counters.missing_share < 0.1


def test_a_frame_of_one_datagram_is_sent_again_until_its_answer_comes(running, plan, frames):
    payloads, outputs = frames
    with (
        bad_network(running[0], 3, loss=0.2, duplicate=0.1) as relay,
        connected(running[1], plan, datagram_target=relay.address) as tail,
    ):
        check(tail.stream(payloads[:300]), outputs[:300])
        assert (tail.counters.frames_lost, tail.counters.frames_answered) == (0, 300)


def test_a_lost_frame_is_data_and_no_exception_for_a_codec_that_cannot_be_filled(network):
    model, graph = network
    codec, cut = Quantise(8), graph.cut("input")
    end = EdgeEnd(cut, codec, RAW)
    plan = replace(end.plan(weights_digest(model), "layer", "float32"), codec=codec_label(codec))
    x = torch.rand(32 * 40, *INPUT_SHAPE, generator=torch.Generator().manual_seed(3)).split(32)
    with serving() as (server, address), bad_network(server, 5, loss=0.2) as relay:
        with connected(address, plan, datagram_target=relay.address, fragment_bytes=700) as tail:
            answers = list(tail.stream(end.payload(batch) for batch in x))
            results = [end.result(replace(answer, payload=answer.payload[:40])) for answer in answers]
            counters = tail.counters
        lost = [a.is_lost for a in answers]
        assert counters.frames_lost == sum(lost) > 0
        assert not counters.frames_filled
        assert all((torch.count_nonzero(result) == 0) == is_lost for result, is_lost in zip(results, lost, strict=True))
        engine = TailEngine(graph, weights_digest(model))
        local = LocalFallback(
            udp_ends.udp_transport(address, datagram_target=relay.address, fragment_bytes=700).edge_end(), engine
        )
        local.open(plan)
        answers = list(local.stream(EdgeEnd(cut, codec, RAW).payload(batch) for batch in x))
        local.close()
        assert not any(a.is_lost for a in answers)
        assert local.counters.fallback_frames == local.counters.frames_lost > 0
        assert not local.is_gone


def test_features_survive_loss_better_than_they_would_by_frames(network):
    """At 5 % loss, filled frames keep most of their values; without filling most of the frames would be lost."""
    model, graph = network
    codec, cut = FixedLength(8), graph.cut("input")
    end = EdgeEnd(cut, codec, RAW)
    plan = replace(end.plan(weights_digest(model), "layer", "float32"), codec=codec_label(codec))
    x = torch.rand(40, 32, *INPUT_SHAPE, generator=torch.Generator().manual_seed(3)) - 0.5
    with (
        serving() as (server, address),
        bad_network(server, 6, loss=0.05) as relay,
        connected(address, plan, datagram_target=relay.address, fragment_bytes=100) as tail,
    ):
        answers = list(tail.stream(codec.payload((batch,)) for batch in x))
        assert tail.counters.frames_filled > 20  # most of the 40
        assert tail.counters.frames_lost <= 4
    agreeing = [
        (output_of(a).argmax(1) == model(batch).argmax(1)).float().mean().item()
        for a, batch in zip(answers, x, strict=True)
        if not a.is_lost
    ]
    assert sum(agreeing) / len(agreeing) > 0.9


def test_a_late_answer_counts_as_lost_and_then_as_late(network, frames, plan):
    class Slow(TailEngine):
        def answer(self, session, payload, queue_s=0.0):
            time.sleep(0.4)
            return super().answer(session, payload, queue_s)

    model, graph = network
    with (
        serving(Slow(graph, weights_digest(model))) as (_, address),
        connected(address, plan, deadline_s=0.2) as tail,
    ):
        began = time.monotonic()
        answers = list(tail.stream(frames[0][:2], window=1))
        assert time.monotonic() - began < 1.5
        assert all(a.is_lost for a in answers)
        deadline = time.monotonic() + 5
        while tail.counters.frames_late < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tail.counters.frames_late, tail.counters.frames_lost) == (2, 0)


def test_a_long_answer_comes_whole_over_the_control_channel(running, plan):
    probes = Plan.of_probes(1_000_000)
    with (
        bad_network(running[0], 7, loss=0.1) as relay,
        connected(running[1], probes, datagram_target=relay.address) as tail,
    ):
        answers = list(tail.stream([b""] * 20))
    assert all(len(a.payload) == 1_000_000 for a in answers if not a.is_lost)
    assert sum(a.is_lost for a in answers) < 10


def test_clients_at_once_each_get_their_own_answers(running, plan, frames):
    payloads, outputs = frames

    def client(start: int) -> None:
        with connected(running[1], plan) as tail:
            check(tail.stream(payloads[start : start + 100]), outputs[start : start + 100])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(0, 800, 100)))
    deadline = time.monotonic() + 5
    while running[0].num_clients() and time.monotonic() < deadline:  # a closed stream is noticed a little later
        time.sleep(0.01)
    assert running[0].num_clients() == 0
    assert running[0].held_bytes() == 0


def test_a_server_that_was_started_again_is_sent_what_it_did_not_answer(plan, frames):
    payloads, outputs = frames
    patient = replace(QUICK, retries=600)
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    with first, second:
        _, address = first.enter_context(serving())
        answers = []
        with connected(address, plan, retry=patient, deadline_s=60.0) as tail:
            for answer in tail.stream(payloads[:400]):
                answers.append(answer)
                if len(answers) == 100:
                    first.close()
                    second.enter_context(serving(bind=address))
            check(answers, outputs[:400])
            assert tail.counters.reconnects >= 1
            assert tail.counters.frames_answered == 400


@pytest.mark.slow  # processes that import torch
def test_a_server_killed_and_started_again_loses_no_frame(plan, frames, tmp_path):
    payloads, outputs = frames

    def start(bind: str) -> tuple[Hatched, str]:
        told, tell = multiprocessing.Pipe(duplex=False)
        process = Hatched(tmp_path / "log.txt", udp_ends.main, bind, tell.send)
        tell.close()
        return process, told.recv()

    server, address = start("127.0.0.1:0")
    answers = []
    try:
        patient = replace(QUICK, retries=600)
        with connected(address, plan, retry=patient, deadline_s=60.0) as tail:
            for answer in tail.stream(payloads):
                answers.append(answer)
                if len(answers) % 400 == 200:
                    server.kill()
                    server.wait()
                    server, _ = start(address)
            check(answers, outputs)
            assert tail.counters.reconnects >= 5
            assert tail.counters.frames_answered == 2000
    finally:
        server.kill()


def test_a_server_that_is_gone_for_good_is_a_dead_link(plan, frames):
    with contextlib.ExitStack() as server:
        _, address = server.enter_context(serving())
        with connected(address, plan) as tail:
            stream = tail.stream(frames[0])
            next(stream)
            server.close()
            with pytest.raises(LinkError, match="refuses connections"):
                list(stream)


def test_a_spent_key_makes_room_for_another_one(running, plan, frames, monkeypatch):
    payloads, outputs = frames
    with connected(running[1], plan, deadline_s=60.0) as tail:
        monkeypatch.setattr(packets, "MAX_PACKETS", 150)
        check(tail.stream(payloads[:400]), outputs[:400])
        assert tail.counters.reconnects >= 2


def test_an_edge_that_moves_to_another_address_is_answered_there(running, plan, frames):
    payloads, outputs = frames
    with bad_network(running[0]) as relay, connected(running[1], plan, datagram_target=relay.address) as tail:
        answers = []
        for answer in tail.stream(payloads[:300]):
            answers.append(answer)
            if len(answers) == 100:
                relay._upstream.clear()
        check(answers, outputs[:300])
        assert tail.counters.reconnects == 0


def test_keys_and_frames_need_tls_and_the_token_where_the_server_demands_them(plan, frames, tmp_path):
    payloads, outputs = frames
    certs, token = tmp_path / "certs", tmp_path / "token"
    subprocess.run(["make", "certs", f"CERTS={certs}"], cwd=ROOT, check=True, capture_output=True)
    token.write_text("a secret\n")
    guarded = Security(cert=str(certs / "server.pem"), key=str(certs / "server.key"), token_file=str(token))
    with serving(security=guarded) as (_, address):
        with connected(address, plan, security=Security(ca=str(certs / "ca.pem"), token_file=str(token))) as tail:
            check(tail.stream(payloads[:20]), outputs[:20])
        for security, says in ((Security(ca=str(certs / "ca.pem")), "token"), (Security(), "TLS")):
            with pytest.raises(LinkError, match=says), connected(address, plan, security=security):
                pass


@pytest.mark.parametrize("target", ["10.255.0.1:5000", "[2001:db8::1]:5000"])
def test_the_open_network_without_tls_is_refused_unless_allowed(plan, target):
    with pytest.raises(ConfigError, match="insecure=true"), connected(target, plan):
        pass
    with pytest.raises(ConfigError, match="insecure=true"), serving(bind="0.0.0.0:0"):
        pass


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": "other"}, r"weights: the server has .*, the edge other"),
        ({"wire_version": 0}, "run the same splitsem on both ends"),
        ({"codec": "Unheard"}, r"codec: the server reads .*, the edge sends Unheard"),
        ({"point": "stage9"}, "stage9.*stage1"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_in_words(running, plan, change, says):
    with pytest.raises(Exception, match=says), connected(running[1], replace(plan, **change)):
        pass


def test_a_damaged_payload_is_an_error_of_its_frame_and_the_session_lives(running, plan, frames):
    payloads, outputs = frames
    with connected(running[1], plan) as tail:
        with pytest.raises(PayloadError, match="checksum"):
            list(tail.stream([payloads[0], payloads[1][:-1] + b"\x00"]))
        check(tail.stream(payloads[:5]), outputs[:5])


def test_a_payload_beyond_the_grant_is_refused_before_it_is_sent(plan):
    with serving(grant=Grant(max_frame_bytes=10_000)) as (_, address), connected(address, plan) as tail:
        with pytest.raises(PayloadError, match="at most 10000 bytes"):
            list(tail.stream([bytes(10_001)]))
        assert tail.echo_s(10_000) > 0


def test_a_path_without_udp_is_told_when_the_plan_is_opened(running, plan):
    with bad_network(running[0], loss=1.0) as relay:
        began = time.monotonic()
        refused = pytest.raises(LinkError, match=r"but no datagram comes back.*a link over gRPC alone")
        with refused, connected(running[1], plan, datagram_target=relay.address):
            pass
        assert time.monotonic() - began < 15


def test_more_clients_than_the_server_takes_are_told_so(plan):
    refused = pytest.raises(LinkError, match="the server has its 1 clients")
    limits = Limits(max_clients=1)
    with serving(limits=limits) as (_, address), connected(address, plan), refused, connected(address, plan):
        pass


def test_a_silent_client_makes_room_for_another_and_comes_back(plan, frames, monkeypatch):
    payloads, outputs = frames
    monkeypatch.setattr(udp_server, "_IDLE_S", 0.2)
    patient = replace(QUICK, retries=600)  # it comes back at once, and has to wait
    with serving(limits=Limits(max_clients=1)) as (_, address), connected(address, plan, retry=patient) as silent:
        time.sleep(0.3)
        with connected(address, plan) as tail:
            check(tail.stream(payloads[:20]), outputs[:20])
        check(silent.stream(payloads[:20]), outputs[:20])
        assert silent.counters.reconnects >= 1


def test_sessions_share_the_memory_for_frames(plan):
    with (
        serving(grant=Grant(max_frame_bytes=1 << 20, buffer_bytes=2_000_000)) as (server, address),
        connected(address, plan),
        connected(address, plan),
    ):
        assert [session.max_held_bytes for session in server._sessions.values()] == [1_000_000] * 2


@pytest.mark.parametrize("bind", ["[::1]:0", "localhost:0", "[::]:0"])
def test_ipv6_and_names_carry_frames_too(plan, frames, bind):
    payloads, outputs = frames
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    with (
        serving(bind=bind, security=Security(insecure=True)) as (_, address),
        connected(address.replace("[::]", "127.0.0.1"), plan) as tail,
    ):
        check(tail.stream(payloads[:20]), outputs[:20])


def test_an_error_in_the_payloads_reaches_the_consumer(running, plan, frames):
    def broken():
        yield frames[0][0]
        raise ZeroDivisionError("the head failed")

    with connected(running[1], plan) as tail:
        with pytest.raises(ZeroDivisionError, match="the head failed"):
            list(tail.stream(broken()))
        assert tail.echo_s(10) > 0


def test_a_consumer_that_stops_early_leaves_the_session_usable(running, plan, frames):
    payloads, outputs = frames
    with connected(running[1], plan) as tail:
        stream = tail.stream(payloads)
        assert next(stream).request_id == 0
        stream.close()
        check(tail.stream(payloads[:200]), outputs[:200])
        assert not tail._frames._outcomes


def test_the_server_measures_its_own_tails(running, plan, frames):
    with connected(running[1], plan) as tail:
        found = tail.profile(ToMeasure([plan.point], frames[0][0], budget_s=0.01))
        assert found.answer_s > 0
        assert list(json.loads(found.lut_json)["points"]) == [plan.point]


def test_the_paced_rate_is_kept(running, plan):
    with connected(running[1], plan, rate_bps=20e6) as tail:
        took_s = tail.echo_s(1_000_000)
    assert 0.7 * 20e6 < 8 * 1_000_000 / took_s < 20e6


def test_an_engine_that_made_room_opens_the_plan_again(network, frames):
    """Two clients with a plan each, one tail kept: every frame drops the other's tail."""
    model, graph = network
    payloads, outputs = frames
    engine = TailEngine(graph, weights_digest(model), max_sessions=1)
    with (
        serving(engine) as (_, address),
        connected(address, small_plan(model, graph)) as one,
        connected(address, small_plan(model, graph, "input")),
    ):
        check(one.stream(payloads[:20]), outputs[:20])


def test_the_config_option_makes_both_ends(plan, frames, network):
    payloads, outputs = frames
    model, graph = network
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        config = compose("config", ["transport=udp", "transport.bind=127.0.0.1:0"]).transport
    made = hydra.utils.instantiate(config)
    assert isinstance(made, UdpTransport)
    server = made.server_end(TailEngine(graph, weights_digest(model)))
    made.target = server.start()
    tail = made.edge_end()
    try:
        tail.open(plan)
        check(tail.stream(payloads[:50]), outputs[:50])
    finally:
        tail.close()
        server.stop()


def test_an_honest_edge_loses_nothing_while_others_flood_the_port(network, plan, frames):
    """Garbage, forged datagrams of its own session, repeated, cut and reordered copies, from many addresses."""
    payloads, outputs = frames
    with serving() as (server, address), bad_network(server) as relay:
        caught: list[bytes] = []
        passing = relay._pass
        relay._pass = lambda sock, datagram, to: (caught.append(datagram[:]), passing(sock, datagram, to))[1]  # type: ignore[method-assign]
        target = ("127.0.0.1", server.port)
        over = threading.Event()

        def flood(seed: int) -> None:
            rng = random.Random(seed)
            while not over.is_set():
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    for _ in range(50):
                        copies = caught[-200:] or [b""]
                        copy = bytearray(rng.choice(copies))
                        kind = rng.randrange(4)
                        if kind == 0:
                            copy = bytearray(rng.randbytes(rng.randrange(1500)))
                        elif kind == 1 and len(copy) > 20:  # forged: the session's number, a number far ahead
                            copy[8:16] = rng.randrange(1 << 32).to_bytes(8, "little")
                        elif kind == 2:
                            copy = copy[: rng.randrange(len(copy) + 1)]
                        sock.sendto(bytes(copy), target)
                    time.sleep(0.01)

        floods = [threading.Thread(target=flood, args=(seed,)) for seed in range(2)]
        with connected(address, plan, datagram_target=relay.address) as tail:
            before = resident_bytes()
            for thread in floods:
                thread.start()
            try:
                for start in range(0, 1200, 300):
                    check(tail.stream(payloads[start : start + 300]), outputs[start : start + 300])
                    assert server.held_bytes() < 1 << 20
            finally:
                over.set()
                for thread in floods:
                    thread.join()
            assert (tail.counters.frames_lost, tail.counters.frames_late, tail.counters.reconnects) == (0, 0, 0)
            assert server.num_clients() == 1
        assert server.num_refused > 100
        assert resident_bytes() - before < 50 << 20


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
