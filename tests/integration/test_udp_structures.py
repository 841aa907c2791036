"""Structures over datagrams that get lost: two inputs, one of whole numbers, and two outputs by name."""

import pytest
import torch

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.labels import weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import AllTensors
from splitsem.trees import call, is_same, leaves, mapped, rows
from tests.conftest import ROOT
from tests.integration.udp_ends import bad_network, connected, serving

NUM = 60


@pytest.fixture
def two(monkeypatch):
    """The network of the examples, its cut where a number and 512 values cross, its engine, and samples by name."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    from my_two_inputs import Net

    torch.manual_seed(0)
    net, x = Net().eval(), {"image": torch.rand(NUM, 1, 8, 8), "number": torch.randint(1, 10, (NUM,))}
    graph = SplitGraph(net, **rows(x)[0])
    return graph.cut("look.2"), TailEngine(graph, weights_digest(net)), weights_digest(net), rows(x)


def sent(two, codec, **harm):
    """The expected outputs, the answers, the results and the counters."""
    cut, engine, weights, samples = two
    with torch.inference_mode():
        expected = [cut.tail(*call(cut.head, x)) for x in samples]
    end = EdgeEnd(cut, codec, AllTensors(expected[0]))
    with serving(engine) as (server, address), bad_network(server, 5, **harm) as relay:
        plan = end.plan(weights, "layer", "float32")
        with connected(address, plan, datagram_target=relay.address, fragment_bytes=300) as tail:
            answers = list(tail.stream(end.payload(x) for x in samples))
            return expected, answers, [end.result(answer) for answer in answers], tail.counters


def test_over_a_whole_link_each_tensor_of_a_structure_comes_back(two):
    expected, answers, results, counters = sent(two, Identity())
    assert counters.frames_lost == 0
    assert not any(answer.is_lost for answer in answers)
    for result, wanted in zip(results, expected, strict=True):
        assert list(result) == ["digit", "is_more"]
        assert is_same(result, wanted)


def test_lost_stretches_of_a_structure_become_zeros(two):
    expected, answers, results, counters = sent(two, Identity(), loss=0.1)
    assert counters.frames_filled > 10
    same = [is_same(result, wanted) for result, wanted in zip(results, expected, strict=True)]
    assert 0 < sum(same) < NUM
    assert all(part.isfinite().all() for result in results for part in leaves(result))
    assert sum(answer.is_lost for answer in answers) == counters.frames_lost


def test_a_lost_structure_is_zeros_of_its_form(two):
    expected, answers, results, counters = sent(two, Quantise(8, entropy="none"), loss=0.3)
    lost = [result for answer, result in zip(answers, results, strict=True) if answer.is_lost]
    assert len(lost) == counters.frames_lost > 0
    assert all(is_same(result, mapped(torch.zeros_like, expected[0])) for result in lost)
