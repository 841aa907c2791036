"""The datagram transport from end to end: a real server in another process, real sockets, a really bad network."""

import contextlib
import inspect
import json
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError, LinkError, PayloadError
from splitsem.remote.plan import Plan, weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.udp.client import UdpTail
from splitsem.remote.udp.server import UdpServer
from splitsem.remote.udp.settings import Settings, bind
from splitsem.remote.udp.transport import UdpTransport
from tests.integration import udp_tail_server
from tests.integration.hatchery import Hatched
from tests.integration.network import INPUT_SHAPE, output_of, small_network, small_plan
from tests.integration.udp_relay import Relay

NUM_FRAMES = 2000
QUICK = Settings(retries=3)


@dataclass
class Running:
    """A server process; ``address`` is what it bound."""

    process: Hatched
    address: str
    told: Connection

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def stop(self) -> dict[str, int]:
        """Ask it to end; what it counted."""
        self.process.send_signal(signal.SIGTERM)
        return json.loads(self.told.recv())


@contextlib.contextmanager
def serving(port: int = 0, **settings: object) -> Iterator[Running]:
    told, tell = multiprocessing.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = Hatched(Path(folder) / "stderr.log", udp_tail_server.main, "127.0.0.1", port, settings, tell.send)
        tell.close()
        try:
            yield Running(process, told.recv(), told)
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def connected(address: str, plan: Plan, settings: Settings = QUICK) -> Iterator[UdpTail]:
    tail = UdpTail(address, settings)
    try:
        tail.open(plan)
        yield tail
    finally:
        tail.close()


@pytest.fixture(scope="module")
def small():
    return small_network()


@pytest.fixture(scope="module")
def agreed(small) -> Plan:
    return small_plan(*small)


@pytest.fixture(scope="module")
def shots(small) -> tuple[list[bytes], list[torch.Tensor]]:
    """Identity payloads at stage1 and the outputs that their answers must equal."""
    model, graph = small
    x = torch.rand(NUM_FRAMES, *INPUT_SHAPE, generator=torch.Generator().manual_seed(1))
    cut = graph.cut("stage1")
    with torch.inference_mode():
        return [Identity().encode(cut.head(one)) for one in x.split(1)], [model(one) for one in x.split(1)]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving() as server:
        yield server


def check(answers, outputs) -> None:
    answers = list(answers)
    assert [a.request_id for a in answers] == list(range(len(outputs)))
    assert all(torch.equal(output_of(a), y) for a, y in zip(answers, outputs, strict=True))


def test_answers_equal_the_whole_model_in_order(running, agreed, shots):
    payloads, outputs = shots
    with connected(running.address, agreed) as tail:
        check(tail.stream(payloads[:300]), outputs[:300])
        check(tail.stream(payloads[:20], window=1), outputs[:20])
        assert tail.counters.frames_sent == tail.counters.frames_answered == 320
        assert tail.counters.reconnects == 0


def test_2000_frames_at_ten_percent_loss_are_answered_once_right_and_in_order(agreed, shots):
    payloads, outputs = shots
    with serving() as server, Relay(server.address, 1, loss=0.1, duplicate=0.05, late=0.1, damage=0.02) as relay:
        began = time.monotonic()
        with connected(relay.address, agreed) as tail:
            check(tail.stream(payloads), outputs)
            assert tail.counters.frames_sent == tail.counters.frames_answered == NUM_FRAMES
        assert time.monotonic() - began < 60
        assert relay.num_lost > 0.08 * relay.num_seen
        assert tail.counts.fragments_resent > 100
        assert server.stop()["malformed"] > 0


@pytest.mark.parametrize("size", [0, 1, 1399, 1400, 1401, 262_144, 3_000_000])
def test_any_size_crosses_a_lossy_network(running, agreed, size):
    with Relay(running.address, 2, loss=0.05, late=0.05) as relay, connected(relay.address, agreed) as tail:
        assert tail.echo_s(size) > 0


def test_the_server_measures_its_own_tails(running, agreed, shots):
    with connected(running.address, agreed) as tail:
        found = tail.profile([agreed.point], shots[0][0], budget_s=0.01)
        assert found.answer_s > 0
        assert list(found.lut.times) == [agreed.point]
        with pytest.raises(PayloadError, match="nowhere"):
            tail.profile(["nowhere"])
        assert next(tail.stream(shots[0][:1])).request_id == 0


def test_clients_at_once_each_get_their_own_answers(running, agreed, shots):
    payloads, outputs = shots

    def client(start: int) -> None:
        with connected(relay.address, agreed, Settings(retries=20)) as tail:
            check(tail.stream(payloads[start : start + 150]), outputs[start : start + 150])

    with Relay(running.address, 3, loss=0.05) as relay, ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(0, 1200, 150)))


def test_a_server_killed_and_started_again_loses_no_frame(agreed, shots):
    payloads, outputs = shots
    answers = []
    with serving() as first:
        second = contextlib.ExitStack()
        with second, connected(first.address, agreed, Settings(retries=60)) as tail:
            for answer in tail.stream(payloads[:600]):
                answers.append(answer)
                if len(answers) == 200:
                    first.process.kill()
                    first.process.wait()
                    second.enter_context(serving(first.port))
            check(answers, outputs[:600])
            assert tail.counters.reconnects >= 1
            assert tail.counters.frames_answered == 600


@pytest.mark.slow
def test_2000_frames_survive_a_server_killed_every_few_hundred_on_a_lossy_network(agreed, shots):
    payloads, outputs = shots
    answers = []
    server = contextlib.ExitStack()
    first = server.enter_context(serving())
    with (
        server,
        Relay(first.address, 5, loss=0.05) as relay,
        connected(relay.address, agreed, Settings(retries=30)) as tail,
    ):
        for answer in tail.stream(payloads):
            answers.append(answer)
            if len(answers) % 400 == 200:
                server.close()
                server.enter_context(serving(first.port))
        check(answers, outputs)
        assert tail.counters.reconnects >= 5
        assert tail.counters.frames_answered == NUM_FRAMES


def test_a_change_of_address_is_survived(running, agreed, shots):
    """The relay takes a new port on the server's side, as a phone does that changes networks."""
    payloads, outputs = shots
    with Relay(running.address) as relay, connected(relay.address, agreed) as tail:
        answers = []
        for answer in tail.stream(payloads[:300]):
            answers.append(answer)
            if len(answers) == 100:
                relay._upstream.clear()
        check(answers, outputs[:300])
        assert tail.counters.reconnects == 1


def test_tolerated_loss_is_filled_or_reported_and_the_rest_is_right(small, running):
    model, graph = small
    plan = small_plan(model, graph, "input")
    x = torch.rand(200, 64, *INPUT_SHAPE, generator=torch.Generator().manual_seed(2))
    payloads = [Identity().encode((batch,)) for batch in x]
    settings = Settings(retries=5, loss="tolerate")
    with Relay(running.address, 4, loss=0.05) as relay, connected(relay.address, plan, settings) as tail:
        answers = list(tail.stream(payloads))
        counts = tail.counts
    assert len(answers) == 200
    with torch.inference_mode():
        expected = [model(batch) for batch in x]
    num_exact = sum(bool(a.payload) and torch.equal(output_of(a), y) for a, y in zip(answers, expected, strict=True))
    num_lost = sum(not a.payload for a in answers)
    assert (counts.frames_lost, counts.frames_filled) == (num_lost, 200 - num_exact - num_lost)
    assert num_exact > 50
    assert num_lost > 0
    assert counts.frames_filled > num_lost  # a gap in the first fragment loses a frame, one elsewhere is filled
    with pytest.raises(PayloadError):
        output_of(next(a for a in answers if not a.payload))


def test_the_paced_rate_is_kept(running, agreed):
    settings = replace(QUICK, rate_bps=20e6)
    with connected(running.address, agreed, settings) as tail:
        took_s = tail.echo_s(1_000_000)
    assert 8 * 1_000_000 / took_s < 20e6
    assert 8 * 1_000_000 / took_s > 0.7 * 20e6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": "other"}, r"weights: the server has .*, the edge other"),
        ({"fingerprint": "other"}, "give both ends the same model= and task="),
        ({"wire_version": 0}, "run the same splitsem on both ends"),
        ({"codec": "Unheard"}, r"codec: the server reads .*, the edge sends Unheard"),
        ({"point": "stage9"}, "stage9.*stage1"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_in_words(running, agreed, change, says):
    with pytest.raises(ConfigError, match=says):
        UdpTail(running.address, QUICK).open(replace(agreed, **change))


def test_a_damaged_payload_is_an_error_of_its_frame_and_the_connection_lives(running, agreed, shots):
    payloads, outputs = shots
    with connected(running.address, agreed) as tail:
        with pytest.raises(PayloadError, match="checksum"):
            list(tail.stream([payloads[0], payloads[1][:-1] + b"\x00"]))
        check(tail.stream(payloads[:5]), outputs[:5])


def test_a_peer_that_is_not_there_is_named_with_the_number_of_tries(agreed):
    began = time.monotonic()
    with pytest.raises(LinkError, match=r"127\.0\.0\.1:9 does not answer over UDP after 2 tries.*refused"):
        UdpTail("127.0.0.1:9", Settings(retries=1)).open(agreed)
    assert time.monotonic() - began < 5


def test_a_server_that_dies_is_reported_after_the_retries(agreed, shots):
    payloads, _ = shots
    with serving() as server, connected(server.address, agreed, Settings(retries=2)) as tail:
        stream = tail.stream(payloads)
        next(stream)
        server.process.kill()
        with pytest.raises(LinkError, match="after 3 tries"):
            list(stream)
        assert tail.counters.retries >= 2


def test_more_clients_than_the_server_takes_are_told_so(agreed):
    refused = pytest.raises(LinkError, match="no room for another client")
    with serving(max_clients=1) as server, connected(server.address, agreed), refused:
        UdpTail(server.address, Settings(retries=1)).open(agreed)


def test_a_payload_beyond_the_servers_limit_is_refused_before_it_is_sent(agreed):
    limits = {"max_message_bytes": 10_000, "buffer_bytes": 2_000_000}
    with serving(**limits) as server, connected(server.address, agreed) as tail:
        with pytest.raises(PayloadError, match="at most 10000 bytes"):
            list(tail.stream([bytes(10_001)]))
        assert tail.echo_s(10_000) > 0


def test_sigterm_answers_what_was_received(agreed, shots):
    payloads, outputs = shots
    with serving() as server, connected(server.address, agreed) as tail:
        check(tail.stream(payloads[:50]), outputs[:50])
        assert server.stop()["malformed"] == 0
        assert server.process.wait(20) == 0


@pytest.mark.parametrize("target", ["10.255.0.1:5000", "[2001:db8::1]:5000"])
def test_the_open_network_is_refused_unless_allowed(agreed, target):
    with pytest.raises(ConfigError, match="insecure=true"):
        UdpTail(target, QUICK).open(agreed)


@pytest.mark.parametrize("target", ["", "host", "host:", "host:x", "127.0.0.1:70000"])
def test_a_target_that_is_no_address_is_named(agreed, target):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        UdpTail(target, QUICK).open(agreed)


def test_a_name_that_does_not_exist_is_named(agreed):
    with pytest.raises(LinkError, match=r"cannot resolve the name 'no-such-host\.invalid'"):
        UdpTail("no-such-host.invalid:5000", QUICK).open(agreed)


def test_an_error_in_the_payloads_reaches_the_consumer(running, agreed, shots):
    payloads, _ = shots

    def broken() -> Iterator[bytes]:
        yield payloads[0]
        raise ZeroDivisionError("the head failed")

    with connected(running.address, agreed) as tail:
        with pytest.raises(ZeroDivisionError, match="the head failed"):
            list(tail.stream(broken()))
        assert tail.echo_s(10) > 0


def test_a_consumer_that_stops_early_leaves_the_connection_usable(running, agreed, shots):
    payloads, outputs = shots
    with connected(running.address, agreed) as tail:
        stream = tail.stream(payloads)
        assert next(stream).request_id == 0
        stream.close()
        check(tail.stream(payloads[:200]), outputs[:200])
        assert not tail._caller._outcomes


def test_a_window_of_one_makes_a_payload_when_the_one_before_is_answered(running, agreed, shots):
    payloads, _ = shots
    made, answered = [], []
    with connected(running.address, agreed) as tail:
        for answer in tail.stream((made.append(len(answered)) or p for p in payloads[:30]), window=1):
            answered.append(answer)
    assert all(n >= place - 1 for place, n in enumerate(made))
    assert max(len(made) - len(answered), 0) == 0


def test_answers_that_arrived_are_forgotten_by_the_server(small, shots):
    model, graph = small
    payloads, outputs = shots
    server = UdpServer(TailEngine(graph, weights_digest(model)))
    try:
        with connected(server.start(), small_plan(model, graph)) as tail:
            check(tail.stream(payloads[:100], window=1), outputs[:100])
            [session] = server.sessions._sessions.values()
            assert 1 <= len(session.replies._answers) <= 3
    finally:
        server.stop()


def test_ipv6_carries_frames_too(agreed, shots):
    payloads, outputs = shots
    try:
        bind("::1", 0, insecure=False).close()
    except ConfigError as exc:
        pytest.skip(f"no IPv6 here: {exc}")
    model, graph = small_network()
    server = UdpServer(TailEngine(graph, weights_digest(model)), "::1")
    try:
        with connected(server.start(), agreed) as tail:
            check(tail.stream(payloads[:50]), outputs[:50])
    finally:
        server.stop()


def test_an_engine_that_made_room_opens_the_plan_again(small, shots):
    """Two clients with a plan each, one tail kept: every frame drops the other's tail."""
    model, graph = small
    payloads, outputs = shots
    server = UdpServer(TailEngine(graph, weights_digest(model), max_sessions=1))
    address = server.start()
    try:
        with connected(address, small_plan(model, graph)) as one, connected(address, small_plan(model, graph, "input")):
            check(one.stream(payloads[:20]), outputs[:20])
    finally:
        server.stop()


def test_the_config_option_makes_both_ends(agreed, shots, small):
    payloads, outputs = shots
    model, graph = small
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "transport" / "udp.yaml")
    config.bind = "127.0.0.1:0"
    server = hydra.utils.instantiate(config).server_end(TailEngine(graph, weights_digest(model)))
    config.target = server.start()
    tail = hydra.utils.instantiate(config).edge_end()
    try:
        tail.open(agreed)
        check(tail.stream(payloads[:50]), outputs[:50])
    finally:
        tail.close()
        server.stop()


def test_the_config_option_lists_every_setting_with_its_default():
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "transport" / "udp.yaml")
    defaults = {n: p.default for n, p in inspect.signature(UdpTransport).parameters.items()}
    assert {n: v for n, v in config.items() if n != "_target_"} == defaults


def test_a_frozen_server_is_noticed_while_idle_and_a_short_freeze_is_survived(running, agreed, shots):
    payloads, outputs = shots
    hasty = Settings(retries=3, heartbeat_s=0.2)
    with connected(running.address, agreed) as patient, connected(running.address, agreed, hasty) as tail:
        check(tail.stream(payloads[:20]), outputs[:20])
        running.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            with tail._caller.lock:  # nobody asks anything: only the heartbeat can notice
                assert tail._caller.lock.wait_for(lambda: tail._caller._failure is not None, timeout=5)
            assert time.monotonic() - began < 0.2 + 15 * 0.2 + 1
            with pytest.raises(LinkError, match="after 4 tries"):
                list(tail.stream(payloads[:1]))
        finally:
            running.process.send_signal(signal.SIGCONT)
        check(patient.stream(payloads[:50]), outputs[:50])


def test_both_transports_are_counted_by_the_engine(small, shots):
    model, graph = small
    payloads, outputs = shots
    engine = TailEngine(graph, weights_digest(model))
    server = UdpServer(engine)
    engine.metrics.watch(server)
    sample = engine.metrics.registry.get_sample_value
    try:
        with connected(server.start(), small_plan(model, graph)) as tail:
            check(tail.stream(payloads[:30]), outputs[:30])
            with pytest.raises(PayloadError):
                list(tail.stream([payloads[0][:-1]]))
            assert sample("splitsem_clients") == 1
        assert sample("splitsem_requests_total", {"outcome": "answered"}) == 30
        assert sample("splitsem_requests_total", {"outcome": "bad_frame"}) == 1
        assert sample("splitsem_received_bytes_total") == sum(map(len, payloads[:30])) + len(payloads[0]) - 1
        assert sample("splitsem_stage_seconds_count", {"stage": "encode"}) == 30
        assert sample("splitsem_stage_seconds_sum", {"stage": "queue"}) > 0
    finally:
        server.stop()


def test_a_client_that_fell_silent_makes_room_for_another(agreed, shots):
    payloads, outputs = shots
    deaf, other = Settings(heartbeat_s=60.0), Settings(retries=8)
    with (
        serving(max_clients=1, idle_s=0.5) as server,
        connected(server.address, agreed, deaf),
        connected(server.address, agreed, other) as tail,
    ):
        check(tail.stream(payloads[:5]), outputs[:5])
