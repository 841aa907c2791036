"""The remote tail's contract without a network: plans, agreement, answers, replies."""

import copy
import dataclasses
import time

import pytest
import torch
from torch import nn

from splitsem.codecs import wire
from splitsem.codecs.learned.bottleneck import Bottleneck
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.codecs.topk import TopK
from splitsem.cost.layer_profile import parse_layers
from splitsem.cost.lut import parse_lut
from splitsem.errors import BusyError, ConfigError, PayloadError, SessionError, SplitPointError
from splitsem.models.cnn import StagedCnn
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.labels import builtin_decoders, codec_label, weights_digest
from splitsem.remote.profiler import Profiler
from splitsem.remote.replies import ReplyBook
from splitsem.remote.tail_engine import TailEngine
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import TopClasses, Values
from splitsem_device.answers import Answer, ToMeasure
from splitsem_device.fields import Field, Pieces, join
from splitsem_device.plan import Plan


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return StagedCnn((1, 8, 8), (10,), widths=[4, 8], inner_widths=None, stem_width=4).eval()


@pytest.fixture(scope="module")
def graph(model):
    return SplitGraph(model, (1, 8, 8))


@pytest.fixture
def engine(graph, model):
    return TailEngine(graph, weights_digest(model))


RAW, TOP = Values((10,)), TopClasses(10)


def lut_of(profile):
    return parse_lut(profile.lut_json, "the server's table")


def plan_for(engine, point="stage1", codec="Identity", answer=RAW.name):
    return dataclasses.replace(engine.offer, point=point, codec=codec, answer=answer)


def output_of(payload, num_samples=1):
    return Values((num_samples, 10)).decode(payload)


def test_a_plan_survives_its_json(engine):
    assert Plan.from_json(plan_for(engine).to_json()) == plan_for(engine)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "[" * 100_000, '{"point": 1}', b"\xff"])
def test_what_is_not_a_plan_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match="expected a plan") as caught:
        Plan.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_field_of_the_wrong_type_is_refused(engine):
    text = plan_for(engine).to_json().replace('"stage1"', "1")
    with pytest.raises(ConfigError, match=r"expected a plan.*point must be str, got int"):
        Plan.from_json(text)


def test_identity_answers_equal_the_whole_model_at_every_point(engine, graph, model):
    x = torch.rand(3, 1, 8, 8)
    for point in graph.points:
        session = engine.open(plan_for(engine, point.name))
        with torch.inference_mode():
            payload = Identity().encode(graph.cut(point).head(x))
            expected = model(x)
        answer, server_s = engine.answer(session, payload)
        assert torch.equal(output_of(answer, 3), expected)
        assert server_s > 0


@pytest.mark.parametrize("codec", [Identity(), HalfPrecision(), Quantise(3), Quantise(8, entropy="rans"), TopK(0.5)])
def test_any_built_in_codec_is_decoded_from_its_bytes_alone(engine, graph, codec):
    cut = graph.cut("stage1")
    with torch.inference_mode():
        payload = codec.encode(cut.head(torch.rand(1, 1, 8, 8)))
        expected = cut.tail(*codec.decode(payload))
    session = engine.open(plan_for(engine, codec=codec_label(codec)))
    for received in (payload, memoryview(payload), Pieces([payload[:50], payload[50:]])):
        answer, _ = engine.answer(session, received)
        assert torch.equal(output_of(answer), expected)


def test_a_codec_with_a_tail_of_its_own_is_answered_from_that_at_its_own_cut_only(graph, model):
    codec, cut = Bottleneck((4, 8, 8)).eval(), graph.cut("stem")
    codec.tail = copy.deepcopy(cut.tail)
    with torch.no_grad():
        next(codec.tail.parameters()).mul_(2)
    engine = TailEngine(graph, weights_digest(model), codecs=[codec])
    with torch.inference_mode():
        payload = codec.encode(cut.head(torch.rand(1, 1, 8, 8)))
        expected, other = (tail(*codec.decode(payload)) for tail in (codec.tail, cut.tail))
    plan = plan_for(engine, "stem", codec_label(codec))
    output = output_of(engine.answer(engine.open(plan), payload)[0])
    assert torch.equal(output, expected)
    assert not torch.equal(output, other)
    assert engine.answer(engine.open(plan.probe(10)), payload)[0] == bytes(10)
    with pytest.raises(ConfigError, match="tuned for another cut than stage1"):
        engine.open(dataclasses.replace(plan, point="stage1"))
    engine.open(plan_for(engine, "stage1"))  # other codecs have the network's own tails


def test_every_disagreement_is_a_line_of_its_own(engine):
    strange = Plan("f", "w", "stage1", "op", "bfloat16", "Mystery", "boxes", wire_version=9, protocol_version=9)
    with pytest.raises(ConfigError) as caught:
        engine.open(strange)
    names = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert sorted(names) == sorted(
        ["protocol_version", "wire_version", "fingerprint", "weights", "granularity", "precision", "codec", "answer"]
    )


@pytest.mark.parametrize("at", ["edge", "server"])
def test_both_ends_code_the_answer_that_the_plan_names(graph, model, at):
    engine = TailEngine(graph, weights_digest(model), coders=[TOP])
    x = torch.rand(1, 1, 8, 8)
    end = EdgeEnd(graph.cut("stage1"), Identity(), TOP if at == "edge" else None)
    plan = end.plan(engine.offer.weights, "layer", "float32")
    answer, server_s = engine.answer(engine.open(plan), end.payload(x))
    result = end.result(Answer(0, answer, server_s, 0.0))
    with torch.inference_mode():
        best = model(x).argmax(1)
    if at == "edge":
        assert bytes(answer) == bytes([int(best)])
        assert torch.equal(result.argmax(1), best)
        assert len(end.times.edge_s) == len(end.times.answer_decode_s) == 1
    else:
        assert (plan.answer, bytes(answer), result) == ("", b"", None)


def test_the_answers_of_a_whole_network_on_the_edge_are_read_by_the_server(graph, model):
    engine = TailEngine(graph, weights_digest(model), coders=[TOP])
    x = torch.rand(1, 1, 8, 8)
    for coder in (None, RAW):
        end = EdgeEnd(graph.cut("output"), Quantise(8), coder, own=TOP)
        plan = end.plan(engine.offer.weights, "layer", "float32")
        session, probes = engine.open(plan), engine.open(plan.probe(3))
        payload = end.payload(x)
        assert engine.answer(probes, payload)[0] == bytes(3)
        result = end.result(Answer(0, engine.answer(session, payload)[0], 0.0, 0.0))
        assert len(payload) == 1
    with torch.inference_mode():
        assert torch.equal(result, TOP.as_output(TOP.decode(TOP.encode(model(x)))))
    with pytest.raises(PayloadError, match="expected classes 0…9, got 200"):
        engine.answer(session, bytes([200]))
    with pytest.raises(ConfigError, match="codec: the server reads"):  # answers are payloads at no other cut
        engine.open(plan_for(engine, "stage1", TOP.name))


def test_one_changed_weight_changes_the_digest(model):
    before = weights_digest(model)
    with torch.no_grad():
        weight = next(model.parameters()).flatten()
        weight[0] += 1e-3
        assert weights_digest(model) != before
        weight[0] -= 1e-3


def test_an_unknown_point_lists_the_valid_ones(engine):
    with pytest.raises(SplitPointError, match="stage1"):
        engine.open(plan_for(engine, "nowhere"))


def test_a_session_never_opened_is_refused(engine):
    with pytest.raises(SessionError, match="open its plan again"):
        engine.answer("nosuch", b"")


def test_the_session_unused_for_longest_makes_room(graph, model):
    engine = TailEngine(graph, weights_digest(model), max_sessions=2)
    first, second = (engine.open(plan_for(engine, name)) for name in ("input", "stage1"))
    engine.session(first)
    engine.open(plan_for(engine, "output"))
    engine.session(first)
    with pytest.raises(SessionError):
        engine.session(second)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"sS",
        Identity().encode((torch.rand(1, 3, 8, 8),)),
        Identity().encode((torch.rand(1, 4, 8, 8, dtype=torch.float64),)),
        Identity().encode((torch.rand(300, 1, 1, 1),)),
        Identity().encode((torch.tensor(1.0),)),
        b"sS\x01\xff" + bytes(20),
    ],
)
def test_a_payload_that_does_not_fit_the_point_is_refused(engine, payload):
    session = engine.open(plan_for(engine))
    with pytest.raises(PayloadError):
        engine.answer(session, payload)


def test_a_batch_beyond_the_limit_is_refused(graph, model):
    engine = TailEngine(graph, weights_digest(model), max_batch=2)
    session = engine.open(plan_for(engine, "input"))
    with pytest.raises(PayloadError, match="at most 2 samples, got 3"):
        engine.answer(session, Identity().encode((torch.rand(3, 1, 8, 8),)))


def test_each_built_in_codec_number_has_one_decoder():
    numbers = [codec.codec_id for codec in builtin_decoders()]
    assert sorted(numbers) == sorted(set(numbers)) == list(range(1, len(numbers) + 1))


def test_a_frame_sent_again_is_answered_from_memory():
    replies = ReplyBook(max_clients=2, window=2).of("device")
    computed = []

    def compute(request_id):
        computed.append(request_id)
        return Answer(request_id, b"", 0.0, 0.0)

    for request_id in (0, 1, 1, 0, 2, 1):
        assert replies.answer(request_id, lambda i=request_id: compute(i)).request_id == request_id
    assert computed == [0, 1, 2]


def test_answers_that_the_client_has_are_forgotten():
    replies = ReplyBook(max_clients=1, window=10).of("device")
    computed = []

    def compute(request_id):
        computed.append(request_id)
        return Answer(request_id, b"", 0.0, 0.0)

    for request_id, num_answered in ((0, 0), (1, 0), (2, 1), (1, 1), (0, 1)):
        replies.answer(request_id, lambda i=request_id: compute(i), num_answered)
    assert computed == [0, 1, 2, 0]


def test_only_the_last_clients_and_answers_are_kept():
    book = ReplyBook(max_clients=2, window=1)
    first = book.of("first")
    assert book.of("first") is first
    book.of("second")
    book.of("third")
    assert book.of("first") is not first


def test_a_probe_is_answered_by_zeros_and_nothing_is_computed(engine):
    session = engine.open(plan_for(engine).probe(40))
    before_s = time.process_time()
    answer, clock_s = engine.answer(session, b"no payload at all")
    assert (bytes(answer), engine.num_answered) == (bytes(40), 0)
    assert before_s <= clock_s <= time.process_time()


@pytest.mark.parametrize("text", ["", "-1", "1e3", "99999999999", str((64 << 20) + 1), "²"])
def test_probes_with_answers_of_impossible_size_are_refused(engine, text):
    with pytest.raises(ConfigError, match="probes answered by 0"):
        engine.open(plan_for(engine, f"@probe/{text}"))


def test_a_profile_has_the_tails_that_were_asked_for_and_is_measured_once(engine, graph):
    profiler = Profiler(engine, most_s=1.0)
    first = lut_of(profiler.profile(ToMeasure(["stage1", "stage1"], budget_s=0.01)))
    assert {point: list(sides) for point, sides in first.times.items()} == {"stage1": ["tail"]}
    assert first.fingerprint == graph.fingerprint
    everything = lut_of(profiler.profile(ToMeasure(budget_s=0.01)))
    assert list(everything.times) == [point.name for point in graph.points]
    assert everything.times["stage1"] == first.times["stage1"]
    assert lut_of(profiler.profile(ToMeasure(["stage1"], budget_s=0.01))).times == first.times


def test_layers_are_measured_where_they_are_asked_for_and_once(engine, graph):
    profiler = Profiler(engine, most_s=1.0)
    assert profiler.profile(ToMeasure(["stage1"], budget_s=0.01)).layers_json == ""
    first = profiler.profile(ToMeasure(["stage1"], budget_s=0.01, layers_s=0.05)).layers_json
    found = parse_layers(first, "the server", graph, 30.0, "a file")
    assert [cost.name for cost in found.times.costs] == [op.name for op in graph.points[-1].head_ops]
    assert all(num_bytes > 0 for num_bytes in found.times.peak_bytes)
    assert profiler.profile(ToMeasure(["stage1"], budget_s=0.01, layers_s=0.05)).layers_json == first
    with pytest.raises(PayloadError, match="0 s or more for layers"):
        profiler.profile(ToMeasure(layers_s=-1.0))


def test_answering_a_payload_is_timed_without_being_counted(engine, graph):
    session = engine.open(plan_for(engine))
    with torch.inference_mode():
        payload = Identity().encode(graph.cut("stage1").head(torch.rand(1, 1, 8, 8)))
    found = Profiler(engine, most_s=1.0).profile(ToMeasure(["stage1"], payload, budget_s=0.01), session)
    assert found.answer_s > 0
    assert engine.num_answered == 0


def test_a_server_that_answers_frames_meanwhile_does_not_measure_itself(engine, graph):
    session = engine.open(plan_for(engine))
    with torch.inference_mode():
        payload = Identity().encode(graph.cut("stage1").head(torch.rand(1, 1, 8, 8)))

    def answering() -> bool:
        engine.answer(session, payload)
        return True

    profiler = Profiler(engine)
    with pytest.raises(BusyError, match="answering frames"):
        profiler.profile(ToMeasure(budget_s=0.01), is_wanted=answering)
    assert lut_of(profiler.profile(ToMeasure(["stage1"], budget_s=0.01))).times.keys() == {"stage1"}


def test_a_second_profile_at_the_same_time_is_refused(engine):
    profiler = Profiler(engine)
    refused = []

    def second() -> bool:
        with pytest.raises(BusyError, match="for another edge"):
            profiler.profile(ToMeasure(["stage1"]))
        refused.append(True)
        return True

    profiler.profile(ToMeasure(["stage1"], budget_s=0.01), is_wanted=second)
    assert refused


def test_a_profile_that_nobody_waits_for_stops(engine):
    with pytest.raises(BusyError, match="nobody waits"):
        Profiler(engine).profile(is_wanted=lambda: False)


@pytest.mark.parametrize("budget_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_makes_no_sense_is_refused(engine, budget_s):
    with pytest.raises(PayloadError, match="budget"):
        Profiler(engine).profile(ToMeasure(budget_s=budget_s))


def test_a_profile_costs_no_more_than_the_server_allows(engine, graph):
    began = time.perf_counter()
    Profiler(engine, most_s=0.2).profile(ToMeasure(budget_s=60.0))
    assert time.perf_counter() - began < 0.2 * 2 + len(graph.points) * 0.1 + 1.0


def test_what_a_payload_claims_is_compared_with_the_session_before_it_is_decoded(engine):
    session = engine.open(plan_for(engine))
    head = wire.tensor_head(torch.float32, (1, 1 << 28))
    claim = join(wire.CodecId.IDENTITY, [Field(head, 1 << 28, b"")])
    began = time.thread_time()
    with pytest.raises(PayloadError, match=r"expected float32.* at split point"):
        engine.answer(session, claim)
    assert time.thread_time() - began < 0.01


def test_a_batch_takes_four_megabytes_of_features_at_most():
    model = torch.nn.Sequential(torch.nn.Linear(200_000, 2)).eval()
    engine = TailEngine(SplitGraph(model, (200_000,)), weights_digest(model))
    session = engine.open(dataclasses.replace(plan_for(engine, "input"), answer=""))
    engine.answer(session, Identity().encode((torch.rand(5, 200_000),)))
    with pytest.raises(PayloadError, match="at most 5 samples, got 6"):
        engine.answer(session, Identity().encode((torch.rand(6, 200_000),)))
