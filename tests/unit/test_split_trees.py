"""Networks with several inputs and outputs, with what they keep between calls, and with a postprocess."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from splitsem.errors import ConfigError
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph
from splitsem.trees import arguments, by_path, call, is_same, joined, leaves, rows


class Two(NamedTuple):
    logits: Tensor
    hidden: list[Tensor]


@dataclass
class Found:
    scores: Tensor
    nothing: None
    maps: dict[str, Tensor]


class Reader(nn.Module):
    """Integer and floating-point inputs by position and by name; the mask is for the tail alone."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.words, self.mix, self.read = nn.Embedding(10, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.form = form

    def forward(self, ids: Tensor, extra: dict[str, Tensor], *, mask: Tensor | None = None, scale: float = 1.0) -> Any:
        hidden = torch.relu(self.mix(self.words(ids) + extra["bias"]))
        mean = (hidden * mask[..., None]).sum(1) if mask is not None else hidden.sum(1)
        return self.form(self.read(mean) * scale, hidden)


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensor": lambda y, h: y,
    "tuple": lambda y, h: (y, h),
    "named tuple": lambda y, h: Two(y, [h, h]),
    "dataclass": lambda y, h: Found(y, None, {"hidden": h}),
    "mapping with more than tensors": lambda y, h: {"logits": y, "name": "reader", "none": None, "layers": (h,)},
}


def inputs(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    draw = torch.Generator().manual_seed(batch)
    ids = torch.randint(0, 10, (batch, 5), generator=draw)
    return (ids, {"bias": torch.rand(batch, 1, 8, generator=draw)}), {"mask": (ids > 3).long(), "scale": 2.0}


def same(split: Any, whole: Any) -> bool:
    assert type(split) is type(whole)
    assert list(by_path(split)) == list(by_path(whole))
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(leaves(split), leaves(whole), strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("granularity", ["layer", "op"])
def test_any_structure_goes_in_and_comes_out_at_every_cut(form: str, granularity: Any) -> None:
    model = Reader(FORMS[form]).eval()
    args, named = inputs(1)
    graph = SplitGraph(model, *args, granularity=granularity, **named)
    assert graph.is_batch_free
    assert len(graph.points) > 3
    for batch in (1, 3):
        args, named = inputs(batch)
        whole = model(*args, **named)
        for point in graph.points:
            cut = graph.cut(point)
            assert same(cut.tail(*cut.head(*args, **named)), whole), point.name
            assert point.is_batched


def test_what_only_the_tail_needs_crosses_as_it_is() -> None:
    args, named = inputs(1)
    graph = SplitGraph(Reader(FORMS["tensor"]).eval(), *args, **named)
    assert [t.dtype for t in graph.point("input").tensors] == [torch.int64, torch.float32, torch.int64]
    (middle,) = [point for point in graph.points if point.name == "add"]
    assert [(t.shape, t.dtype) for t in middle.tensors] == [((1, 5), torch.int64), ((1, 5, 8), torch.float32)]
    assert middle.raw_bytes == 5 * 8 + 4 * 40  # a dtype that is no float at its own size
    cut, (args, named) = graph.cut("add"), inputs(2)
    assert torch.equal(cut.head(*args, **named)[0], named["mask"])


def test_what_the_head_has_already_made_crosses_too() -> None:
    args, named = inputs(1)
    graph = SplitGraph(Reader(FORMS["tuple"]).eval(), *args, **named)
    assert [t.shape for t in graph.point("sum").tensors] == [(1, 5, 8), (1, 8)]  # the hidden map is an output


class Keeps(nn.Module):
    """Keeps points for a shape, a counter, a list, and a buffer that it writes to."""

    shape: Any = None

    def __init__(self, of: slice) -> None:
        super().__init__()
        self.of, self.conv, self.down = of, nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.calls, self.seen, self.places = 0, [0], {}
        self.register_buffer("total", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(torch.relu(self.conv(x)))
        self.calls += 1
        self.seen.append(x.shape[0])
        if self.shape != y.shape[self.of]:
            self.shape = y.shape[self.of]
            self.grid = torch.arange(y.shape[-1]) + 0.5
            self.places["last"] = y.shape
        self.total += 1
        return (y * self.grid).flatten(2).mean(2) + y.shape[0] * 0.0


@pytest.mark.parametrize("of", [slice(None), slice(2, None)], ids=["whole shape", "size of the picture"])
@pytest.mark.parametrize("before", [None, 1, 2, 5])
@pytest.mark.parametrize("between", [None, 2])
def test_a_network_that_keeps_things_is_left_as_it_was(of: slice, before: int | None, between: int | None) -> None:
    model, x = Keeps(of).eval(), torch.rand(2, 3, 16, 16)
    fresh = SplitGraph(Keeps(of).eval(), (3, 16, 16), granularity="op")
    if before:
        model(torch.rand(before, 3, 16, 16))
    held = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    seen, places, total = list(model.seen), dict(model.places), model.total.clone()
    graph = SplitGraph(model, (3, 16, 16), granularity="op")
    now = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    assert now.keys() == held.keys()
    assert all(now[name] is held[name] for name in held if name != "training")
    assert (model.seen, model.places, model.total) == (seen, places, total)
    assert graph.fingerprint == fresh.fingerprint  # whatever ran before
    if between:
        model(torch.rand(between, 3, 16, 16))
    whole = model(x)
    for point in graph.points:
        cut = graph.cut(point)
        assert torch.equal(cut.tail(*cut.head(x)), whole), point.name


def test_a_batch_that_the_network_fixes_is_taken_a_sample_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    class Loops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.body(x))
            return self.fc(torch.stack([y[i] for i in range(len(y))]))

    model, x = Loops().eval(), torch.rand(1, 4)
    graph = SplitGraph(model, (4,))
    assert not graph.is_batch_free
    assert "its cuts take one sample at a time, since the network fixes its batch size" in caplog.text
    for point in graph.points:
        cut = graph.cut(point)
        assert torch.equal(cut.tail(*cut.head(x)), model(x))
        assert not point.is_batched


class Boxes(nn.Module):
    """What no graph holds: it returns as many rows as there are scores above a half, the rest zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, maps: list[Tensor]) -> Tensor:
        found = torch.zeros(len(maps[0]), 4, 2)
        for number, scores in enumerate(maps[0].flatten(1)):
            best = scores[scores > 0][:4]
            found[number, : len(best), 0] = best * self.weight[0]
        return found


class Detects(nn.Module):
    """Two parts, of which the first is cut."""

    def __init__(self) -> None:
        super().__init__()
        body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())
        self.network, self.postprocess = Maps(body), Boxes()

    def forward(self, x: Tensor) -> Any:
        made = self.network(x)
        return made if self.training else self.postprocess(made)


class Maps(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.small, self.large = body, nn.Conv2d(4, 2, 3), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.body(x)
        return [self.small(y), self.large(y)]


def test_a_postprocess_follows_the_network_wherever_it_is_cut() -> None:
    model, x = Detects().eval(), torch.rand(3, 3, 16, 16)
    graph = SplitGraph(model, (3, 16, 16))
    for point in graph.points:
        cut: Cut = graph.cut(point)
        assert torch.equal(cut.tail(*cut.head(x)), model(x)), point.name
    raw, end = graph.points[-2:]
    assert [t.shape for t in raw.tensors] == [(1, 2, 2, 2), (1, 3, 4, 4)]
    assert [t.shape for t in end.tensors] == [(1, 4, 2)]
    assert end.tail_ops == ()
    assert raw.tail_ops[-1].name == "postprocess"
    assert raw.tail_ops[-1].steps > 1
    assert end.head_param_bytes - raw.head_param_bytes == 8


def test_halves_of_a_network_with_a_postprocess_are_timed_with_it() -> None:
    graph = SplitGraph(Detects().eval(), (3, 16, 16))
    for point in graph.points:
        for half in graph.cut(point).halves():
            half.module(*half.example)
    head, tail = graph.cut("output").halves()
    assert [op.name for op in head.ops][-1] == "postprocess"
    assert tail.ops == ()


def test_a_splitter_by_hooks_sends_dead_skip_tensors_too() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.fourth = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.fourth(self.third(y + self.second(y)))

    points = {p.name: p for p in SplitGraph(Skips().eval(), (3, 8, 8), granularity="op").points}
    assert [t.shape for t in points["second"].tensors] == [(1, 3, 8, 8)] * 2
    assert points["second"].hook_bytes == points["second"].raw_bytes
    assert points["third"].hook_bytes == 2 * points["third"].raw_bytes
    assert points["output"].hook_bytes == points["output"].raw_bytes


def test_inputs_that_are_wrong_are_told_in_one_line() -> None:
    model = Reader(FORMS["tensor"]).eval()
    args, _ = inputs(1)
    with pytest.raises(
        ConfigError, match=r"Reader cannot be split: it does not run on an input of \(1, 5\): TypeError"
    ):
        SplitGraph(model, args[0])
    with pytest.raises(ValueError, match="an example must have a tensor"):
        SplitGraph(model, "text")


def test_structures_are_taken_apart_and_put_together() -> None:
    (ids, extra), named = inputs(3)
    batch = {"ids": ids, "extra": extra, "mask": named["mask"]}
    alone = rows(batch)
    assert len(alone) == 3
    assert same(joined(alone), batch)
    assert torch.equal(call(lambda a, b: a + b, (ids, ids)), 2 * ids)


class Tokens(nn.Module):
    """Views tokens as a map, so that kernels see another memory order for one sample than for several."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.near, self.down = nn.Linear(64, 64), nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.Conv2d(64, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(x.flatten(2).transpose(1, 2)).transpose(1, 2).view(x.shape[0], 64, 4, 4)
        return self.down((self.near(y) + y).contiguous())


class Mapped(Tokens):
    """What the first convolution makes of such a map is channels last for several samples, and not for one."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(x.flatten(2).transpose(1, 2)).transpose(1, 2).view(x.shape[0], 64, 4, 4)
        return self.down(torch.relu(self.near(y)))


class Shortcut(nn.Module):
    """Adds to tokens, whose memory order is then that of the picture, and views the sum as a map."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.near = nn.Linear(64, 64), nn.Conv2d(64, 64, 3, 1, 1, groups=64)

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        y = y + self.mix(y)
        return self.near(y.transpose(1, 2).view(x.shape))


class Squeezed(nn.Module):
    """Convolutions and in-place activations on maps of one value, whose strides choose kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.few, self.many = nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.many(torch.relu_(self.few(self.pool(x)))))


@pytest.mark.parametrize("network", [Tokens, Mapped, Shortcut, Squeezed])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernels_meet_the_memory_order_of_the_whole_network(network: Any, batch: int, memory_format: Any) -> None:
    torch.manual_seed(0)
    model, x = network().eval(), torch.rand(batch, 64, 4, 4).to(memory_format=memory_format)
    graph = SplitGraph(model, (64, 4, 4), granularity="op")
    with torch.no_grad():
        whole = model(x)
        for point in graph.points:
            cut = graph.cut(point)
            z = cut.head(x)
            assert torch.equal(cut.tail(*z), whole), point.name
            if x.is_contiguous():
                decoded = [t.clone(memory_format=torch.contiguous_format) for t in z]
                assert torch.equal(cut.tail(*cut.received(decoded)), whole), point.name


def test_structures_are_the_same_where_places_types_and_values_are():
    x = {"a": torch.zeros(1), "b": [torch.ones(2)]}
    assert is_same(x, {"a": torch.zeros(1), "b": (torch.ones(2),)})
    for other in ({"a": torch.zeros(1)}, x | {"b": [torch.zeros(2)]}, x | {"a": torch.zeros(1).long()}):
        assert not is_same(x, other)


def test_a_batch_is_given_by_name_by_position_or_alone():
    one = torch.zeros(1)
    assert arguments({"x": one}) == ((), {"x": one})
    assert arguments((one, one)) == ((one, one), {})
    assert arguments(one) == ((one,), {})
