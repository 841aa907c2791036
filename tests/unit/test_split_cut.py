"""Head and tail: exact, sharing the model's weights, each with its own only."""

import copy
import itertools
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from splitsem.errors import ConfigError
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph
from splitsem.trees import by_path, leaves


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TinyUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.middle = self._block(3, 4), self._block(4, 6), self._block(6, 8)
        self.up2, self.dec2 = nn.ConvTranspose2d(8, 6, 2, 2), self._block(12, 6)
        self.up1, self.dec1 = nn.ConvTranspose2d(6, 4, 2, 2), self._block(8, 4)
        self.head = nn.Conv2d(4, 2, 1)

    @staticmethod
    def _block(c: int, n: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(c, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        skip1 = self.enc1(x)
        skip2 = self.enc2(nn.functional.max_pool2d(skip1, 2))
        y = self.middle(nn.functional.max_pool2d(skip2, 2))
        y = self.dec2(torch.cat([self.up2(y), skip2], 1))
        return self.head(self.dec1(torch.cat([self.up1(y), skip1], 1)))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.memory = kind(4, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.readout = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.memory(x * 2)[0][:, -1])


class Attends(nn.Module):
    """Folds the batch into other dimensions, as window attention does, with a class token and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.project = nn.Parameter(torch.randn(1, 1, 8)), nn.Linear(4, 8)
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.mix, self.out = nn.Linear(8, 8), nn.Linear(8, 8)
        self.out.weight = self.mix.weight

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        y = torch.cat([self.token.expand(batch, -1, -1), self.project(x)], 1)
        y = y + self.attention(y, y, y, need_weights=False)[0]
        y = self.mix(self.norm(y).reshape(batch * 3, 2, 8)).reshape(batch, 6, 8)
        return self.out(nn.functional.dropout(y, 0.5, self.training)[:, 0])


class ChannelsLast(nn.Module):
    """Permutes between convolutions, which then see another memory order, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(3, 16, 3), nn.LayerNorm(16), nn.Conv2d(16, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm(self.conv1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class InPlace(nn.Module):
    """Writes into its input, into a tensor that is still needed, and through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.5)
        y = self.first(x)
        row = y[:, 0]
        y.mul_(2)
        z = torch.sigmoid(y)
        row.add_(1)
        with torch.no_grad():
            shift = torch.tensor([0.1, 0.2, 0.3, 0.4]) * z.detach()
        return self.second(torch.relu_(z + y + shift)) + row[:, None]


class Counts(nn.Module):
    """The tail needs the batch size, which no crossing tensor has as a dimension after the sum over it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.linear(x).sum(0) / 2
        return torch.tanh(mean).expand(x.shape[0], 4) * 3


SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "unet": (TinyUNet, (3, 8, 8)),
    "lstm": (lambda: Recurrent(nn.LSTM), (5, 4)),
    "gru": (lambda: Recurrent(nn.GRU), (5, 4)),
    "attention": (Attends, (5, 4)),
    "channels_last": (ChannelsLast, (3, 8, 8)),
    "in_place": (InPlace, (4,)),
    "counts": (Counts, (4,)),
}


def _randomised(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def _as_received(z: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Fresh contiguous tensors that share no memory, as a codec makes them."""
    return tuple(t.clone(memory_format=torch.contiguous_format) for t in z)


def _equal(split: object, whole: object) -> bool:
    return all(map(torch.equal, leaves(split), leaves(whole))) and list(by_path(split)) == list(by_path(whole))


def _assert_exact(model: nn.Module, graph: SplitGraph, shape: tuple[int, ...]) -> None:
    for point in graph.points:
        cut = graph.cut(point)
        for batch in (1, 3):
            x = torch.rand(batch, *shape)
            y = model(x.clone())
            z = cut.head(x.clone())
            assert _equal(cut.tail(*cut.received(_as_received(z))), y), point.name
            if batch == 3:
                assert _equal(cut.tail(*z), y), point.name
            else:
                assert [(tuple(t.shape), t.dtype) for t in z] == [(s.shape, s.dtype) for s in point.tensors]
            if point.is_batched:
                assert all(t.shape[0] == batch for t in z)


def _assert_walks(graph: SplitGraph, shape: tuple[int, ...], stride: int) -> None:
    """Between any two of each ``stride``-th point, what a head makes becomes what the later head makes."""
    points = [*graph.points[:-1:stride], graph.points[-1]]
    for batch in (1, 3):
        x = torch.rand(batch, *shape)
        made = {point: graph.cut(point).head(x.clone()) for point in points}
        as_made = {point: [z.clone() for z in tensors] for point, tensors in made.items()}
        for first, then in itertools.combinations(points, 2):
            found = graph.between(first, then)(*made[first])
            assert list(map(_kind, found)) == list(map(_kind, made[then])), (first.name, then.name)
            assert all(map(torch.equal, found, as_made[then])), (first.name, then.name)
        assert all(all(map(torch.equal, made[point], as_made[point])) for point in points)


def _kind(tensor: Tensor) -> tuple[object, ...]:
    """All that kernels see of a tensor beside its values."""
    return tensor.shape, tensor.dtype, tensor.stride()


@pytest.mark.parametrize("name", SMALL)
def test_features_move_on_from_any_cut_to_any_later_one(name: str) -> None:
    torch.manual_seed(0)
    build, shape = SMALL[name]
    with torch.inference_mode():
        _assert_walks(SplitGraph(_randomised(build()), shape, granularity="op"), shape, stride=1)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("grad", [True, False])
def test_the_halves_equal_the_model_at_every_operation(name: str, grad: bool) -> None:
    torch.manual_seed(0)
    build, shape = SMALL[name]
    model = _randomised(build())
    with torch.set_grad_enabled(grad):
        _assert_exact(model, SplitGraph(model, shape, granularity="op"), shape)


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.resnet18(weights=None),
        lambda: torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None),
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3),
        pytest.param(lambda: timm.create_model("mobilevit_xxs"), marks=pytest.mark.slow),
    ],
    ids=["resnet18", "lraspp", "vit", "mobilevit"],
)
def test_the_halves_equal_a_public_model_at_every_layer(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = _randomised(build())
    with torch.no_grad():
        graph = SplitGraph(model, (3, 64, 64))
        _assert_exact(model, graph, (3, 64, 64))
        _assert_walks(graph, (3, 64, 64), stride=5)


@pytest.mark.parametrize("name", SMALL)
def test_each_half_holds_only_its_own_weights(name: str) -> None:
    build, shape = SMALL[name]
    model = build()
    own = {id(p) for p in model.parameters()}
    graph = SplitGraph(model, shape, granularity="op")
    for point in graph.points:
        cut = graph.cut(point)
        head, tail = ({id(p) for p in half.parameters()} for half in (cut.head, cut.tail))
        assert head | tail == own
        tied = {id(model.mix.weight)} if isinstance(model, Attends) else set()
        assert head & tail <= tied
        sizes = {id(p): p.numel() * p.element_size() for half in (cut.head, cut.tail) for p in half.parameters()}
        assert point.head_param_bytes >= sum(sizes[key] for key in head - tail)
        assert point.tail_param_bytes >= sum(sizes[key] for key in tail - head)


def test_the_ends_leave_everything_to_one_side() -> None:
    graph = SplitGraph(TinyUNet(), (3, 8, 8))
    x = torch.rand(2, 3, 8, 8)
    first, last = graph.cut("input"), graph.cut("output")
    assert torch.equal(first.head(x)[0], x)
    assert torch.equal(last.tail(x), x)
    assert not list(first.head.parameters())
    assert not list(last.tail.parameters())


def test_training_the_halves_trains_the_model() -> None:
    torch.manual_seed(0)
    model = TinyUNet()
    cut = SplitGraph(model, (3, 8, 8)).cut("enc2")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    optimiser = torch.optim.SGD([*cut.head.parameters(), *cut.tail.parameters()], lr=0.1)
    cut.tail(*cut.head(torch.rand(2, 3, 8, 8))).square().mean().backward()
    optimiser.step()
    after = model.state_dict()
    assert not torch.equal(after["enc1.0.weight"], before["enc1.0.weight"])
    assert not torch.equal(after["head.weight"], before["head.weight"])
    for half in (cut.head, cut.tail):
        for name, weight in half.state_dict().items():
            assert torch.equal(weight, after[name])


def test_loading_weights_into_the_model_changes_the_halves() -> None:
    model = TinyUNet()
    cut = SplitGraph(model, (3, 8, 8)).cut("enc2")
    model.load_state_dict(_randomised(TinyUNet()).state_dict())
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(cut.tail(*cut.head(x)), model(x))


def test_a_half_computes_the_same_whatever_its_training_flag() -> None:
    model = TinyUNet()
    cut = SplitGraph(model, (3, 8, 8)).cut("enc2")
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(cut.tail.train()(*cut.head.train()(x)), model(x))
    assert not model.training


def test_the_tail_leaves_what_it_received_untouched() -> None:
    model = TinyUNet()
    graph = SplitGraph(model, (3, 8, 8), granularity="op")
    for point in graph.points:
        cut = graph.cut(point)
        with torch.no_grad():
            z = _as_received(cut.head(torch.rand(1, 3, 8, 8)))
            kept = _as_received(z)
            cut.tail(*z)
        assert all(map(torch.equal, z, kept)), point.name


class Overwrites(nn.Module):
    """Two in-place operations: no gradient needs what the first one overwrites, but that of the second one does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.second(torch.relu_(self.first(x)))).mul_(2)


def test_halves_write_in_place_where_the_model_does_and_no_gradient_needs_what_was_there() -> None:
    model, x = Overwrites(), torch.rand(2, 4)
    graph = SplitGraph(model, (4,), granularity="op")
    _, *layers = graph.tail_with_layers("input")(x)
    for layer, point in zip(layers, graph.points[1:-1], strict=True):  # what is returned is not written to
        assert torch.equal(layer, graph.cut(point).head(x)[0]), point.name
    for point in graph.points:
        cut = graph.cut(point)
        assert ("relu_" in cut.head.code) == (point.index > 1)
        assert ("relu_" in cut.tail.code) == (point.index < 2)
        z = cut.head(x)
        kept = _as_received(z)
        cut.tail(*z).sum().backward()
        assert all(map(torch.equal, z, kept)), point.name


def test_a_write_through_a_view_refuses_only_the_cuts_it_would_break() -> None:
    graph = SplitGraph(InPlace(), (4,), granularity="op")
    assert graph.refused["select"] == "tensors that share memory cross and one is written to afterwards"
    assert {"first", "add@2", "relu"} <= {p.name for p in graph.points}


def test_a_tail_that_cannot_know_the_batch_size_is_refused() -> None:
    graph = SplitGraph(Counts(), (4,), granularity="op")
    assert set(graph.refused.values()) == {"the tail needs the batch size and no crossing tensor tells it"}
    assert graph.points[-1].name == "output"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_work(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = _randomised(TinyUNet()).to(dtype)
    x = torch.rand(3, 3, 8, 8, dtype=dtype)
    graph = SplitGraph(model, (3, 8, 8))
    for point in graph.points:
        cut = graph.cut(point)
        assert torch.equal(cut.tail(*cut.head(x)), model(x))
        assert all(spec.dtype == dtype for spec in point.tensors)


def test_a_cut_takes_another_tail_of_the_same_computation_only() -> None:
    graph = SplitGraph(TinyUNet(), (3, 8, 8))
    cut = graph.cut("enc2")
    other = copy.deepcopy(cut.tail)
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    tuned = cut.with_tail(other)
    z = cut.head(torch.rand(2, 3, 8, 8))
    assert torch.equal(tuned.tail(*z), other(*z))
    assert not torch.equal(tuned.tail(*z), cut.tail(*z))
    assert tuned.halves()[1].module is other
    assert cut.with_tail(None) is cut
    with pytest.raises(ConfigError, match="tuned for another cut than enc1: give both ends"):
        graph.cut("enc1").with_tail(other)


def test_the_halves_come_with_examples_for_one_sample() -> None:
    cut: Cut = SplitGraph(TinyUNet(), (3, 8, 8)).cut("enc2")
    head, tail = cut.halves()
    assert (head.side, tail.side, head.point) == ("head", "tail", "enc2")
    assert [tuple(t.shape) for t in tail.example] == [s.shape for s in cut.point.tensors]
    assert torch.equal(tail.module(*tail.example), cut.tail(*cut.head(*head.example)))
    assert head.fingerprint == tail.fingerprint != ""
