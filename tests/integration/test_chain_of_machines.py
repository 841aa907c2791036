"""Three servers in a chain: each computes its part and has the next one do the rest; exact, pipelined, and resumed."""

import signal
import socket
import time
from dataclasses import replace

import pytest
import torch

import splitsem
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError, LinkError, SplitPointError
from splitsem_device.answers import ToMeasure
from splitsem_device.plan import Hop, Plan
from splitsem_device.this_machine import host_id
from tests.integration.network import INPUT_SHAPE, RAW, output_of, small_network, small_plan
from tests.integration.tcp_relay import TcpRelay

ENCODERS = {"identity": Identity(), "quant2": Quantise(2)}
PATIENT = splitsem.Backoff(first_s=0.02, most_s=0.1, deadline_s=10.0)
ONCE = splitsem.NoRetry(deadline_s=10.0)
X = torch.rand(60, *INPUT_SHAPE, generator=torch.Generator().manual_seed(3)).split(1)


def free_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def graph():
    return small_network()[1]


@pytest.fixture(scope="module")
def chain(graph):
    """Addresses of the first and of the last machine behind the camera; three machines in all are servers."""
    with (
        splitsem.serve(graph) as last,
        splitsem.serve(graph, forward=last.address, encoders=ENCODERS) as middle,
        splitsem.serve(graph, forward=middle.address, encoders=ENCODERS) as first,
    ):
        yield first, middle, last


@pytest.mark.parametrize(
    "onward",
    [
        [("stage1", "identity"), ("stage2", "identity")],
        [("stem", ""), ("stage1", "identity")],  # the first server passes on what came
        [("stem", ""), ("stem", "")],  # all on the last machine
        [("stage2", "identity")],  # the second server computes to the end
        [],
    ],
)
def test_identity_is_exact_to_the_last_bit_whoever_computes_what(chain, graph, onward):
    cut = graph.cut("stem")
    with torch.inference_mode():
        expected = [graph.model(x) for x in X]
        z = [cut.head(x) for x in X]
    with splitsem.connect(chain[0].address, cut=cut, onward=onward, retry=ONCE) as remote:
        assert all(map(torch.equal, remote.stream(iter(z), window=8), expected))
        assert torch.equal(remote.compute(*z[0]), expected[0])
        assert remote.statistics().retries == 0


def test_each_hop_has_its_own_codec(chain, graph):
    cut = graph.cut("stem")
    with torch.inference_mode():
        z = [cut.head(x) for x in X]
        part = graph.between("stem", "stage2")
        there = [Quantise(2)(part(*Quantise(4)(one))) for one in z]
        expected = [graph.cut("stage2").tail(*one) for one in there]
    hops = [("stem", ""), ("stage2", "quant2")]
    with splitsem.connect(chain[0].address, cut=cut, codec=Quantise(4), onward=hops, retry=ONCE) as remote:
        found = list(remote.stream(iter(z)))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))


def test_a_chain_tells_its_stages_one_by_one(chain, graph, connect):
    cut, model = graph.cut("stem"), small_network()[0]
    with torch.inference_mode():
        payload = Identity().encode(cut.head(X[0]))
    hops = (Hop("stage1", "quant2"), Hop("stage2", "identity"))
    found = {}
    for onward in (hops, ()):
        tail = connect(chain[0].address)
        tail.open(replace(small_plan(model, graph, "stem"), onward=onward))
        found[onward] = tail.profile(ToMeasure(["stem"], payload, budget_s=0.02, pause_s=0.0))
    first, hop, second, further_hop, last = found[hops].stages_s
    assert min(first, second, last) > 0
    assert min(hop, further_hop) >= 0
    assert first + second + last <= found[hops].answer_s * 1.5  # medians of other moments
    assert found[()].stages_s == ()  # a server that computes to the end has no stages
    assert min(found[hops].hops_busy_s) > 0
    assert len(found[hops].hops_busy_s) == 2
    assert found[hops].hosts == (host_id(),) * 3  # three servers on one machine
    assert found[()].hosts == (host_id(),)
    assert host_id()


def test_a_slow_hop_tells_how_long_a_payload_keeps_it_busy(chain, graph, connect):
    rate, relay = 200_000.0, TcpRelay(chain[2].address, up_bytes_per_s=200_000.0)
    with (
        splitsem.serve(graph, forward=relay.address, encoders=ENCODERS) as middle,
        splitsem.serve(graph, forward=middle.address, encoders=ENCODERS) as first,
        torch.inference_mode(),
    ):
        tail = connect(first.address)
        tail.open(replace(small_plan(graph.model, graph, "stem"), onward=(Hop("stem"), Hop("stem"))))
        payload = Identity().encode(graph.cut("stem").head(X[0]))
        found = tail.profile(ToMeasure(["stem"], payload, budget_s=0.02, pause_s=0.0))
    relay.close()
    quick_s, slow_s = found.hops_busy_s
    assert slow_s == pytest.approx(len(payload) / rate, rel=0.5)
    assert quick_s < slow_s / 2


def test_a_payload_of_several_samples_has_the_answers_of_all(chain, graph):
    cut = graph.cut("stem")
    with torch.inference_mode():
        z = cut.head(torch.cat(X[:5]))
        expected = graph.model(torch.cat(X[:5]))
    with splitsem.connect(chain[0].address, cut=cut, onward=[("stage1", "identity")], retry=ONCE) as remote:
        assert torch.allclose(remote.compute(*z), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("onward", "says"),
    [
        ([("stage1", "quant9")], "this server makes identity, quant2 at a further cut, the plan asks for quant9"),
        (
            [("stage1", "topk keep_ratio=0.5")],
            r"start it with workflow.codecs=\[{codec:topk,keep_ratio:0.5}\], from Py",
        ),
        ([("input", "identity")], "input comes before stem: name the cuts of a chain in their order"),
        ([("nowhere", "identity")], "no split point 'nowhere'"),
        ([("stage1", "")], "passed on unread at its own cut only, not at stage1"),
        ([("stage1", "identity"), ("stem", "identity")], "next machine .*: stem comes before stage1"),
        (
            [("stage1", "identity"), ("stage1", ""), ("stage2", "identity")],
            "next machine .*: next machine .*the plan goes on at stage2, this server computes to the end",
        ),
    ],
)
def test_a_plan_that_a_hop_cannot_do_is_refused_in_a_line_before_the_first_frame(chain, graph, onward, says):
    with pytest.raises((ConfigError, SplitPointError), match=says):
        splitsem.connect(chain[0].address, cut=graph.cut("stem"), onward=onward, retry=ONCE)


def test_the_next_machine_must_hold_the_same_network(graph):
    with (
        splitsem.serve(small_network(seed=1)[1]) as other,
        splitsem.serve(graph, forward=other.address) as middle,
        pytest.raises(ConfigError, match=f"next machine {other.address}: weights: the server has"),
    ):
        splitsem.connect(middle.address, cut=graph.cut("stem"), onward=[("stage1", "identity")], retry=ONCE)


def test_a_machine_that_is_down_at_the_start_is_named_by_its_address(graph):
    away = free_address()
    with splitsem.serve(graph, forward=away) as middle:
        retry = splitsem.Backoff(retries=2, first_s=0.01, most_s=0.05, deadline_s=10.0)
        with pytest.raises(LinkError, match=f"next machine {away} refuses connections") as caught:
            splitsem.connect(middle.address, cut=graph.cut("stem"), onward=[("stage1", "identity")], retry=retry)
        assert "\n" not in str(caught.value)


@pytest.mark.thorough
def test_a_machine_that_dies_is_named_and_once_it_is_back_every_frame_is_answered_once_and_in_order(
    graph, connect, start_server
):
    address = free_address()
    server = start_server(bind=address)
    with splitsem.serve(graph, forward=address, encoders=ENCODERS) as middle:
        cut = graph.cut("stem")
        with torch.inference_mode():
            payloads = [Identity().encode(cut.head(x)) for x in X] * 10
            expected = [graph.model(x) for x in X] * 10
        plan = small_plan(graph.model, graph, "stem")
        tail = connect(middle.address, retry=PATIENT)
        further = replace(plan, onward=(Hop("stage1", "identity"),))
        tail.open(further)
        outputs = []
        for answer in tail.stream(payloads):
            assert answer.request_id == len(outputs)
            outputs.append(output_of(answer))
            if len(outputs) == 100:
                server.process.kill()
                server.process.wait()
                server = start_server(bind=address)
        assert all(map(torch.equal, outputs, expected))
        assert len(outputs) == tail.counters.frames_answered == len(payloads)
        assert tail.counters.reconnects >= 1

        server.process.kill()
        server.process.wait()
        last = connect(middle.address, retry=splitsem.Backoff(retries=1, first_s=0.01, deadline_s=10.0))
        last.open(further)
        with pytest.raises(LinkError, match=f"next machine {address} refuses connections"):
            list(last.stream(payloads[:5]))


def test_answers_lost_on_the_way_back_to_the_middle_are_asked_for_again(graph, chain, connect):
    relay = TcpRelay(chain[2].address)
    with splitsem.serve(graph, forward=relay.address, encoders=ENCODERS) as middle:
        cut = graph.cut("stem")
        with torch.inference_mode():
            payloads = [Identity().encode(cut.head(x)) for x in X] * 5
            expected = [graph.model(x) for x in X] * 5
        tail = connect(middle.address, retry=PATIENT)
        tail.open(replace(small_plan(graph.model, graph, "stem"), onward=(Hop("stage1", "identity"),)))
        outputs = []
        for answer in tail.stream(payloads):
            assert answer.request_id == len(outputs)
            outputs.append(output_of(answer))
            if len(outputs) % 80 == 0:
                relay.cut_at_next_reply(40)
        assert all(map(torch.equal, outputs, expected))
        assert len(outputs) == len(payloads)
        assert relay.num_cuts >= 2
    relay.close()


def test_a_machine_that_hangs_is_named_and_goes_on_when_it_wakes(graph, connect, start_server):
    server = start_server()
    with splitsem.serve(graph, forward=server.address, encoders=ENCODERS) as middle:
        retry = splitsem.Backoff(deadline_s=1.0, first_s=0.05, most_s=0.1, patience_s=2.5)
        middle.engine.next_end = lambda: connect(server.address, retry=retry)
        cut = graph.cut("stem")
        payload, plan = Identity().encode(cut.head(X[0])), small_plan(graph.model, graph, "stem")
        tail = connect(middle.address, retry=retry)
        tail.open(replace(plan, onward=(Hop("stage1", "identity"),)))
        assert len(list(tail.stream([payload] * 3))) == 3
        server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(LinkError, match=f"next machine {server.address}") as caught:
                list(tail.stream([payload] * 3))
            assert "did not answer in time" in str(caught.value)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert len(list(tail.stream([payload] * 3))) == 3


class Slow(torch.nn.Module):
    """Three layers that each take ``STAGE_S``, without using the processor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


STAGE_S = 0.03


def test_the_machines_of_a_chain_work_at_the_same_time(monkeypatch):
    graph = splitsem.split(Slow(), torch.rand(1, 8))
    first, second = (point.name for point in graph.points[1:3])
    between, cut = type(graph).between, type(graph).cut

    def slowly(module):
        class Slowed(torch.nn.Module):
            def forward(self, *z):
                time.sleep(STAGE_S)
                return module(*z)

        return Slowed()

    monkeypatch.setattr(type(graph), "between", lambda *args: slowly(between(*args)))
    with splitsem.serve(graph) as last, splitsem.serve(graph, forward=last.address) as middle:
        there = cut(graph, first)
        z = [there.head(torch.rand(1, 8)) for _ in range(30)]
        expected = [there.tail(*one) for one in z]
        made = last.engine._made
        monkeypatch.setattr(last.engine, "_made", lambda plan, point: _slower(made(plan, point)))
        with splitsem.connect(middle.address, cut=there, onward=[(second, "identity")], retry=ONCE) as remote:
            list(remote.stream(z[:2]))
            began = time.perf_counter()
            found = list(remote.stream(iter(z)))
            passed_s = time.perf_counter() - began
    assert all(map(torch.equal, found, expected))
    assert passed_s < 30 * STAGE_S * 1.5, "one after the other, it would be twice the time of a stage"


def _slower(session):
    def tail(*z):
        time.sleep(STAGE_S)
        return session.tail(*z)

    return session._replace(tail=tail)


def test_a_plan_without_further_cuts_is_what_it_always_was():
    plan = Plan("f", "w", "stem", "layer", "float32", "Identity", RAW.name)
    assert "onward" not in plan.to_json()
    further = replace(plan, onward=(Hop("stage1", "quant8"), Hop("stage1")))
    assert Plan.from_json(further.to_json()) == further
    assert further.probe(10).onward == ()
    with pytest.raises(ConfigError, match="onward must list pairs of point and codec"):
        Plan.from_json(further.to_json().replace('["stage1", ""]', '["stage1"]'))
