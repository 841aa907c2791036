"""The gRPC link between two processes: answers, agreement, windows, bad input."""

import dataclasses
import subprocess
import sys
import threading

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.cost.layer_profile import parse_layers
from splitsem.cost.lut import parse_lut
from splitsem.errors import ConfigError, LinkError, PayloadError, SplitPointError
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames, Pipeline
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.grpc.server import SERVICE
from splitsem.remote.labels import codec_label
from splitsem_device.answers import Answer, ToMeasure
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.frames import Frame, Reply
from tests.conftest import ROOT
from tests.integration.network import INPUT_SHAPE, RAW, output_of, small_agilenn


def lut_of(profile):
    return parse_lut(profile.lut_json, "the server's table")


def outputs_of(answers):
    return [output_of(answer) for answer in answers]


def all_equal(outputs, expected):
    return len(outputs) == len(expected) and all(map(torch.equal, outputs, expected))


def test_streamed_answers_equal_the_uncut_network_in_order(server, connect, plan, frames):
    payloads, expected = frames
    tail = connect(server.address)
    tail.open(plan)
    answers = list(tail.stream(payloads[:200]))
    assert [answer.request_id for answer in answers] == list(range(200))
    assert all_equal(outputs_of(answers), expected[:200])
    assert all(answer.server_s > 0 and answer.queue_s >= 0 for answer in answers)
    assert tail.counters.frames_sent == tail.counters.frames_answered == 200
    assert tail.counters.retries == tail.counters.reconnects == 0


def test_a_call_without_a_stream_gives_the_same(server, connect, plan, frames):
    tail = connect(server.address)
    tail.open(plan)
    assert torch.equal(output_of(tail.call(frames[0][0])), frames[1][0])


def test_every_point_and_codec_works_over_one_server(server, connect, plan, network):
    _, graph = network
    x = torch.rand(1, 1, 8, 8)
    tail = connect(server.address)
    for point in graph.points:
        cut = graph.cut(point)
        for codec in (Identity(), Quantise(4)):
            tail.open(dataclasses.replace(plan, point=point.name, codec=type(codec).__name__))
            with torch.inference_mode():
                payload = codec.encode(cut.head(x))
                expected = cut.tail(*codec.decode(payload))
            (answer,) = tail.stream([payload])
            assert torch.equal(output_of(answer), expected)


def test_offloaded_results_are_those_of_the_pipeline_and_a_lost_frame_leaves_the_local_one(
    server, connect, plan, network
):
    model, graph = network
    codec, cut = small_agilenn(graph), graph.cut("stem")
    tail = connect(server.address)
    tail.open(dataclasses.replace(plan, point="stem", codec=codec_label(codec)))
    x = torch.rand(20, *INPUT_SHAPE, generator=torch.Generator().manual_seed(2))
    device = EdgeEnd(cut, codec, RAW)
    results = [device.result(answer) for answer in tail.stream(device.payload(sample) for sample in x.split(1))]
    pipeline = Pipeline(cut, codec, small_agilenn(graph), SimulatedLink(1e6, 0.01, 0.0))
    expected = [pipeline.run(sample, Frames()) for sample in x.split(1)]
    assert all(map(torch.equal, results, expected))
    assert not torch.equal(torch.cat(results), model(x))
    device.payload(x[:1])
    with torch.inference_mode():
        local = codec.local_output(cut.head(x[:1]))
    assert torch.equal(device.result(Answer(0, b"", 0.0, 0.0)), local)  # as a datagram that was lost


def test_no_more_frames_than_the_window_are_unanswered(server, connect, plan, frames):
    tail = connect(server.address)
    tail.open(plan)
    drawn = []

    def payloads():
        for number, payload in enumerate(frames[0][:50]):
            drawn.append(number)
            yield payload

    for answer in tail.stream(payloads(), window=3):
        assert len(drawn) <= answer.request_id + 1 + 3


def test_an_empty_stream_ends_at_once(server, connect, plan):
    tail = connect(server.address)
    tail.open(plan)
    assert list(tail.stream([])) == []


def test_what_the_payloads_raise_reaches_the_reader_after_the_answers(server, connect, plan, frames):
    tail = connect(server.address)
    tail.open(plan)

    def payloads():
        yield from frames[0][:5]
        raise RuntimeError("the camera broke")

    stream = tail.stream(payloads())
    assert [next(stream).request_id for _ in range(5)] == list(range(5))
    with pytest.raises(RuntimeError, match="the camera broke"):
        next(stream)


def test_a_reader_that_stops_early_leaves_server_and_client_usable(server, connect, plan, frames):
    tail = connect(server.address)
    tail.open(plan)
    stream = tail.stream(frames[0])
    assert torch.equal(output_of(next(stream)), frames[1][0])
    stream.close()
    assert all_equal(outputs_of(tail.stream(frames[0][:20])), frames[1][:20])


@pytest.mark.parametrize("micro_batch", [1, 8])
def test_several_devices_at_once_each_get_their_own_answers(start_server, connect, plan, frames, micro_batch):
    server = start_server(micro_batch=micro_batch)
    payloads, expected = frames
    right = {}

    def device(index):
        tail = connect(server.address)
        tail.open(plan)
        mine = slice(50 * index, 50 * index + 50)
        outputs = outputs_of(tail.stream(payloads[mine]))
        if micro_batch == 1:
            right[index] = all_equal(outputs, expected[mine])
        else:
            right[index] = torch.allclose(torch.cat(outputs), torch.cat(expected[mine]), atol=1e-5)

    threads = [threading.Thread(target=device, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == dict.fromkeys(range(8), True)


def test_a_payload_of_64_megabytes_crosses_whole(server, connect):
    assert connect(server.address).echo_s(64 << 20) > 0


def test_frames_and_answers_of_many_chunks_cross_whole(server, connect, plan, network):
    x = torch.rand(200, 1, 8, 8)  # at stage1 200 KB, at input 50 KB
    _, graph = network
    tail = connect(server.address)
    tail.open(plan)
    with torch.inference_mode():
        z = graph.cut("stage1").head(x)
        expected = graph.cut("stage1").tail(*z)
    answers = tail.stream([Identity().encode(z)] * 30)
    assert all(torch.equal(output_of(answer), expected) for answer in answers)


def test_a_payload_beyond_the_limit_is_refused_in_words(start_server, connect, plan, frames):
    server = start_server(limits={"max_payload_bytes": 2_000_000})
    tail = connect(server.address)
    tail.open(plan)
    with pytest.raises(PayloadError, match="at most 2000000 bytes"):
        list(tail.stream([frames[0][0], bytes(3_000_000)]))
    assert tail.counters.frames_answered == 1


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"weights": "0" * 16}, ConfigError, "cache_dir"),
        ({"fingerprint": "0" * 16}, ConfigError, "same model="),
        ({"wire_version": 99}, ConfigError, "wire_version: the server has 1, the edge 99"),
        ({"protocol_version": 99}, ConfigError, "protocol_version"),
        ({"precision": "bfloat16"}, ConfigError, "precision"),
        ({"codec": "Mystery"}, ConfigError, "the edge sends Mystery"),
        (
            {"answer": "boxes"},
            ConfigError,
            r"answer: the server answers values\(10,\), the edge needs box",
        ),
        ({"point": "nowhere"}, SplitPointError, "stage1"),
    ],
)
def test_ends_that_do_not_agree_are_told_so_before_the_first_frame(server, connect, plan, change, error, says):
    tail = connect(server.address)
    with pytest.raises(error, match=says):
        tail.open(dataclasses.replace(plan, **change))
    assert tail.counters.retries == 0


def test_one_bad_frame_ends_its_stream_with_its_reason_and_hurts_no_other(server, connect, plan, frames):
    good, bad = connect(server.address), connect(server.address)
    good.open(plan)
    bad.open(plan)
    stream = good.stream(frames[0][:100])
    answers = [next(stream) for _ in range(10)]
    damaged = bytearray(frames[0][0])
    damaged[40] ^= 1
    with pytest.raises(PayloadError, match="checksum"):
        list(bad.stream([frames[0][0], bytes(damaged)]))
    assert bad.counters.frames_answered == 1
    assert bad.counters.retries == 0
    assert all_equal(outputs_of([*answers, *stream]), frames[1][:100])


def test_a_frame_sent_twice_is_computed_once(server, connect, plan, frames):
    connect(server.address).open(plan)
    with grpc.insecure_channel(server.address) as channel:
        open_ = channel.unary_unary(
            f"/{SERVICE}/Open", tail_pb2.OpenRequest.SerializeToString, tail_pb2.OpenReply.FromString
        )
        session = open_(tail_pb2.OpenRequest(plan_json=plan.to_json())).session
        call = channel.unary_unary(f"/{SERVICE}/Call", Frame.to_bytes, Reply.from_bytes)
        frame = Frame(session, "twice", 7, frames[0][0])
        first, second = call(frame), call(frame)
    assert first == second  # its server_s too: a second computation would have taken another time


def test_messages_that_are_no_frames_get_a_status(server, connect, plan, frames):
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Call")
        for message in (
            b"",
            b"\xff" * 20,
            Frame("nosuch", "me", 0, b"").to_bytes(),
            Frame("", "x" * 65, 0, b"").to_bytes(),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(message, timeout=5)
            assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED)
    tail = connect(server.address)
    tail.open(plan)
    assert all_equal(outputs_of(tail.stream(frames[0][:5])), frames[1][:5])


def test_info_health_and_reflection_answer(server, connect, network):
    info = connect(server.address).info()
    assert list(info.points) == [point.name for point in network[1].points]
    assert "Quantise" in info.codecs
    assert info.device == "cpu"
    with grpc.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        (reply,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=5)
    assert SERVICE in {service.name for service in reply.list_services_response.service}


def test_a_port_in_use_is_refused_and_not_shared(server, start_server):
    with pytest.raises(RuntimeError, match="is the port in use"):
        start_server(bind=server.address)


def test_one_client_too_many_is_turned_away_and_served_when_there_is_room(start_server, connect, plan, frames):
    server = start_server(limits={"max_clients": 1})
    first, second = connect(server.address), connect(server.address)
    first.open(plan)
    second.open(plan)
    stream = first.stream(frames[0])
    next(stream)
    with pytest.raises(LinkError, match="RESOURCE_EXHAUSTED: the server has its 1 clients"):
        list(second.stream(frames[0][:1]))
    assert second.counters.retries == 2
    stream.close()
    first.close()
    assert all_equal(outputs_of(connect_again(second, plan).stream(frames[0][:3])), frames[1][:3])


def connect_again(tail, plan):
    tail.open(plan)
    return tail


def test_the_server_measures_its_own_tails(server, connect, plan, frames, network):
    tail = connect(server.address)
    tail.open(plan)
    found = tail.profile(ToMeasure(["stage1"], frames[0][0], budget_s=0.01))
    assert found.answer_s > 0
    assert lut_of(found).fingerprint == network[1].fingerprint
    assert {point: list(sides) for point, sides in lut_of(found).times.items()} == {"stage1": ["tail"]}
    assert list(lut_of(tail.profile(ToMeasure(budget_s=0.01))).times) == [point.name for point in network[1].points]
    assert lut_of(tail.profile(ToMeasure(["stage1"], budget_s=0.01))).times == lut_of(found).times


def test_the_server_measures_its_layers_where_it_is_asked_to(server, connect, plan, network):
    tail = connect(server.address)
    tail.open(plan)
    told = tail.profile(ToMeasure(["stage1"], budget_s=0.01, layers_s=0.05)).layers_json
    found = parse_layers(told, "the server", network[1], 30.0, "a file")
    assert len(found.times.costs) == len(found.times.peak_bytes) > 5
    assert tail.profile(ToMeasure(["stage1"], budget_s=0.01)).layers_json == ""


def test_a_profile_of_an_unknown_point_or_a_damaged_payload_has_one_line(server, connect, plan):
    tail = connect(server.address)
    tail.open(plan)
    with pytest.raises(SplitPointError, match="stage1"):
        tail.profile(ToMeasure(["nowhere"]))
    with pytest.raises(PayloadError):
        tail.profile(ToMeasure(["stage1"], b"nonsense", budget_s=0.01))


def test_with_a_window_of_one_no_other_thread_makes_payloads(server, connect, plan, frames):
    tail, makers = connect(server.address), {1: set(), 2: set()}
    tail.open(plan)
    for window, seen in makers.items():
        payloads = (seen.add(threading.get_ident()) or payload for payload in frames[0][:3])
        assert all_equal(outputs_of(tail.stream(payloads, window=window)), frames[1][:3])
    assert makers[1] == {threading.get_ident()}
    assert makers[2] != makers[1]  # making and waiting overlap


def test_probes_go_the_way_of_frames_and_are_answered_uncomputed(server, connect, plan):
    tail = connect(server.address)
    tail.open(plan.probe(1000))
    answers = list(tail.stream([bytes(n) for n in (0, 5, 9_000_000)], window=1))
    assert [len(answer.payload) for answer in answers] == [1000] * 3
    clock_s = [answer.server_s for answer in answers]  # the server's processor time so far
    assert 0 < clock_s[0] <= clock_s[1] <= clock_s[2]


def test_the_health_script_says_whether_a_server_answers(server):
    script = str(ROOT / "scripts" / "grpc-health")
    assert subprocess.run([sys.executable, script, server.address], timeout=60).returncode == 0
    nobody = subprocess.run([sys.executable, script, "127.0.0.1:9"], capture_output=True, text=True, timeout=60)
    assert nobody.returncode == 1
    assert nobody.stderr.strip() == "127.0.0.1:9: UNAVAILABLE"
