"""What a server logs of its clients: a line when one comes with a plan, and one with counts when it is gone."""

import logging

from splitsem.remote.grpc.streams import Limits, Streams
from splitsem.remote.labels import weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.visits import LINGER_S, Visits
from splitsem_device.grpc.frames import Frame
from splitsem_device.plan import Plan
from tests.integration.network import small_frames, small_network, small_plan

PLAN = Plan("f", "w", "stage1", "layer", "float32", "Identity", "values(10,)")


def test_a_client_and_plan_have_one_line_and_one_at_the_end_with_counts(caplog):
    caplog.set_level(logging.INFO)
    now_s = 0.0
    visits = Visits(lambda: now_s)
    for _ in range(20):  # streams of one run
        visits.came("10.0.0.7", "ipv4:10.0.0.7:5000", "key", PLAN)
        now_s += 1.0
        visits.went("10.0.0.7", "key", 25, "it closed its stream")
        visits.settle()
    assert [r.getMessage() for r in caplog.records] == ["10.0.0.7 sends stage1 by Identity, answered by values(10,)"]
    now_s += LINGER_S
    visits.settle()
    assert caplog.records[-1].getMessage() == "10.0.0.7 is gone after 500 frames in 20.0 s: it closed its stream"
    assert [(r.peer, r.session) for r in caplog.records] == [("ipv4:10.0.0.7:5000", "key")] * 2
    visits.came("10.0.0.7", "ipv4:10.0.0.7:5001", "key", PLAN)
    assert len(caplog.records) == 3


def test_a_client_with_an_open_stream_is_not_gone(caplog):
    caplog.set_level(logging.INFO)
    now_s = 0.0
    visits = Visits(lambda: now_s)
    visits.came("a", "a:1", "key", PLAN)
    visits.came("a", "a:2", "key", PLAN)
    visits.went("a", "key", 1, "it closed its stream")
    now_s = 1000.0
    visits.settle()
    assert len(caplog.records) == 1


def test_floods_of_clients_make_no_endless_table_and_no_endless_log(caplog):
    caplog.set_level(logging.INFO)
    visits = Visits()
    for number in range(5000):
        visits.came(f"10.0.{number}", "p", "key", PLAN)
    assert len(caplog.records) <= 1024


def test_clients_of_one_address_have_names_of_their_own_and_the_streams_of_one_client_have_one(caplog):
    caplog.set_level(logging.INFO, "splitsem.remote.visits")
    model, graph = small_network()
    engine = TailEngine(graph, weights_digest(model))
    streams, session = Streams(engine, Limits()), engine.open(small_plan(model, graph))
    payload = small_frames(1)[0][0]
    for client in ("aaaaaaaa.0", "aaaaaaaa.1", "bbbbbbbb.0"):
        assert len(list(streams.serve([Frame(session, client, 0, payload)], _Context()))) == 1
    streams.visits.settle(0.0)
    names = [record.getMessage().split(" ")[0] for record in caplog.records]
    assert names == ["127.0.0.1/aaaaaa", "127.0.0.1/bbbbbb"] * 2  # came, and gone
    assert "after 2 frames" in caplog.records[2].getMessage()


class _Context:
    """What gRPC tells of a call."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5000"
