"""Code under no_grad, inference_mode, autocast, and in branches and loops: the same points, work and numbers."""

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import register_flop_formula

from splitsem.errors import ConfigError
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.trainable import TrainableCut

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # torch.cond reads it
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),  # torch.utils.checkpoint
]
SHAPE = (3, 8, 8)
Forward = Callable[["Plain", Tensor], Tensor]


class Plain(nn.Module):
    """A body and a classifier; ``how`` is how they are called."""

    def __init__(self, how: Forward | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2)
        self.body, self.fc, self.how = nn.Sequential(*layers, nn.Flatten()), nn.Linear(32, 5), how

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x)) if self.how is None else self.how(self, x)


def frozen(model: Plain, x: Tensor) -> Tensor:
    with torch.no_grad():
        z = model.body(x)
    return model.fc(z)


def inference(model: Plain, x: Tensor) -> Tensor:
    with torch.inference_mode():
        z = model.body(x)
    return model.fc(z)


def switched_by_hand(model: Plain, x: Tensor) -> Tensor:
    torch.set_grad_enabled(False)
    z = model.body(x)
    torch.set_grad_enabled(True)
    return model.fc(z)


def nested(model: Plain, x: Tensor) -> Tensor:
    with torch.no_grad():
        z = model.body[0](x)
        with torch.enable_grad():
            z = model.body[1:4](z)
            with torch.set_grad_enabled(False):
                z = model.body[4](z)
    return model.fc(z)


@torch.no_grad()
def decorated(model: Plain, x: Tensor) -> Tensor:
    return model.fc(model.body(x))


@torch.autocast("cpu", torch.bfloat16)
def autocast(model: Plain, x: Tensor) -> Tensor:
    return model.fc(model.body(x))


def autocast_and_frozen(model: Plain, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            z = model.body(x)
        return model.fc(z)


def rematerialised(model: Plain, x: Tensor) -> Tensor:
    return model.fc(checkpoint(model.body, x, use_reentrant=True))


CONTEXTS = [frozen, inference, switched_by_hand, nested, decorated, autocast, autocast_and_frozen, rematerialised]


def facts(graph: SplitGraph) -> list[tuple[object, ...]]:
    return [(p.raw_bytes, p.head_flops, p.tail_flops, p.is_batched, len(p.tensors)) for p in graph.points]


def assert_exact(model: nn.Module, graph: SplitGraph) -> None:
    with torch.no_grad():
        for batch in (1, 3):
            x = torch.rand(batch, *SHAPE)
            y = model(x)
            for point in graph.points:
                cut = graph.cut(point)
                y_split = cut.tail(*cut.head(x))
                assert y.dtype == y_split.dtype
                assert torch.equal(y, y_split), point.name


@pytest.mark.parametrize(("how", "granularity"), [(frozen, "layer"), *((how, "op") for how in CONTEXTS)])
def test_a_context_hides_no_point_and_no_work(how: Forward, granularity: str) -> None:
    plain, graph = (SplitGraph(Plain(h), SHAPE, granularity=granularity) for h in (None, how))  # type: ignore[arg-type]
    assert facts(graph) == facts(plain)
    if how is not nested:  # which calls parts of the body, so that the body itself ends nowhere
        assert [p.name for p in graph.points] == [p.name for p in plain.points]
    assert_exact(Plain(how).eval(), graph)


def test_autocast_is_left_and_entered_within_autocast() -> None:
    def mixed(model: Plain, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            z = model.body[0](x)
            z += 1
            z.exp_()  # in place: stays in bfloat16, while exp would give float32
            with torch.autocast("cpu", enabled=False):
                z = model.body[1:](z.float())
            products = torch.bmm(z.view(-1, 4, 8), z.view(-1, 8, 4)).flatten(1)
            return model.fc(torch.cat([products, z[:, :16] * products.float()], 1))

    assert_exact(Plain(mixed).eval(), SplitGraph(Plain(mixed), SHAPE, granularity="op"))


class Attends(nn.Module):
    """Its products are folded or not by whether weights ask for gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(24, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.layer(x.permute(0, 2, 1, 3).flatten(2))


def test_kernels_that_gradients_choose_are_the_models_own() -> None:
    model = Attends().eval()
    assert_exact(model, SplitGraph(model, SHAPE))


def test_autocast_changes_the_fingerprint() -> None:
    assert SplitGraph(Plain(autocast), SHAPE).fingerprint != SplitGraph(Plain(), SHAPE).fingerprint
    assert SplitGraph(Plain(frozen), SHAPE).fingerprint == SplitGraph(Plain(), SHAPE).fingerprint


def step(graph: SplitGraph, training: SplitGraph, point: str, x: Tensor) -> TrainableCut:
    """One step of split training, as HeadTrainer and TailTrainer take it."""
    cut = TrainableCut(graph, training, point)
    z = cut.head.train(x)
    leaves = [t.detach().requires_grad_(cut.head_learns) for t in z]
    cut.tail.train(*leaves).float().square().sum().backward()
    if cut.head_learns:
        pairs = [(t, leaf.grad) for t, leaf in zip(z, leaves, strict=True) if leaf.grad is not None]
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
    return cut


def detached(model: Plain, x: Tensor) -> Tensor:
    return model.fc(model.body(x).detach())


def frozen_branch(model: Plain, x: Tensor) -> Tensor:
    z = model.body(x)
    with torch.no_grad():
        z = torch.cond(x.sum() > 0, lambda z: z + model.fc.weight.mean(), lambda z: z * 2, (z,))
    return model.fc(z)


def frozen_in_the_middle(model: Plain, x: Tensor) -> Tensor:
    z = model.body[0](x)
    with torch.no_grad():
        mask = model.body[1:3](z)
    return model.fc(model.body[3:](z * mask))


@pytest.mark.parametrize(
    "how", [frozen, nested, autocast, autocast_and_frozen, detached, frozen_branch, frozen_in_the_middle]
)
def test_split_training_teaches_exactly_what_training_the_whole_teaches(how: Forward) -> None:
    model, x = Plain(how), torch.rand(5, *SHAPE)
    graph, training = (SplitGraph(model, SHAPE, granularity="op", training=mode) for mode in (False, True))
    whole, before = copy.deepcopy(model).train(), copy.deepcopy(model.state_dict())
    whole(x).float().square().sum().backward()
    taught = {name for name, p in whole.named_parameters() if p.grad is not None}
    for point in filter(lambda point: point.is_batched, graph.points):
        model.load_state_dict(before)
        model.zero_grad()
        cut = step(graph, training, point.name, x)
        learning = {id(p) for half in (cut.head, cut.tail) for p in half.parameters()}
        assert {name for name, p in model.named_parameters() if id(p) in learning} == taught, point.name
        for (name, own), (_, theirs) in zip(model.named_parameters(), whole.named_parameters(), strict=True):
            assert (own.grad is None) == (theirs.grad is None), (point.name, name)
            if own.grad is not None and theirs.grad is not None:
                torch.testing.assert_close(own.grad, theirs.grad)
        assert all(map(torch.equal, model.state_dict().values(), whole.state_dict().values()))  # statistics


def test_a_codec_still_learns_by_a_network_that_is_frozen() -> None:
    cut = SplitGraph(Plain(decorated), SHAPE).cut("body.2")
    z = cut.head(torch.rand(2, *SHAPE))[0].detach().requires_grad_()
    cut.tail(z).sum().backward()
    assert z.grad is not None
    assert all(p.grad is None for p in cut.tail.parameters())


def test_a_branch_counts_as_its_most_expensive_one(caplog: pytest.LogCaptureFixture) -> None:
    def branch(model: Plain, x: Tensor) -> Tensor:
        return model.fc(torch.cond(x.sum() > 0, lambda x: model.body(x), lambda x: x[:, 0, :4].flatten(1) * 2, (x,)))

    caplog.set_level(logging.INFO)
    model = Plain(branch).eval()
    graph, plain = SplitGraph(model, SHAPE), SplitGraph(Plain(), SHAPE)
    assert graph.points[-1].head_flops == plain.points[-1].head_flops + 192 + 1  # sum and comparison
    assert "cond counts as its most expensive branch" in caplog.text
    assert_exact(model, graph)


def test_a_loop_counts_its_body_as_often_as_it_runs() -> None:
    def maps(model: Plain, x: Tensor) -> Tensor:
        rows = torch_map(lambda row: nn.functional.linear(row, model.fc.weight[:, :8]), x.permute(2, 0, 1, 3))
        return rows.sum((0, 2))

    def scans(model: Plain, x: Tensor) -> Tensor:
        z = model.body(x).view(-1, 4, 8)
        first = torch.zeros(x.shape[0], 5)
        return scan(lambda s, part: (s + part @ model.fc.weight.t()[:8], s * 1), first, z, dim=1)[0]

    model = Plain(maps).eval()
    graph = SplitGraph(model, SHAPE, granularity="op")
    products = next(op for op in graph.points[-1].head_ops if op.name == "map_impl")
    assert products.flops == 8 * (2 * 3 * 8 * 5)
    assert products.steps == 8
    assert_exact(model, graph)
    model = Plain(scans).eval()
    graph = SplitGraph(model, SHAPE)
    assert next(op.flops for op in graph.points[-1].head_ops if op.name == "scan") == 4 * (2 * 8 * 5 + 5 + 5)
    assert_exact(model, graph)


def test_a_convolution_of_one_sample_in_a_loop_counts_as_in_a_batch() -> None:
    def maps(model: Plain, x: Tensor) -> Tensor:
        return model.fc(model.body[1:](torch_map(lambda one: model.body[0](one), x)))

    graph, plain = SplitGraph(Plain(maps), SHAPE), SplitGraph(Plain(), SHAPE)
    assert graph.points[-1].head_flops == plain.points[-1].head_flops


def loops_by_values(model: Plain, x: Tensor) -> Tensor:
    z = model.fc(model.body(x))
    start = torch.zeros((), dtype=torch.int64)
    return while_loop(lambda i, z: i < 3, lambda i, z: (i + 1, z * 2), (start, z))[1]


def branches_under_autocast(model: Plain, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cond(x.sum() > 0, lambda x: model.fc(model.body(x)), lambda x: model.fc(model.body(x) * 2), (x,))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (loops_by_values, "while_loop.*write a Python loop"),
        (branches_under_autocast, "branch or loop under torch.autocast.*put autocast into its functions"),
        (lambda m, x: m.fc(m.body(torch.vmap(lambda a: a * 2)(x))), "torch.vmap.*plain tensor operations"),
        (
            lambda m, x: m.fc(m.body(x)) if x.max() > 0.5 else m.fc(2 * m.body(x)),
            r"by values.*test_split_nested.py:\d+",
        ),
        (lambda m, x: m.fc(torch.from_numpy(m.body(x).detach().numpy())), r"numpy.*test_split_nested.py:\d+"),
        (lambda m, x: {}["key"], r"KeyError: 'key' \(.*test_split_nested.py:\d+\)"),
        (lambda m, x: m.fc(m.body(x))[torch.nonzero(x[:, 0, 0, 0] > 0.5)[:, 0]], "at its output.*depends on the data"),
    ],
)
def test_what_cannot_be_split_is_said_in_one_line_without_a_dump(
    how: Forward, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        SplitGraph(Plain(how), SHAPE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    printed = "".join(capfd.readouterr())
    assert "def forward" not in printed
    assert "Traceback" not in printed


@pytest.mark.filterwarnings("ignore:.*torch.jit.:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.:DeprecationWarning")
def test_torchscript_is_refused_with_the_part_and_the_remedy() -> None:
    model = Plain()
    model.body = torch.jit.script(model.body)
    with pytest.raises(ConfigError, match=r"its part body is TorchScript; give the nn.Module that it was made from"):
        SplitGraph(model, SHAPE)


@torch.library.custom_op("splitsem_test::gram", mutates_args=())
def gram(x: Tensor) -> Tensor:
    return x @ x.mT


@gram.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], x.shape[-2])


def test_an_operation_of_unknown_work_is_said_until_a_formula_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    def own(model: Plain, x: Tensor) -> Tensor:
        return gram(x).flatten(1)

    SplitGraph(Plain(own), SHAPE)
    assert "the work of splitsem_test.gram.default is not known" in caplog.text
    caplog.clear()
    formula = lambda x, *args, out_shape=None, **kwargs: 2 * 3 * 8 * 8 * 8  # noqa: E731
    register_flop_formula(torch.ops.splitsem_test.gram)(formula)
    assert SplitGraph(Plain(own), SHAPE).points[-1].head_flops == 3072
    assert "not known" not in caplog.text


@pytest.mark.parametrize(
    ("layer", "flops"),
    [(nn.LSTMCell(8, 16), 2 * 64 * 24), (nn.GRUCell(8, 16), 2 * 48 * 24), (nn.Bilinear(8, 8, 16), 2 * 16 * 64)],
)
def test_layers_that_hold_products_count_them(layer: nn.Module, flops: int) -> None:
    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x, x) if isinstance(self.layer, nn.Bilinear) else self.layer(x)
            return y[0] if isinstance(y, tuple) else y

    assert max(op.flops for op in SplitGraph(Holds(), (8,)).points[-1].head_ops) == flops
