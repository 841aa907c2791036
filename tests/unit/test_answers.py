"""Answers: what a task needs of an output, as real bytes, and where they go."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.errors import ConfigError, PayloadError
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Answering, Frames, Pipeline, in_memory
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import AnswerCoder, ClassMap, TopClasses, Values
from splitsem.tasks.digits import Digits
from splitsem.tasks.disaster import Disaster
from splitsem.tasks.netqos import NetQos
from splitsem.tasks.task import Task

CODERS: dict[str, tuple[AnswerCoder, tuple[int, ...]]] = {
    "class": (TopClasses(10), (10,)),
    "top five of many": (TopClasses(1000, 5), (1000,)),
    "map": (ClassMap((12, 8, 6)), (12, 8, 6)),
    "values": (Values((7,)), (7,)),
}


@pytest.mark.parametrize("name", CODERS)
def test_an_answer_survives_its_bytes_and_gives_an_output_of_the_same_answer(name: str) -> None:
    coder, shape = CODERS[name]
    output = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    answer = coder.encode(output)
    again = coder.as_output(coder.decode(answer))
    assert (again.shape, again.dtype) == (output.shape, torch.float32)
    assert coder.encode(again) == answer


@pytest.mark.parametrize("name", CODERS)
@given(junk=st.binary(max_size=40))
def test_bytes_that_are_no_answer_are_refused(name: str, junk: bytes) -> None:
    coder, _ = CODERS[name]
    try:
        coder.as_output(coder.decode(junk))
    except PayloadError:
        return
    assert coder.encode(coder.as_output(coder.decode(junk))) == junk or name in ("values", "top five of many", "map")


def test_a_class_is_one_byte_and_the_five_likeliest_of_a_thousand_are_ten() -> None:
    assert len(TopClasses(10).encode(torch.randn(1, 10))) == 1
    assert len(TopClasses(1000, 5).encode(torch.randn(1, 1000))) == 10


def test_a_bomb_of_a_class_map_is_not_unpacked() -> None:
    bomb = ClassMap((12, 4096, 4096)).encode(torch.zeros(1, 12, 1, 1).expand(1, 12, 4096, 4096))
    assert len(bomb) < 20_000
    with pytest.raises(PayloadError, match="class map of 64 bytes"):
        ClassMap((12, 8, 8)).decode(bomb)


@pytest.mark.parametrize("task", [Digits(), Disaster(num_train=1, num_val=1, num_test=2), NetQos()])
def test_the_score_of_the_answers_is_the_score_of_the_outputs(task: Task) -> None:
    output = torch.randn(2, *task.output_shape, generator=torch.Generator().manual_seed(1))
    y = torch.stack([torch.as_tensor(task.splits().test[i][1]) for i in range(2)])
    coder, scores = task.answer_coder(), []
    read = torch.cat([coder.as_output(coder.decode(coder.encode(row))) for row in output.split(1)])
    for outputs in (output, read):
        metrics = task.metrics()
        metrics.update(outputs, y)
        scores.append(float(metrics.compute()["score"]))
    assert scores[0] == scores[1]


def test_a_task_without_an_answer_says_how_to_get_one() -> None:
    class Silent(Digits):
        answer_coder = Task.answer_coder

    with pytest.raises(ConfigError, match=r"Silent does not say what its answer is.*answer=raw"):
        Silent().answer_coder()


GRAPH = SplitGraph(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), (4,), granularity="op")
LINK = SimulatedLink(1e6, 0.01, 1e-7)
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def run(point: str, at: str) -> tuple[torch.Tensor, Frames]:
    frames = Frames()
    pipeline = Pipeline(GRAPH.cut(point), Identity(), Identity(), LINK, Answering(TopClasses(3), at))  # type: ignore[arg-type]
    return pipeline.run(X, frames), frames


def test_an_answer_that_the_edge_needs_travels_back_and_costs_its_time() -> None:
    outputs, frames = run("input", "edge")
    assert torch.equal(outputs.argmax(1), GRAPH.cut("input").tail(X).argmax(1))
    assert frames.answer_bytes == [1] * 5
    assert frames.answer_s == pytest.approx([8 / 1e6 + 0.005] * 5)
    assert frames.answer_busy_s == pytest.approx([8 / 1e6] * 5)
    assert len(frames.answer_encode_s) == len(frames.answer_decode_s) == 5


def test_an_answer_that_the_server_needs_stays_there() -> None:
    outputs, frames = run("input", "server")
    assert torch.equal(outputs, GRAPH.cut("input").tail(X))
    assert (frames.answer_bytes, frames.answer_s) == ([], [])


def test_a_network_that_runs_on_the_edge_sends_nothing_when_the_edge_needs_the_answer() -> None:
    outputs, frames = run("output", "edge")
    assert torch.equal(outputs, GRAPH.cut("output").head(X)[0])
    assert (frames.payload_bytes, frames.link_s, frames.wire_bytes) == ([0] * 5, [0.0] * 5, [0] * 5)


def test_a_network_that_runs_on_the_edge_sends_the_answer_and_not_the_output_when_the_server_needs_it() -> None:
    outputs, frames = run("output", "server")
    assert torch.equal(outputs.argmax(1), GRAPH.cut("output").head(X)[0].argmax(1))
    assert frames.payload_bytes == [1] * 5
    assert min(frames.encode_s) > 0


def test_what_is_computed_in_memory_is_what_the_bytes_give() -> None:
    for point in GRAPH.points:
        cut = GRAPH.cut(point)
        expected = Pipeline(cut, HalfPrecision(), HalfPrecision(), LINK).run(X, Frames())
        assert torch.equal(in_memory(cut, HalfPrecision(), X), expected)
