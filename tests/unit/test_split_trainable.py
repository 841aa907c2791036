"""Halves that are trained compute what the whole network computes in train mode, and change the same weights."""

import copy

import pytest
import torch
from torch import nn

from splitsem.errors import SplitPointError
from splitsem.models.cnn import StagedCnn
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.trainable import TrainableCut

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def cnn():
    """A network with batch normalisation and dropout, and both its graphs."""
    torch.manual_seed(0)
    model = StagedCnn(SHAPE, (10,), widths=[4, 8], stem_width=4, dropout=0.5)
    return model, SplitGraph(model, SHAPE), SplitGraph(model, SHAPE, granularity="op", training=True)


class Tied(nn.Module):
    """Uses one weight twice, with a cut between."""

    def __init__(self):
        super().__init__()
        self.one, self.between = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.one(torch.relu(self.between(torch.relu(self.one(x)))))


class NormalisedTwice(nn.Module):
    """Uses one batch normalisation, without weights of its own, twice."""

    def __init__(self):
        super().__init__()
        self.norm, self.between = nn.BatchNorm1d(6, affine=False), nn.Linear(6, 6)

    def forward(self, x):
        return self.norm(self.between(self.norm(x)))


def test_the_halves_are_the_model_in_train_mode_at_every_point(cnn):
    model, graph, training = cnn
    x = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    whole = copy.deepcopy(model).train()
    torch.manual_seed(2)
    expected = whole(x)
    before = copy.deepcopy(model.state_dict())
    assert not model.training
    for point in graph.points:
        cut = TrainableCut(graph, training, point.name)
        torch.manual_seed(2)
        assert torch.equal(cut.tail.train(*cut.head.train(x)), expected)
        assert all(map(torch.equal, model.state_dict().values(), whole.state_dict().values()))  # statistics too
        model.load_state_dict(before)


def test_each_parameter_is_trained_on_exactly_one_side(cnn):
    model, graph, training = cnn
    for point in graph.points:
        cut = TrainableCut(graph, training, point.name)
        sides = [id(p) for half in (cut.head, cut.tail) for p in half.parameters()]
        assert sorted(sides) == sorted(map(id, model.parameters()))
        assert cut.head_learns == (point.name != "input")
        assert set(cut.head.state()) | set(cut.tail.state()) == set(model.state_dict())


def test_a_step_is_seen_by_the_half_that_evaluates(cnn):
    _, graph, training = cnn
    tail = TrainableCut(graph, training, "stage1").tail
    evaluated = {id(p) for p in tail.evaluate.parameters()}
    assert {id(p) for p in tail.parameters()} == evaluated
    assert tail.draws  # dropout


@pytest.mark.parametrize(("model", "changed"), [(Tied(), "one"), (NormalisedTwice(), "norm.running")])
def test_a_cut_that_leaves_a_weight_on_both_sides_is_refused(model, changed):
    graph, training = (SplitGraph(model, (6,), granularity="op", training=training) for training in (False, True))
    for point in ("input", "output"):
        TrainableCut(graph, training, point)
    with pytest.raises(SplitPointError, match=f"both sides would change {changed}"):
        TrainableCut(graph, training, "between")
