"""A captured graph on disk: what is read is what was captured, and whatever else is in its place is made again."""

import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from splitsem.splitting.example import Example
from splitsem.splitting.graph import SplitGraph
from splitsem.trees import by_path


class Skips(nn.Module):
    """A skip connection, an in-place operation, a write through a view, a constant, a size of the batch."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.Linear(width, 2)
        self.register_buffer("kept", torch.rand(width, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu_(self.norm(self.first(x)))
        z = (y.to(memory_format=torch.channels_last) + torch.tensor([[0.5]])) * self.kept + y
        z = z.clone()
        z[:, 0] = 0.0
        return self.last(z.mean((2, 3)).reshape(x.shape[0], -1))


class Contexts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.learns = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, *, scale: Tensor) -> dict[str, Any]:
        with torch.no_grad():
            y = self.frozen(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = self.learns(y)
        return {"logits": y.float() * scale, "parts": (y, None)}


class FixesBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.reshape(2, 4)).relu()


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory, self.attends = nn.LSTM(4, 8, batch_first=True), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.memory(x)[0]
        return self.attends(y, y, y, need_weights=False)[0][:, -1]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return torch.cond(y.sum() > 0, lambda y: y + 1, lambda y: y - 1, (y,)).relu()


MODELS: dict[str, tuple[Callable[[], nn.Module], Example]] = {
    "skips": (Skips, Example((torch.rand(1, 3, 8, 8),), {})),
    "contexts": (Contexts, Example((torch.rand(1, 4),), {"scale": torch.tensor(2.0)})),
    "fixed": (FixesBatch, Example((torch.rand(2, 4),), {})),
    "memory": (Memory, Example((torch.rand(1, 5, 4),), {})),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_kept_graph_is_the_captured_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, example = MODELS[name]
    model, path = make().eval(), tmp_path / "graph.safetensors"
    made = SplitGraph(model, example, granularity="op", keep=path)
    with monkeypatch.context() as patched:
        patched.setattr("splitsem.splitting.faithful.faithful_flow", None)
        kept = SplitGraph(model, example, granularity="op", keep=path)
    assert (kept.points, kept.operations, kept.refused) == (made.points, made.operations, made.refused)
    assert (kept.fingerprint, kept.is_batch_free) == (made.fingerprint, made.is_batch_free)
    assert [part.needs for part in kept.parts()] == [part.needs for part in made.parts()]
    for point in made.points:
        ours, theirs = made.cut(point), kept.cut(point)
        assert ours.layouts == theirs.layouts
        assert ours.head.code == theirs.head.code
        outputs = [by_path(cut.tail(*cut.head(*cut.example))) for cut in (ours, theirs)]
        assert outputs[0].keys() == outputs[1].keys()
        assert all(torch.equal(outputs[0][leaf], outputs[1][leaf]) for leaf in outputs[0])


def test_its_halves_hold_the_weights_of_the_model_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.safetensors"
    SplitGraph(Skips(), (3, 8, 8), keep=path)
    monkeypatch.setattr("splitsem.splitting.faithful.faithful_flow", None)
    other = Skips().eval()
    graph, x = SplitGraph(other, (3, 8, 8), keep=path), torch.rand(3, 3, 8, 8)
    cut = graph.cut(1)
    assert torch.equal(cut.tail(*cut.head(x)), other(x))
    assert {id(p) for p in cut.head.parameters()} <= {id(p) for p in other.parameters()}
    with torch.no_grad():
        other.first.weight.add_(1)
    assert torch.equal(cut.tail(*cut.head(x)), other(x))


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _of_no_operation(path: Path) -> None:
    _changed(path, "aten::conv2d", "aten::never")


def _of_python(path: Path) -> None:
    _changed(path, '"aten::conv2d.default"', '"__import__"')


def _of_another_torch(path: Path) -> None:
    _changed(path, torch.__version__, "1.0")


def _without_a_graph(path: Path) -> None:
    path.write_bytes(safetensors.torch.save({}))


def _of_another_cost(path: Path) -> None:
    _changed(path, '"cost": ["conv2d", ', '"cost": ["conv2d", 1', is_sealed=False)


def _changed(path: Path, old: str, new: str, is_sealed: bool = True) -> None:
    """Change the graph's text; sealed, by somebody who knows how its checksum is made."""
    with safetensors.safe_open(path, "pt") as file:
        text, seal = file.metadata()["graph"], file.metadata()["sha256"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert old in text
    text = text.replace(old, new)
    seal = hashlib.sha256(text.encode()).hexdigest() if is_sealed else seal
    path.write_bytes(safetensors.torch.save(tensors, {"graph": text, "sha256": seal}))


@pytest.mark.parametrize(
    "spoil", [_cut_short, _of_no_operation, _of_python, _of_another_torch, _without_a_graph, _of_another_cost]
)
def test_a_spoilt_file_is_made_again(
    spoil: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, path = Skips(), tmp_path / "graph.safetensors"
    made = SplitGraph(model, (3, 8, 8), keep=path)
    spoil(path)
    with caplog.at_level(logging.WARNING):
        again = SplitGraph(model, (3, 8, 8), keep=path)
    assert again.points == made.points
    assert str(path) in caplog.text
    caplog.clear()
    SplitGraph(model, (3, 8, 8), keep=path)
    assert not caplog.records


def test_the_graph_of_another_model_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    SplitGraph(Skips(), (3, 8, 8), keep=path)
    assert SplitGraph(Memory(), Example((torch.rand(1, 5, 4),), {}), keep=path).points[1].name.startswith("memory")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.cond reads it
def test_a_graph_with_branches_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    assert SplitGraph(Branches(), (4,), keep=path).points
    assert not path.exists()


def test_reading_needs_neither_an_export_nor_its_imports(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    code = (
        "import sys; from pathlib import Path; from splitsem.models.cnn import StagedCnn; "
        "from splitsem.splitting.graph import SplitGraph; "
        f"print(len(SplitGraph(StagedCnn((1, 8, 8), (10,)), (1, 8, 8), keep=Path({str(path)!r})).points)); "
        "print('sympy' in sys.modules, 'torch._dynamo' in sys.modules, 'triton' in sys.modules)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    first, second = (run.stdout.split() for run in runs)
    assert first[0] == second[0]
    assert (first[1:], second[1:]) == (["True"] * 3, ["False"] * 3)


def test_keep_is_for_evaluation_only(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    SplitGraph(Skips(), (3, 8, 8), training=True, keep=path)
    assert not path.exists()


class Draws(nn.Module):
    """Has a plain tensor that its constructor draws, which no state of weights holds."""

    def __init__(self, seed: int, turned: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        drawn = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
        self.drawn = drawn.t() if turned else drawn

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x)) @ self.drawn


def test_a_graph_with_another_networks_constants_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, x = tmp_path / "graph.safetensors", torch.rand(3, 4)
    SplitGraph(Draws(0), (4,), keep=path)
    with caplog.at_level(logging.WARNING):
        model = Draws(1)
        cut = SplitGraph(model, (4,), keep=path).cut(1)
    assert "another output" in caplog.text
    assert torch.equal(cut.tail(*cut.head(x)), model(x))


def test_constants_whose_strides_a_file_would_lose_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    SplitGraph(Draws(0, turned=True), (4,), keep=path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["x=__import__('os').getpid()", "x)[0", "in valid"])
def test_no_name_in_a_file_becomes_code(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "graph.safetensors"
    SplitGraph(Skips(), (3, 8, 8), keep=path)
    _changed(
        path, '"op": "placeholder", "name": "x", "target": "x"', f'"op": "placeholder", "name": "x", "target": "{name}"'
    )
    with caplog.at_level(logging.WARNING):
        SplitGraph(Skips(), (3, 8, 8), keep=path)
    assert "is no name" in caplog.text


def test_no_name_of_an_argument_in_a_file_becomes_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, (make, example) = tmp_path / "graph.safetensors", MODELS["contexts"]
    model = make()
    SplitGraph(model, example, keep=path)
    _changed(path, '"takes": [["x"', '"takes": [["x=__import__(\'os\').getpid()"')
    with caplog.at_level(logging.WARNING):
        SplitGraph(model, example, keep=path)
    assert "is no name" in caplog.text
