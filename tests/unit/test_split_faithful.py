"""A graph computes what its network does: where torch.export saw another network, a line says so."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitsem.codecs.tensorwise import Identity
from splitsem.codecs.wire import _DTYPES
from splitsem.errors import ConfigError
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames, Pipeline, in_memory
from splitsem.splitting.example import Example
from splitsem.splitting.faithful import faithful_flow
from splitsem.splitting.flow import CROSSING
from splitsem.splitting.graph import SplitGraph
from splitsem.trees import is_same

Way = Callable[[Any, Tensor], Any]


class Two(nn.Module):
    """Two layers, and any way through them."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.way, self.a, self.b = way, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        return self.way(self, x)


def catches(m: Two, x: Tensor) -> Tensor:
    try:
        scale = float(x.sum())
    except RuntimeError:
        scale = 1.0
    return m.a(x) * scale


def seeds(m: Two, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return m.a(x) + torch.rand(8)


@pytest.mark.parametrize(
    "way",
    [
        lambda m, x: m.a(x) if x.shape[0] == 1 else m.b(x),
        lambda m, x: m.a(x) if x.shape[0] == 3 else m.b(x),
        lambda m, x: m.a(x) if x.shape[0] < 4 else m.b(x),
        lambda m, x: m.a(x) if x.shape[0] % 2 == 0 else m.b(x),
        lambda m, x: m.a(x) if x.shape[0] > 64 else m.b(x),
        lambda m, x: m.a(x[:4]),
        lambda m, x: m.b(m.a(x)[:2]),
    ],
)
def test_a_network_that_goes_by_its_batch_size_is_cut_for_the_examples(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    network = Two(way)
    graph = SplitGraph(network, (8,))
    assert not graph.is_batch_free
    assert "take one sample at a time, since a graph for any batch size is not exact: for" in caplog.text
    cut, x = graph.cut("input"), torch.rand(1, 8)
    assert is_same(cut.tail(*cut.head(x)), network(x))


@pytest.mark.parametrize("way", [lambda m, x: m.b(m.a(x).relu()), lambda m, x: m.a(x) / 0 * 0,
                                 lambda m, x: m.b(m.a(x) + torch.rand(8))])  # fmt: skip
def test_a_network_for_any_batch_stays_one_and_draws_no_numbers(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    before = torch.random.get_rng_state()
    network = Two(way)
    after = torch.random.get_rng_state()
    assert SplitGraph(network, (8,)).is_batch_free
    assert not torch.equal(before, after)
    assert torch.equal(torch.random.get_rng_state(), after)
    assert "since" not in caplog.text


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (lambda m, x: m.a(x) if torch.is_grad_enabled() else m.b(x), "for one sample the output differs by up to"),
        (lambda m, x: m.a(x) * (2 if torch.compiler.is_compiling() else 1), "differs.*traced or compiled"),
        (lambda m, x: m.a(x) * (2 if m.a(x).requires_grad else 1), "differs.*gradients are on"),
        (catches, "differs.*what a trace raises"),
        (lambda m, x: m.a(x) + torch.rand(8, generator=torch.Generator().manual_seed(0)), "differs.*own generator"),
        (seeds, "differs.*not set its seed"),
        (lambda m, x: m.a(x) + random.random(), "in two runs of it on the same input in eval mode; it draws random"),
        (lambda m, x: m.a(x) * float(m.a.weight.sum()), "decides by values.*weights.*float.. or item"),
        (lambda m, x: torch.zeros(x.shape[0], 3), "its output does not depend on its input"),
        (lambda m, x: (torch.zeros(x.shape[0], 3), m.a(x).sum()), "at its output, the tail needs the batch size"),
        (lambda m, x: None, "it returns NoneType without any tensor"),
        (lambda m, x: torch.fft.fft(m.a(x)), "at its output, a tensor of torch.complex64 crosses, which no codec"),
        (lambda m, x: m.a(x)[:, :0], "at its output, an empty tensor of .1, 0. crosses"),
    ],
)
def test_a_network_that_no_graph_computes_is_refused_in_a_line(
    way: Way, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        SplitGraph(Two(way), (8,))
    assert "\n" not in str(caught.value)
    assert "at a time" not in caplog.text


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        (lambda m, x: m.b(torch.fft.ifft(torch.fft.fft(m.a(x))).real), "torch.complex64"),
        (lambda m, x: m.b((m.a(x).abs() * 9).to(torch.uint16).float()), "torch.uint16"),
        (lambda m, x: m.b(m.a(x).to(torch.float8_e4m3fn).float()), "torch.float8_e4m3fn"),
        (lambda m, x: m.b(torch.cat([m.a(x)[:, :0], m.a(x)], 1)), "an empty tensor"),
    ],
)
def test_what_no_codec_takes_is_not_offered(way: Way, kind: str) -> None:
    graph = SplitGraph(Two(way), (8,), granularity="op")
    assert graph.refused
    assert all(kind in why and "no codec takes" in why for why in graph.refused.values())
    assert not graph.refused.keys() & {point.name for point in graph.points}


def test_crossing_types_are_those_that_codecs_take() -> None:
    assert frozenset(_DTYPES) == CROSSING


def test_halves_of_a_fixed_batch_refuse_another() -> None:
    graph = SplitGraph(Two(lambda m, x: m.b(torch.stack([m.a(row) for row in x]))), (8,), granularity="op")
    cut, x = graph.cut("stack"), torch.rand(1, 8)
    assert is_same(cut.tail(*cut.head(x)), graph.cut("output").head(x)[0])
    for half in (cut.head, cut.tail):
        with pytest.raises(ConfigError, match=r"take tensors of \(1, 8\) only.*got \(3, 8\)"):
            half(torch.rand(3, 8))


class Normalises(nn.Module):
    """Keeps its batch normalisation in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def train(self, mode: bool = True) -> "Normalises":
        super().train(mode)
        self.norm.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def test_statistics_are_left_as_they_were() -> None:
    network = Normalises()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    SplitGraph(network, torch.rand(4, 8))
    assert is_same(network.state_dict(), before)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_a_hook_on_a_wrapper_is_not_lost_silently(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network = wrap(Two(lambda m, x: m.a(x)))
    network.register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(
        ConfigError, match=r"a forward hook on .* is no part of the Two inside.*register it on that one"
    ):
        SplitGraph(network, (8,))


@pytest.mark.parametrize(
    ("way", "number", "said"),
    [
        (lambda m, x: m.a(x).squeeze(), 1, r"output has the shape \(8,\) for a batch of 1"),
        (lambda m, x: m.a(x).sum(), 2, r"output has the shape \(\) for a batch of 2"),
        (lambda m, x: m.a(x).t(), 2, r"output has the shape \(8, 2\) for a batch of 2"),
        (lambda m, x: m.a(x).reshape(-1, 4), 2, r"output has the shape \(4, 4\) for a batch of 2"),
        (lambda m, x: (m.a(x), torch.arange(4)), 2, r"output \[1\] has the shape \(4,\) for a batch of 2"),
    ],
)
@pytest.mark.parametrize("point", ["input", "output"])
def test_a_pipeline_needs_a_row_for_each_sample(way: Way, number: int, said: str, point: str) -> None:
    graph, x = SplitGraph(Two(way), (8,), granularity="op"), torch.rand(number, 8)
    if point == "output" and not graph.point(point).is_batched and number > 1:
        number, said = 1, "for a batch of 1"  # the head takes a sample at a time
    pipeline = Pipeline(graph.cut(point), Identity(), Identity(), SimulatedLink(1e6, 0.0, 0.0))
    with pytest.raises(ConfigError, match=said):
        pipeline.run(x, Frames())
    with pytest.raises(ConfigError, match=said):
        in_memory(graph.cut(point), Identity(), x)


class Named(nn.Module):
    def forward(self, model: Tensor, granularity: Tensor, training: Tensor) -> Tensor:
        return model * granularity + training


def test_inputs_may_be_called_as_the_settings() -> None:
    model, granularity, training = torch.rand(3, 1, 8)
    inputs = {"model": model, "granularity": granularity, "training": training}
    graph = SplitGraph(Named(), Example((), inputs), granularity="op")
    assert len(graph.cut("input").head(**inputs)) == 3
    with pytest.raises(ValueError, match=r"granularity must be 'layer' or 'op', got a Tensor.*Example\(args, named\)"):
        SplitGraph(Named(), **inputs)
    with pytest.raises(ValueError, match=r"training must be True or False, got a Tensor.*Example\(args, named\)"):
        SplitGraph(Named(), model=model, training=training)


class Variadic(nn.Module):
    def forward(self, *args: Tensor, **named: Tensor) -> Tensor:
        return args[0] * 2 + named.get("y", 0)


@pytest.mark.parametrize("named", [{}, {"y": torch.rand(1, 8)}])
def test_a_forward_of_any_arguments_takes_any_batch(named: dict[str, Tensor]) -> None:
    assert SplitGraph(Variadic(), torch.rand(1, 8), **named).is_batch_free


def test_a_network_that_sums_in_any_order_is_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    calls = [0]

    def rounds(m: Two, x: Tensor) -> Tensor:
        calls[0] += 1
        return m.a(x) * (1 + 1e-6 * calls[0])

    faithful_flow(Two(rounds), Example((torch.rand(1, 8),), {}))
    assert "its halves are not exact, and neither is the network" in caplog.text


def test_examples_are_varied_row_by_row() -> None:
    x, n = torch.rand(1, 4), torch.arange(4)[None]
    varied = Example((x,), {"n": n, "shared": torch.ones(2, 2)}).varied(3)
    assert len(varied.args[0].unique(dim=0)) == len(varied.named["n"].unique(dim=0)) == 3
    assert torch.equal(varied.args[0][:1], x)
    assert varied.named["n"].sort().values.tolist() == [[0, 1, 2, 3]] * 3
    assert varied.named["shared"].shape == (2, 2)
